"""What every world promises, whatever it is: shapes, types, keys, resets, final observations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.envs.registry import make_env
from jaxrl_engine.envs.vector import VectorEnv
from jaxrl_engine.modes.evaluate import uniform_action

B, T = 3, 11

# A short time limit, where a world has one to set, so that truncation is seen within T steps.
WORLDS = {
    "reacher": {"episode_length": 5, "num_links": 3, "bodies": "mixed"},
    "reacher-zigzag": {"episode_length": 5},
    "alice_and_bob": {},
    "color_lines": {},
    "uav_coverage": {},
    "uav_relay": {},
    "gymnax:CartPole-v1": {"max_steps_in_episode": 5},
    "gymnax:Breakout-MinAtar": {},
    "brax:reacher": {"episode_length": 5},
    "multi:CartPole-v1": {},
    "multi:Pendulum-v1": {},
    "probe:truncation": {},
    "probe:final": {},
}


@pytest.fixture(scope="module", autouse=True)
def _libraries_broadcast_across_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module", params=WORLDS)
def world(request):
    return make_env(request.param, WORLDS[request.param])


def legal(env, key, timestep):
    return uniform_action(env.spec.action, timestep, key)


@pytest.fixture(scope="module")
def history(world):
    """T steps of B environments under random legal actions, in one scan: before, action, after, true next, episodes."""
    env, params = world
    vector = VectorEnv(env, B)

    def run(key):
        key_reset, key_fresh, key_steps = jax.random.split(key, 3)
        begin = vector.reset(key_reset, params)

        def step(carry, key):
            state, fresh = carry
            key_action, key_step = jax.random.split(key)
            action = legal(env, key_action, state.timestep)
            after, fresh, true, episodes = vector.step(jax.random.split(key_step, B), state, action, params, fresh)
            return (after, fresh), (state, action, after, true, episodes)

        carry = (begin, vector.fresh(key_fresh, params))
        return jax.lax.scan(step, carry, jax.random.split(key_steps, T))[1]

    with jax.debug_key_reuse(True):
        return jax.jit(run)(jax.random.key(5))


def test_what_is_seen_has_the_shapes_and_types_of_the_spec(world, history):
    spec, seen = world[0].spec, history[0].timestep
    assert seen.observation.shape == (T, B, spec.num_agents, *spec.observation.shape)
    assert seen.observation.dtype == spec.observation.dtype
    assert seen.global_state.shape == (T, B, *spec.global_state.shape)
    assert seen.global_state.dtype == spec.global_state.dtype
    assert seen.reward.shape == (T, B, spec.num_agents) and seen.reward.dtype == jnp.float32
    assert seen.terminated.shape == seen.truncated.shape == (T, B)
    assert (seen.action_mask is not None) == spec.masks_actions
    assert set(seen.metrics) == set(spec.metric_names)
    low, high = (np.reshape(bound, spec.observation.shape) for bound in (spec.observation.low, spec.observation.high))
    assert (np.asarray(seen.observation) >= low - 1e-5).all() and (np.asarray(seen.observation) <= high + 1e-5).all()


def test_all_that_is_reported_is_finite(history):
    true = history[3]
    for name, value in {"reward": true.reward, "observation": true.observation, **true.metrics}.items():
        assert np.isfinite(value).all(), name


def test_masked_worlds_always_leave_a_choice(world, history):
    mask = history[0].timestep.action_mask
    if mask is None:
        pytest.skip("no mask")
    assert np.asarray(mask).any(axis=-1).all()


def test_an_episode_that_ends_is_followed_by_a_fresh_one_and_keeps_its_true_end(history):
    _, _, after, true, episodes = history
    done = np.asarray(true.terminated | true.truncated)
    np.testing.assert_array_equal(episodes.ended, done)
    np.testing.assert_array_equal(after.is_first, done)
    assert not np.asarray(after.episode_length)[done].any()
    shown, real = np.asarray(after.timestep.observation), np.asarray(true.observation)
    np.testing.assert_array_equal(shown[~done], real[~done])


def test_a_step_without_compilation_is_the_compiled_step(world, history):
    env, params = world
    if env.spec.name.startswith("brax:"):
        pytest.skip("thousands of operations one by one: Brax's own affair")
    before, action = history[:2]
    one = jax.tree.map(lambda leaf: leaf[0, 1], (before.env, action))
    key = jax.random.key(11)
    compiled = jax.jit(env.step)(jax.random.clone(key), one[0], one[1], params)
    with jax.disable_jit():
        plain = env.step(key, one[0], one[1], params)
    for a, b in zip(jax.tree.leaves(compiled), jax.tree.leaves(plain), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
        assert a.dtype == b.dtype


def test_batch_equals_loop(world):
    env, params = world
    keys = jax.random.split(jax.random.key(6), 2 * B)
    states, begun = jax.vmap(env.reset, in_axes=(0, None))(keys[:B], params)
    actions = legal(env, jax.random.key(9), begun)
    together = jax.jit(jax.vmap(env.step, in_axes=(0, 0, 0, None)))(keys[B:], states, actions, params)[1]
    step = jax.jit(env.step)
    for index in range(B):
        alone = step(keys[B + index], jax.tree.map(lambda x, i=index: x[i], states), actions[index], params)[1]
        jax.tree.map(lambda a, b, i=index: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-4), together, alone)


def test_the_same_key_gives_the_same_start_and_none_is_used_twice(world):
    env, params = world
    with jax.debug_key_reuse(True):
        first = env.reset(jax.random.key(3), params)[1]
    again = env.reset(jax.random.key(3), params)[1]
    np.testing.assert_array_equal(first.observation, again.observation)
    assert not np.asarray(first.reward).any() and not first.terminated and not first.truncated
    assert not any(np.asarray(value).any() for value in first.metrics.values())
