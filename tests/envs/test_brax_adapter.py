"""The adapter against Brax stepped directly, and time limits and repeated actions worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.core.spaces import Box
from jaxrl_engine.envs.registry import available_envs, make_env

NAMES = [env_id.partition(":")[2] for env_id in available_envs() if env_id.startswith("brax:")]


@pytest.fixture(autouse=True)
def _brax_broadcasts_across_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


def test_every_world_of_brax_is_offered_but_the_one_that_crashes():
    from jaxrl_engine.envs.brax_adapter import brax_envs

    assert {*NAMES, "swimmer"} == set(brax_envs._envs)
    with pytest.raises(TypeError, match="a_min"):  # when this stops failing, offer swimmer
        world = brax_envs._envs["swimmer"]()
        jax.eval_shape(world.reset, jax.random.PRNGKey(0))


@pytest.mark.parametrize("name", NAMES)
def test_shapes_are_those_promised(name):
    env, params = make_env(f"brax:{name}", {})
    state, start = jax.eval_shape(env.reset, jax.random.key(0), params)
    action = jax.ShapeDtypeStruct((1, *env.spec.action.shape), jnp.float32)
    next_state, timestep = jax.eval_shape(env.step, jax.random.key(0), state, action, params)
    assert jax.tree.structure(state) == jax.tree.structure(next_state)
    for before, after in zip(jax.tree.leaves((state, start)), jax.tree.leaves((next_state, timestep)), strict=True):
        assert (before.shape, before.dtype, before.weak_type) == (after.shape, after.dtype, after.weak_type)
    assert timestep.observation.shape == (1, *env.spec.observation.shape)
    assert set(timestep.metrics) == set(env.spec.metric_names)
    assert env.spec.time_limit == 1000 and env.spec.action == Box.uniform(action.shape[1:], -1.0, 1.0)


def direct(env, key, actions):
    """Brax's own states, stepped without wrappers; typed keys are not its own."""
    reset, step = jax.jit(env.world.reset), jax.jit(env.world.step)
    states = [reset(jax.random.key_data(key))]
    for action in actions:
        states.append(step(states[-1], action))
    return states


@pytest.mark.parametrize("name", ["inverted_pendulum", pytest.param("ant", marks=pytest.mark.slow)])
def test_equals_brax_stepped_directly(name):
    env, params = make_env(f"brax:{name}", {"backend": "generalized" if name == "ant" else "spring"})
    actions = jnp.ones((41, *env.spec.action.shape))
    theirs = direct(env, jax.random.key(3), actions)
    step = jax.jit(env.step)
    state, timestep = jax.jit(env.reset)(jax.random.key(3), params)
    np.testing.assert_allclose(timestep.observation[0], theirs[0].obs, rtol=1e-5, atol=1e-6)
    assert not any(timestep.metrics.values())
    ends = []
    for action, their in zip(actions, theirs[1:], strict=True):
        state, timestep = step(jax.random.key(0), state, action[None], params)
        np.testing.assert_allclose(timestep.observation[0], their.obs, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(timestep.reward[0], their.reward, rtol=1e-3, atol=1e-3)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), timestep.metrics, their.metrics)
        assert timestep.terminated == (their.done == 1) and not timestep.truncated
        ends.append(bool(timestep.terminated))
    assert any(ends) == (name == "inverted_pendulum")  # pushed to one side, the pendulum falls


def test_fall_within_a_repeated_action_ends_the_step():
    env, params = make_env("brax:inverted_pendulum", {"backend": "spring", "action_repeat": 5})
    theirs = direct(env, jax.random.key(3), jnp.ones((60, 1)))
    falls = next(index for index, state in enumerate(theirs) if state.done)  # in Brax's steps
    assert falls % 5  # in the middle of one of ours
    state, timestep = jax.jit(env.reset)(jax.random.key(3), params)
    rewards = []
    while not timestep.terminated:
        state, timestep = jax.jit(env.step)(jax.random.key(0), state, jnp.ones((1, 1)), params)
        rewards.append(timestep.reward.item())
    assert len(rewards) == falls // 5 + 1
    assert sum(rewards) == pytest.approx(falls)  # one for each of Brax's steps until the fall
    np.testing.assert_allclose(timestep.observation[0], theirs[falls].obs, rtol=1e-3, atol=1e-3)


def test_time_limit_truncates_and_repeated_rewards_add_up():
    # `fast` gains 0.02 m/s per step and is paid its position: after k steps 0.0004 · k (k + 1) / 2 metres.
    env, params = make_env("brax:fast", {"episode_length": 7, "action_repeat": 2})
    assert env.spec.time_limit == 4  # ⌈7 / 2⌉
    state, timestep = env.reset(jax.random.key(0), params)
    found = []
    for _ in range(4):
        state, timestep = env.step(jax.random.key(0), state, jnp.ones((1, 1)), params)
        found.append((timestep.reward.item(), bool(timestep.terminated), bool(timestep.truncated)))
    places = [0.0004 * k * (k + 1) / 2 for k in range(9)]
    for index, (reward, terminated, truncated) in enumerate(found):
        assert reward == pytest.approx(places[2 * index + 1] + places[2 * index + 2])
        assert not terminated and truncated == (index == 3)


def test_batch_equals_loop_jit_equals_no_jit_and_no_key_is_used_twice():
    env, params = make_env("brax:fast", {})
    keys = jax.random.split(jax.random.key(6), 6)
    copies = jax.random.clone(keys)
    actions = jnp.array([[[1.0]], [[-1.0]], [[1.0]]])
    with jax.debug_key_reuse(True):
        state, start = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys[:3], params)
        _, batched = jax.jit(jax.vmap(env.step, in_axes=(0, 0, 0, None)))(keys[3:], state, actions, params)
    for index in range(3):
        own, own_start = env.reset(copies[index], params)
        _, single = env.step(copies[3 + index], own, actions[index], params)
        jax.tree.map(lambda a, b, i=index: np.testing.assert_allclose(a, b[i]), (own_start, single), (start, batched))


def test_brax_does_not_write_into_the_state_it_is_given():
    env, params = make_env("brax:reacher", {"backend": "spring"})
    state, _ = env.reset(jax.random.key(0), params)
    env.step(jax.random.key(0), state, jnp.ones((1, 2)), params)
    assert not any(state.world.metrics.values())


def test_nothing_is_said(capfd, tmp_path, monkeypatch, recwarn):
    monkeypatch.chdir(tmp_path)
    make_env("brax:halfcheetah", {})  # its model holds an attribute that MuJoCo calls deprecated
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list and not list(tmp_path.iterdir())
