"""PPO learns one policy for bodies of different numbers of joints, with each of the networks of bodies."""

import jax
import numpy as np
import pytest

from jaxrl_engine.core.config import Config, NetworkConfig, PPOConfig
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.modes.build import build
from jaxrl_engine.modes.train import make_program

B, T = 3, 5
TORSOS = ["body-mlp", "body-set", "body-transformer"]
MIXED = {"num_links": 8, "bodies": "mixed"}


def config(torso, env="reacher", algo="ppo", env_params=MIXED, normalize_observations=False):
    network = NetworkConfig(
        torso=torso, hidden_sizes=(7, 11), transformer_blocks=2, transformer_heads=2, transformer_width=10
    )
    ppo = PPOConfig(num_minibatches=3, num_epochs=2, normalize_observations=normalize_observations)
    return Config(
        env=env, env_params=env_params, algo=algo, num_envs=B, num_steps=T, total_steps=2 * B * T, ppo=ppo,
        network=network,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("torso", TORSOS)
def test_two_updates_on_mixed_bodies(torso):
    built = build(config(torso))
    program = make_program(built)
    state = program.init(built.keys, built.hyper)
    before = jax.tree.map(np.asarray, state.train_state.params)
    state, rows = program.compile(state)(state, np.int32(2))
    assert int(state.train_state.policy_version) == 2 and int(state.train_state.skipped_updates) == 0
    for old, new in zip(*map(jax.tree.leaves, (before, state.train_state.params)), strict=True):
        assert not np.array_equal(old, new)
    values = {name: np.asarray(each)[: int(rows.count)] for name, each in rows.values.items()}
    assert (values["Losses/FirstRatioError"] < 1e-5).all() and (values["Losses/ApproxKL"] > 0).all()
    for name in ("Losses/Policy", "Losses/Value", "Losses/Entropy", "Losses/GradientNorm"):
        assert np.isfinite(values[name]).all()
    # ½ ln 2πe nats for each motor that is there, of which bodies have two to eight.
    assert 2 * 1.418938 - 0.1 < values["Losses/Entropy"][0] < 8 * 1.418938 - 0.1


@pytest.mark.parametrize("torso", TORSOS)
def test_both_arms_take_every_torso(torso):
    build(config(torso, env="reacher-zigzag", env_params={}))


@pytest.mark.parametrize("torso", TORSOS)
def test_what_does_not_fit_is_one_line(torso):
    with pytest.raises(
        UserError, match=rf"^ppo\.normalize_observations must be false with network\.torso {torso}, .*, not True$"
    ):
        build(config(torso, normalize_observations=True))
    with pytest.raises(UserError, match=rf"^mappo\.centralized must be false with network\.torso {torso}, not True$"):
        build(config(torso, algo="mappo"))
    with pytest.raises(UserError, match=r"^network\.torso must be auto, mlp or cnn in a world without tokens"):
        build(config(torso, env="probe:action", env_params={}))
