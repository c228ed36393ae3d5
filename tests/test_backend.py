"""Importing the engine keeps known faults of the backend away."""

import os
import subprocess
import sys

SUM = """
import jaxrl_engine
import jax, jax.numpy as jnp
count = 32_769
rows = jnp.zeros((count, 3)).at[:, 0].set(jnp.arange(count, dtype=jnp.float32))
squared = jax.jit(lambda rows: jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2))(rows))(rows)
print(float(squared[-1]))
"""


def test_a_batched_product_and_sum_is_exact():
    """The last row is (32768, 0, 0): its square is 2³⁰, a float32. The faulty reduction answers 1071645696."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run([sys.executable, "-c", SUM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == 2.0**30
