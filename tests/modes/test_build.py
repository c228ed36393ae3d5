"""From a configuration to an algorithm: names, sweeps of every traced setting, mistakes in one line."""

import jax
import numpy as np
import pytest

from jaxrl_engine.algos.protocol import Algorithm
from jaxrl_engine.core.config import Config, HMASDConfig, MAPPOConfig, NetworkConfig, PPOConfig
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.modes.build import RECIPES, build
from jaxrl_engine.runtime.sweep import SWEEPABLE

MADE = {"ppo": "PPO", "mappo": "PPO", "mat": "MAT", "hmasd": "HMASD"}


@pytest.mark.parametrize("algo", MADE)
def test_a_name_makes_its_algorithm(algo):
    algorithm = build(Config(env="alice_and_bob", algo=algo)).algorithm
    assert isinstance(algorithm, Algorithm)
    assert type(algorithm).__name__ == MADE[algo]
    assert getattr(algorithm, "centralized", False) == (algo == "mappo")


def test_independent_ppo_is_mappo_with_a_local_critic():
    independent = build(Config(env="alice_and_bob", algo="mappo", mappo=MAPPOConfig(centralized=False)))
    assert independent.algorithm == build(Config(env="alice_and_bob", algo="ppo")).algorithm


@pytest.mark.parametrize("algo", MADE)
def test_a_sweep_reaches_every_setting_that_is_traced_and_changes_no_other(algo):
    config = Config(algo=algo, ppo=PPOConfig(anneal_learning_rate=False))
    plain = RECIPES[algo].hyper(config, {})
    names = {field for field in SWEEPABLE[algo]}
    assert len(names) == len(jax.tree.leaves(plain)) - 1  # all but the length of the run
    for field in names:
        swept = RECIPES[algo].hyper(config, {field: 0.375})
        name = field.partition(".")[2]
        assert float(getattr(swept, name)) == 0.375
        assert swept.replace(**{name: getattr(plain, name)}) == plain


def test_the_runs_of_a_sweep_carry_their_settings():
    config = Config(env="probe:apart", algo="mat", num_seeds=2, sweep=("ppo.gamma=0.5,0.25",))
    built = build(config)
    np.testing.assert_array_equal(built.hyper.gamma, [0.5, 0.5, 0.25, 0.25])
    assert built.num_runs == 4


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"env": "gymnax:CartPole-v1"}, "hmasd.team_skills must be 1 in a world with one agent, not 2"),
        ({"hmasd": HMASDConfig(skill_length=33)}, "hmasd.skill_length must be at most num_steps = 32, not 33"),
        (
            {"hmasd": HMASDConfig(skill_length=12, quirks="source")},
            'hmasd.skill_length must be a divisor of num_steps = 32 with quirks "source", not 12',
        ),
        ({"hmasd": HMASDConfig(chunk_length=5)}, "hmasd.chunk_length must be a divisor of num_steps = 32, not 5"),
    ],
)
def test_skills_that_do_not_fit_the_world_or_the_rollout_are_one_line(settings, expected):
    with pytest.raises(UserError) as caught:
        build(Config(**{"env": "alice_and_bob", "algo": "hmasd", "ppo": PPOConfig(num_minibatches=1)} | settings))
    assert str(caught.value) == expected


def test_networks_that_do_not_fit_the_world_are_one_line():
    with pytest.raises(UserError, match=r"network\.torso must be mlp"):
        build(Config(env="alice_and_bob", algo="mappo", network=NetworkConfig(torso="cnn")))
