"""The vector layer against a plain Python loop over a counting world whose episodes are known by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.core.spaces import Box, Discrete
from jaxrl_engine.core.types import EnvSpec, TimeStep
from jaxrl_engine.envs.vector import VectorEnv

NUM_ENVS = 5
NUM_STEPS = 23


class CountingWorld:
    """The state is (episode number drawn at reset, step count). Odd episodes terminate after 3 steps, even ones are
    truncated after 4. The reward is the step count, the observation is both numbers."""

    spec = EnvSpec(
        name="counting", num_agents=2, observation=Box.uniform((2,), -np.inf, np.inf),
        global_state=Box.uniform((4,), -np.inf, np.inf), action=Discrete(2), metric_names=("count",),
    )  # fmt: skip

    def default_params(self):
        return ()

    def _show(self, episode, count, reward, terminated, truncated):
        row = jnp.stack([episode, count]).astype(jnp.float32)
        return TimeStep(
            observation=jnp.stack([row, -row]), global_state=jnp.concatenate([row, -row]), action_mask=None,
            reward=jnp.stack([reward, 3 * reward]).astype(jnp.float32), terminated=terminated, truncated=truncated,
            metrics={"count": count.astype(jnp.float32)},
        )  # fmt: skip

    def reset(self, key, params):
        episode = jax.random.randint(key, (), 0, 1000)
        no = jnp.zeros((), bool)
        return (episode, jnp.zeros((), jnp.int32)), self._show(episode, jnp.zeros(()), jnp.zeros(()), no, no)

    def step(self, key, state, action, params):
        episode, count = state[0], state[1] + 1
        odd = episode % 2 == 1
        return (episode, count), self._show(episode, count, count, odd & (count == 3), ~odd & (count == 4))


@pytest.fixture(scope="module")
def played():
    vector = VectorEnv(CountingWorld(), NUM_ENVS)
    state = vector.reset(jax.random.key(0), ())
    fresh = vector.fresh(jax.random.key(1), ())
    step = jax.jit(vector.step)
    states, afters, episodes = [state], [], []
    for index in range(NUM_STEPS):
        keys = jax.random.split(jax.random.key(2 + index), NUM_ENVS)
        state, fresh, after, ended = step(keys, state, jnp.zeros((NUM_ENVS, 2), jnp.int32), (), fresh)
        states.append(state), afters.append(after), episodes.append(ended)
    return vector, states, afters, episodes, vector.fresh(jax.random.key(1), ())


def test_episodes_follow_the_rules_by_hand(played):
    _, states, afters, episodes, pool = played
    starts = np.asarray(pool.timestep.observation)[:, 0, 0].astype(int)
    for env in range(NUM_ENVS):
        episode, count, resets = int(states[0].timestep.observation[env, 0, 0]), 0, 0
        for after, ended, state in zip(afters, episodes, states[1:], strict=True):
            count += 1
            terminated, truncated = episode % 2 == 1 and count == 3, episode % 2 == 0 and count == 4
            assert (bool(after.terminated[env]), bool(after.truncated[env])) == (terminated, truncated)
            np.testing.assert_array_equal(after.observation[env], [[episode, count], [-episode, -count]])
            assert bool(ended.ended[env]) == (terminated or truncated)
            assert float(state.timestep.reward[env, 0]) == count  # the reward stays that of the step before
            if terminated or truncated:
                # rewards 1 … count for one agent, three times that for the other: their mean is twice the sum
                assert float(ended.episode_return[env]) == 2 * count * (count + 1) / 2
                assert int(ended.episode_length[env]) == count
                assert float(ended.metrics["count"][env]) == count
                episode, count = starts[(env + resets) % NUM_ENVS], 0
                resets += 1
            assert bool(state.is_first[env]) == (count == 0)
            np.testing.assert_array_equal(state.timestep.observation[env, 0], [episode, count])
        assert resets >= 5


def test_starts_differ_between_environments_and_pools():
    vector = VectorEnv(CountingWorld(), 101)
    first = vector.fresh(jax.random.key(3), ()).timestep.observation[:, 0, 0]
    second = vector.fresh(jax.random.key(4), ()).timestep.observation[:, 0, 0]
    assert len(np.unique(first)) > 80
    assert np.mean(np.asarray(first) == np.asarray(second)) < 0.1


def test_batch_equals_loop(played):
    vector, states, _, _, pool = played
    keys = jax.random.split(jax.random.key(9), NUM_ENVS)
    action = jnp.ones((NUM_ENVS, 2), jnp.int32)
    _, _, together, _ = vector.step(keys, states[2], action, (), pool)
    for env in range(NUM_ENVS):
        own = jax.tree.map(lambda leaf, env=env: leaf[env], states[2].env)
        _, alone = CountingWorld().step(keys[env], own, action[env], ())
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_array_equal(a[env], b)
