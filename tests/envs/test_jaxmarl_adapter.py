"""The adapter against a small module that follows JaxMARL's protocol, and against JaxMARL itself where it is installed.

The module stands for what the protocol allows and a learner must survive: agents in no alphabetical order, with unequal
observations and choices, a clock and a rule that both end episodes.
"""

import functools
import importlib.util
import sys
import types

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.core.spaces import Box, Discrete
from jaxrl_engine.envs import jaxmarl_adapter, registry
from jaxrl_engine.envs.protocol import Environment

NAME = "MPE_simple_tag_v3"
REAL = importlib.util.find_spec("jaxmarl") is not None
needs_jaxmarl = pytest.mark.skipif(not REAL, reason="JaxMARL is not installed")


@pytest.fixture(autouse=True)
def _jaxmarl_broadcasts_across_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


class OneOf:
    def __init__(self, n):
        self.n, self.shape = n, ()


class Reals:
    def __init__(self, low, high, shape):
        self.low, self.high, self.shape = low, high, shape


@flax.struct.dataclass
class State:
    total: jax.Array
    step: int
    done: bool


class Base:
    """What a subclass passes on."""

    def __init__(self, max_steps=5, growth=1.0, **kwargs):
        self.max_steps, self.growth = max_steps, growth


class Tag(Base):
    """`wolf` has 2 choices and sees 2 numbers, `hen` has 3 and sees 3; the rule ends a game at a total of 9 or more."""

    def __init__(self, bonus=0.5, control="choice", picky=False, **kwargs):
        super().__init__(**kwargs)
        self.bonus, self.control, self.picky = bonus, control, picky
        self.agents = ["wolf", "hen"]

    def action_space(self, agent):
        if self.control == "mixed" and agent == "hen":
            return Reals(-1.0, 1.0, (3,))
        if self.control == "reals":
            return Reals(-1.0, 1.0, (2 if agent == "wolf" else 3,))
        return OneOf(2 if agent == "wolf" else 3)

    def get_obs(self, state):
        seen = state.total * jnp.arange(1, 4, dtype=jnp.float32)
        return {"hen": seen, "wolf": seen[:2]}

    @functools.partial(jax.jit, static_argnums=0)
    def reset(self, key):
        state = State(total=jax.random.uniform(key), step=0, done=False)
        return self.get_obs(state), state

    @functools.partial(jax.jit, static_argnums=0)
    def step_env(self, key, state, actions):
        pull = jnp.sum(actions["wolf"]) + 2.0 * jnp.sum(actions["hen"])
        total = state.total + self.growth * pull + 0.1 * jax.random.uniform(key)
        step = state.step + 1
        done = (total >= 9.0) | (step >= self.max_steps)
        state = State(total=total, step=step, done=done)
        rewards = {"hen": -pull, "wolf": pull + self.bonus}
        return self.get_obs(state), state, rewards, {"hen": done, "wolf": False, "__all__": done}, {}

    def get_avail_actions(self, state):
        if not self.picky:
            raise NotImplementedError
        return {"hen": jnp.array([1, 0, 1]), "wolf": jnp.stack([1, jnp.int32(state.total < 2)])}


@pytest.fixture
def fake(monkeypatch):
    module = types.ModuleType("jaxmarl")
    module.make = lambda name, **values: {NAME: Tag}[name](**values)
    monkeypatch.setitem(sys.modules, "jaxmarl", module)


def play(env, actions, key):
    @jax.jit
    def run(key):
        def step(state, inputs):
            next_state, timestep = env.step(inputs[0], state, inputs[1], ())
            return next_state, (timestep, next_state)

        reset_key, steps_key = jax.random.split(key)
        state, start = env.reset(reset_key, ())
        return state, start, jax.lax.scan(step, state, (jax.random.split(steps_key, len(actions)), actions))[1]

    with jax.debug_key_reuse(True):
        state, start, (timesteps, states) = run(key)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((state, start, timesteps, states)))
    for shown in (start, jax.tree.map(lambda leaf: leaf[0], timesteps)):
        assert shown.observation.shape == (env.spec.num_agents, *env.spec.observation.shape)
        assert shown.global_state.shape == env.spec.global_state.shape
        assert shown.reward.shape == (env.spec.num_agents,) and shown.reward.dtype == jnp.float32
        assert (shown.action_mask is not None) == env.spec.masks_actions
    return state, start, jax.tree.map(np.asarray, timesteps)


def theirs_alone(world, state, actions, key):
    """JaxMARL's own `step_env` from the state, with the keys that `play` uses."""
    step_env, out = jax.jit(world.step_env), []
    for step_key, action in zip(jax.random.split(jax.random.split(key)[1], len(actions)), actions, strict=True):
        own = {agent: action[i] for i, agent in enumerate(world.agents)}
        observations, state, rewards, dones, _ = step_env(step_key, state, own)
        out.append((observations, rewards, bool(dones["__all__"])))
    return out


def test_agents_are_stacked_in_their_own_order_and_padded(fake):
    env = jaxmarl_adapter.make(NAME, max_steps=4)
    assert isinstance(env, Environment) and env.spec.name == f"jaxmarl:{NAME}" and env.spec.num_agents == 2
    assert env.spec.action == Discrete(3) and env.spec.masks_actions and env.spec.observation.shape == (3 + 2,)
    actions = jnp.array([[1, 0], [0, 2], [1, 1], [0, 0]])
    state, start, seen = play(env, actions, jax.random.key(3))
    assert start.action_mask.tolist() == [[True, True, False], [True, True, True]]
    want = theirs_alone(Tag(max_steps=4), state.world, actions, jax.random.key(3))
    for t, (observations, rewards, _) in enumerate(want):
        wolf, hen = seen.observation[t]
        np.testing.assert_allclose(wolf, [*observations["wolf"], 0.0, 1.0, 0.0], rtol=1e-6)
        np.testing.assert_allclose(hen, [*observations["hen"], 0.0, 1.0], rtol=1e-6)
        np.testing.assert_allclose(seen.global_state[t], [*wolf[:3], *hen[:3]])
        np.testing.assert_allclose(seen.reward[t], [rewards["wolf"], rewards["hen"]], rtol=1e-6)
    assert not seen.metrics["invalid_actions"].any()


@pytest.mark.parametrize(
    ("actions", "max_steps", "terminated", "truncated"),
    [
        ([[0, 0]] * 3, 3, [0, 0, 0], [0, 0, 1]),  # nobody pulls: only the clock
        ([[1, 2]] * 2, 3, [0, 1], [0, 0]),  # 5 a step, at most 1.1 beside: over 9 at the second step
        ([[1, 2]] * 2, 2, [0, 1], [0, 0]),  # at the same step as the clock: still the rule
    ],
)
def test_rule_and_clock_are_told_apart(fake, actions, max_steps, terminated, truncated):
    env = jaxmarl_adapter.make(NAME, max_steps=max_steps)
    _, _, seen = play(env, jnp.array(actions), jax.random.key(0))
    assert seen.terminated.astype(int).tolist() == terminated
    assert seen.truncated.astype(int).tolist() == truncated


def test_what_is_available_is_asked_at_every_state(fake):
    env = jaxmarl_adapter.make(NAME, picky=True)
    _, start, seen = play(env, jnp.array([[1, 0], [1, 0]]), jax.random.key(0))
    masks = [start.action_mask, *seen.action_mask]
    assert [mask[0].astype(int).tolist() for mask in masks] == [[1, 1, 0], [1, 1, 0], [1, 0, 0]]
    assert all(mask[1].astype(int).tolist() == [1, 0, 1] for mask in masks)


def test_wrong_actions_are_mended_and_counted(fake):
    env = jaxmarl_adapter.make(NAME)
    _, _, seen = play(env, jnp.array([[2, 2], [-1, 9]]), jax.random.key(0))
    np.testing.assert_allclose(seen.reward[:, 1], [-(1 + 2 * 2), -(0 + 2 * 2)])
    assert seen.metrics["invalid_actions"].tolist() == [1, 3]
    env = jaxmarl_adapter.make(NAME, control="reals")
    assert env.spec.action == Box.uniform((3,), -1.0, 1.0) and not env.spec.masks_actions
    given = jnp.array([[[0.25, jnp.nan, 0.75], [5.0, 0.0, -0.5]]])  # the wolf has two controls: its third is ignored
    _, _, seen = play(env, given, jax.random.key(0))
    np.testing.assert_allclose(seen.reward[0], [0.25 + 2 * 0.5 + 0.5, -(0.25 + 2 * 0.5)])
    assert seen.metrics["invalid_actions"].tolist() == [2]


def test_parameters_reach_the_constructor_through_its_bases(fake):
    found = jaxmarl_adapter.parameters(NAME)
    assert found == {
        "bonus": 0.5, "control": "choice", "picky": False, "max_steps": 5, "growth": 1.0, "agent_ids": "auto"
    }  # fmt: skip
    env = jaxmarl_adapter.make(NAME, growth=0.0, agent_ids="never")
    assert env.spec.observation.shape == (3,) and env.world.growth == 0.0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"max_steps": 0}, "max_steps must be a whole number >= 1, not 0"),
        ({"agent_ids": "yes"}, "agent_ids must be auto, always or never, not 'yes'"),
        ({"control": "mixed"}, "agents whose actions differ in kind or in bounds cannot share an action space"),
    ],
)
def test_a_mistake_is_one_line(fake, values, said):
    with pytest.raises(UserError, match=r"^[^\n]+$") as caught:
        registry.make_env(f"jaxmarl:{NAME}", values)
    assert said in str(caught.value)


def test_without_jaxmarl_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jaxmarl", None)  # as if it were not there
    for attempt in (jaxmarl_adapter.parameters, jaxmarl_adapter.make):
        with pytest.raises(
            UserError, match=r'^env: jaxmarl:SMAX needs JaxMARL: pip install "jaxrl-engine\[jaxmarl\]"$'
        ):
            attempt("SMAX")


# --- JaxMARL itself -------------------------------------------------------------------------------------------------


@needs_jaxmarl
@pytest.mark.parametrize(
    ("name", "limit"), [("MPE_simple_spread_v3", 26), ("MPE_simple_tag_v3", 26), ("switch_riddle", 6)]
)
def test_equals_jaxmarl_stepped_directly(name, limit):
    env = jaxmarl_adapter.make(name)
    world = sys.modules["jaxmarl"].make(name)
    actions = jax.random.randint(jax.random.key(1), (limit, env.spec.num_agents), 0, 2)
    state, _, seen = play(env, actions, jax.random.key(7))
    assert env.spec.time_limit == limit
    for t, (observations, rewards, done) in enumerate(theirs_alone(world, state.world, actions, jax.random.key(7))):
        for i, agent in enumerate(world.agents):
            own = observations[agent]
            np.testing.assert_allclose(seen.observation[t, i, : own.size], own, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(seen.reward[t, i], rewards[agent], rtol=1e-4, atol=1e-5)
        assert seen.truncated[t] == done == (t == limit - 1) and not seen.terminated[t]


@needs_jaxmarl
def test_a_riddle_that_is_told_terminates():
    env = jaxmarl_adapter.make("switch_riddle")  # action 2 tells, and ends the game
    _, _, seen = play(env, jnp.array([[0, 0, 0], [2, 2, 2]]), jax.random.key(7))
    assert seen.terminated.tolist() == [False, True] and not seen.truncated.any()


@needs_jaxmarl
@pytest.mark.parametrize(
    ("standing", "won"),
    [([1, 0, 0, 0, 0, 0], True), ([1, 1, 1, 0, 0, 1], False), ([0, 0, 0, 1, 1, 1], False), ([0] * 6, False)],
    ids=["won", "going on", "lost", "nobody left"],
)
def test_a_battle_pays_once_for_winning_and_nothing_else(standing, won):
    env = jaxmarl_adapter.make("HeuristicEnemySMAX", scenario="3m", reward="win")
    state, timestep = env.reset(jax.random.key(0), ())
    assert timestep.metrics["success"] == 0
    units = state.world.state
    health = units.unit_health * jnp.array(standing)
    # Who has no health left has fallen by the end of the step.
    state = state.replace(world=state.world.replace(state=units.replace(unit_health=health)))
    stop = jnp.full(3, 4)
    state, timestep = env.step(jax.random.key(1), state, stop, ())
    np.testing.assert_array_equal(timestep.reward, [float(won)] * 3)
    assert timestep.metrics["success"] == won
    assert timestep.terminated == (not any(standing[:3]) or not any(standing[3:]))
    _, later = env.step(jax.random.key(2), state, stop, ())
    np.testing.assert_array_equal(later.reward, [0.0] * 3)


@needs_jaxmarl
def test_named_objects_and_masks_of_jaxmarl():
    env = jaxmarl_adapter.make("HeuristicEnemySMAX", scenario="3m")
    assert env.spec.num_agents == 3 and env.spec.masks_actions and env.spec.time_limit == 101
    assert jaxmarl_adapter.parameters("overcooked")["layout"] == "cramped_room"
    assert jaxmarl_adapter.make("overcooked", layout="coord_ring").spec.observation.shape == (5, 5, 26)
    assert jaxmarl_adapter.make("hanabi").spec.masks_actions
    with pytest.raises(ValueError, match="reward must be jaxmarl or win, not 'lose'"):
        jaxmarl_adapter.make("HeuristicEnemySMAX", scenario="3m", reward="lose")
    with pytest.raises(ValueError, match="layout must be cramped_room or asymm_advantages"):
        jaxmarl_adapter.make("overcooked", layout="attic")
    assert set(registry._ADAPTED["jaxmarl"]) < set(sys.modules["jaxmarl"].registered_envs)
