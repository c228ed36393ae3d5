"""PPO of the sync mode learns in every world, and none is a special case."""

import importlib.util

import jax
import numpy as np
import pytest

from jaxrl_engine.core.config import Config, NetworkConfig, PPOConfig
from jaxrl_engine.envs.registry import native_envs
from jaxrl_engine.modes.build import build
from jaxrl_engine.modes.train import make_program

B, T = 3, 5
WORLDS = [name for name in native_envs() if not name.startswith("probe:")]
ADAPTED = ["brax:reacher", "multi:CartPole-v1"]
EXTRA = ["jaxmarl:MPE_simple_spread_v3"] if importlib.util.find_spec("jaxmarl") else []


@pytest.fixture(autouse=True)
def _libraries_broadcast_across_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS + ADAPTED + EXTRA)
def test_two_updates_in_every_world(world):
    config = Config(
        env=world, num_envs=B, num_steps=T, total_steps=2 * B * T, ppo=PPOConfig(num_minibatches=3, num_epochs=2),
        network=NetworkConfig(hidden_sizes=(7,)),
    )  # fmt: skip
    built = build(config)
    program = make_program(built)
    state = program.init(built.keys, built.hyper)
    before = jax.tree.map(np.asarray, state.train_state.params)
    state, rows = program.compile(state)(state, np.int32(2))
    assert int(state.train_state.policy_version) == 2 and int(state.train_state.skipped_updates) == 0
    moved = [not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (before, state.train_state.params)),
                                                      strict=True)]  # fmt: skip
    assert all(moved)
    values = {name: np.asarray(each)[: int(rows.count)] for name, each in rows.values.items()}
    np.testing.assert_array_equal(values["Sync/BatchSize"], [B * T] * 2)
    np.testing.assert_array_equal(values["Sync/PolicyVersion"], [0, 1])
    # The policy that acted is the one the first gradient step starts from: its probability ratios are 1.
    assert (values["Losses/FirstRatioError"] < 1e-4).all()
    for name in ("Losses/Policy", "Losses/Value", "Losses/Entropy", "Losses/GradientNorm", "Charts/Reward"):
        assert np.isfinite(values[name]).all()
