"""Teams against gymnax's own `step_env`, called for each copy apart, and against sums and votes worked out by hand."""

import functools

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.core.spaces import Box, Discrete, MultiDiscrete
from jaxrl_engine.envs import multi_adapter, registry
from jaxrl_engine.envs.multi_agent import Independent, Shared
from jaxrl_engine.envs.protocol import Environment
from jaxrl_engine.envs.single_agent import first_timestep, single_agent_spec, single_agent_timestep, unbounded
from jaxrl_engine.envs.vector import VectorEnv

AGENTS, STEPS = 3, 41


@pytest.fixture(autouse=True)
def _gymnax_broadcasts_across_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


def play(env, actions, key):
    """Step a world through `actions [T, A, …]`; return what it shows first, and what after every step."""

    @jax.jit
    def run(key, params):
        def step(state, inputs):
            next_state, timestep = env.step(inputs[0], state, inputs[1], params)
            return next_state, timestep

        reset_key, steps_key = jax.random.split(key)
        state, start = env.reset(reset_key, params)
        last, timesteps = jax.lax.scan(step, state, (jax.random.split(steps_key, len(actions)), actions))
        return state, last, start, timesteps

    with jax.debug_key_reuse(True):
        state, last, start, timesteps = run(key, env.default_params())
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((state, last, start, timesteps)))
    for shown in (start, jax.tree.map(lambda leaf: leaf[-1], timesteps)):
        assert shown.observation.shape == (env.spec.num_agents, *env.spec.observation.shape)
        assert shown.observation.dtype == env.spec.observation.dtype
        assert shown.global_state.shape == env.spec.global_state.shape
        assert shown.reward.shape == (env.spec.num_agents,)
        assert tuple(shown.metrics) == env.spec.metric_names
    return start, jax.tree.map(np.asarray, timesteps)


def apart(name, actions, key, changes):
    """Let gymnax play each copy on its own and past its end, with the keys a team gives its copies.

    Returns the first observations `[A, …]`, then observations, rewards and the two flags `[T, A, …]`.
    """
    theirs, params = gymnax.make(name)
    agents = actions.shape[1]
    reset_key, steps_key = jax.random.split(key)
    reset_keys = jax.random.split(reset_key, agents)
    keys = jax.vmap(lambda k: jax.random.split(k, agents))(jax.random.split(steps_key, len(actions)))

    @jax.jit
    def run(params, reset_key, keys, actions):
        def step(state, inputs):
            observation, state, reward, terminated, _ = theirs.step_env(inputs[0], state, inputs[1], params)
            return state, (observation, reward, terminated, theirs.is_truncated(state, params))

        observation, state = theirs.reset_env(reset_key, params)
        return observation, jax.lax.scan(step, state, (keys, actions))[1]

    starts, copies = [], []
    for i in range(agents):
        own = params.replace(**{name: values[i] for name, values in changes.items()})
        start, steps = run(own, reset_keys[i], keys[:, i], actions[:, i])
        starts.append(np.asarray(start))
        copies.append([np.asarray(leaf) for leaf in steps])
    return np.stack(starts), *(np.stack(leaves, axis=1) for leaves in zip(*copies, strict=True))


@functools.cache
def cartpoles():
    """Three cart-poles pushed at random: one as it is, one cut after 7 steps, one under strong gravity."""
    actions = jax.random.randint(jax.random.key(5), (STEPS, AGENTS), 0, 2)
    changes = {"gravity": (9.8, 4.9, 30.0), "max_steps_in_episode": (500, 7, 500)}
    start, observation, reward, terminated, truncated = apart("CartPole-v1", actions, jax.random.key(2), changes)
    ends = np.argmax(terminated | truncated, axis=0)
    # What the tests below are about: two fall at different times, after the third is cut.
    assert terminated[ends, range(3)].tolist() == [True, False, True] and 6 == ends[1] < ends[2] < ends[0] < STEPS - 3
    return actions, start, observation, reward, ends


TEXT = "gravity:9.8/4.9/30 max_steps_in_episode:500/7/500"


@pytest.mark.parametrize(("reward", "done"), [("own", "all"), ("sum", "all"), ("mean", "any")])
def test_copies_equal_gymnax_stepped_apart(reward, done):
    actions, start, observation, own_reward, ends = cartpoles()
    env = multi_adapter.make("CartPole-v1", agents=3, reward=reward, done=done, per_agent=TEXT, agent_ids="never")
    first, ours = play(env, actions, jax.random.key(2))
    np.testing.assert_allclose(first.observation, start, rtol=1e-6)
    steps = np.arange(STEPS)[:, None]
    frozen = observation[np.minimum(steps, ends), range(3)]
    np.testing.assert_allclose(ours.observation, frozen, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(ours.global_state, ours.observation.reshape(STEPS, -1))
    alone = np.where(steps <= ends, own_reward, 0.0)
    team = {"own": alone, "sum": alone.sum(1, keepdims=True), "mean": alone.mean(1, keepdims=True)}[reward]
    np.testing.assert_allclose(ours.reward, np.broadcast_to(team, (STEPS, 3)), rtol=1e-6)
    if done == "all":  # the last one falls, but one was only cut: what would have followed has a value
        np.testing.assert_array_equal(ours.truncated, np.arange(STEPS) >= ends.max())
        assert not ours.terminated.any()
    else:  # ends when the first is cut; that nothing has fallen yet is above
        np.testing.assert_array_equal(ours.truncated, np.arange(STEPS) >= 6)
        assert not ours.terminated[: ends[2]].any()
    assert env.spec.time_limit == (500 if done == "all" else 7)
    assert env.spec.name == "multi:CartPole-v1" and not ours.metrics["invalid_actions"].any()


def test_a_team_that_falls_is_terminated():
    # Pushed to one side only, a pole falls after 8 to 11 steps from any start.
    for done, pick in (("all", np.max), ("any", np.min)):
        env = multi_adapter.make("CartPole-v1", agents=5, done=done)
        actions = jnp.ones((17, 5), jnp.int32)
        fallen = apart("CartPole-v1", actions, jax.random.key(1), {})[3]
        end = pick(np.argmax(fallen, axis=0))
        _, ours = play(env, actions, jax.random.key(1))
        assert 7 <= end <= 10 and np.argmax(ours.terminated) == end and not ours.truncated.any()


@pytest.mark.parametrize("done", ["any", "all"])
def test_a_step_can_be_both(done):
    # The last step of DeepSea is its end and its limit; both copies get there together.
    env = multi_adapter.make("DeepSea-bsuite", size=5, done=done)
    _, ours = play(env, jnp.zeros((5, 2), jnp.int32), jax.random.key(0))
    assert ours.terminated.tolist() == ours.truncated.tolist() == [False] * 4 + [True]


def test_steers_the_arm_together_and_survives_not_a_number():
    env = multi_adapter.make("Reacher-misc", form="shared")
    assert env.spec.action == Box((1,), (-1.0,), (1.0,))
    actions = jax.random.uniform(jax.random.key(4), (STEPS, 2), minval=-1.0, maxval=1.0)
    given = actions.at[7, 1].set(jnp.nan).at[8, 0].set(jnp.inf)
    meant = actions.at[7, 1].set(0.0).at[8, 0].set(1.0)
    theirs, params = gymnax.make("Reacher-misc")
    key = jax.random.key(9)

    @jax.jit
    def run(key, actions):
        def step(state, inputs):
            observation, state, reward, terminated, _ = theirs.step_env(inputs[0], state, inputs[1], params)
            return state, (observation, reward, terminated, theirs.is_truncated(state, params))

        reset_key, steps_key = jax.random.split(key)
        observation, state = theirs.reset_env(reset_key, params)
        return observation, jax.lax.scan(step, state, (jax.random.split(steps_key, STEPS), actions))[1]

    start, (observation, reward, terminated, truncated) = run(key, meant)
    first, ours = play(env, given[:, :, None], key)
    size = observation.shape[-1]
    np.testing.assert_allclose(first.observation[1, :size], start, rtol=1e-6)
    for agent in range(2):
        np.testing.assert_allclose(ours.observation[:, agent, :size], observation, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(ours.observation[:, agent, size:], np.tile(np.eye(2)[agent], (STEPS, 1)))
        np.testing.assert_allclose(ours.reward[:, agent], reward, rtol=1e-4)
    np.testing.assert_allclose(ours.global_state, observation, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal((ours.terminated, ours.truncated), (terminated, truncated))
    assert ours.metrics["invalid_actions"].tolist() == [0] * 7 + [1] + [2] * (STEPS - 8)


def test_the_majority_drives_the_car():
    env = multi_adapter.make("MountainCar-v0", form="shared", agents=5, max_steps_in_episode=STEPS)
    votes = np.array(jax.random.randint(jax.random.key(3), (STEPS, 5), -1, 4))  # -1 and 3 are no choices
    counts = np.stack([(votes == choice).sum(1) for choice in range(3)], axis=1)
    elected = np.array([list(count).index(max(count)) for count in counts])
    assert (np.sort(counts, axis=1)[:, 1] == counts.max(1)).sum() >= 5  # ties do occur
    theirs, params = gymnax.make("MountainCar-v0")
    reset_key, steps_key = jax.random.split(jax.random.key(6))
    _, state = theirs.reset_env(reset_key, params)
    step_env = jax.jit(theirs.step_env)
    seen = []
    for key, action in zip(jax.random.split(steps_key, STEPS), elected, strict=True):
        observation, state, *_ = step_env(key, state, action, params)
        seen.append(observation)
    _, ours = play(env, jnp.asarray(votes), jax.random.key(6))
    np.testing.assert_allclose(ours.observation, np.repeat(np.stack(seen)[:, None], 5, axis=1), rtol=1e-5, atol=1e-7)
    assert ours.truncated.tolist() == [False] * (STEPS - 1) + [True] and not ours.terminated.any()
    wrong = ((votes < 0) | (votes > 2)).sum(1)
    np.testing.assert_array_equal(ours.metrics["invalid_actions"], np.cumsum(wrong))


class Echo:
    """Shows the action it was given; some choices are masked."""

    def __init__(self, action, mask=None):
        self.spec = single_agent_spec("echo", unbounded((max(1, int(np.prod(action.shape))),)), action, 97)
        self.mask = None if mask is None else jnp.array([mask], bool)

    def default_params(self):
        return ()

    def reset(self, key, params):
        return (), first_timestep(jnp.zeros(self.spec.observation.shape)).replace(action_mask=self.mask)

    def step(self, key, state, action, params):
        shown = action[0].reshape(self.spec.observation.shape).astype(jnp.float32)
        no = jnp.zeros((), bool)
        return (), single_agent_timestep(shown, jnp.ones(()), no, no).replace(action_mask=self.mask)


def joint(env, action):
    """What reaches the world, how many actions were invalid, and the mask that is shown next."""
    state, _ = env.reset(jax.random.key(0), ())
    _, shown = env.step(jax.random.key(1), state, jnp.asarray(action), ())
    return shown.observation[0].tolist(), float(shown.metrics["invalid_actions"]), shown.action_mask


@pytest.mark.parametrize(
    ("votes", "mask", "elected", "invalid"),
    [
        ([2, 1, 2, 0, 1, 2, 3], None, 2, 0),
        ([3, 1, 3, 1, 0, 2, 0], None, 0, 0),  # three choices with two votes each: the lowest
        ([3, 1, 3, 1, 2, 9, -1], None, 1, 2),  # no such choices: not counted
        ([0, 0, 0, 0, 3, 3, 1], [0, 1, 1, 1], 3, 4),  # the most wanted is masked
        ([0, 0, 0, 0, 0, 0, 0], [0, 0, 1, 1], 2, 7),  # nobody counts: the lowest that is allowed
    ],
)
def test_votes_worked_out_by_hand(votes, mask, elected, invalid):
    env = Shared(Echo(Discrete(4), mask), agents=7)
    seen, wrong, shown = joint(env, votes)
    assert (seen, wrong) == ([elected], invalid)
    assert shown is None if mask is None else shown.tolist() == [[bool(m) for m in mask]] * 7


def test_parts_of_a_vector_of_numbers():
    bounds = ((-1.0, -2.0) * 3, (1.0, 2.0) * 3)
    env = Shared(Echo(Box((6,), *bounds)), agents=3)
    assert env.spec.action == Box((2,), (-1.0, -2.0), (1.0, 2.0))
    assert joint(env, [[0.25, 1.5], [-0.5, -1.75], [1.0, 0.0]]) == ([0.25, 1.5, -0.5, -1.75, 1.0, 0.0], 0, None)
    assert joint(env, [[9.0, -9.0], [jnp.nan, jnp.nan], [1.0, -2.0]]) == ([1.0, -2.0, 0.0, 0.0, 1.0, -2.0], 2, None)


def test_parts_of_a_vector_of_choices():
    even = Shared(Echo(MultiDiscrete((3, 5, 3, 5))), agents=2)
    assert even.spec.action == MultiDiscrete((3, 5)) and not even.spec.masks_actions
    assert joint(even, [[0, 4], [2, 1]]) == ([0, 4, 2, 1], 0, None)
    assert joint(even, [[0, 5], [-1, 7]])[:2] == ([0, 4, 0, 4], 2)
    odd = Shared(Echo(MultiDiscrete((3, 2, 2, 4))), agents=2)
    assert odd.spec.action == MultiDiscrete((3, 4)) and odd.spec.masks_actions
    seen, wrong, mask = joint(odd, [[2, 3], [2, 3]])  # two choices that the other agent has
    assert (seen, wrong) == ([2, 1, 1, 3], 2)
    assert mask.astype(int).tolist() == [[1, 1, 1, 1, 1, 0, 0], [1, 1, 0, 1, 1, 1, 1]]
    masked = Shared(Echo(MultiDiscrete((3, 2, 2, 4)), [0, 1, 1, 0, 1, 1, 0, 1, 0, 0, 1]), agents=2)
    mask = joint(masked, [[0, 0], [0, 0]])[2]
    assert mask.astype(int).tolist() == [[0, 1, 1, 0, 1, 0, 0], [1, 0, 0, 1, 0, 0, 1]]


def test_images_keep_their_axes_and_identities_are_planes():
    env = multi_adapter.make("Breakout-MinAtar", agents=3, agent_ids="always")
    assert env.spec.observation.shape == (10, 10, 4 + 3) and env.spec.observation.dtype == "bool"
    assert env.spec.global_state.shape == (10, 10, 3 * 4)
    start, _ = play(env, jnp.zeros((1, 3), jnp.int32), jax.random.key(0))
    for agent in range(3):
        planes = start.observation[agent]
        np.testing.assert_array_equal(start.global_state[..., 4 * agent : 4 * agent + 4], planes[..., :4])
        np.testing.assert_array_equal(planes[..., 4:], np.broadcast_to(np.eye(3, dtype=bool)[agent], (10, 10, 3)))


@pytest.mark.parametrize(
    ("values", "width"),
    [({}, 4), ({"agent_ids": "always"}, 6), ({"per_agent": "gravity:9/8"}, 6), ({"form": "shared"}, 4)],
)
def test_agents_that_differ_know_who_they_are(values, width):
    env = multi_adapter.make("CartPole-v1", **values)
    assert isinstance(env, Environment) and env.spec.num_agents == 2
    assert env.spec.observation.shape == (width,)


def test_vector_env_shows_the_true_end_and_then_a_fresh_start():
    env = multi_adapter.make("Pendulum-v1", agents=2, max_steps_in_episode=7)
    vector, params = VectorEnv(env, 3), env.default_params()
    keys = jax.random.split(jax.random.key(0), 9)
    step = jax.jit(vector.step)
    state, fresh = vector.reset(keys[0], params), vector.fresh(keys[1], params)
    for key in keys[2:]:
        before, step_keys = state, jax.random.split(key, 3)
        state, fresh, final, episodes = step(step_keys, state, jnp.ones((3, 2, 1)), params, fresh)
    assert episodes.ended.all() and final.truncated.all() and not final.terminated.any() and state.is_first.all()
    theirs, their_params = gymnax.make("Pendulum-v1")
    own = jax.tree.map(lambda leaf: leaf[1, 0], before.env.copies)
    key = jax.random.split(step_keys[1], 2)[0]
    observation, *_ = theirs.step_env(key, own, jnp.ones(1), their_params)
    np.testing.assert_allclose(final.observation[1, 0], observation, rtol=1e-5, atol=1e-6)
    assert not np.allclose(state.timestep.observation, final.observation)
    np.testing.assert_array_equal(np.asarray(state.env.copies.time), 0)


def test_batch_equals_loop_and_jit_equals_no_jit():
    env = multi_adapter.make("CartPole-v1", agents=2, per_agent="length:0.5/0.9")
    params, keys = env.default_params(), jax.random.split(jax.random.key(0), 3)
    assert params.length.tolist() == pytest.approx([0.5, 0.9]) and params.gravity.shape == (2,)
    actions = jnp.array([[0, 1], [1, 1], [1, 0]])
    states, _ = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys, params)
    _, batched = jax.jit(jax.vmap(env.step, in_axes=(0, 0, 0, None)))(keys, states, actions, params)
    for i in range(3):
        state, _ = env.reset(keys[i], params)
        _, single = env.step(keys[i], state, actions[i], params)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a, b[i], rtol=1e-5), single, batched)


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("CartPole-v1", {"agents": 0}, "agents must be a whole number >= 1, not 0"),
        ("CartPole-v1", {"agents": -3, "form": "shared"}, "agents must be a whole number >= 1, not -3"),
        ("CartPole-v1", {"form": "shard"}, "form must be independent or shared, not 'shard'"),
        ("CartPole-v1", {"reward": "max"}, "reward must be sum or mean or own, not 'max'"),
        ("CartPole-v1", {"reward": "max", "form": "shared"}, "reward must be sum or mean or own, not 'max'"),
        ("CartPole-v1", {"done": "some"}, "done must be any or all, not 'some'"),
        ("CartPole-v1", {"agent_ids": "yes"}, "agent_ids must be auto or always or never, not 'yes'"),
        ("Pendulum-v1", {"form": "shared"}, "agents must be 1, to share 1 controls equally, not 2"),
        ("Reacher-misc", {"form": "shared", "agents": 4}, "agents must be 1 or 2, to share 2 controls equally, not 4"),
        ("CartPole-v1", {"form": "shared", "per_agent": "gravity:1/2"}, "per_agent must be empty where the form is"),
        ("CartPole-v1", {"per_agent": "gravty:1/2"}, "no number 'gravty' in this world's EnvParams; did you mean grav"),
        ("CartPole-v1", {"per_agent": "gravity:1/2/3"}, "per_agent must be 2 values of gravity, one per agent"),
        ("CartPole-v1", {"per_agent": "gravity:1/low"}, "per_agent must be finite numbers for gravity, not 'low'"),
        ("CartPole-v1", {"per_agent": "max_steps_in_episode:9/0"}, "max_steps_in_episode >= 1, not '9/0'"),
        ("CartPole-v1", {"per_agent": "max_steps_in_episode:9/2.5"}, "per_agent must be int32 values of max_steps"),
        ("CartPole-v1", {"max_steps_in_episode": 0}, "max_steps_in_episode must be >= 1, not 0"),
        ("Catch-bsuite", {"rows": 0}, "would hold nothing"),
    ],
)
def test_a_mistake_is_one_line(monkeypatch, name, values, said):
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        multi_adapter.make(name, **values)
    assert said in str(caught.value)
    monkeypatch.setitem(registry._ADAPTERS, "multi", "jaxrl_engine.envs.multi_adapter")
    monkeypatch.setitem(registry._ADAPTED, "multi", registry._ADAPTED["gymnax"])
    with pytest.raises(UserError, match=r"^[^\n]+$") as caught:
        registry.make_env(f"multi:{name}", values)
    assert said in str(caught.value)


def test_only_worlds_with_one_agent_can_be_wrapped():
    team = Independent(Echo(Discrete(3)), agents=2)
    for form in (Independent, Shared):
        with pytest.raises(ValueError, match="world must be one with a single agent, not 'echo'"):
            form(team)
    uneven = Box((2,), (-1.0, -2.0), (1.0, 2.0))
    with pytest.raises(ValueError, match="agents must be such that all own controls with equal bounds, not 2"):
        Shared(Echo(uneven), agents=2)
    assert Shared(Echo(uneven), agents=1).spec.action == uneven


def test_every_parameter_has_a_default_of_its_type():
    found = multi_adapter.parameters("Reacher-misc")
    assert {
        "agents": 2,
        "form": "independent",
        "reward": "mean",
        "done": "any",
        "num_joints": 2,
    }.items() <= found.items()
    assert "max_steps_in_episode" in found
