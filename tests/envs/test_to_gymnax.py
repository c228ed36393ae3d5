"""Our worlds behind gymnax's interface, against gymnax's own worlds and our own `step`."""

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import environment, spaces
from gymnax.wrappers.purerl import LogWrapper

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.core.spaces import MultiDiscrete
from jaxrl_engine.envs import gymnax_adapter, multi_adapter, to_gymnax as border
from jaxrl_engine.envs.reacher.env import Reacher
from jaxrl_engine.envs.registry import available_envs
from jaxrl_engine.envs.single_agent import first_timestep, single_agent_spec, single_agent_timestep, unbounded
from jaxrl_engine.envs.to_gymnax import make_gymnax, register_with_gymnax, to_gymnax

STEPS = 41


@pytest.fixture(autouse=True)
def _gymnax_broadcasts_across_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def empty_register(monkeypatch):
    """gymnax's register as it was, whatever a test puts there."""
    names = list(gymnax.registered_envs)
    monkeypatch.setattr(gymnax.registration, "_registry", dict(gymnax.registration._registry))
    monkeypatch.setattr(gymnax.registration, "registered_envs", names)
    monkeypatch.setattr(gymnax, "registered_envs", names)


def rollout(env, params, actions, key):
    """What any gymnax code does: `reset`, then `step`, which resets by itself."""

    @jax.jit
    def run(key):
        def step(state, inputs):
            observation, state, *rest = env.step(inputs[0], state, inputs[1], params)
            return state, (observation, *rest)

        reset_key, steps_key = jax.random.split(key)
        observation, state = env.reset(reset_key, params)
        return observation, jax.lax.scan(step, state, (jax.random.split(steps_key, len(actions)), actions))[1]

    return jax.tree.map(np.asarray, run(key))


@pytest.mark.parametrize("limit", [500, 7])
def test_gymnax_there_and_back_is_gymnax(limit):
    theirs, their_params = gymnax.make("CartPole-v1")
    ours = to_gymnax(gymnax_adapter.make("CartPole-v1"))
    actions = jax.random.randint(jax.random.key(3), (STEPS,), 0, 2)
    want_start, want = rollout(theirs, their_params.replace(max_steps_in_episode=limit), actions, jax.random.key(0))
    params = ours.default_params.replace(max_steps_in_episode=limit)
    start, seen = rollout(ours, params, actions, jax.random.key(0))
    assert want[2].any() if limit == 500 else want[3].any()  # it fell, or it was cut: started anew within these steps
    np.testing.assert_allclose(start, want_start, rtol=1e-6)
    for got, wanted in zip(seen[:4], want[:4], strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
        assert got.dtype == wanted.dtype or wanted.dtype != bool
    for name in ("terminated", "truncated", "final_observation", "discount"):
        np.testing.assert_allclose(seen[4][name], want[4][name], rtol=1e-5, atol=1e-6)


def test_old_keys_do_the_same_as_typed_ones():
    ours = to_gymnax(gymnax_adapter.make("CartPole-v1"))
    actions = jnp.ones((3,), jnp.int32)
    new = rollout(ours, ours.default_params, actions, jax.random.key(4))
    old = rollout(ours, ours.default_params, actions, jax.random.PRNGKey(4))
    jax.tree.map(np.testing.assert_array_equal, new, old)


def test_reacher_by_name_in_the_hands_of_gymnax(empty_register):
    names = register_with_gymnax()
    assert register_with_gymnax() == names and len(set(gymnax.registered_envs)) == len(gymnax.registered_envs)
    ours = {env_id for env_id in available_envs() if env_id.split(":")[0] not in ("gymnax", "brax", "multi", "jaxmarl")}
    assert names == sorted(f"jaxrl/{env_id}" for env_id in ours) and "jaxrl/reacher" in names
    env, params = gymnax.make("jaxrl/reacher", episode_length=5)
    world = Reacher(episode_length=5)
    size = world.spec.action.shape[0]
    assert isinstance(env, environment.Environment) and params.max_steps_in_episode == 5
    assert env.observation_space(params).shape == world.spec.observation.shape
    assert env.name == world.spec.name and env.num_actions == size
    np.testing.assert_array_equal(env.action_space(params).high, np.ones(size))
    actions = jax.random.uniform(jax.random.key(1), (7, size), minval=-1.0)
    start, seen = rollout(LogWrapper(env), params, actions, jax.random.key(2))
    reset_key, steps_key = jax.random.split(jax.random.key(2))
    state, first = world.reset(reset_key, world.default_params())
    step = jax.jit(world.step)
    np.testing.assert_allclose(start, first.observation[0], rtol=1e-5, atol=1e-6)
    total = 0.0
    for key, action in zip(jax.random.split(steps_key, 7)[:5], actions[:5], strict=True):
        state, timestep = step(jax.random.split(key)[0], state, action[None], world.default_params())
        total += float(timestep.reward[0])
    np.testing.assert_allclose(seen[4]["final_observation"][4], timestep.observation[0], rtol=1e-4, atol=1e-5)
    assert not np.allclose(seen[0][4], timestep.observation[0])  # shown is already the next episode
    assert seen[3].tolist() == [False] * 4 + [True] + [False] * 2 and not seen[2].any()
    np.testing.assert_allclose(seen[4]["returned_episode_returns"][4], total, rtol=1e-3, atol=1e-5)
    for name in world.spec.metric_names:
        np.testing.assert_allclose(seen[4][name][4], timestep.metrics[name], rtol=1e-3, atol=1e-5)
    assert seen[4]["returned_episode_lengths"][4] == 5


def test_several_agents_are_stacked():
    world = multi_adapter.make("CartPole-v1", agents=3, reward="own", done="all")
    env = to_gymnax(world)
    params, space = env.default_params, env.action_space()
    assert env.observation_space(params).shape == (3, 4)
    sampled = jax.vmap(space.sample)(jax.random.split(jax.random.key(0), 97))
    assert space.shape == (3,) and sampled.shape == (97, 3) and set(sampled.ravel().tolist()) == {0, 1}
    assert space.contains(sampled[0]) and not space.contains(jnp.array([0, 2, 1]))
    theirs, their_params = gymnax.make("CartPole-v1")
    _, seen = rollout(env, params, sampled[:7], jax.random.key(8))
    reset_key, steps_key = jax.random.split(jax.random.key(8))
    _, state = jax.vmap(theirs.reset_env, in_axes=(0, None))(jax.random.split(reset_key, 3), their_params)
    step = jax.jit(jax.vmap(theirs.step_env, in_axes=(0, 0, 0, None)))
    for t, key in enumerate(jax.random.split(steps_key, 7)):
        keys = jax.random.split(jax.random.split(key)[0], 3)
        observation, state, reward, *_ = step(keys, state, sampled[t], their_params)
        np.testing.assert_allclose(seen[0][t], observation, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(seen[1][t], reward)
    assert seen[2].shape == seen[3].shape == (7,)
    np.testing.assert_array_equal(seen[4]["final_global_state"], seen[0].reshape(7, 12))
    _, logged = rollout(LogWrapper(to_gymnax(world, "sum")), params, sampled[:7], jax.random.key(8))
    assert logged[1].tolist() == [3.0] * 7


class Masked:
    """Two choices at once; which are open shows in the mask alone."""

    spec = single_agent_spec("masked", unbounded((1,)), MultiDiscrete((2, 3)), None)

    def default_params(self):
        return ()

    def reset(self, key, params):
        mask = jax.random.bernoulli(key, 0.5, (1, 5))
        return (), first_timestep(jnp.zeros(1)).replace(action_mask=mask)

    def step(self, key, state, action, params):
        no = jnp.zeros((), bool)
        shown = single_agent_timestep(action.sum().astype(jnp.float32)[None], jnp.ones(()), action.max() == 2, no)
        return (), shown.replace(action_mask=jnp.ones((1, 5), bool))


def test_the_mask_in_the_state_belongs_to_what_is_shown():
    env = to_gymnax(Masked())
    params, keys = env.default_params, jax.random.split(jax.random.key(5), 3)
    assert env.action_space().shape == (2,) and env.action_space().nvec.tolist() == [2, 3]
    _, state = env.reset(keys[0], params)
    np.testing.assert_array_equal(state.timestep.action_mask[0], jax.random.bernoulli(keys[0], 0.5, (5,)))
    observation, state, _, terminated, *_ = env.step(keys[1], state, jnp.array([1, 1]), params)
    assert observation.tolist() == [2.0] and not terminated and state.timestep.action_mask.all() and state.time == 1
    _, state, _, terminated, *_ = env.step(keys[2], state, jnp.array([1, 2]), params)
    anew = jax.random.bernoulli(jax.random.split(keys[2])[1], 0.5, (5,))
    np.testing.assert_array_equal(state.timestep.action_mask[0], anew)
    assert terminated and state.time == 0 and not anew.all()
    np.testing.assert_array_equal(env.observe(keys[0], state, None, params), [0.0])


def test_spaces_keep_types_and_bounds():
    env = make_gymnax("gymnax:Breakout-MinAtar")
    assert isinstance(env.action_space(), spaces.Discrete) and env.num_actions == env.action_space().n
    assert env.observation_space().shape == (10, 10, 4) and env.observation_space().dtype == jnp.bool_
    box = make_gymnax("gymnax:Pendulum-v1").action_space()
    assert box.low.tolist() == [-2.0] and box.high.tolist() == [2.0]


def test_mistakes_are_one_line(monkeypatch):
    with pytest.raises(UserError, match=r"^env: unknown world 'reachr'; did you mean reacher\?$"):
        make_gymnax("reachr")
    with pytest.raises(UserError, match=r"^env_params.num_links of reacher must be a whole number, not 'three'$"):
        make_gymnax("reacher", num_links="three")
    monkeypatch.delattr(gymnax, "register")
    with pytest.raises(UserError, match=r"^register_with_gymnax: the installed gymnax has no `register`"):
        border.register_with_gymnax()
