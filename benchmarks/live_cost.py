"""What the wall costs a run: not there, there with nobody watching, there with a reader; and what a browser sees of it.

    python -m benchmarks.live_cost                           all modes
    python -m benchmarks.live_cost --mode sync --cycles 3    for a trial
    python -m benchmarks.live_cost --no-browser              where there is no Chromium

One run goes through the three conditions in turn, a few seconds each, forwards and backwards, so that what compares was
measured within seconds: two runs of the same kind differ by more than the wall costs. A ratio is that of a cycle to the
same cycle's `off`. The reader is another process that takes every message and draws nothing, as the machine of a remote
viewer would leave to this one. The browser comes last; it draws with the processor, on the cores that train.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any
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

COMMON = ("--total-steps", "2000000000", "--evaluation.count", "0")
RUNS = {
    "sync": (4.0, ("--mode", "sync")),
    "async": (10.0, ("--mode", "async")),
    "map-elites": (10.0, ("--mode", "map-elites", "--qd.updates-per-generation", "4", "--qd.warm-up", "0.0")),
}
"""Seconds of a phase, and the run: each phase holds several chunks."""
PHASES = ("off", "unwatched", "reader")
SETTLED = 0.3
"""The share of a phase that is left out at its beginning: chunks are read one late."""
BROWSER_SECONDS = 12.0
PORT = 18_700
STALLED, MESSAGES = 20, 600
SEEN = ("first_picture_seconds", "frames_per_second")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run",
]  # fmt: skip


# --- the run, in a process of its own --------------------------------------------------------------------------------


class Reader:
    """A process that watches while it is told to."""

    def __init__(self, address: str) -> None:
        command = [sys.executable, "-m", "benchmarks.live_cost", "--read", address]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def watch(self, wanted: bool) -> None:
        """Begin to watch, or stop."""
        assert self._process.stdin is not None
        self._process.stdin.write("open\n" if wanted else "close\n")
        self._process.stdin.flush()

    def frames_per_second(self) -> list[float]:
        """End it; returns how many frames of each screen came per second, time by time."""
        answers, _ = self._process.communicate()
        return [json.loads(line) for line in answers.splitlines()]


def read(address: str, orders: IO[str]) -> None:
    """Watch from each `open` to the following `close`, and print the frames per second of each time."""
    frames: list[tuple[float, int]] = []

    def take(stream: Any) -> None:
        topic = ""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            for line in stream:
                if line.startswith(b"event: "):
                    topic = line[7:].strip().decode()
                elif line.startswith(b"data: ") and topic == "screens":
                    frames.append((time.monotonic(), len(json.loads(line[6:])["screens"][0]["frames"])))

    stream = None
    for order in orders:
        if order == "open\n":
            frames.clear()
            stream = urllib.request.urlopen(f"{address}events", timeout=60)
            threading.Thread(target=take, args=(stream,), daemon=True).start()
        elif stream is not None:
            stream.fp.raw._sock.shutdown(socket.SHUT_RDWR)
            seen = frames[1:]  # the first is the one that was there
            if len(seen) > 1:
                print(sum(count for _, count in seen[1:]) / (seen[-1][0] - seen[0][0]), flush=True)


class Phases(Onlooker):
    """An onlooker that takes the run through the phases, times them, and ends it after the last."""

    cycles = 1
    seconds = 1.0

    def ready(self) -> None:
        super().ready()
        assert self.wall.server is not None
        self.reader = Reader(self.wall.server.address)
        self.begun, self.phase, self.spent = 0.0, -1, 0.0
        self.order = [name for number in range(self.cycles) for name in PHASES[:: 1 if number % 2 == 0 else -1]]
        self.seen: list[list[tuple[float, int, float]]] = [[] for _ in self.order]  # time, steps, seconds spent

    def look(self, state: Any) -> Any:
        if self.phase >= 0 and self.phase < len(self.order) and self.order[self.phase] == "off":
            return None
        begun = time.thread_time()
        show = super().look(state)
        self.spent += time.thread_time() - begun
        return None if show is None else lambda: self.timed(show)

    def timed(self, show: Any) -> None:
        begun = time.thread_time()
        show()
        self.spent += time.thread_time() - begun

    def report(self, row: Mapping[str, Any], shown: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
        super().report(row, shown, progress)
        now = time.monotonic()
        if self.phase < 0:
            self.begun = now
        phase = int((now - self.begun) / self.seconds)
        if phase != self.phase:
            self.enter(phase)
        if phase < len(self.order) and (now - self.begun) / self.seconds - phase >= SETTLED:
            self.seen[phase].append((now, progress["env_steps"], self.spent))

    def enter(self, phase: int) -> None:
        """Begin a phase; after the last one, say what was measured and wait for the browser."""
        watching = [0 <= each < len(self.order) and self.order[each] == "reader" for each in (self.phase, phase)]
        if watching[0] != watching[1]:
            self.reader.watch(watching[1])
        done = self.phase < len(self.order) <= phase
        self.phase = phase
        if done:
            print(json.dumps(self.measured()), flush=True)
        elif phase > len(self.order) + (2 * BROWSER_SECONDS + 30.0) / self.seconds:
            os._exit(0)  # the run itself is of no interest

    def measured(self) -> dict[str, Any]:
        """Return steps per second, cycle by cycle, and the share of the main thread while the reader watched."""
        cycles: list[dict[str, float]] = [{} for _ in range(self.cycles)]
        shares = []
        for number, (name, seen) in enumerate(zip(self.order, self.seen, strict=True)):
            (first, steps, spent), (last, later, more) = seen[0], seen[-1]
            cycles[number // len(PHASES)][name] = (later - steps) / (last - first)
            if name == "reader":
                shares.append((more - spent) / (last - first))
        return {"cycles": cycles, "main_thread_share": shares, "frames_per_second": self.reader.frames_per_second()}


def run_phases(mode: str, cycles: int) -> None:
    """Train in this process until it is killed."""
    enable_compile_cache()
    seconds, options = RUNS[mode]
    Phases.cycles, Phases.seconds = cycles, seconds
    with tempfile.TemporaryDirectory() as place, mock.patch.object(hung_wall, "Onlooker", Phases):
        train(parse([*options, *COMMON]).config, run_dir=Path(place) / "run", wall=WallOptions(live=True, port=PORT))


# --- the whole -------------------------------------------------------------------------------------------------------


def measure(mode: str, cycles: int, *, with_browser: bool) -> dict[str, Any]:
    """Start a run, let it go through its phases, and look at it with a browser."""
    command = [sys.executable, "-m", "benchmarks.live_cost", "--run", mode, "--cycles", str(cycles)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address, measured = "", {}
        for line in process.stdout:
            if line.startswith("wall: "):
                address = line.split()[1]
            if line.startswith("{"):
                measured = json.loads(line)
                break
        seen = browse(address) if with_browser and measured else {}
        process.kill()
    if not measured:
        raise RuntimeError(f"the run of mode {mode} ended too early")
    return summarize(measured, seen)


def browse(address: str) -> dict[str, float]:
    """Open the page; return how soon it had a picture, and the frames a second it drew of each screen."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = chromium.new_page(viewport={"width": 1440, "height": 900})
        begun = time.monotonic()
        page.goto(address)
        while not page.evaluate("window.wall?.frames ?? 0"):
            time.sleep(0.02)
        first = time.monotonic() - begun
        time.sleep(BROWSER_SECONDS / 2)
        then, drawn = time.monotonic(), page.evaluate("window.wall.frames")
        time.sleep(BROWSER_SECONDS)
        shown = (page.evaluate("window.wall.frames") - drawn) / 8 / (time.monotonic() - then)
        chromium.close()
    return {"first_picture_seconds": first, "frames_per_second": shown}


def summarize(measured: dict[str, Any], browser: dict[str, float]) -> dict[str, Any]:
    """Return medians and ranges of a mode, and its ratios to `off` cycle by cycle."""
    cycles = measured["cycles"]
    phases = {
        name: {
            "steps_per_second": spread([cycle[name] for cycle in cycles]),
            "ratio_to_off": spread([cycle[name] / cycle["off"] for cycle in cycles]),
        }
        for name in PHASES
    }
    return {
        "cycles": len(cycles), "phases": phases, "main_thread_share": spread(measured["main_thread_share"]),
        "frames_per_second": statistics.median(measured["frames_per_second"]), "browser": browser,
    }  # fmt: skip


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
    for number in range(MESSAGES):
        begun = time.perf_counter()
        source.mailbox.put("screens", lambda number=number: screens_message(clip, labels, number))
        milliseconds.append(1e3 * (time.perf_counter() - begun))
        time.sleep(1 / FRAMES_PER_SECOND / 2)
    for connection in connections:
        connection.close()
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write everything measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live_cost", description=__doc__.split("\n")[0])
    parser.add_argument("--mode", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--cycles", type=int, default=6)
    parser.add_argument("--no-browser", action="store_true", help="leave out the browser")
    parser.add_argument("--run", choices=list(RUNS), help=argparse.SUPPRESS)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "live_cost.json")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    if options.read:
        return read(options.read, sys.stdin)
    if options.run:
        return run_phases(options.run, options.cycles)
    origin = provenance()
    page = sum(path.stat().st_size for path in (ROOT / "jaxrl_engine" / "live" / "static").iterdir())
    record: dict[str, Any] = {"page_bytes": page, "stalled": stalled_readers(), "modes": {}}
    for mode in options.mode:
        record["modes"][mode] = measure(mode, options.cycles, with_browser=not options.no_browser)
        write_json(options.output, {**origin, "record": record})
    print(_tabulate(record))


def _tabulate(record: dict[str, Any]) -> str:
    def ratio(facts: dict[str, Any], name: str) -> str:
        return "{median:.3f} ({min:.3f} to {max:.3f})".format(**facts["phases"][name]["ratio_to_off"])

    rows = [
        [
            mode, rate(facts["phases"]["off"]["steps_per_second"]["median"]), ratio(facts, "unwatched"),
            ratio(facts, "reader"), f"{facts['main_thread_share']['median']:.2%}", f"{facts['frames_per_second']:.1f}",
            *(f"{facts['browser'].get(name, float('nan')):.2f}" for name in SEEN),
        ]
        for mode, facts in record["modes"].items()
    ]  # fmt: skip
    header = (
        "mode", "steps/s without", "unwatched, of that", "with a reader", "main thread", "frames/s sent",
        "browser: first picture, s", "frames/s drawn",
    )  # fmt: skip
    stalled = record["stalled"]
    return (
        table(header, rows)
        + f"\n{stalled['readers']} stalled readers: a message is put in {stalled['p50_ms']:.3f} ms (median), "
        + f"{stalled['p99_ms']:.3f} ms (99 %), {stalled['max_ms']:.3f} ms (most); "
        + f"the page has {record['page_bytes']:,} bytes"
    )


if __name__ == "__main__":
    main()
