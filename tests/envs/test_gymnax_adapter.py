"""The adapter against gymnax stepped directly, and its flags against episodes worked out by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.core.spaces import Discrete
from jaxrl_engine.envs.registry import available_envs, make_env

NAMES = [env_id.partition(":")[2] for env_id in available_envs() if env_id.startswith("gymnax:")]
STEPS = 61
COMPILE_FAST = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}


@pytest.fixture(autouse=True)
def _gymnax_broadcasts_across_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


def side_by_side(name):
    """Step our world, and from each of its states gymnax's own, with equal keys and actions."""
    import gymnax

    env, params = make_env(f"gymnax:{name}", {})
    theirs, their_params = gymnax.make(name)

    @functools.partial(jax.jit, compiler_options=COMPILE_FAST)
    def run(reset_key, step_keys, action_keys):
        def step(state, keys):
            key, action_key = keys
            their_key = jax.random.clone(key)
            action = theirs.action_space(their_params).sample(action_key)
            next_state, timestep = env.step(key, state, action[None], params)
            observation, their_state, reward, terminated, _ = theirs.step_env(their_key, state, action, their_params)
            truncated = theirs.is_truncated(their_state, their_params)
            return next_state, (timestep, observation, reward, terminated, truncated, next_state, their_state)

        their_start, their_state = theirs.reset_env(jax.random.clone(reset_key), their_params)
        state, start = env.reset(reset_key, params)
        outcome = jax.lax.scan(step, state, (step_keys, action_keys))[1]
        return start, their_start, state, their_state, outcome

    keys = jax.random.split(jax.random.key(3), 1 + 2 * STEPS)
    with jax.debug_key_reuse(True):
        return env, *run(keys[0], keys[1 : 1 + STEPS], keys[1 + STEPS :])


def assert_equal(ours, theirs):
    """Equal; real numbers up to the rounding of two differently fused programs."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs)


def shown(name, observation):
    """What a learner gets for one of gymnax's observations."""
    return jax.nn.one_hot(observation, 16) if name == "FrozenLake-misc" else jnp.asarray(observation, jnp.float32)


@pytest.mark.parametrize("name", NAMES)
def test_equals_gymnax_stepped_directly(name):
    env, start, their_start, state, their_state, outcome = side_by_side(name)
    timestep, observation, reward, terminated, truncated, next_states, their_next_states = outcome
    assert_equal(start.observation[0].astype(jnp.float32), shown(name, their_start))
    assert_equal(timestep.observation[:, 0].astype(jnp.float32), shown(name, observation))
    assert_equal(timestep.reward[:, 0], reward)
    assert_equal((timestep.terminated, timestep.truncated), (terminated, truncated))
    assert_equal(jax.tree.leaves((state, next_states)), jax.tree.leaves((their_state, their_next_states)))
    assert not start.terminated and not start.truncated and start.reward == 0
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((state, next_states)))
    for seen in (start, jax.tree.map(lambda leaf: leaf[0], timestep)):
        assert seen.observation.shape == (1, *env.spec.observation.shape)
        assert seen.observation.dtype == env.spec.observation.dtype
        assert seen.global_state.shape == env.spec.global_state.shape
        assert seen.reward.shape == (1,) and seen.reward.dtype == jnp.float32
        assert not any(leaf.weak_type for leaf in jax.tree.leaves(seen))
        np.testing.assert_array_equal(seen.global_state.ravel(), seen.observation.ravel())


def test_every_world_of_gymnax_is_offered_but_the_one_that_downloads():
    import gymnax

    assert {*NAMES, "MNISTBandit-bsuite"} == set(gymnax.registered_envs)
    assert len(NAMES) == 25


@pytest.mark.parametrize("name", ["Asterix-MinAtar", "Freeway-MinAtar", "Pong-misc"])
def test_images_are_bits_and_keep_their_axes(name):
    spec = make_env(f"gymnax:{name}", {})[0].spec
    assert spec.observation.dtype == "bool" and len(spec.observation.shape) == 3
    assert spec.global_state.shape == spec.observation.shape


def play(env_id, policy, length, env_params=None):
    """Return the flags of `length` steps under `policy(observation)`, from the seed's first state."""
    env, params = make_env(env_id, env_params or {})

    @jax.jit
    def run(key):
        def step(carry, key):
            state, observation = carry
            state, timestep = env.step(key, state, policy(observation)[None], params)
            return (state, timestep.observation[0]), (timestep.terminated, timestep.truncated)

        reset_key, steps_key = jax.random.split(key)
        state, timestep = env.reset(reset_key, params)
        return jax.lax.scan(step, (state, timestep.observation[0]), jax.random.split(steps_key, length))[1]

    return [np.asarray(flag) for flag in run(jax.random.key(11))]


def test_cartpole_terminates_when_it_falls_and_is_cut_when_it_stands():
    # Pushed to one side only, the pole falls after 8 to 11 steps from any start (2,000 of a cart-pole in NumPy).
    terminated, truncated = play("gymnax:CartPole-v1", lambda _: jnp.int32(1), 13)
    assert 8 <= np.argmax(terminated) + 1 <= 11 and not truncated.any()
    # Pushed towards where it leans, turns and drifts, it stands for all of the 500 steps (200 of the same).
    weights = jnp.array([0.05, 0.1, 1.0, 0.3])
    terminated, truncated = play("gymnax:CartPole-v1", lambda o: (o @ weights > 0).astype(jnp.int32), 500)
    assert not terminated.any()
    assert truncated.tolist() == [False] * 499 + [True]


def test_mountain_car_is_cut_at_its_limit_and_terminates_at_its_goal():
    # Left alone the car stays in the valley; driven along its own velocity it is over the hill before the limit of 200.
    terminated, truncated = play("gymnax:MountainCar-v0", lambda _: jnp.int32(1), 200)
    assert not terminated.any()
    assert truncated.tolist() == [False] * 199 + [True]
    terminated, truncated = play("gymnax:MountainCar-v0", lambda o: jnp.where(o[1] < 0, 0, 2).astype(jnp.int32), 200)
    reached = np.argmax(terminated)
    assert terminated.any() and reached < 199 and not truncated[: reached + 1].any()


def test_pendulum_only_truncates_and_its_limit_can_be_set():
    terminated, truncated = play("gymnax:Pendulum-v1", lambda _: jnp.zeros(1), 7, {"max_steps_in_episode": 7})
    assert not terminated.any()
    assert truncated.tolist() == [False] * 6 + [True]
    assert make_env("gymnax:Pendulum-v1", {})[0].spec.time_limit == 200


def test_last_step_of_deep_sea_is_both():
    terminated, truncated = play("gymnax:DeepSea-bsuite", lambda _: jnp.int32(0), 5, {"size": 5})
    assert terminated.tolist() == truncated.tolist() == [False] * 4 + [True]


def test_parameters_reach_constructor_and_physics():
    env, params = make_env("gymnax:Catch-bsuite", {"rows": 7, "columns": 3, "max_steps_in_episode": 11})
    assert env.spec.observation.shape == (7, 3) and env.spec.time_limit == 11
    env, params = make_env("gymnax:CartPole-v1", {"gravity": 2})
    assert params.gravity == 2.0 and params.gravity.dtype == jnp.float32
    assert make_env("gymnax:SimpleBandit-bsuite", {"num_actions": 5})[0].spec.action == Discrete(5)


def test_bounds_of_actions_are_gymnax_own():
    action = make_env("gymnax:Pendulum-v1", {})[0].spec.action
    assert action.shape == (1,) and action.low == (-2.0,) and action.high == (2.0,)
    action = make_env("gymnax:PointRobot-misc", {})[0].spec.action
    np.testing.assert_allclose(action.high, [0.1, 0.1])


@pytest.mark.parametrize("name", ["CartPole-v1", "UmbrellaChain-bsuite"])
def test_batch_equals_loop_and_jit_equals_no_jit(name):
    env, params = make_env(f"gymnax:{name}", {})
    keys = jax.random.split(jax.random.key(0), 3)
    actions = jnp.array([[0], [1], [1]])
    state, _ = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys, params)
    _, batched = jax.jit(jax.vmap(env.step, in_axes=(0, 0, 0, None)))(keys, state, actions, params)
    for index in range(3):
        own, _ = env.reset(keys[index], params)
        _, single = env.step(keys[index], own, actions[index], params)
        jax.tree.map(lambda a, b, i=index: np.testing.assert_allclose(a, b[i], rtol=1e-6), single, batched)
