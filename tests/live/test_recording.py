"""Recordings: what was written is what is shown, from any moment, at any speed, whatever the file went through."""

import json
import time

import pytest

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.live.mailbox import Mailbox
from jaxrl_engine.live.recording import Playback, Recorder, Recording

ENTRIES = [
    (0.0, "head", {"n": 0}), (0.5, "charts", {"n": 1}), (1.0, "screens", {"n": 2}), (1.5, "head", {"n": 3}),
    (2.0, "screens", {"n": 4}), (2.25, "screens", {"n": 5}),
]  # fmt: skip


def line(moment, topic, message):
    return json.dumps({"time": moment, "topic": topic, "message": message}) + "\n"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "wall.jsonl"
    path.write_text("".join(line(*entry) for entry in ENTRIES))
    return path


def said(news):
    return [(topic, json.loads(text).get("n")) for topic, text in news if topic != "clock"]


def clock(news):
    return json.loads(dict(news)["clock"])


@pytest.mark.parametrize(
    ("moment", "expected", "following"),
    [
        (0.0, [("head", 0)], 1),
        (1.2, [("head", 0), ("charts", 1), ("screens", 2)], 3),
        (2.0, [("charts", 1), ("head", 3), ("screens", 4)], 5),
        (9.0, [("charts", 1), ("head", 3), ("screens", 5)], 6),
    ],
)
def test_any_moment_shows_the_newest_of_every_topic(path, moment, expected, following):
    news, number = Recording(path).until(moment)
    assert said(news) == expected
    assert number == following


def test_lines_that_are_damaged_or_not_whole_are_left_out(path):
    good = path.read_text().splitlines(keepends=True)
    good[2] = good[2][:20] + "\n"
    path.write_text(
        "".join([*good, "[1]\n", '{"time": "x"}\n', "{}\n", line(1.0, "head", {"n": 9}), '{"time": 3.0, "topic": "he'])
    )
    recording = Recording(path)
    assert said(recording.until(9.0)[0]) == [("charts", 1), ("head", 3), ("screens", 5)]
    assert recording.end == 2.25
    with path.open("a") as file:
        file.write('ad", "message": {"n": 10}}\n')
    recording.refresh()
    assert recording.end == 3.0
    assert said(recording.until(9.0)[0])[-1] == ("head", 10)


def test_what_is_recorded_is_what_was_shown(tmp_path):
    box, complaints = Mailbox(), []
    recorder = Recorder(box, tmp_path / "wall.jsonl", complaints.append)
    while not box.readers:
        time.sleep(0.01)
    for number in range(5):
        box.put("screens", lambda number=number: {"n": number, "text": 'a "b"'})
        time.sleep(0.05)
    box.close(patience=5.0)
    recorder.close(patience=5.0)
    entries = [json.loads(text) for text in (tmp_path / "wall.jsonl").read_text().splitlines()]
    assert [entry["message"] for entry in entries] == [{"n": number, "text": 'a "b"'} for number in range(5)]
    times = [entry["time"] for entry in entries]
    assert times == sorted(times) and 0.15 < times[-1] - times[0] < 2.0
    assert complaints == []


def test_a_resumed_run_goes_on_where_its_recording_ended(path):
    box = Mailbox()
    box.put("head", lambda: {"n": 6})
    recorder = Recorder(box, path, print)
    while not box.readers:
        time.sleep(0.01)
    box.close(patience=5.0)
    recorder.close(patience=5.0)
    recording = Recording(path)
    assert 2.25 <= recording.end < 4.0
    assert said(recording.until(recording.end)[0])[-1] == ("head", 6)


def test_a_disk_that_refuses_ends_the_recording_and_says_so(tmp_path):
    box, complaints = Mailbox(), []
    recorder = Recorder(box, tmp_path / "no" / "such" / "directory.jsonl", complaints.append)
    recorder.close(patience=5.0)
    assert len(complaints) == 1 and "No such file" in complaints[0]
    assert box.readers == 0


def test_playback_goes_as_fast_as_it_came(path):
    stream = Playback(path).stream({"from": "1.0"})
    begun, seen = time.monotonic(), []
    for news in stream:
        seen += [(topic, number, time.monotonic() - begun) for topic, number in said(news)]
        if ("screens", 5) in said(news):
            break
    assert [each[:2] for each in seen] == [
        ("head", 0), ("charts", 1), ("screens", 2), ("head", 3), ("screens", 4), ("screens", 5),
    ]  # fmt: skip
    assert seen[3][2] >= 0.5 and seen[4][2] >= 1.0 and 1.25 <= seen[5][2] < 2.5


def test_playback_begins_with_the_first_picture_and_tells_the_time(path):
    news = next(Playback(path).stream({}))
    assert said(news) == [("head", 0), ("charts", 1), ("screens", 2)]
    assert clock(news) == {"time": 1.0, "end": 2.25, "speed": 1.0}


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ({"from": "-5"}, (0.0, 1.0)),
        ({"from": "99", "speed": "1e9"}, (2.25, 100.0)),
        ({"from": "nan", "speed": "x"}, (1.0, 1.0)),
    ],
)
def test_wishes_are_held_within_what_there_is(path, wishes, expected):
    now = clock(next(Playback(path).stream(wishes)))
    assert (now["time"], now["speed"]) == expected


def test_playback_follows_a_run_that_still_goes_on(path):
    stream = Playback(path).stream({"from": "2.25", "speed": "100"})
    next(stream)
    with path.open("a") as file:
        file.write(line(3.0, "screens", {"n": 6}))
    deadline = time.monotonic() + 10.0
    while ("screens", 6) not in said(next(stream)):
        assert time.monotonic() < deadline


def test_no_recording_is_said_plainly(tmp_path):
    with pytest.raises(UserError, match="was not recorded"):
        Playback(tmp_path / "wall.jsonl")
    (tmp_path / "wall.jsonl").write_text("nothing\n")
    with pytest.raises(UserError, match="holds no recording"):
        Playback(tmp_path / "wall.jsonl")
