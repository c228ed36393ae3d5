"""The async program on a small world: what it promises of lag, counting, order, stopping and saving."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.modes.actor_learner import program as room
from jaxrl_engine.modes.actor_learner.collector import Collector, JaxCollector
from jaxrl_engine.modes.actor_learner.program import AsyncProgram
from jaxrl_engine.modes.build import build
from jaxrl_engine.runtime.config import parse
from jaxrl_engine.runtime.errors import RunError

SIZES = (
    "--mode async --env probe:policy --num-envs 6 --num-workers 3 --num-steps 4 --batch-size 48 --min-buffer-size 16 "
    "--num-epochs 1 --ppo.num-minibatches 1 --network.hidden-sizes 7 --total-steps 4800 --buffer-capacity 400 "
    "--logging.every-updates 2 --actors.mailbox 2"
)
WORKERS, NEW = 3, 6  # chunks that are new in an update: 24 of 48 steps


@pytest.fixture
def program():
    """Programs made by their options; all are closed, and no actor may be left."""
    made = []

    def make(options=""):
        one = AsyncProgram(build(parse(f"{SIZES} {options}".split()).config))
        state = one.init(jax.random.key(0), one.hyper)
        made.append(one)
        return one, state, one.compile(state)

    yield make
    for one in made:
        assert one.close() == []


def bits(tree):
    leaves = jax.tree.leaves(tree)
    return [np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x) for x in leaves]


def saved(state):
    """All but the row of metrics under way, part of which is seconds."""
    return bits((state.learner, state.lockstep))


def row(rows, name):
    return np.asarray(rows.values[name])[: int(rows.count)]


def test_every_new_chunk_is_learned_from_once_and_counted(program):
    one, state, chunk = program("--lockstep")
    taken = []
    learn = one._learn
    one._learn = lambda state, chunks: (taken.append(chunks), learn(state, chunks))[1]
    state, rows = chunk(state, 5)
    assert one.config.samples_per_update == NEW * 4
    assert state.updates == 5 and state.train_state.policy_version == 5 and state.learner.replay.size == 5 * NEW
    assert rows.count == 2 and rows.updates_done == 5
    np.testing.assert_array_equal(np.asarray(rows.updates)[:2], [2, 4])
    seen = [np.asarray(rollout.log_prob).tobytes() for chunks in taken for rollout in chunks]
    assert len(set(seen)) == len(seen) == 5 * NEW // 2


def test_lockstep_is_one_update_behind_and_the_same_however_it_is_cut(program):
    """With two tickets each, the rollouts of an update were begun when the one before the last had been done."""
    one, state, chunk = program("--lockstep")
    versions = []
    learn = one._learn
    one._learn = lambda state, chunks: (
        versions.append([int(c.policy_version[0]) for c in chunks]),
        learn(state, chunks),
    )[1]
    state, _ = chunk(state, 4)
    whole, _ = chunk(state, 3)
    assert versions == [[max(update - 1, 0)] * WORKERS for update in range(7)]
    _, begun, again = program("--lockstep")
    for length in (1, 1, 3, 2):
        begun, _ = again(begun, length)
    for a, b in zip(saved(whole), saved(begun), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_saved_lockstep_state_goes_on_to_the_bit(program):
    _, state, chunk = program("--lockstep")
    state, _ = chunk(state, 3)
    kept = jax.tree.map(jnp.copy, state)
    expected, _ = chunk(state, 4)
    _, _, elsewhere = program("--lockstep")
    found, _ = elsewhere(kept, 4)
    for a, b in zip(saved(expected), saved(found), strict=True):
        np.testing.assert_array_equal(a, b)


def test_nothing_older_than_the_cap_is_learned_from(program):
    _, state, chunk = program("--impact.max-lag 3 --logging.every-updates 1")
    worst = []
    for _ in range(10):
        state, rows = chunk(state, 20)
        worst += row(rows, "Async/LagMax").tolist()
    assert len(worst) == 200 and max(worst) <= 3
    assert row(rows, "Async/ActorsAlive").min() == WORKERS


def test_actors_draw_differently_and_alike_in_every_run(program):
    drawn = []
    for _ in range(2):
        _, state, _ = program("--lockstep")
        drawn.append([np.asarray(rollout.chunks.action) for waiting in state.lockstep.mail for rollout in waiting])
    for a, b in zip(*drawn, strict=True):
        np.testing.assert_array_equal(a, b)
    different = {each.tobytes() for each in drawn[0]}
    assert len(different) == WORKERS * 2


def test_a_signal_ends_the_wait_for_actors(program, monkeypatch):
    one, state, chunk = program()
    monkeypatch.setattr(JaxCollector, "collect", lambda self, behaviour, key: one_that_never_comes(one))
    one.interrupted = lambda: True
    after, rows = chunk(state, 5)
    assert after.updates == 0 and rows.count == 0


def one_that_never_comes(one):
    one._running.supervisor.stopping.wait(20.0)
    raise RuntimeError("stopped")


def test_when_actors_break_too_often_the_state_is_kept_and_the_cause_told(program, monkeypatch):
    one, state, chunk = program("--actors.failure fail")
    state, _ = chunk(state, 2)
    original = JaxCollector.collect

    def collect(self, behaviour, key):
        if behaviour.policy_version >= 3:
            raise OSError("the game is gone")
        return original(self, behaviour, key)

    monkeypatch.setattr(JaxCollector, "collect", collect)
    state, _ = chunk(state, 100)
    assert 3 <= int(state.updates) < 102
    assert "OSError: the game is gone" in one.broken()
    assert all(np.isfinite(leaf).all() for leaf in bits(state.train_state.params))


def test_in_lockstep_a_broken_actor_ends_the_run(program, monkeypatch):
    _, state, chunk = program("--lockstep")
    monkeypatch.setattr(JaxCollector, "collect", lambda self, behaviour, key: 1 / 0)
    with pytest.raises(RunError, match="ZeroDivisionError"):
        chunk(state, 5)


def test_large_replay_is_not_saved_unless_asked_for(program, monkeypatch):
    one, state, _ = program()
    assert one.saved(state) is state
    monkeypatch.setattr(room, "SMALL_REPLAY", 10)
    small = one.saved(state)
    assert small.learner.replay is None
    restored = one.whole(small)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), restored) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )
    always, kept, _ = program("--checkpoint.replay always")
    assert always.saved(kept) is kept
    never, dropped, _ = program("--checkpoint.replay never")
    monkeypatch.setattr(room, "SMALL_REPLAY", 2**28)
    assert never.saved(dropped).learner.replay is None


def test_a_collector_is_what_the_interface_says(program):
    one, state, _ = program()
    collector = one.source.begin(jax.random.key(1))
    assert isinstance(collector, Collector)
    behaviour = state.train_state.replace(optimizer=None)
    begun = collector.state
    first = collector.collect(behaviour, jax.random.key(2))
    assert first.chunks.valid.shape == (2, 4) and first.episodes.ended.shape == (4, 2)
    collector.state = begun
    again = collector.collect(behaviour, jax.random.key(2))
    for a, b in zip(bits(first), bits(again), strict=True):
        np.testing.assert_array_equal(a, b)
    collector.close()
    collector.close()
