"""Host worlds behind the same interface: a collector against Gymnasium stepped by hand, evaluation, whole runs."""

import gymnasium
import jax
import numpy as np
import pytest
from host_sources import compiled_source

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.modes.actor_learner.collector import Collector, Source
from jaxrl_engine.modes.actor_learner.program import AsyncProgram
from jaxrl_engine.modes.build import build
from jaxrl_engine.modes.host_evaluate import HostEvaluation
from jaxrl_engine.runtime.config import parse

ENVS, STEPS, LIMIT = 3, 13, 11
WORLD = f"--mode async --env gymnasium:CartPole-v1 --env-params max_episode_steps={LIMIT}"
SIZES = (
    f"{WORLD} --num-envs 6 --num-workers 2 --num-steps {STEPS} --batch-size {STEPS * 12} --min-buffer-size 20 "
    "--num-epochs 1 --ppo.num-minibatches 1 --network.hidden-sizes 7 --total-steps 2000 --buffer-capacity 500 "
    "--logging.every-updates 1"
)


@pytest.fixture(scope="module")
def source():
    """A compiled source, and parameters to act with."""
    return compiled_source(SIZES, ENVS, STEPS)


@pytest.fixture
def collector(source):
    made = source[0].begin(jax.random.key(5))
    yield made
    made.close()
    made.close()


def test_it_is_what_the_interface_says(source, collector):
    assert isinstance(source[0], Source) and isinstance(collector, Collector)
    collected = collector.collect(source[1], jax.random.key(1))
    example = source[0].example(source[1])
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (collected.chunks, example))
    assert shapes[0] == shapes[1]


def test_what_is_collected_is_gymnasium_stepped_with_the_same_actions(source, collector):
    """Two rollouts on end, episodes cut after 11 steps and by the fall of the pole."""
    first = np.asarray(collector._seen.observation)
    rollouts = [collector.collect(source[1], jax.random.key(number)) for number in range(2)]
    seed = int(jax.random.randint(jax.random.key(5), (), 0, 2**31 - 2**16))
    for index in range(ENVS):
        env = gymnasium.make("CartPole-v1", max_episode_steps=LIMIT)
        seen, _ = env.reset(seed=seed + index)
        np.testing.assert_array_equal(first[index, 0], seen)
        length, cuts = 0, 0
        for rollout in rollouts:
            chunk = jax.tree.map(lambda leaf, i=index: np.asarray(leaf[i]), rollout.chunks)
            for t in range(STEPS):
                np.testing.assert_array_equal(chunk.observation[t, 0], seen)
                seen, reward, terminated, truncated, _ = env.step(int(chunk.action[t, 0]))
                length += 1
                assert (chunk.reward[t, 0], chunk.terminated[t], chunk.truncated[t]) == (reward, terminated, truncated)
                ended = rollout.episodes
                assert ended.ended[t, index] == (terminated or truncated)
                assert (ended.episode_length[t, index], ended.episode_return[t, index]) == (length, length)
                if truncated and chunk.valid[t]:
                    np.testing.assert_array_equal(chunk.cut_observation[0], seen)
                    cuts += 1
                if terminated or truncated:
                    length = 0
                    seen, _ = env.reset()
            np.testing.assert_array_equal(chunk.observation[STEPS, 0], seen)
        env.close()
        assert cuts or index


def test_actors_begin_differently_and_draw_differently(source):
    made, behaviour = source
    collectors = [made.begin(jax.random.key(seed)) for seed in (1, 2, 1)]
    rollouts = [each.collect(behaviour, jax.random.key(9)) for each in collectors]
    for each in collectors:
        each.close()
    a, b, again = (np.asarray(rollout.chunks.observation) for rollout in rollouts)
    assert not np.array_equal(a, b)
    np.testing.assert_array_equal(a, again)
    actions = np.asarray(rollouts[0].chunks.action)
    assert len({actions[index].tobytes() for index in range(ENVS)}) == ENVS


def test_random_play_lasts_as_long_as_it_does_in_gymnasium():
    """Uniform actions hold the pole for about 22 steps; an episode of each environment counts, no more."""
    built = build(parse(["--mode", "async", "--env", "gymnasium:CartPole-v1", "--network.hidden-sizes", "7"]).config)
    evaluation = HostEvaluation(built.algorithm, built.env, 150, 10_000)
    train_state = jax.jit(built.algorithm.init)(jax.random.key(0), built.hyper)
    evaluation.compile(train_state)
    results = evaluation(train_state, jax.random.key(3), uniform=True)
    np.testing.assert_array_equal(results.episode_return, results.episode_length)
    assert not results.cut.any()
    rng, lengths = np.random.default_rng(0), []
    env = gymnasium.make("CartPole-v1")
    for episode in range(400):
        env.reset(seed=episode)
        done, length = False, 0
        while not done:
            _, _, terminated, truncated, _ = env.step(int(rng.integers(2)))
            done, length = terminated or truncated, length + 1
        lengths.append(length)
    error = np.std(lengths) * np.sqrt(1 / 150 + 1 / 400)
    assert abs(results.episode_length.mean() - np.mean(lengths)) < 4 * error


def test_episodes_are_cut_at_the_limit():
    built = build(parse(SIZES.split()).config)
    evaluation = HostEvaluation(built.algorithm, built.env, 2, 3)
    train_state = jax.jit(built.algorithm.init)(jax.random.key(0), built.hyper)
    evaluation.compile(train_state)
    results = evaluation(train_state, jax.random.key(3), uniform=False)
    np.testing.assert_array_equal(results.episode_length, [3, 3])
    assert results.cut.all()


def test_the_program_runs_on_host_worlds():
    program = AsyncProgram(build(parse(SIZES.split()).config))
    try:
        state = program.init(jax.random.key(0), program.hyper)
        state, rows = program.compile(state)(state, 6)
        assert state.updates == 6 and rows.count == 6
        assert np.nanmax(rows.values["Charts/EpisodeLength"]) <= LIMIT
        assert np.asarray(rows.values["Async/LagMax"])[:6].max() <= 64
    finally:
        assert program.close() == []


def test_what_host_worlds_cannot_do_is_said():
    with pytest.raises(UserError, match="stepped from Python, which only --mode async does"):
        build(parse(["--env", "gymnasium:CartPole-v1"]).config)
    with pytest.raises(UserError, match=r"actors\.lockstep must be false with gymnasium:CartPole-v1"):
        AsyncProgram(build(parse([*SIZES.split(), "--lockstep"]).config))
    with pytest.raises(UserError, match="CartPole-v1"):
        build(parse(["--mode", "async", "--env", "gymnasium:CartPoll-v1"]).config)
