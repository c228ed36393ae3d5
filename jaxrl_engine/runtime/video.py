"""Films as MP4, encoded by the ffmpeg that the extra `video` brings."""

import importlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime.errors import RunError, one_line

QUALITY = 18
"""x264's constant rate factor: from here on flat colours and thin lines show no blocks."""
_COLOURS = "bt709"
"""Said in the file, as players guess by the picture's size where it is not; ffmpeg below 7.1 only says so unless the
conversion is asked for as well."""


def require_ffmpeg() -> str:
    """Return the path of ffmpeg.

    Raises:
        UserError: the extra `video` is not installed, or brought no program for this machine.
    """
    try:
        return str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())
    except ImportError:
        hint = 'pip install -c constraints.txt -e ".[video]"'
        raise UserError(f"mp4: the extra video is not installed: {hint}") from None
    except RuntimeError as error:
        raise UserError(f"mp4: {one_line(error)}") from None


def save_mp4(frames: Sequence[Image.Image], path: Path, frame_milliseconds: int) -> None:
    """Write pictures of one size as H.264 that browsers play.

    A side of an odd number of pixels gets one more: colours are stored for squares of four.

    Raises:
        UserError: see `require_ffmpeg`.
        RunError: the file cannot be written.
    """
    width, height = frames[0].size
    read = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"1000/{frame_milliseconds}")
    even = f"pad=ceil(iw/2)*2:ceil(ih/2)*2,scale=out_color_matrix={_COLOURS}:out_range=tv"
    named = ("-colorspace", _COLOURS, "-color_primaries", _COLOURS, "-color_trc", _COLOURS, "-color_range", "tv")
    encode = ("-vf", even, "-c:v", "libx264", "-crf", str(QUALITY), "-pix_fmt", "yuv420p", *named)
    write = ("-movflags", "+faststart", "-f", "mp4", "-y", str(path.resolve()))
    command = [require_ffmpeg(), "-v", "error", *read, "-i", "-", *encode, *write]
    pixels = b"".join(frame.convert("RGB").tobytes() for frame in frames)
    try:
        done = subprocess.run(command, input=pixels, capture_output=True)
    except OSError as error:
        raise RunError(f"{path}: {one_line(error)}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["ffmpeg failed"]
        raise RunError(f"{path}: {said[-1]}")
