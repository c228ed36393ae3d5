"""No two workers begin alike: keys, first observations and first actions are compared row by row, bit by bit."""

import dataclasses
import logging
import re

import jax
import numpy as np
import pytest
from engine_cli import SMALL, run

from jaxrl_engine.modes import first_actions as room
from jaxrl_engine.modes.actor_learner.program import AsyncProgram
from jaxrl_engine.modes.build import build
from jaxrl_engine.modes.first_actions import first_actions, hexadecimal, tell, tell_runs
from jaxrl_engine.modes.programs import make_program
from jaxrl_engine.runtime.config import parse
from jaxrl_engine.runtime.logs import LOGGER_NAME

SIZES = "--env reacher --env-params episode_length=3 --num-steps 2 --network.hidden-sizes 5 --ppo.num-minibatches 1"
SYNC = f"{SIZES} --num-envs 17 --total-steps 34"
ASYNC = (
    f"{SIZES} --mode async --num-envs 15 --num-workers 3 --batch-size 20 --min-buffer-size 10 --num-epochs 1 "
    "--total-steps 100"
)
WORKERS, EACH = 3, 5


def built_of(options, seed):
    return build(parse([*options.split(), "--seed", str(seed)]).config)


def rows(array, leading):
    """The bits of each row of an array whose first `leading` axes tell rows apart."""
    array = np.asarray(array)
    return [row.tobytes() for row in array.reshape(-1, *array.shape[leading:])]


def assert_different(*groups):
    """No row is like another, in the same group or in another."""
    everything = [row for group in groups for row in group]
    assert len(set(everything)) == len(everything)


# --- the sync mode --------------------------------------------------------------------------------------------------


def begun(seed, options=""):
    """What the environments of a run see first and will do first, `[rows, …]`."""
    built = built_of(f"{SYNC} {options}", seed)
    program = make_program(built)
    state = program.init(built.keys, built.hyper)
    axes = 1 if built.num_runs is None else 2
    seen = state.actor.vector.timestep.observation
    return rows(seen, axes), rows(jax.jit(lambda state: first_actions(program, state))(state), axes)


def test_environments_differ_stay_the_same_under_a_seed_and_change_with_it():
    for one, same, changed in zip(begun(3), begun(3), begun(4), strict=True):
        assert len(one) == 17
        assert same == one
        assert_different(one, changed)


def test_environments_of_seeds_trained_together_differ():
    for both in begun(3, "--num-seeds 2"):
        assert len(both) == 34
        assert_different(both)


@dataclasses.dataclass
class Recorder:
    """An algorithm that shows the trajectories it learns from."""

    inner: object
    seen: list

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def update(self, train_state, trajectory, key):
        jax.debug.callback(self.seen.append, trajectory.transitions.action[0])
        return self.inner.update(train_state, trajectory, key)


def test_the_first_actions_are_those_of_the_run():
    built, seen = built_of(SYNC, 3), []
    program = make_program(built)
    trainer = dataclasses.replace(program.trainer, algorithm=Recorder(program.trainer.algorithm, seen))
    program = dataclasses.replace(program, trainer=trainer)
    state = program.init(built.keys, built.hyper)
    chunk = jax.jit(program.run_chunk)
    for _ in range(2):  # at the start, and wherever else a run is told of
        foretold = np.asarray(first_actions(program, state))
        state, _ = chunk(state, 1)
        jax.effects_barrier()
        np.testing.assert_allclose(seen[-1], foretold, rtol=1e-5, atol=1e-6)
    assert np.abs(seen[0] - seen[1]).min() > 0


# --- the async mode -------------------------------------------------------------------------------------------------


def delivered(seed, options=""):
    """The key, the first observations and the first actions of every actor's first rollout, from its own thread."""
    built = built_of(f"{ASYNC} {options}", seed)
    program = AsyncProgram(built)
    state = program.init(built.keys, built.hyper)
    program.source.compile(state.train_state.replace(optimizer=None))
    program._publish = lambda behaviour: behaviour
    running, first = program._begin(state), {}
    try:
        while len(first) < WORKERS:
            message = running.next(oldest=-1)
            if message is not None:
                first.setdefault(message.actor, message)
    finally:
        program.close()
    messages = [first[actor] for actor in range(WORKERS)]
    assert {(message.generation, message.number) for message in messages} == {(0, 0)}
    keys = [hexadecimal(program._key(m.actor, m.generation, m.number)) for m in messages]
    chunks = [message.collected.chunks for message in messages]
    seen = [row for chunk in chunks for row in rows(chunk.observation[:, 0], 1)]
    done = [row for chunk in chunks for row in rows(chunk.action[:, 0], 1)]
    assert len(seen) == len(done) == WORKERS * EACH
    return keys, seen, done


@pytest.mark.parametrize("options", ["", pytest.param("--lockstep", marks=pytest.mark.slow)])
def test_actors_and_their_environments_differ_stay_the_same_under_a_seed_and_change_with_it(options):
    of_one, again, of_another = delivered(3, options), delivered(3, options), delivered(4, options)
    for one, same, changed in zip(of_one, again, of_another, strict=True):
        assert same == one
        assert_different(one, changed)


def test_no_two_rollouts_share_a_key():
    """Of any actors, generations and numbers, those of first episodes included, under two seeds."""
    keys = []
    for seed in (3, 4):
        program = AsyncProgram(built_of(ASYNC, seed))
        numbers = (*range(7), 2**30, 2**31 - 1)
        keys += [program._key(a, g, n) for a in range(WORKERS) for g in range(3) for n in numbers]
    assert_different(map(hexadecimal, keys))


# --- what is told ---------------------------------------------------------------------------------------------------


@pytest.fixture
def told(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger(LOGGER_NAME), "propagate", True)
    caplog.set_level(logging.DEBUG, LOGGER_NAME)
    return caplog


def test_a_line_tells_the_key_and_sixteen_environments(told):
    tell("actor 2", jax.random.key(0x12AB), np.arange(34.0).reshape(17, 1, 2) / 4)
    (record,) = told.records
    start = "actor 2: key 00000000000012ab, first actions of 16 of 17 environments: 0,0.25 | 0.5,0.75 | 1,1.25 | "
    assert record.getMessage().startswith(start)
    assert record.getMessage().endswith(" | 7.5,7.75")


def test_nothing_is_computed_for_nobody(told, monkeypatch):
    built = built_of(SYNC, 3)
    program = make_program(built)
    state = jax.eval_shape(program.init, built.keys, built.hyper)

    def asked(*_):
        raise AssertionError("computed")

    monkeypatch.setattr(room, "first_actions", asked)
    told.set_level(logging.INFO, LOGGER_NAME)
    tell_runs(built, program, state)
    told.set_level(logging.DEBUG, LOGGER_NAME)
    with pytest.raises(AssertionError, match="computed"):
        tell_runs(built, program, state)


LINE = re.compile(
    r"^debug: (.+): key ([0-9a-f]{16}), first actions of (\d+) of (\d+) environments: (.+)$", re.MULTILINE
)


@pytest.mark.slow
def test_a_run_tells_its_seeds_and_environments(tmp_path):
    options = ("--num-envs", 20, "--total-steps", 320, "--num-seeds", 3, "--log-level", "debug")
    done = run(*SMALL, *options, "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    names, keys, shown, count, actions = zip(*LINE.findall(done.stderr), strict=True)
    assert names == ("seed 0", "seed 1", "seed 2")
    assert len(set(keys)) == 3
    assert set(shown) == {"16"} and set(count) == {"20"}
    assert {len(line.split(" | ")) for line in actions} == {16}
    assert len(set(actions)) == 3


@pytest.mark.slow
def test_an_async_run_tells_its_actors(tmp_path):
    sizes = "--num-envs 12 --num-workers 3 --num-steps 8 --batch-size 64 --min-buffer-size 64 --total-steps 6400"
    done = run(
        "--mode", "async", *SMALL, *sizes.split(), "--ppo.num-minibatches", 1, "--log-level", "debug",
        "--run-dir", tmp_path / "run", timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names, keys, shown, count, _ = zip(*LINE.findall(done.stderr), strict=True)
    assert sorted(names) == ["actor 0", "actor 1", "actor 2"]
    assert len(set(keys)) == 3
    assert set(shown) == set(count) == {"4"}
