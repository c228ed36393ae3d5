"""MP4s decoded again by ffmpeg: as many pictures as were written, of the same size, in the same colours."""

import re
import subprocess
import sys

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime.errors import RunError
from jaxrl_engine.runtime.video import save_mp4

COLOURS = ((233, 161, 59), (47, 158, 91), (51, 80, 107))


def pictures(width, height):
    """One picture per colour, with a corner that stays black."""
    frames = [Image.new("RGB", (width, height), colour) for colour in COLOURS]
    for frame in frames:
        frame.paste((0, 0, 0), (0, 0, 34, 22))
    return frames


def decoded(path):
    """What ffmpeg says of the file, and its frames `[F, height, width, 3]`."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    (facts,) = re.findall(r"Stream #0:0\[.*Video: (.*)", done.stderr.decode())
    width, height = map(int, re.search(r", (\d+)x(\d+)", facts).groups())
    return facts, np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)


def test_frames_come_back_in_their_colours(tmp_path):
    save_mp4(pictures(134, 62), tmp_path / "film.mp4", 80)
    facts, frames = decoded(tmp_path / "film.mp4")
    assert frames.shape == (3, 62, 134, 3)
    assert facts.startswith("h264") and "yuv420p(tv, bt709" in facts and " 12.50 fps" in facts
    for frame, colour in zip(frames.astype(np.int64), COLOURS, strict=True):
        assert np.abs(frame[30:, 50:].mean(axis=(0, 1)) - colour).max() < 3
        assert np.abs(frame[:18, :30].mean(axis=(0, 1))).max() < 6


def test_an_odd_side_gets_one_more_pixel(tmp_path):
    save_mp4(pictures(131, 61), tmp_path / "film.mp4", 40)
    facts, frames = decoded(tmp_path / "film.mp4")
    assert frames.shape == (3, 62, 132, 3)
    assert " 25 fps" in facts


def test_whatever_the_file_is_called_it_is_a_video(tmp_path):
    save_mp4(pictures(34, 22), tmp_path / "-film", 80)
    assert (tmp_path / "-film").read_bytes()[4:8] == b"ftyp"


def test_a_place_that_cannot_be_written_is_named_in_one_line(tmp_path):
    with pytest.raises(RunError, match=r"nowhere/film\.mp4: .*No such file"):
        save_mp4(pictures(34, 22), tmp_path / "nowhere" / "film.mp4", 80)


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UserError, match=r"pip install .*\[video\]"):
        save_mp4(pictures(34, 22), tmp_path / "film.mp4", 80)
