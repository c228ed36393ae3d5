"""The page in a real browser, before real runs of every mode and before their recordings.

Needs Chromium: `python -m pytest -m browser`.
"""

import contextlib
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
import engine_cli

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

RUNS = {
    "sync": ["--mode", "sync"],
    "async": [
        *("--mode", "async", "--env", "reacher", "--num-envs", "8", "--num-steps", "16", "--actors.num-workers", "2"),
        *("--impact.batch-size", "512", "--evaluation.episodes", "5"),
    ],
    "map-elites": [
        *("--mode", "map-elites", "--qd.max-links", "4", "--qd.bins", "5", "--num-envs", "16", "--qd.num-targets", "5"),
        *("--qd.num-offspring", "16", "--qd.num-initial", "16", "--network.hidden-sizes", "16", "--num-steps", "25"),
        *("--qd.updates-per-generation", "2", "--qd.warm-up", "0.0", "--evaluation.episodes", "5"),
    ],
}
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
]  # fmt: skip
COLOURS = """canvas => {
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const seen = new Set();
  for (let at = 0; at < data.length; at += 4) seen.add(data.slice(at, at + 4).join());
  return seen.size;
}"""
PICTURE = "canvas => canvas.toDataURL()"


@pytest.fixture(scope="module")
def browser():
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "no Chromium: install it, or name it in the variable CHROMIUM"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page that keeps what it complains of and whom it asks."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.complaints, page.hosts = [], set()
    page.on("console", lambda message: page.complaints.append(message.text) if message.type != "log" else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.hosts.add(re.sub(r"^(data:).*|^\w+://([^/]+).*", r"\1\2", request.url)))
    yield page
    context.close()


@contextlib.contextmanager
def serving(*arguments, module="run"):
    """Start something that serves a wall; yield the process and the address it prints."""
    process = engine_cli.start(*arguments, module=module)
    try:
        while "wall: " not in (line := process.stdout.readline()):
            assert line, process.communicate()
        yield process, line.split()[1]
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=200)


def until(condition, what, seconds=200):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def clips(page):
    return page.evaluate("window.wall.clips")


def has_lines(page):
    """Whether every chart says that it has values."""
    labels = [chart.get_attribute("aria-label") for chart in page.query_selector_all("canvas.chart")]
    return bool(labels) and not any("no values yet" in label for label in labels)


def assert_alive(page, screens=8):
    """Every screen shows something, and something else a little later; every chart has a line."""
    canvases = page.query_selector_all("canvas.screen")
    assert len(canvases) == screens
    before = [canvas.evaluate(PICTURE) for canvas in canvases]
    assert min(canvas.evaluate(COLOURS) for canvas in canvases) >= 3
    until(lambda: all(old != each.evaluate(PICTURE) for old, each in zip(before, canvases, strict=True)), "a still", 30)
    charts = page.query_selector_all("canvas.chart")
    assert len(charts) == 4
    assert min(chart.evaluate(COLOURS) for chart in charts) >= 3
    assert has_lines(page)


def assert_quiet(page, address):
    host = address.split("/")[2]
    assert page.complaints == []
    assert page.hosts <= {host, "data:"}


@pytest.mark.parametrize("mode", RUNS)
def test_a_run_is_shown_while_it_works_and_again_from_its_recording(page, mode, tmp_path):
    common = ("--live", "--live-port", "18500", "--record", "--run-dir", tmp_path / "run", "--total-steps", "100000000")
    with serving(*RUNS[mode], *common, "--logging.every-updates", "1") as (process, address):
        page.goto(address)
        until(lambda: "compiling" in page.inner_text("#state") or clips(page), "nothing came")
        until(lambda: clips(page) >= 2, "no picture of the run")
        until(
            lambda: all(page.query_selector_all("canvas.chart")) and "no values" not in page.inner_text("#charts"),
            "rows",
        )
        assert_alive(page)
        labels = page.inner_text("#screens")
        assert labels.count("R ") >= 8 and labels.count("S ") >= 8
        assert page.inner_text("#title") == "reacher"
        assert "running" in page.inner_text("#state")
        if mode == "map-elites":
            assert_a_body_can_be_chosen(page)
        assert_quiet(page, address)
        process.send_signal(signal.SIGINT)
        until(lambda: "interrupted" in page.inner_text("#state").lower(), "the page does not know the end")
    with serving(tmp_path / "run", "--port", "18540", module="live") as (process, address):
        page.goto(address)
        page.complaints.clear()  # that the server before was gone
        page.hosts.clear()
        until(lambda: clips(page) >= 2, "no picture of the recording")
        assert_alive(page)
        assert page.is_visible("#player")
        page.click("#play")
        assert_quiet(page, address)


def assert_a_body_can_be_chosen(page):
    """A click on a cell that holds an elite brings its body to the first screen."""
    until(lambda: page.query_selector("canvas.map") is not None, "no map", 60)
    until(lambda: "links" in page.inner_text("#screens"), "no elite on any screen", 60)
    box = page.query_selector("canvas.map").bounding_box()
    for x in range(20, int(box["width"]) - 20, 25):
        for y in range(20, int(box["height"]) - 20, 25):
            page.mouse.click(box["x"] + x, box["y"] + y)
            if page.query_selector("#repertoire button:visible") is not None:
                return
    raise AssertionError("no cell could be chosen")


def test_the_demonstration_shows_eight_worlds(page):
    with serving("--demo", "--port", "18560", module="live") as (_, address):
        page.goto(address)
        until(lambda: len(page.query_selector_all("canvas.screen")) == 8, "not all worlds came")
        canvases = page.query_selector_all("canvas.screen")
        until(lambda: min(canvas.evaluate(COLOURS) for canvas in canvases) >= 3, "an empty screen")
        before = [canvas.evaluate(PICTURE) for canvas in canvases]
        until(lambda: all(o != c.evaluate(PICTURE) for o, c in zip(before, canvases, strict=True)), "a still", 60)
        assert_quiet(page, address)


def test_a_browser_that_is_killed_changes_nothing_for_the_run(browser, tmp_path):
    common = ("--live", "--live-port", "18580", "--run-dir", tmp_path / "run", "--total-steps", "100000000")
    with serving("--mode", "sync", *common) as (process, address):
        page = browser.new_context().new_page()
        page.goto(address)
        until(lambda: clips(page) >= 1, "no picture")
        page.context.close()
        steps = engine_steps(tmp_path / "run")
        until(lambda: engine_steps(tmp_path / "run") > steps + 50_000, "the run stands still", 60)
        assert process.poll() is None


def engine_steps(run_dir):
    import json

    return json.loads((run_dir / "status.json").read_text())["env_steps"]
