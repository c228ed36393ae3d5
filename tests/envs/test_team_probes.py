"""Team probes by hand: who is paid, and the values their docstrings promise."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.envs.registry import make_env


def play(env_id, actions, seed=0, **env_params):
    env, params = make_env(env_id, env_params)
    key_reset, key_step = jax.random.split(jax.random.key(seed))
    state, begin = env.reset(key_reset, params)
    return begin, env.step(key_step, state, jnp.asarray(actions), params)[1]


@pytest.mark.parametrize("seed", range(4))
def test_together_pays_the_joint_action_and_the_cue(seed):
    for actions in itertools.product(range(3), repeat=3):
        begin, end = play("probe:together", actions, seed, num_agents=3)
        cue = float(begin.global_state[0])
        assert cue in (-1.0, 1.0)
        np.testing.assert_array_equal(end.reward, [cue + (actions == (1, 1, 1))] * 3)
        np.testing.assert_array_equal(begin.observation, np.ones((3, 1)))
        assert bool(end.terminated) and not bool(end.truncated) and begin.reward.tolist() == [0.0] * 3


def test_apart_pays_permutations_and_chance_meets_one_in_four_and_a_half():
    paid = {a: float(play("probe:apart", a, num_agents=3)[1].reward[0]) for a in itertools.product(range(3), repeat=3)}
    assert {a for a, reward in paid.items() if reward == 1.0} == set(itertools.permutations(range(3)))
    assert sum(paid.values()) / len(paid) == pytest.approx(math.factorial(3) / 3**3)


def test_a_team_has_at_least_two_agents():
    with pytest.raises(UserError, match="num_agents must be a whole number >= 2, not 1"):
        make_env("probe:apart", {"num_agents": 1})
