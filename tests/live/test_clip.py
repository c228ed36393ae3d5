"""What the page is told of a clip, worked out by hand."""

import json
import math

import numpy as np

from jaxrl_engine.core.scene import Ink, Scene
from jaxrl_engine.live.clip import Clip, Label, screens_message

FRAMES, WORLDS, LINES, DISCS, AGENTS = 3, 2, 5, 7, 2


def a_clip(cells=(0, 0), skills=None):
    """Return a clip in which line 1 and disc 2 are drawn, at places that tell frame and world."""
    frame, world = np.meshgrid(np.arange(FRAMES), np.arange(WORLDS), indexing="ij")
    lines = np.zeros((FRAMES, WORLDS, LINES, 5), np.float32)
    lines[:, :, 1] = np.stack([frame, world, frame + 0.123456, world + 0.5, np.full(frame.shape, 0.25)], axis=-1)
    lines[:, :, 3] = math.nan  # drawn, but nowhere: physics that diverged
    discs = np.zeros((FRAMES, WORLDS, DISCS, 3), np.float32)
    discs[:, :, 2] = np.stack([frame, -world, np.ones_like(frame)], axis=-1)
    line_inks, disc_inks = np.zeros((FRAMES, WORLDS, LINES), np.int8), np.zeros((FRAMES, WORLDS, DISCS), np.int8)
    line_inks[:, :, 1], line_inks[:, :, 3], disc_inks[:, :, 2] = Ink.BODY, Ink.BODY, Ink.FIRST + 4
    scenes = Scene(
        extent=np.broadcast_to(np.array([-2.0, -1.0, 2.0, 1.0], np.float32), (FRAMES, WORLDS, 4)),
        cells=np.zeros((FRAMES, WORLDS, *cells), np.int8), lines=lines, line_inks=line_inks, discs=discs,
        disc_inks=disc_inks, agents=np.ones((FRAMES, WORLDS, AGENTS, 2), np.float32),
    )  # fmt: skip
    return Clip(
        scenes=scenes, episode_return=(frame + 10.0 * world).astype(np.float32), step=frame + 100 * world,
        ended=(frame == 1) & (world == 1), skills=skills,
    )  # fmt: skip


def test_only_what_is_drawn_and_where_it_is():
    message = screens_message(a_clip(), [Label("one"), Label("two", 37)], sequence=5)
    assert json.loads(json.dumps(message, allow_nan=False)) == message
    assert (message["seq"], message["fps"], len(message["screens"])) == (5, 10, WORLDS)
    one, two = message["screens"]
    assert one["label"] == "one" and "cell" not in one and "grid" not in one
    assert two["label"] == "two" and two["cell"] == 37
    assert one["extent"] == [-2.0, -1.0, 2.0, 1.0]
    assert two["frames"][2] == {
        "return": 12.0, "step": 102, "lines": [2.0, 1.0, 2.123, 1.5, 0.25, 3.0], "discs": [2.0, -1.0, 1.0, 11.0],
    }  # fmt: skip
    assert [[frame.get("ended", False) for frame in each["frames"]] for each in (one, two)] == [
        [False, False, False],
        [False, True, False],
    ]


def test_cells_are_sent_where_they_change():
    clip = a_clip(cells=(2, 3))
    clip.scenes.cells[1:, 0, 0, 1] = Ink.FIRST + 5
    one, two = screens_message(clip, [Label(""), Label("")], sequence=0)["screens"]
    assert one["grid"] == [2, 3]
    assert [frame.get("cells") for frame in one["frames"]] == ["000000", "0c0000", None]
    assert [frame.get("cells") for frame in two["frames"]] == ["000000", None, None]


def test_skills_come_with_the_places_of_their_agents():
    skills = np.arange(FRAMES * WORLDS * 3).reshape(FRAMES, WORLDS, 3)
    one, _ = screens_message(a_clip(skills=skills), [Label(""), Label("")], sequence=0)["screens"]
    assert one["frames"][1]["skills"] == [6, 7, 8]
    assert one["frames"][1]["agents"] == [1.0] * 4


def test_a_return_that_is_no_number_is_none():
    clip = a_clip()
    clip.episode_return[0, 0] = math.inf
    assert screens_message(clip, [Label(""), Label("")], sequence=0)["screens"][0]["frames"][0]["return"] is None
