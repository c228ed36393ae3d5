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


SOLUTIONS = """
import jaxrl_engine
import jax, jax.numpy as jnp

def solved(key):
    matrices = [jax.random.normal(part, (192, 64)) for part in jax.random.split(key, 2)]
    return [jax.scipy.linalg.solve(m.T @ m, m.T @ m, assume_a="pos") for m in matrices]

program = jax.jit(jax.vmap(solved))
for key in jax.random.split(jax.random.key(0), 40):
    identities = jax.block_until_ready(program(jax.random.split(key, 64)))
print(max(float(jnp.abs(found - jnp.eye(64)).max()) for found in identities))
"""


def run(script: str, **variables: str) -> float:
    ours = ("XLA_FLAGS", "NPROC")
    environment = {name: value for name, value in os.environ.items() if name not in ours} | variables
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def test_a_batched_product_and_sum_is_exact():
    """The last row is (32768, 0, 0): its square is 2³⁰, a float32. The faulty reduction answers 1071645696."""
    assert run(SUM) == 2.0**30


def test_two_batches_of_equations_solved_at_once_come_to_an_end():
    """As Brax's physics solves them; two threads would wait for each other for ever."""
    assert run(SOLUTIONS) < 1e-3


def test_one_thread_has_none_to_wait_for():
    """Of which there is one in a Ray actor's process."""
    assert run(SOLUTIONS, NPROC="1") < 1e-3
