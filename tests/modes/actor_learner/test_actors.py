"""Actors that work, raise, hang and dawdle, written by hand: nothing is lost silently, nothing waits for ever."""

import threading
import time

import numpy as np
import pytest
from patience import wait_until
from troubled_sources import parameters, rollout

from jaxrl_engine.modes.actor_learner import actors as room
from jaxrl_engine.modes.actor_learner.actors import Supervisor
from jaxrl_engine.runtime.errors import RunError


def content(message):
    return int(message.collected.chunks.reward[0, 0, 0])


BEHAVIOUR = parameters(7)


class Fake:
    """A collector whose n-th rollout (over the whole life of its place) does what `script(n)` does."""

    def __init__(self, place, script):
        self.place, self.script, self.state, self.closed = place, script, None, 0

    def collect(self, behaviour, key):
        number = self.place["rollouts"]
        self.place["rollouts"] += 1
        self.place["keys"].append(key)
        return rollout(self.script(number))

    def close(self):
        self.closed += 1
        self.place["closed"] += 1


@pytest.fixture
def begin(monkeypatch):
    """Start a supervisor of fakes; every one is ended, and its threads must be gone."""
    monkeypatch.setattr(room, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(room, "LONGEST_BACKOFF", 0.02)
    begun = []

    def make(*scripts, max_restarts=3, heartbeat=60.0, tickets=2, born=lambda generation: None):
        places = [{"rollouts": 0, "keys": [], "closed": 0} for _ in scripts]

        def collector(index, generation):
            born(generation)
            return Fake(places[index], scripts[index])

        supervisor = Supervisor(
            collector, lambda *numbers: numbers, lambda: (7, BEHAVIOUR), num_actors=len(scripts),
            max_restarts=max_restarts, heartbeat_seconds=heartbeat,
        )  # fmt: skip
        supervisor.begin()
        for number in range(tickets):
            for index in range(len(scripts)):
                supervisor.grant(index, (number, None))
        begun.append(supervisor)
        return supervisor, places

    yield make
    for supervisor in begun:
        assert supervisor.end() == []


def take(supervisor, count, seconds=10.0):
    """The next messages, each answered by a new ticket; fails where they do not come in time."""
    taken, deadline = [], time.monotonic() + seconds
    numbers = {}
    while len(taken) < count:
        assert time.monotonic() < deadline, f"only {len(taken)} messages came"
        message = supervisor.take(0.01)
        if message is not None:
            taken.append(message)
            numbers[message.actor] = numbers.get(message.actor, 1) + 1
            supervisor.grant(message.actor, (numbers[message.actor], None))
    return taken


def assert_no_key_twice(place):
    keys = tuple(place["keys"])  # as they are now: the actors are still at work
    assert len(set(keys)) == len(keys)


def test_every_rollout_arrives_once_in_each_actors_order(begin):
    supervisor, _ = begin(lambda n: n, lambda n: 100 + n)
    messages = take(supervisor, 20)
    for index in range(2):
        own = [content(message) for message in messages if message.actor == index]
        assert own == [100 * index + n for n in range(len(own))]
    assert {message.version for message in messages} == {7}


def test_an_actor_without_tickets_waits(begin):
    supervisor, (place,) = begin(lambda n: n, tickets=3)
    wait_until(lambda: supervisor.inbox.qsize() == 3)
    time.sleep(0.1)
    assert place["rollouts"] == 3
    assert supervisor.actors[0].outstanding == 3


def test_an_actor_that_raises_is_started_anew_and_owes_nothing(begin):
    def script(n):
        if n == 1:
            raise OSError("the game is gone")
        return n

    supervisor, (place,) = begin(script)
    messages = take(supervisor, 5)
    assert [content(message) for message in messages] == [0, 2, 3, 4, 5]
    assert [message.generation for message in messages] == [0, 1, 1, 1, 1]
    assert supervisor.restarts == 1 and place["closed"] == 1
    assert supervisor.causes == ["actor 0: OSError: the game is gone"]
    assert_no_key_twice(place)


def test_a_collector_that_cannot_be_built_counts_as_broken(begin):
    def born(generation):
        if generation == 0:
            raise FileNotFoundError("no ROM")

    supervisor, _ = begin(lambda n: n, born=born)
    assert [message.generation for message in take(supervisor, 3)] == [1, 1, 1]


def test_after_too_many_restarts_the_cause_and_its_traceback_are_told(begin):
    def script(n):
        raise ZeroDivisionError("again")

    supervisor, _ = begin(script, max_restarts=2)
    with pytest.raises(RunError, match=r"actor 0 broke, after 2 restarts of actors: ZeroDivisionError: again") as told:
        take(supervisor, 1)
    assert 'raise ZeroDivisionError("again")' in str(told.value)


def test_a_silent_actor_is_replaced_and_what_it_says_later_is_dropped(begin):
    release = threading.Event()

    def script(n):
        if n == 1:
            assert release.wait(20.0)
            return -1
        return n

    supervisor, (place,) = begin(script, heartbeat=0.2)
    messages = take(supervisor, 4)
    assert [content(message) for message in messages] == [0, 2, 3, 4]
    assert "silent for" in supervisor.causes[0]
    release.set()
    wait_until(lambda: supervisor.take(0.01) is None and supervisor.dropped == 1)
    assert_no_key_twice(place)


def test_waiting_for_a_ticket_is_not_silence(begin):
    supervisor, _ = begin(lambda n: n, heartbeat=0.1, tickets=1)
    wait_until(lambda: supervisor.inbox.qsize() == 1)
    time.sleep(0.4)
    assert content(supervisor.take(0.01)) == 0
    assert supervisor.restarts == 0


def test_a_thread_that_will_not_end_is_named(begin, monkeypatch):
    monkeypatch.setattr(room, "JOIN_SECONDS", 0.1)
    release = threading.Event()
    supervisor, _ = begin(lambda n: release.wait(20.0), lambda n: n)
    wait_until(lambda: supervisor.actors[0].working)
    assert supervisor.end() == ["actor-0.0"]
    release.set()
    monkeypatch.setattr(room, "JOIN_SECONDS", 10.0)


def test_in_lockstep_the_ticket_names_the_parameters(begin):
    supervisor, _ = begin(lambda n: n, tickets=0)
    supervisor.grant(0, (0, parameters(3)))
    wait_until(lambda: supervisor.inbox.qsize() == 1)
    assert supervisor.take(0.01).version == 3


@pytest.mark.parametrize("trial", range(50))
def test_whatever_breaks_whenever_the_rest_goes_on(begin, trial):
    """Fifty times: three actors that raise or hang at random moments still deliver, and end."""
    rng = np.random.default_rng(trial)
    faults = {(int(rng.integers(3)), int(rng.integers(6))): str(rng.choice(["raise", "hang"])) for _ in range(4)}

    def script(index):
        def act(n):
            fault = faults.get((index, n))
            if fault == "raise":
                raise RuntimeError("by chance")
            if fault == "hang":
                time.sleep(0.3)
            return n

        return act

    supervisor, places = begin(*map(script, range(3)), max_restarts=20, heartbeat=0.1)
    messages = take(supervisor, 30)
    assert len(messages) == 30
    for place in places:
        assert_no_key_twice(place)
