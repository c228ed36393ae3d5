"""The adapter against Brax stepped directly, and time limits and repeated actions worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.core.spaces import Box
from jaxrl_engine.envs.chatter import without_chatter
from jaxrl_engine.envs.registry import available_envs, make_env

NAMES = [env_id.partition(":")[2] for env_id in available_envs() if env_id.startswith("brax:")]
QUICK = ("fast", "reacher", "hopper", "inverted_pendulum")  # to trace


@pytest.fixture(autouse=True)
def _brax_broadcasts_across_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


def test_every_world_of_brax_is_offered_but_the_one_that_crashes():
    from jaxrl_engine.envs.brax_adapter import brax_envs

    assert {*NAMES, "swimmer"} == set(brax_envs._envs)
    with pytest.raises(TypeError, match="a_min"), without_chatter():  # when this stops failing, offer swimmer
        world = brax_envs._envs["swimmer"]()
        state = jax.eval_shape(world.reset, jax.random.PRNGKey(0))
        jax.eval_shape(world.step, state, jnp.ones(2))


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
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


def fall():
    """Brax's own states of a pendulum pushed to one side: no wrapper of Brax's, nothing of ours."""
    world = make_env("brax:inverted_pendulum", {"backend": "spring"})[0].world
    with without_chatter():
        states = [jax.jit(world.reset)(jax.random.key_data(jax.random.key(3)))]
        step = jax.jit(world.step)
        while not states[-1].done:
            states.append(step(states[-1], jnp.ones(1)))
    return states


@pytest.fixture(scope="module")
def theirs():
    with jax.numpy_rank_promotion("allow"):
        return fall()


def push(action_repeat):
    """Our TimeSteps of the same fall, the first included."""
    env, params = make_env("brax:inverted_pendulum", {"backend": "spring", "action_repeat": action_repeat})
    state, timestep = jax.jit(env.reset)(jax.random.key(3), params)
    seen, step = [timestep], jax.jit(env.step)
    while not timestep.terminated:
        state, timestep = step(jax.random.key(0), state, jnp.ones((1, 1)), params)
        seen.append(timestep)
    return seen


def test_equals_brax_stepped_directly(theirs):
    ours = push(action_repeat=1)
    assert len(ours) == len(theirs) > 5
    for index, (our, their) in enumerate(zip(ours, theirs, strict=True)):
        np.testing.assert_allclose(our.observation[0], their.obs, rtol=1e-4, atol=1e-5)
        assert our.reward[0] == their.reward and not our.truncated
        assert our.terminated == (index == len(theirs) - 1)


def test_fall_within_a_repeated_action_ends_the_step(theirs):
    falls = len(theirs) - 1  # in Brax's steps
    repeat = next(repeat for repeat in (5, 7) if falls % repeat)  # so that it falls in the middle of one of ours
    seen = push(repeat)
    assert len(seen) - 1 == falls // repeat + 1
    assert sum(timestep.reward.item() for timestep in seen) == pytest.approx(falls)  # one for each step of Brax's
    np.testing.assert_allclose(seen[-1].observation[0], theirs[falls].obs, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ant", "halfcheetah"])
def test_metrics_are_brax_own(name):
    env, params = make_env(f"brax:{name}", {})
    actions = jax.random.uniform(jax.random.key(1), (3, 1, *env.spec.action.shape), minval=-1.0)
    state, timestep = jax.jit(env.reset)(jax.random.key(3), params)
    assert timestep.metrics and not any(timestep.metrics.values())
    step = jax.jit(env.step)
    with without_chatter():
        their, their_step = jax.jit(env.world.reset)(jax.random.key_data(jax.random.key(3))), jax.jit(env.world.step)
        for action in actions:
            state, timestep = step(jax.random.key(0), state, action, params)
            their = their_step(their, action[0])
            np.testing.assert_allclose(timestep.observation[0], their.obs, rtol=1e-3, atol=1e-3)
            assert set(timestep.metrics) == set(their.metrics)
            for name, value in their.metrics.items():
                np.testing.assert_allclose(timestep.metrics[name], value, rtol=1e-3, atol=1e-3)


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
    from brax.envs import State

    from jaxrl_engine.envs.brax_adapter import BraxEnvironment, BraxState

    class Scribbler:
        """Brax's worlds update the dictionary of metrics in place."""

        def step(self, state, action):
            state.metrics.update(score=action[0])
            return state

    zero = jnp.zeros(())
    state = BraxState(world=State(None, jnp.zeros(2), zero, zero, {"score": zero}), time=jnp.zeros((), jnp.int32))
    env = BraxEnvironment(world=Scribbler(), spec=make_env("brax:fast", {})[0].spec, time_limit=2, action_repeat=1)
    _, timestep = env.step(jax.random.key(0), state, jnp.ones((1, 1)), ())
    assert timestep.metrics["score"] == 1 and state.world.metrics["score"] == 0


def test_nothing_is_said(capfd, tmp_path, monkeypatch, recwarn):
    monkeypatch.chdir(tmp_path)
    make_env("brax:halfcheetah", {})  # its model holds an attribute that MuJoCo calls deprecated
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list and not list(tmp_path.iterdir())
