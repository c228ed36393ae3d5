"""The easel: each picture in its place, no end of an episode lost, no more messages than wanted, many threads."""

import base64
import io
import json
import math
import threading
import time
import types

import numpy as np
import pytest
from PIL import Image

from jaxrl_engine.live import easel as room
from jaxrl_engine.live.easel import Easel, mosaic

COLOURS = [(230, 20, 20), (20, 200, 20), (20, 20, 220), (200, 200, 20), (20, 200, 200), (200, 20, 200), (250, 250, 250)]


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only when it is told to."""
    now = types.SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(room, "time", types.SimpleNamespace(monotonic=lambda: now.seconds))
    return now


class Page:
    """Takes what is published."""

    def __init__(self, screens, num_actors, watched=True):
        self.watched, self.messages = watched, []
        self.easel = Easel(self.publish, lambda: self.watched, screens, num_actors)

    def publish(self, topic, message):
        assert topic == "screens"
        json.dumps(message, allow_nan=False)
        self.messages.append(message)

    def put(self, actor, colours, returns=None, steps=None, ended=None, size=(17, 23)):
        count = len(colours)
        pictures = np.zeros((count, *size, 3), np.uint8) + np.array(colours, np.uint8)[:, None, None]
        self.easel.put(
            actor, pictures, np.float32([0] * count if returns is None else returns),
            np.int32([0] * count if steps is None else steps), np.array([False] * count if ended is None else ended),
        )  # fmt: skip

    def frames(self):
        """What is written on the screens of the newest message."""
        return [screen["frames"][0] for screen in self.messages[-1]["screens"]]


def decoded(message):
    head, data = message["images"][0].split(",")
    assert head == "data:image/jpeg;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    assert image.format == "JPEG"
    return np.asarray(image.convert("RGB")).astype(int)


def test_every_tile_is_in_its_place(clock):
    page = Page(7, 2)
    page.put(0, COLOURS[:4])
    clock.seconds += 1.0
    page.put(1, COLOURS[4:])
    message = page.messages[-1]
    assert [screen["label"] for screen in message["screens"]] == [
        "actor 0, world 0", "actor 0, world 1", "actor 0, world 2", "actor 0, world 3",
        "actor 1, world 0", "actor 1, world 1", "actor 1, world 2",
    ]  # fmt: skip
    assert (message["seq"], message["fps"]) == (2, 10)
    assert {name: message["mosaic"][name] for name in ("columns", "width", "height")} == {
        "columns": 4, "width": 23, "height": 17,
    }  # fmt: skip
    image = decoded(message["mosaic"])
    assert image.shape == (2 * 17, 4 * 23, 3)
    for number, colour in enumerate([*COLOURS, (0, 0, 0)]):
        row, column = divmod(number, 4)
        inner = image[17 * row + 8 : 17 * row + 9, 23 * column + 9 : 23 * column + 14]  # JPEG blurs the borders
        assert np.abs(inner - np.array(colour)).max() < 30, number  # others are 100 away


def test_a_mosaic_of_few_has_no_empty_columns_and_of_different_sizes_no_stretched_tiles():
    few = [np.full((16, 32, 3), 200, np.uint8), np.full((32, 16, 3), 90, np.uint8)]
    made = mosaic(few)
    assert (made["columns"], made["width"], made["height"]) == (2, 32, 32)
    image = decoded(made)
    assert image.shape == (32, 64, 3)
    bright = np.abs(image[:, :32, 0] - 200) < 12
    assert bright[9:23, 1:31].all() and not bright[:7].any() and not bright[25:].any()
    bright = np.abs(image[:, 32:, 0] - 90) < 12
    assert bright[1:31, 9:23].all() and not bright[:, :7].any() and not bright[:, 25:].any()


def test_the_picture_is_small():
    """Eight tiles of noise-free graphics: some kilobytes, at ten a second."""
    tiles = [np.full((134, 200, 3), 255, np.uint8) for _ in range(8)]
    for number, tile in enumerate(tiles):
        tile[100:, :] = 0
        tile[60:100, 10 * number : 10 * number + 20] = (200, 150, 100)
    assert len(mosaic(tiles)["images"][0]) < 40_000


@pytest.mark.parametrize(("screens", "actors", "shares"), [(8, 3, [3, 3, 2]), (2, 5, [1, 1, 0, 0, 0]), (8, 1, [8])])
def test_screens_are_spread_over_the_actors(screens, actors, shares):
    easel = Easel(print, lambda: True, screens, actors)
    assert [easel.share(actor) for actor in range(actors)] == shares
    assert [easel.due(actor) for actor in range(actors)] == [share > 0 for share in shares]


@pytest.mark.parametrize(("screens", "actors", "field"), [(0, 1, "screens"), (1, 0, "num_actors")])
def test_what_cannot_be_is_said(screens, actors, field):
    with pytest.raises(ValueError, match=f"{field} must be a whole number >= 1"):
        Easel(print, lambda: True, screens, actors)


def test_pictures_are_due_ten_times_a_second_while_somebody_watches(clock):
    page = Page(4, 2, watched=False)
    assert not page.easel.due(0)
    page.watched = True
    assert page.easel.due(0) and page.easel.due(1)
    page.put(0, COLOURS[:2])
    assert not page.easel.due(0) and page.easel.due(1)
    clock.seconds += 0.09
    assert not page.easel.due(0)
    clock.seconds += 0.02
    assert page.easel.due(0)
    puts = 0
    for _ in range(1000):  # a second in steps of a millisecond
        clock.seconds += 0.001
        if page.easel.due(0):
            page.put(0, COLOURS[:2])
            puts += 1
    assert 9 <= puts <= 10


def test_all_actors_together_make_ten_messages_a_second(clock):
    page = Page(6, 3)
    for tick in range(1000):
        clock.seconds += 0.001
        for actor in range(3):
            if tick >= 30 * actor and page.easel.due(actor):
                page.put(actor, COLOURS[:2])
    assert 9 <= len(page.messages) <= 10
    assert [message["seq"] for message in page.messages] == list(range(1, len(page.messages) + 1))
    assert len(page.frames()) == 6


def test_nobody_asks_whether_somebody_watches_before_it_is_time(clock):
    asked = []
    easel = Easel(lambda *_: None, lambda: not asked.append(1), 1, 1)
    easel.put(0, np.zeros((1, 2, 3, 3), np.uint8), np.zeros(1, np.float32), np.zeros(1, np.int32), np.zeros(1, bool))
    assert not easel.due(0) and not asked


def test_an_end_is_told_once_and_with_its_own_numbers(clock):
    page = Page(4, 2)
    page.put(0, COLOURS[:2], [1.5, 2.5], [3, 5], [False, True])
    assert page.frames() == [
        {"return": 1.5, "step": 3, "ended": False},
        {"return": 2.5, "step": 5, "ended": True},
    ]
    clock.seconds += 0.05
    page.put(0, COLOURS[:2], [7.0, 0.5], [4, 1], [True, False])  # too early for a message
    clock.seconds += 0.04
    page.put(0, COLOURS[:2], [0.25, 0.75], [1, 2], [False, False])
    assert len(page.messages) == 1
    clock.seconds += 0.02
    page.put(1, COLOURS[:1], [9.0], [9], [False])
    assert page.frames() == [
        {"return": 7.0, "step": 4, "ended": True},
        {"return": 0.75, "step": 2, "ended": False},
        {"return": 9.0, "step": 9, "ended": False},
    ]
    clock.seconds += 0.11
    page.put(1, COLOURS[:1], [10.0], [10], [False])
    assert [frame["ended"] for frame in page.frames()] == [False] * 3
    clock.seconds += 0.11
    page.put(0, COLOURS[:2], [0.5, 1.0], [2, 3], [False, False])
    assert page.frames()[0] == {"return": 0.5, "step": 2, "ended": False}


def test_a_later_end_takes_the_place_of_one_not_told(clock):
    page = Page(1, 1)
    page.put(0, COLOURS[:1])
    for steps in (5, 8):
        page.put(0, COLOURS[:1], [float(steps)], [steps], [True])
    clock.seconds += 0.2
    page.put(0, COLOURS[1:2], [1.0], [1], [False])
    assert page.frames() == [{"return": 8.0, "step": 8, "ended": True}]
    assert np.abs(decoded(page.messages[-1]["mosaic"])[8, 9] - np.array(COLOURS[1])).max() < 12  # the newest picture


def test_returns_that_are_no_numbers_are_none(clock):
    page = Page(3, 1)
    page.put(0, COLOURS[:3], [math.nan, math.inf, -2.0])
    assert [frame["return"] for frame in page.frames()] == [None, None, -2.0]


def test_an_actor_that_has_none_is_asked_no_more(clock):
    page = Page(4, 2)
    page.put(0, COLOURS[:2])
    page.easel.dismiss(0)
    clock.seconds += 1.0
    assert not page.easel.due(0) and page.easel.share(0) == 0 and page.easel.due(1)
    page.put(1, COLOURS[2:4])
    assert [screen["label"] for screen in page.messages[-1]["screens"]] == ["actor 1, world 0", "actor 1, world 1"]
    clock.seconds += 1.0
    page.put(0, COLOURS[:2])  # as a thread that was abandoned may do
    page.easel.dismiss(1)
    clock.seconds += 1.0
    page.put(0, COLOURS[:2])
    assert len(page.messages) == 3 and len(page.messages[-1]["screens"]) == 2  # nothing left: no message


def test_actors_in_threads_of_their_own_lose_no_end_and_mix_up_nothing(monkeypatch):
    """Every actor's environment ends an episode at every put: each message that tells an end tells one not told yet."""
    monkeypatch.setattr(room, "PERIOD", 0.001)
    actors, puts = 5, 60
    page = Page(actors, actors)

    def act(actor):
        for step in range(1, puts + 1):
            page.put(actor, [COLOURS[actor]], [float(step)], [step], [True], size=(16, 16))
            time.sleep(0.0005)

    threads = [threading.Thread(target=act, args=(actor,)) for actor in range(actors)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [message["seq"] for message in page.messages] == list(range(1, len(page.messages) + 1))
    assert len(page.messages) > 10
    told = [[] for _ in range(actors)]
    for message in page.messages:
        image = decoded(message["mosaic"])
        for number, screen in enumerate(message["screens"]):
            actor = int(screen["label"].removeprefix("actor ").partition(",")[0])
            centre = image[number // 4 * 16 + 8, number % 4 * 16 + 8]
            assert np.abs(centre - np.array(COLOURS[actor])).max() < 12
            frame = screen["frames"][0]
            assert frame["return"] == frame["step"]
            told[actor] += [frame["step"]] * frame["ended"]
    for steps in told:
        assert steps == sorted(set(steps)) and len(steps) > 5


def test_whoever_finds_another_composing_does_not_wait():
    begun, go_on = threading.Event(), threading.Event()
    messages = []

    def publish(topic, message):
        begun.set()
        assert go_on.wait(10)
        messages.append(message)

    easel = Easel(publish, lambda: True, 2, 2)
    facts = (np.ones(1, np.float32), np.ones(1, np.int32), np.ones(1, bool))
    slow = threading.Thread(target=easel.put, args=(0, np.zeros((1, 8, 8, 3), np.uint8), *facts))
    slow.start()
    assert begun.wait(10)
    before = time.monotonic()
    easel.put(1, np.zeros((1, 8, 8, 3), np.uint8), *facts)
    assert easel.due(0) in (True, False) and time.monotonic() - before < 5
    go_on.set()
    slow.join(10)
    time.sleep(0.11)
    easel.put(0, np.zeros((1, 8, 8, 3), np.uint8), *(np.zeros_like(fact) for fact in facts))
    assert [[screen["frames"][0]["ended"] for screen in message["screens"]] for message in messages] == [
        [True],
        [False, True],
    ]
