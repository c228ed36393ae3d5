"""What the wall costs a run: off, on with nobody watching, on with a reader, on with a browser on the same machine.

    python -m benchmarks.live_cost                           all modes, five rounds, the four conditions in turn
    python -m benchmarks.live_cost --mode sync --rounds 2    for a trial
    python -m benchmarks.live_cost --no-browser              where there is no Chromium

Throughput is environment steps a second after compilation, of a process of its own per measurement. The reader is
another process that takes every message and draws nothing, as the machine of a remote viewer would leave to this one;
the browser draws with the processor, on the cores that train. A ratio is that of one round to the same round's `off`.
"""

import argparse
import contextlib
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.driver import spread
from benchmarks.machine import ROOT, provenance
from benchmarks.report import rate, table, write_json
from jaxrl_engine.core.scene import Scene
from jaxrl_engine.live.clip import FRAMES_PER_SECOND, Clip, Label, screens_message
from jaxrl_engine.live.mailbox import Mailbox
from jaxrl_engine.live.server import WallServer
from jaxrl_engine.live.wall import WallOptions
from jaxrl_engine.modes import hung_wall
from jaxrl_engine.modes.onlooker import Onlooker
from jaxrl_engine.modes.train import train
from jaxrl_engine.runtime.config import parse
from jaxrl_engine.runtime.devices import enable_compile_cache

RUNS = {
    "sync": ("--mode", "sync", "--total-steps", "1000000", "--evaluation.count", "0"),
    "async": ("--mode", "async", "--total-steps", "6144", "--evaluation.count", "0"),
    "map-elites": (
        *("--mode", "map-elites", "--total-steps", "153600", "--qd.updates-per-generation", "4"),
        *("--evaluation.count", "0", "--qd.warm-up", "0.0"),
    ),
}
CONDITIONS = ("off", "unwatched", "reader", "browser")
PORT = 18_700
STALLED = 20
BROWSER_ROUNDS = 2
"""It is there for its frames and its first picture; what it costs is its own drawing, on the cores that train."""
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run",
]  # fmt: skip


# --- one measurement: a run in this process --------------------------------------------------------------------------


def train_once(mode: str, condition: str) -> dict[str, Any]:
    """Train, and return the speed and what share of the main thread's time the wall took."""

    enable_compile_cache()
    spent = [0.0]

    class Timed(Onlooker):
        """An onlooker that adds up the processor time of its calls."""

        def look(self, state: Any) -> Any:
            begun = time.thread_time()
            show = super().look(state)
            spent[0] += time.thread_time() - begun
            return None if show is None else lambda: self.timed(show)

        def timed(self, show: Any) -> None:
            begun = time.thread_time()
            show()
            spent[0] += time.thread_time() - begun

    options = WallOptions(live=condition != "off", port=PORT)
    config = parse(RUNS[mode]).config
    with tempfile.TemporaryDirectory() as place, mock.patch.object(hung_wall, "Onlooker", Timed):
        result = train(config, run_dir=Path(place) / "run", wall=options)
    seconds = result.summary["wall_seconds"] - result.summary["compile_seconds"]
    return {"steps_per_second": result.summary["steps_per_second"], "main_thread_share": spent[0] / seconds}


# --- who watches -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def nobody(address: str) -> Iterator[dict[str, Any]]:
    """Nobody watches."""
    yield {}


@contextlib.contextmanager
def reader(address: str) -> Iterator[dict[str, Any]]:
    """Somebody takes every message and draws nothing; yields how many frames a second came, once it is over."""
    seen: dict[str, Any] = {}
    frames, times = [], []

    def read() -> None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}events", timeout=60) as stream:
            topic = ""
            for line in stream:
                if line.startswith(b"event: "):
                    topic = line[7:].strip().decode()
                elif line.startswith(b"data: ") and topic == "screens":
                    frames.append(len(json.loads(line[6:])["screens"][0]["frames"]))
                    times.append(time.monotonic())

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    yield seen
    thread.join(timeout=10)
    if len(times) > 2:
        seen["frames_per_second"] = sum(frames[2:]) / (times[-1] - times[1])


@contextlib.contextmanager
def browser(address: str) -> Iterator[dict[str, Any]]:
    """A browser on this machine; yields how soon it had a picture, and the frames a second it drew of each screen.

    It comes after the first pictures have been compiled: `first_picture_seconds` is of a page opened on a running run.
    """
    from playwright.sync_api import Error, sync_playwright

    seen: dict[str, Any] = {}
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        chromium.new_page(viewport={"width": 1440, "height": 900}).goto(address)
        page = chromium.new_page(viewport={"width": 1440, "height": 900})
        time.sleep(4)
        begun = time.monotonic()
        page.goto(address)
        with contextlib.suppress(Error):
            while not page.evaluate("window.wall?.frames ?? 0") and time.monotonic() - begun < 30:
                time.sleep(0.02)
            seen["first_picture_seconds"] = time.monotonic() - begun
            then, drawn = time.monotonic(), page.evaluate("window.wall.frames")
            time.sleep(5)
            seen["frames_per_second"] = (page.evaluate("window.wall.frames") - drawn) / 8 / (time.monotonic() - then)
        yield seen
        chromium.close()


WATCHERS = {"off": nobody, "unwatched": nobody, "reader": reader, "browser": browser}


# --- the whole -------------------------------------------------------------------------------------------------------


def measure(mode: str, condition: str) -> dict[str, Any]:
    """Run one measurement in a process of its own and watch it as the condition says."""
    command = [sys.executable, "-m", "benchmarks.live_cost", "--one", mode, condition]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        address = ""
        for line in lines:
            if line.startswith("wall: "):
                address = line.split()[1]
            if line.startswith("compiled"):
                break
        with WATCHERS[condition](address) as seen:
            rest = list(lines)
        if process.wait():
            raise RuntimeError(f"{mode} {condition} failed")
    return {**json.loads(rest[-1]), **seen}


def stalled_readers() -> dict[str, Any]:
    """Time writing a clip of eight screens while twenty readers read nothing."""

    class Source:
        def __init__(self) -> None:
            self.mailbox = Mailbox()

        def stream(self, wishes: Any) -> Any:
            return self.mailbox.stream()

        def select(self, cell: int | None) -> None:
            """Nothing to choose from."""

    source = Source()
    server = WallServer(source, "127.0.0.1", PORT)
    connections = [socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(STALLED)]
    for connection in connections:
        connection.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    clip, labels = _a_clip(), [Label(f"world {number}") for number in range(8)]
    milliseconds = []
    for number in range(600):
        begun = time.perf_counter()
        source.mailbox.put("screens", lambda number=number: screens_message(clip, labels, number))
        milliseconds.append(1e3 * (time.perf_counter() - begun))
        time.sleep(1 / FRAMES_PER_SECOND / 2)
    server.close()
    p50, p99 = np.quantile(milliseconds, [0.5, 0.99])
    return {
        "readers": STALLED,
        "messages": len(milliseconds),
        "p50_ms": p50,
        "p99_ms": p99,
        "max_ms": max(milliseconds),
    }


def _a_clip() -> Clip:
    """Five frames of eight arms of eight links."""
    shape = (5, 8)
    rng = np.random.default_rng(0)
    scenes = Scene(
        extent=np.broadcast_to(np.array([-1.0, -1.0, 1.0, 1.0]), (*shape, 4)), cells=np.zeros((*shape, 0, 0), np.int8),
        lines=rng.uniform(-1, 1, (*shape, 8, 5)), line_inks=np.full((*shape, 8), 3, np.int8),
        discs=rng.uniform(-1, 1, (*shape, 10, 3)), disc_inks=np.full((*shape, 10), 4, np.int8),
        agents=np.zeros((*shape, 0, 2)),
    )  # fmt: skip
    return Clip(
        scenes=scenes,
        episode_return=np.zeros(shape),
        step=np.zeros(shape, int),
        ended=np.zeros(shape, bool),
        skills=None,
    )


def summarize(rounds: Sequence[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Return medians and ranges of a mode, and its ratios to `off` round by round."""
    record: dict[str, Any] = {}
    for condition in rounds[0]:
        turns = [turn for turn in rounds if condition in turn]
        each = [turn[condition] for turn in turns]
        ratios = [turn[condition]["steps_per_second"] / turn["off"]["steps_per_second"] for turn in turns]
        record[condition] = {
            "steps_per_second": spread([one["steps_per_second"] for one in each]), "ratio_to_off": spread(ratios),
            **{
                name: statistics.median(one[name] for one in each)
                for name in ("main_thread_share", "frames_per_second", "first_picture_seconds")
                if all(name in one for one in each)
            },
        }  # fmt: skip
    return record


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write everything measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live_cost", description=__doc__.split("\n")[0])
    parser.add_argument("--mode", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-browser", action="store_true", help="leave out the browser")
    parser.add_argument("--one", nargs=2, metavar=("MODE", "CONDITION"), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "live_cost.json")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    if options.one:
        print(json.dumps(train_once(*options.one)))
        return
    origin, conditions = provenance(), CONDITIONS[: -1 if options.no_browser else None]
    page = sum(path.stat().st_size for path in (ROOT / "jaxrl_engine" / "live" / "static").iterdir())
    record: dict[str, Any] = {"page_bytes": page, "stalled": stalled_readers(), "modes": {}}
    for mode in options.mode:
        rounds = [
            {each: measure(mode, each) for each in conditions if each != "browser" or number < BROWSER_ROUNDS}
            for number in range(options.rounds)
        ]
        record["modes"][mode] = summarize(rounds)
        write_json(options.output, {**origin, "record": record})
    print(_tabulate(record))


def _tabulate(record: dict[str, Any]) -> str:
    rows = [
        [
            mode, condition, rate(facts["steps_per_second"]["median"]),
            "{median:.3f} ({min:.3f} to {max:.3f})".format(**facts["ratio_to_off"]),
            f"{facts['main_thread_share']:.2%}", f"{facts.get('frames_per_second', float('nan')):.1f}",
            f"{facts.get('first_picture_seconds', float('nan')):.2f}",
        ]
        for mode, conditions in record["modes"].items()
        for condition, facts in conditions.items()
    ]  # fmt: skip
    header = ("mode", "wall", "steps/s", "of off", "main thread", "frames/s", "first picture, s")
    stalled = record["stalled"]
    return (
        table(header, rows)
        + f"\n{stalled['readers']} stalled readers: a message is put in {stalled['p50_ms']:.3f} ms (median), "
        + f"{stalled['p99_ms']:.3f} ms (99 %), {stalled['max_ms']:.3f} ms (most); "
        + f"the page has {record['page_bytes']:,} bytes"
    )


if __name__ == "__main__":
    main()
