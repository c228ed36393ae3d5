"""Actors leave pictures between two steps: the right ones, at the right time, with what happened in between."""

import types

import jax
import numpy as np
import pytest
from host_sources import compiled_source

from jaxrl_engine.envs.host.protocol import HostWorldError
from jaxrl_engine.envs.vector import Episodes
from jaxrl_engine.live.easel import Easel
from jaxrl_engine.modes.actor_learner import host_collector, sitting as room
from jaxrl_engine.modes.actor_learner.host_collector import HostSource
from jaxrl_engine.modes.actor_learner.program import AsyncProgram
from jaxrl_engine.modes.actor_learner.sitting import Sitting
from jaxrl_engine.modes.build import build
from jaxrl_engine.runtime.config import parse

ENVS, STEPS = 3, 13
OPTIONS = (
    f"--mode async --env gymnasium:fake_host_worlds:Painter-v0 --env-params max_episode_steps=11 --num-envs 6 "
    f"--num-workers 2 --num-steps {STEPS} --batch-size {STEPS * 12} --min-buffer-size 20 --num-epochs 1 "
    "--ppo.num-minibatches 1 --network.hidden-sizes 7 --total-steps 2000 --buffer-capacity 500 "
    "--logging.every-updates 1"
)


class Wall(Easel):
    """An easel whose wishes are the test's, and what was left on it."""

    def __init__(self, share=2):
        self.wanted, self.puts, self.dismissed = True, [], []
        self._all = share

    def share(self, actor):
        return self._all

    def due(self, actor):
        return self.wanted

    def dismiss(self, actor):
        self.dismissed.append(actor)

    def put(self, actor, pictures, returns, steps, ended):
        self.puts.append((actor, pictures.copy(), returns.tolist(), steps.tolist(), ended.tolist()))


class World:
    """Three environments; a picture takes `seconds` of the clock."""

    num_envs, spec = ENVS, None

    def __init__(self, clock, seconds=0.0):
        self.clock, self.seconds, self.answer, self.asked = clock, seconds, None, 0

    def reset(self, seed):
        raise AssertionError

    step = close = reset

    def pictures(self, count):
        self.asked += 1
        self.clock.now += self.seconds
        if isinstance(self.answer, Exception):
            raise self.answer
        return np.full((count, 2, 5, 3), self.asked, np.uint8) if self.answer is None else None


@pytest.fixture
def clock(monkeypatch):
    ticking = types.SimpleNamespace(now=50.0)
    monkeypatch.setattr(room, "time", types.SimpleNamespace(monotonic=lambda: ticking.now))
    return ticking


def step(returns, lengths, ended):
    return Episodes(
        ended=np.array(ended), episode_return=np.float32(returns), episode_length=np.int32(lengths), metrics={}
    )


no = [False] * ENVS


def test_it_leaves_its_share_and_what_is_to_be_said_of_it(clock):
    wall = Wall()
    one = Sitting(wall, 1, World(clock))
    one.after(step([1, 2, 3], [1, 1, 1], no))
    actor, pictures, *facts = wall.puts[0]
    assert actor == 1 and pictures.shape == (2, 2, 5, 3)
    assert facts == [[1, 2], [1, 1], [False, False]]
    few = Wall(share=8)
    Sitting(few, 1, World(clock)).after(step([1, 2, 3], [1, 1, 1], no))
    assert few.puts[0][1].shape[0] == ENVS


def test_an_episode_that_ended_between_two_pictures_is_told_with_its_own_numbers(clock):
    wall = Wall(share=3)
    one = Sitting(wall, 1, World(clock))
    wall.wanted = False
    one.after(step([5, 2, 9], [4, 4, 4], [True, False, True]))
    one.after(step([1, 3, 1], [1, 5, 1], no))
    one.after(step([2, 4, 7], [2, 6, 2], [False, False, True]))
    one.after(step([3, 5, 1], [3, 7, 1], no))
    assert wall.puts == []
    wall.wanted = True
    one.after(step([4, 6, 2], [4, 8, 2], no))
    one.after(step([5, 7, 3], [5, 9, 3], no))
    assert [put[2:] for put in wall.puts] == [
        ([5, 6, 7], [4, 8, 2], [True, False, True]),
        ([5, 7, 3], [5, 9, 3], [False, False, False]),
    ]


def test_pictures_take_a_tenth_of_its_time_at_most(clock):
    wall, world = Wall(), World(clock, seconds=0.05)
    one = Sitting(wall, 1, world)
    begun = clock.now
    for _ in range(1000):
        clock.now += 0.001
        one.after(step([1] * ENVS, [1] * ENVS, no))
    assert len(wall.puts) == world.asked > 1
    assert 0.08 < world.asked * 0.05 / (clock.now - begun) <= 0.15  # the last of three may have just been drawn
    assert wall.puts[-1][0] == 1


def test_where_there_are_none_the_easel_is_told(clock):
    wall, world = Wall(), World(clock)
    world.answer = "none"
    Sitting(wall, 1, world).after(step([1] * ENVS, [1] * ENVS, no))
    assert wall.dismissed == [1] and wall.puts == []


def test_a_world_that_dies_of_it_breaks_its_actor_but_not_those_after_it(clock):
    wall, world = Wall(), World(clock)
    world.answer = HostWorldError("gone")
    with pytest.raises(HostWorldError, match="gone"):
        Sitting(wall, 1, world).after(step([1] * ENVS, [1] * ENVS, no))
    assert wall.dismissed == [1]


# --- in collectors and in a whole run -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source():
    return compiled_source(OPTIONS, ENVS, STEPS)


def collected(source, easel, actor=0):
    """Two rollouts of one actor."""
    made, behaviour = source
    made.easel = easel
    collector = made.begin(jax.random.key(5), actor)
    try:
        return [collector.collect(behaviour, jax.random.key(number)) for number in range(2)]
    finally:
        collector.close()
        made.easel = None


def test_what_is_left_is_what_was_collected(source, monkeypatch):
    """The painter's picture shows the step it is at: after the last of an episode, the first of the next."""
    messages = []
    easel = Easel(lambda topic, message: messages.append(message), lambda: True, 4, 2)
    puts = []
    monkeypatch.setattr(easel, "due", lambda actor: True)
    monkeypatch.setattr(easel, "put", lambda *given: puts.append(given))
    monkeypatch.setattr(room, "MOST", 1.0)
    rollouts = collected(source, easel, actor=1)
    assert len(puts) == 2 * STEPS
    episodes = [jax.tree.map(lambda leaf, t=t: leaf[t], rollout.episodes) for rollout in rollouts for t in range(STEPS)]
    for t, (actor, pictures, returns, steps, ended) in enumerate(puts):
        assert actor == 1 and pictures.shape == (2, 107, 3, 3)
        at = (t + 1) % 11
        assert (pictures[:, 0, 0, 0] == at).all()
        np.testing.assert_array_equal(ended, [at == 0] * 2)
        np.testing.assert_array_equal(steps, [at or 11] * 2)
        np.testing.assert_array_equal(returns, episodes[t].episode_return[:2])
    assert len({id(array) for put in puts for array in put[1:]}) == 4 * len(puts)


def test_without_an_easel_and_with_one_that_nobody_watches_nothing_is_drawn(source, monkeypatch):
    """The painter's view tells how often it drew."""
    watched = Easel(lambda *_: None, lambda: True, 6, 2)
    unwatched = Easel(lambda *_: None, lambda: False, 6, 2)
    runs = {name: collected(source, easel) for name, easel in (("no", None), ("un", unwatched), ("yes", watched))}
    drawn = {name: max(float(run.chunks.observation[..., 1].max()) for run in runs[name]) for name in runs}
    assert drawn["no"] == drawn["un"] == 0 < drawn["yes"]
    same = jax.tree.map(np.array_equal, runs["no"], runs["un"])
    assert all(jax.tree.leaves(same))
    monkeypatch.setattr(host_collector, "Sitting", None)  # not even made
    assert len(collected(source, None)) == 2


def test_a_whole_run_shows_its_actors_also_one_that_was_started_anew(monkeypatch):
    begun = []
    make = HostSource.begin

    def begin(self, key, actor=0):
        begun.append((actor, self.easel))
        collector = make(self, key, actor)
        if len(begun) <= 2 and actor == 1:
            collector.close()  # its first step fails
        return collector

    monkeypatch.setattr(HostSource, "begin", begin)
    messages = []
    program = AsyncProgram(build(parse(OPTIONS.split()).config))
    assert program.easel is None
    program.easel = Easel(lambda topic, message: messages.append((topic, message)), lambda: True, 5, 2)
    try:
        state = program.init(jax.random.key(0), program.hyper)
        run = program.compile(state)
        for _ in range(40):
            state, _ = run(state, 4)
            if messages and len(messages[-1][1]["screens"]) == 5:
                break
    finally:
        assert program.close() == []
    assert {actor for actor, _ in begun} == {0, 1} and len(begun) >= 3
    assert all(easel is program.easel for _, easel in begun)
    topic, message = messages[-1]
    assert topic == "screens" and message["mosaic"]["columns"] == 4
    labels = [f"actor {actor}, world {world}" for actor, world in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1))]
    assert [screen["label"] for screen in message["screens"]] == labels
