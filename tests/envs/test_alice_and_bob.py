"""Alice and Bob against a NumPy game written from the rules, episodes worked by hand, and exact chances."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl_engine.core.spaces import Discrete
from jaxrl_engine.envs.alice_and_bob import DOWN, LEFT, RIGHT, STAY, UP, AliceAndBob
from jaxrl_engine.envs.vector import VectorEnv
from tests.reference.alice_and_bob import Episode, random_team

PUBLISHED = {"grid_size": 10, "num_pairs": 2, "num_agents": 2, "episode_length": 100}
CROWDED = {"grid_size": 5, "num_pairs": 2, "num_agents": 3, "episode_length": 41}
MANY_PAIRS = {"grid_size": 7, "num_pairs": 4, "num_agents": 11, "episode_length": 37}
TINY = {"grid_size": 4, "num_pairs": 1, "num_agents": 4, "episode_length": 2}


@functools.partial(jax.jit, static_argnames=("env", "batch", "steps", "low", "high"))
def play(key, env, batch, steps, low=0, high=5):
    """Return the first states and TimeSteps `[B]`, actions `[T, B, A]` from `low` to `high` - 1, and all that
    follows `[T, B]`. Nothing is reset."""
    reset_key, action_key, step_key = jax.random.split(key, 3)
    first = jax.vmap(env.reset, (0, None))(jax.random.split(reset_key, batch), ())
    actions = jax.random.randint(action_key, (steps, batch, env.num_agents), low, high)

    def step(state, keys_and_action):
        state, timestep = jax.vmap(env.step, (0, 0, 0, None))(keys_and_action[0], state, keys_and_action[1], ())
        return state, (state, timestep)

    _, after = jax.lax.scan(step, first[0], (jax.random.split(step_key, (steps, batch)), actions))
    return first, actions, after


def outcome(timestep):
    """The reward of each agent, terminated and truncated."""
    return timestep.reward.tolist(), bool(timestep.terminated), bool(timestep.truncated)


def assert_shows(game, env, timestep):
    """What the agents and the critic see, and every metric, is what the reference game says."""
    np.testing.assert_array_equal(timestep.observation, [game.observe(agent) for agent in range(env.num_agents)])
    np.testing.assert_array_equal(timestep.global_state, game.grid().ravel())
    expected = {f"diamond_{pair}": game.collected[pair] for pair in range(env.num_pairs)}
    expected |= {"success": all(game.collected), "invalid_actions": game.mistakes}
    assert {name: value.item() for name, value in timestep.metrics.items()} == expected


@pytest.mark.parametrize(
    ("params", "batch", "steps", "low", "high"),
    [(PUBLISHED, 113, 101, 0, 5), (CROWDED, 61, 43, -2, 8), (MANY_PAIRS, 29, 37, 0, 5), (TINY, 31, 17, 0, 5)],
    ids=["published", "crowded, with invalid actions", "many pairs", "tiny"],
)
def test_every_step_is_the_reference_games(params, batch, steps, low, high):
    env = AliceAndBob(**params)
    played = jax.tree.map(np.asarray, play(jax.random.key(3), env, batch, steps, low, high))
    (state, start), actions, (_, after) = played
    wins = cuts = 0
    for b in range(batch):
        game = Episode(state.position[b], env.grid_size, env.num_pairs, env.episode_length)
        assert_shows(game, env, jax.tree.map(lambda leaf, b=b: leaf[b], start))
        for t in range(steps):
            reward, terminated, truncated = game.step(actions[t, b].tolist())
            timestep = jax.tree.map(lambda leaf, t=t, b=b: leaf[t, b], after)
            assert outcome(timestep) == (reward, terminated, truncated)
            assert_shows(game, env, timestep)
            wins, cuts = wins + reward[0], cuts + truncated
    assert cuts > 0
    assert wins > 3 or params == PUBLISHED  # which random agents hardly ever win


# --- by hand, on the published grid ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world():
    """The published world and its compiled step; most tests share this one program."""
    env = AliceAndBob()
    return env, jax.jit(env.step)


def follow(world, start, moves, **changes):
    """Return the TimeSteps after each joint action, from the cells the agents start on."""
    env, step = world
    state, _ = env.reset(jax.random.key(0), ())
    state = state.replace(position=jnp.asarray(start, jnp.int8), **changes)
    seen = []
    for move in moves:
        state, timestep = step(jax.random.key(1), state, jnp.asarray(move), ())
        seen.append(timestep)
    return seen


def rows(timestep, size=10):
    """The global state as one text per row."""
    return ["".join(map(str, row)) for row in np.asarray(timestep.global_state).reshape(size, size).tolist()]


def draw(*rows_one, rows_eight, rest="1000000001"):
    """The grid whose first and eighth row are given, as `rows` returns it."""
    return ["1" * 10, *rows_one, *[rest] * (7 - len(rows_one)), rows_eight, "1" * 10]


def test_the_shortest_way_to_both_diamonds(world):
    (start,) = follow(world, [(2, 8), (8, 2)], [(STAY, STAY)])
    assert rows(start) == draw("1500000041", "1000000021", rows_eight="1630000071")
    won = follow(world, [(2, 8), (8, 2)], [(UP, LEFT)] + 7 * [(LEFT, RIGHT)] + [(STAY, STAY)])
    first, last, after = won[0], won[7], won[8]
    assert rows(first) == draw("1500000021", rows_eight="1300000071")  # Alice on button 0, Bob on its diamond
    assert first.observation.tolist() == [[1, 1, 1, 0, 2, 1, 0, 0, 1, 1, 8], [1, 0, 0, 1, 3, 0, 1, 1, 1, 8, 1]]
    assert (first.metrics["diamond_0"], first.metrics["diamond_1"], first.metrics["success"]) == (1, 0, 0)
    assert [outcome(timestep) for timestep in won[:7]] == 7 * [([0.0, 0.0], False, False)]
    assert outcome(last) == ([1.0, 1.0], True, False)
    assert rows(last) == draw("1200000041", rows_eight="1000000031")
    assert (last.metrics["diamond_0"], last.metrics["diamond_1"], last.metrics["success"]) == (1, 1, 1)
    assert outcome(after) == ([0.0, 0.0], True, False)  # paid once


def test_roles_are_free_and_order_too(world):
    won = follow(world, [(8, 7), (1, 2)], [(RIGHT, LEFT)] + 7 * [(LEFT, RIGHT)])
    assert [timestep.metrics["diamond_1"].item() for timestep in won] == 8 * [1.0]
    assert [timestep.metrics["diamond_0"].item() for timestep in won] == 7 * [0.0] + [1.0]
    assert outcome(won[-1]) == ([1.0, 1.0], True, False)


@pytest.mark.parametrize(
    ("start", "moves"),
    [
        (((2, 8), (8, 1)), [(UP, UP), (DOWN, DOWN)]),  # Bob leaves diamond 0 as Alice steps on its button, and back
        (((1, 8), (8, 8)), [(STAY, STAY)]),  # button 0, diamond 1
        (((1, 8), (1, 1)), [(STAY, STAY)]),  # both buttons
        (((8, 1), (8, 8)), [(STAY, STAY)]),  # both diamonds
    ],
)
def test_a_diamond_needs_its_own_button_in_the_same_step(world, start, moves):
    for timestep in follow(world, start, moves):
        assert timestep.metrics["diamond_0"] == timestep.metrics["diamond_1"] == 0 and not timestep.reward.any()


@pytest.mark.parametrize(("move", "place"), [(0, (4, 5)), (1, (4, 3)), (2, (3, 4)), (3, (5, 4)), (4, (4, 4))], ids=str)
def test_moves(world, move, place):
    (timestep,) = follow(world, [(4, 4), (6, 6)], [(move, STAY)])
    assert timestep.observation[:, 9:].tolist() == [[*place], [6, 6]]


@pytest.mark.parametrize(("move", "corner"), [(RIGHT, (1, 8)), (LEFT, (8, 1)), (UP, (1, 1)), (DOWN, (8, 8))])
def test_walls_block(world, move, corner):
    (timestep,) = follow(world, [(5, 5), corner], [(STAY, move)])
    assert timestep.observation[1, 9:].tolist() == [*corner]


def test_agents_share_cells_and_bob_shows(world):
    together, apart, swapped = follow(world, [(4, 4), (4, 6)], [(RIGHT, LEFT), (LEFT, STAY), (RIGHT, LEFT)])
    assert together.observation.tolist() == 2 * [[0, 0, 0, 0, 3, 0, 0, 0, 0, 4, 5]]
    # Alice leaves and Bob, who stays, is still drawn.
    assert apart.observation.tolist() == [
        [0, 0, 0, 0, 2, 3, 0, 0, 0, 4, 4], [0, 0, 0, 2, 3, 0, 0, 0, 0, 4, 5]
    ]  # fmt: skip
    assert swapped.observation[:, 9:].tolist() == [[4, 5], [4, 4]]


def test_the_last_step_may_win_or_cut(world):
    (won,) = follow(
        world, [(1, 2), (8, 7)], [(LEFT, RIGHT)], collected=jnp.array([True, False]), time=jnp.int32(99)
    )  # fmt: skip
    assert outcome(won) == ([1.0, 1.0], True, False)
    early, cut = follow(world, [(1, 2), (8, 7)], 2 * [(STAY, STAY)], time=jnp.int32(98))
    assert outcome(early) == ([0.0, 0.0], False, False) and outcome(cut) == ([0.0, 0.0], False, True)


@pytest.mark.parametrize("wrong", [-1, 5, 2**31 - 1, -(2**31), np.nan, np.inf, 2.5, -0.5], ids=str)
def test_anything_else_is_to_stay_and_is_counted(world, wrong):
    kind = jnp.float32 if isinstance(wrong, float) else jnp.int32
    moves = [jnp.array([wrong, RIGHT], kind), jnp.array([wrong, wrong], kind)]
    once, again = follow(world, [(4, 4), (6, 6)], moves)
    assert once.observation[:, 9:].tolist() == again.observation[:, 9:].tolist() == [[4, 4], [6, 7]]
    assert (once.metrics["invalid_actions"], again.metrics["invalid_actions"]) == (1, 3)


def test_other_grids_spread_the_buttons_and_mirror_the_diamonds():
    env = AliceAndBob(grid_size=7, num_pairs=3)
    state, _ = env.reset(jax.random.key(0), ())
    _, timestep = env.step(
        jax.random.key(1), state.replace(position=jnp.array([[3, 3], [3, 4]], jnp.int8)), jnp.array([STAY, STAY]), ()
    )  # fmt: skip
    assert rows(timestep, 7) == ["1111111", "1605041", "1000001", "1002301", "1000001", "1708091", "1111111"]


# --- chances --------------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames=("env", "episodes"))
def random_episodes(key, env, episodes):
    """Return what random agents collected `[episodes, pairs]` and earned `[episodes, A]` by the end of an episode."""
    reset_key, action_key = jax.random.split(key)
    state, _ = jax.vmap(env.reset, (0, None))(jax.random.split(reset_key, episodes), ())

    def step(carry, key):
        state, earned = carry
        actions = jax.random.randint(key, (episodes, env.num_agents), 0, 5)
        state, timestep = jax.vmap(env.step, (None, 0, 0, None))(key, state, actions, ())
        return (state, earned + timestep.reward), None

    earned = jnp.zeros((episodes, env.num_agents))
    (state, earned), _ = jax.lax.scan(step, (state, earned), jax.random.split(action_key, env.episode_length))
    return state.collected, earned


def test_the_exact_chances_agree_with_the_published_ones():
    """Measured on the original over 200,000 random episodes: each diamond 2.4 %, either 4.7 %, both 0.025 %."""
    chance = random_team()
    exact = np.array([chance[1].sum(), chance[:, 1].sum(), 1 - chance[0, 0], chance[1, 1]])
    rounding = np.array([5e-4, 5e-4, 5e-4, 5e-6])
    error = np.sqrt(exact * (1 - exact) / 200_000)
    assert (np.abs(exact - [0.024, 0.024, 0.047, 0.00025]) <= rounding + 2 * error).all()


def test_a_random_team_collects_as_often_as_it_must():
    collected, earned = random_episodes(jax.random.key(2), AliceAndBob(grid_size=5, episode_length=30), 8009)
    counts = np.zeros((2, 2))
    np.add.at(counts, tuple(np.asarray(collected, int).T), 1)
    expected = 8009 * random_team(5, 2, 30)
    assert scipy.stats.chisquare(counts.ravel(), expected.ravel(), sum_check=False).pvalue > 0.01
    np.testing.assert_array_equal(earned, np.repeat(collected.all(axis=1, keepdims=True), 2, axis=1))


@pytest.mark.slow
def test_a_random_team_wins_the_published_task_once_in_four_thousand():
    """Half a million episodes: about 120 ± 11 wins, where 0.0229 % is exact and 0.025 % ± 0.0035 % was published."""
    many = jax.jit(lambda keys: jax.lax.map(lambda key: random_episodes(key, AliceAndBob(), 2**13)[0], keys))
    collected = np.asarray(many(jax.random.split(jax.random.key(5), 64))).reshape(-1, 2)
    chance = random_team()
    wins, total = int(collected.all(axis=1).sum()), len(collected)
    assert scipy.stats.binomtest(wins, total, chance[1, 1]).pvalue > 0.01
    for diamond in collected.T:
        assert scipy.stats.binomtest(int(diamond.sum()), total, chance[1].sum()).pvalue > 0.01
    # Against the measurement on the original (50 wins in 200,000): given all wins, each is ours in proportion.
    assert scipy.stats.binomtest(wins, wins + 50, total / (total + 200_000)).pvalue > 0.01


@pytest.mark.parametrize("params", [{"grid_size": 5}, TINY], ids=["two on nine cells", "four on four cells"])
def test_every_start_is_equally_likely(params):
    env = AliceAndBob(**params)
    starts = jax.jit(jax.vmap(lambda key: env.reset(key, ())[0].position))(jax.random.split(jax.random.key(6), 7207))
    inside, agents = env.grid_size - 2, env.num_agents
    places = (np.asarray(starts, int) - 1) @ [inside, 1]  # [starts, A]
    counts = np.zeros([inside**2] * agents)
    np.add.at(counts, tuple(places.T), 1)
    indices = np.indices(counts.shape).reshape(agents, -1)
    distinct = np.array([len(set(cells)) == agents for cells in indices.T]).reshape(counts.shape)
    assert not counts[~distinct].any() and counts.sum() == 7207
    assert scipy.stats.chisquare(counts[distinct]).pvalue > 0.01


# --- the contract ---------------------------------------------------------------------------------------------------


def test_jit_equals_no_jit_batch_equals_loop_and_no_key_is_used_twice(world):
    env, compiled = world
    keys = jax.random.split(jax.random.key(5), 2 * 3)
    actions = jnp.array([[0, 3], [2, 4], [1, 9]])
    with jax.debug_key_reuse(True):
        state, start = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys[:3], ())
        _, batched = jax.jit(jax.vmap(env.step, in_axes=(0, 0, 0, None)))(keys[3:], state, actions, ())
    copies = jax.random.split(jax.random.key(5), 2 * 3)
    for index in range(3):
        own_state, own_start = env.reset(copies[index], ())
        _, own = env.step(copies[3 + index], own_state, actions[index], ())
        _, jitted = compiled(copies[3 + index], own_state, actions[index], ())
        jax.tree.map(lambda a, b, i=index: np.testing.assert_array_equal(a, b[i]), (own_start, own), (start, batched))
        jax.tree.map(np.testing.assert_array_equal, own, jitted)


@pytest.mark.parametrize("params", [PUBLISHED, MANY_PAIRS], ids=["published", "many pairs"])
def test_the_world_is_what_its_spec_says(params):
    env = AliceAndBob(**params)
    spec = env.spec
    assert (spec.name, spec.num_agents, spec.time_limit) == ("alice_and_bob", env.num_agents, env.episode_length)
    assert spec.action == Discrete(5) and not spec.masks_actions
    (_, start), _, (_, after) = play(jax.random.key(3), env, 29, 37)
    for timestep in (start, after):
        assert set(timestep.metrics) == set(spec.metric_names) and timestep.action_mask is None
        for values, space, axes in (
            (timestep.observation, spec.observation, (env.num_agents, 11)),
            (timestep.global_state, spec.global_state, (env.grid_size**2,)),
        ):
            assert values.dtype == np.dtype(space.dtype) == np.uint8 and values.shape[-len(axes) :] == axes
            flat = np.asarray(values).reshape(-1, len(space.low))
            assert (flat >= space.low).all() and (flat <= space.high).all()
    highest = env.num_agents + 2 * env.num_pairs + 1
    assert np.asarray(start.global_state).max() == highest == spec.global_state.high[0]
    assert not np.asarray(start.reward).any() and not np.asarray(start.done).any()


def test_types_and_shapes_stay_and_finished_episodes_begin_anew():
    env = AliceAndBob(grid_size=4, episode_length=7)
    vector = VectorEnv(env, 13)
    state = vector.reset(jax.random.key(0), ())
    fresh = vector.fresh(jax.random.key(1), ())

    def step(carry, key):  # `scan` refuses a carry whose types or shapes change
        action_key, step_key = jax.random.split(key)
        actions = jax.random.randint(action_key, (13, 2), 0, 5)
        state, fresh, after, episodes = vector.step(jax.random.split(step_key, 13), *carry[:1], actions, (), carry[1])
        return (state, fresh), (after, episodes, state.timestep)

    _, (after, episodes, shown) = jax.jit(lambda c: jax.lax.scan(step, c, jax.random.split(jax.random.key(2), 101)))(
        (state, fresh)
    )  # fmt: skip
    ended, length = np.asarray(episodes.ended), np.asarray(episodes.episode_length)
    won = np.asarray(after.terminated)
    assert won.any() and np.asarray(after.truncated).any()
    assert (length[np.asarray(after.truncated)] == 7).all() and (length[ended] <= 7).all()
    np.testing.assert_array_equal(np.asarray(episodes.episode_return)[ended], won[ended])
    np.testing.assert_array_equal(np.asarray(episodes.metrics["success"])[ended], won[ended])
    # The true final grid shows no diamond (6, 7) where the team won; the fresh one shows a new game.
    assert (np.asarray(after.global_state)[won] <= 5).all()
    assert (np.asarray(shown.observation)[ended] != np.asarray(after.observation)[ended]).any(axis=(1, 2)).mean() > 0.8


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("grid_size", 3, "from 4 to 64"), ("grid_size", 65, "from 4 to 64"),
        ("num_pairs", 0, "from 1 to 8"), ("num_pairs", 9, "from 1 to 8"), ("num_pairs", True, "from 1 to 8"),
        ("num_agents", 1, "from 2 to 64"), ("num_agents", 65, "from 2 to 64"), ("episode_length", 0, "from 1 to"),
    ],
)  # fmt: skip
def test_parameters_out_of_range_are_named(field, value, allowed):
    with pytest.raises(ValueError, match=f"^{field} must be a whole number {allowed}.*, not {value}$"):
        AliceAndBob(**{field: value})


def test_no_more_agents_than_cells():
    assert AliceAndBob(**TINY).num_agents == 4
    with pytest.raises(ValueError, match=r"^num_agents must be a whole number from 2 to 4, not 5$"):
        AliceAndBob(grid_size=4, num_agents=5)
    with pytest.raises(ValueError, match=r"^num_pairs must be a whole number from 1 to 2, not 3$"):
        AliceAndBob(grid_size=4, num_pairs=3)
