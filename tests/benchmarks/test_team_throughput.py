"""The count of operations against products counted by hand; one case measured for real."""

import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks import team_throughput
from benchmarks.flops import matmul_flops


def product(left, right):
    return left @ right


A, B = jnp.ones((2, 3)), jnp.ones((3, 5))
ONE = 2 * 2 * 3 * 5


def test_products_by_hand():
    assert matmul_flops(product, A, B) == ONE
    assert matmul_flops(jax.vmap(product, in_axes=(0, None)), jnp.ones((7, 2, 3)), B) == 7 * ONE
    assert matmul_flops(jax.jit(product), A, B) == ONE
    assert matmul_flops(lambda a, b: jnp.tanh(a).sum() + b.max(), A, B) == 0


def test_a_gradient_takes_two_more_products():
    # ∂/∂a is (g bᵀ) and ∂/∂b is (aᵀ g): as many operations each as the product itself.
    assert matmul_flops(jax.grad(lambda a, b: product(a, b).sum() ** 2, argnums=(0, 1)), A, B) == 3 * ONE


def test_a_scan_counts_its_rounds_and_what_data_decide_counts_least():
    def rounds(a, b):
        return jax.lax.scan(lambda carry, _: (carry + product(a, b).sum(), None), 0.0, None, length=11)[0]

    def loop(a, b, count):
        return jax.lax.fori_loop(0, count, lambda _, carry: carry + product(a, b).sum(), 0.0)

    def choice(a, b, which):
        return jax.lax.cond(which, lambda: product(a, b), lambda: product(a @ jnp.ones((3, 3)), b))

    assert matmul_flops(rounds, A, B) == 11 * ONE
    assert matmul_flops(loop, A, B, 4) == ONE
    assert matmul_flops(choice, A, B, True) == ONE


@pytest.mark.slow
def test_a_case_is_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(team_throughput, "SECONDS", 0.05)
    monkeypatch.setattr(team_throughput, "MATRIX", 64)
    output = tmp_path / "out.json"
    team_throughput.main(["--case", "hmasd_32x32", "--num-envs", "2", "--repetitions", "2", "--output", str(output)])
    record = json.loads(output.read_text())["records"][0]
    assert record["case"] == "hmasd_32x32 x 2"
    assert 0 < record["steps_per_second"]["min"] <= record["steps_per_second"]["max"]
    assert record["update_flops_per_step"] > 1e6  # two recurrent networks of width 64, five epochs, both agents
    assert "hmasd_32x32 x 2" in capsys.readouterr().out
