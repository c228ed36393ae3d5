"""Pictures of the wall before real runs, taken by a browser without a window: those of the README.

python -m benchmarks.wall_pictures                     all of them, into benchmarks/results/
python -m benchmarks.wall_pictures --picture demo      one of them
"""

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import sync_playwright

from benchmarks.live_cost import FLAGS
from benchmarks.machine import ROOT

PORT = 18_800


class Picture(NamedTuple):
    """What is on a picture."""

    module: str
    arguments: tuple[str, ...]
    seconds: float  # after the first frame
    scheme: str = "light"


RUN = ("--live", "--live-port", str(PORT))
PICTURES = {
    "sync": Picture("run", ("--mode", "sync", "--total-steps", "8000000", *RUN), 20.0),
    "map_elites": Picture("run", ("--mode", "map-elites", *RUN), 120.0, "dark"),
    "async": Picture("run", ("--mode", "async", *RUN), 60.0),
    "hmasd": Picture("run", ("--config", "configs/hmasd_alice_and_bob_32x32.yaml", *RUN), 60.0),
    "demo": Picture("live", ("--demo", "--port", str(PORT)), 12.0),
}


def take(picture: Picture, path: Path) -> None:
    """Start what is on the picture, wait, and take it."""
    with tempfile.TemporaryDirectory() as place:
        own = ("--run-dir", f"{place}/run") if picture.module == "run" else ()
        command = [sys.executable, "-m", f"jaxrl_engine.{picture.module}", *picture.arguments, *own]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            address = next(line.split()[1] for line in process.stdout if line.startswith("wall: "))
            _photograph(address, picture, path)
            process.send_signal(signal.SIGINT)
            process.communicate()


def _photograph(address: str, picture: Picture, path: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme=picture.scheme)
        page.goto(address)
        while not page.evaluate("window.wall?.frames ?? 0"):
            time.sleep(0.2)
        time.sleep(picture.seconds)
        page.screenshot(path=path)
        browser.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wall_pictures", description=__doc__.split("\n")[0])
    parser.add_argument("--picture", nargs="+", choices=list(PICTURES), default=list(PICTURES))
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    for name in options.picture:
        take(PICTURES[name], options.output / f"wall_{name}.png")


if __name__ == "__main__":
    main()
