"""Processes that step worlds: whatever happens to one, the run hears of it in time, and none stays behind."""

import os
import signal
import time

import numpy as np
import pytest
from fake_host_worlds import Counter

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.core.spaces import Box, MultiDiscrete
from jaxrl_engine.envs.host import wire
from jaxrl_engine.envs.host.protocol import HostWorldError
from jaxrl_engine.envs.host.simulator import Facts
from jaxrl_engine.envs.host.workers import Workers
from jaxrl_engine.envs.host.world import HostWorld

COPIES, PROCESSES = 5, 2  # shares of 3 and 2


def start(name="counter", seconds=30.0, num_envs=COPIES, processes=PROCESSES, **values):
    return Workers(f"fake:{name}", "fake_host_worlds", num_envs, processes, seconds, values)


def play(workers, action):
    return workers.step(np.full((workers.num_envs, 1), action, np.int32))


def ended(pids):
    """Whether no process is left: each of them was waited for, so that its id is free."""

    def gone(pid):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    return all(map(gone, pids))


@pytest.fixture(scope="module")
def sound():
    workers = start()
    yield workers
    workers.close()


def test_copies_spread_over_processes_are_the_copies_of_one(sound):
    alone = Counter(COPIES)
    shown, told = sound.reset(11), alone.reset(11)
    pids = shown["observation"][:, 0, 2]
    assert len(set(pids)) == PROCESSES and sorted(set(pids)) == sorted(sound.pids)
    assert (pids[:3] == pids[0]).all() and (pids[3:] == pids[3]).all()
    np.testing.assert_array_equal(shown["observation"][..., :2], told["observation"][..., :2])
    for action in range(6):
        actions = (action + np.arange(COPIES, dtype=np.int32)[:, None]) % 6
        shown, told = sound.step(actions), alone.step(actions)
        assert shown.keys() == told.keys()
        for name in told:
            assert shown[name].dtype == told[name].dtype
            width = 2 if name in ("observation", "final") else None
            np.testing.assert_array_equal(shown[name][..., :width], told[name][..., :width], err_msg=name)


def test_facts_survive_the_journey(sound):
    assert sound.facts == Counter(1).facts
    facts = Facts(
        num_agents=3, observation=Box((2, 2), (0.0, -np.inf, 1.0, 2.0), (5.0,) * 4, "uint8"), choices=(2, 3, 5),
        action=MultiDiscrete((2, 3)), agent_ids=True, time_limit=7, metric_names=("a", "b"), remark="so",
    )  # fmt: skip
    assert wire.facts_from_words(wire.facts_to_words(facts)) == facts


def test_workers_do_not_import_jax(sound):
    for pid in sound.pids:
        with open(f"/proc/{pid}/maps") as maps:
            assert "jaxlib" not in maps.read()


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (8, "was killed by SIGKILL"),
        (9, "failed: RuntimeError: the cartridge fell out"),
        (10, "ended with exit code 3"),
    ],
)
def test_a_worker_that_dies_is_named(trouble, said):
    workers = start(trouble=trouble)
    try:
        workers.reset(0)
        before = time.monotonic()
        actions = np.zeros((COPIES, 1), np.int32)
        actions[4] = trouble  # the last copy lives in the second process
        with pytest.raises(HostWorldError, match=f"worker 1 of 2 of fake:counter .process {workers.pids[1]}. {said}"):
            workers.step(actions)
        assert time.monotonic() - before < 10
    finally:
        workers.close()
    assert ended(workers.pids)


def test_a_worker_killed_from_outside_is_named():
    workers = start()
    try:
        workers.reset(0)
        os.kill(workers.pids[0], signal.SIGKILL)
        with pytest.raises(HostWorldError, match=r"worker 0 of 2 .* was killed by SIGKILL"):
            play(workers, 1)
    finally:
        workers.close()
    assert ended(workers.pids)


@pytest.mark.parametrize("how", ["sleeps", "is stopped"])
def test_a_worker_that_hangs_is_named_in_time(how):
    workers = start(seconds=3.0, trouble=7)
    try:
        workers.reset(0)
        if how == "is stopped":
            os.kill(workers.pids[0], signal.SIGSTOP)
        before = time.monotonic()
        with pytest.raises(HostWorldError, match=r"worker 0 of 2 .* did not answer within 3 s"):
            play(workers, 7 if how == "sleeps" else 1)
        assert 2.9 < time.monotonic() - before < 6
    finally:
        before = time.monotonic()
        workers.close()
    assert time.monotonic() - before < 5
    assert ended(workers.pids)


def test_a_stopped_worker_that_reads_nothing_does_not_hold_up_a_large_message():
    workers = start(seconds=3.0, processes=1)
    try:
        os.kill(workers.pids[0], signal.SIGSTOP)
        before = time.monotonic()
        with pytest.raises(HostWorldError, match="did not answer within 3 s"):
            workers.step(np.zeros((COPIES, 2**22), np.int32))
        assert time.monotonic() - before < 6
    finally:
        workers.close()


def test_a_world_that_does_not_close_is_killed():
    workers = start(trouble=6)
    before = time.monotonic()
    workers.close()
    workers.close()
    assert time.monotonic() - before < 8
    assert ended(workers.pids)


@pytest.mark.parametrize(
    ("name", "seconds", "kind", "said"),
    [
        ("hangs", 3.0, HostWorldError, "worker 0 of 2 of fake:hangs .* did not answer within 3 s"),
        ("dies", 30.0, HostWorldError, "worker 0 of 2 of fake:dies .* ended with exit code 4"),
        ("missing", 30.0, UserError, "^env: there is no cartridge$"),
        ("refuses", 30.0, ValueError, "^trouble must be small$"),
    ],
)
def test_a_world_that_cannot_be_made_leaves_no_process(name, seconds, kind, said, monkeypatch):
    pids = []
    end = Workers.close
    monkeypatch.setattr(Workers, "close", lambda self: (pids.extend(self.pids), end(self)))
    with pytest.raises(kind, match=said):
        start(name, seconds)
    assert len(pids) == PROCESSES and ended(pids)


def test_a_worker_ends_with_its_run():
    """As when the run was killed: nobody closes it, the connection just ends."""
    workers = start(processes=1)
    workers._workers[0].sock.close()
    assert workers._workers[0].process.wait(10) == 0


def test_a_worker_that_hangs_ends_without_its_run():
    """As when the run was killed in the middle of a step that never ends."""
    workers = start(seconds=1.5, num_envs=1, processes=1, trouble=7)
    worker = workers._workers[0]
    worker.tell({}, {"actions": np.full((1, 1), 7)}, 1.5, wire.Deadline(1.5))
    worker.sock.close()
    assert worker.process.wait(20) == 1


def test_after_a_failure_a_world_only_closes():
    world = HostWorld("fake:counter", start(trouble=9, processes=1))
    world.reset(0)
    with pytest.raises(HostWorldError, match="the cartridge fell out"):
        world.step(np.full((COPIES, 1), 9, np.int32))
    with pytest.raises(HostWorldError, match="fake:counter is failed: make a new one"):
        world.reset(0)
    world.close()
    world.close()
    assert ended(world.simulator.pids)
