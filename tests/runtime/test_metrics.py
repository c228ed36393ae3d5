"""Every row reaches the disk or somebody hears of it."""

import json
import logging
import math
import os
import sys
import threading
import types

import numpy as np
import pytest

from jaxrl_engine.core.config import Config
from jaxrl_engine.runtime import metrics
from jaxrl_engine.runtime.errors import RunError
from jaxrl_engine.runtime.metric_sinks import JsonlSink, TensorBoardSink, cut_rows
from jaxrl_engine.runtime.metrics import MetricWriter
from jaxrl_engine.runtime.run_directory import RunDirectory


@pytest.fixture
def run(tmp_path):
    with RunDirectory.create(tmp_path / "run", Config()) as directory:
        yield directory


def writer_for(run, tensorboard=False, resume=None) -> MetricWriter:
    return MetricWriter(run, tensorboard=tensorboard, wandb=False, resume_env_steps=resume)


def rows_of(run) -> list[dict]:
    """Read metrics.jsonl with a parser that knows no NaN."""
    lines = run.metrics_path.read_text().splitlines()
    return [json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON")) for line in lines]


def events_of(run) -> list:
    """Read the event files as TensorBoard does: length, checksum of it, bytes, checksum of them."""
    from tensorboardX.crc32c import crc32c
    from tensorboardX.proto.event_pb2 import Event

    events = []
    for path in sorted(run.path.glob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            body, data = data[12 : 12 + size], data[16 + size :]
            events.append(Event.FromString(body))
            assert crc32c(body)
    return events


def scalars_of(run) -> list[tuple[int, str, float]]:
    return [(event.step, value.tag, value.simple_value) for event in events_of(run) for value in event.summary.value]


def test_rows_become_lines_of_strict_json(run):
    with writer_for(run) as writer:
        writer.write(128, {"Losses/Policy": 0.5, "Charts/EpisodeReturn": math.nan, "Eval/return": None})
        writer.write(128, {"a": [1.0, math.inf], "b": np.float32(0.25), "c": np.array([1, 2])})
        writer.write(256, {})
    rows = rows_of(run)
    assert rows[0].pop("wall_seconds") <= rows[1].pop("wall_seconds") <= rows[2].pop("wall_seconds")
    assert rows == [
        {"env_steps": 128, "Losses/Policy": 0.5, "Charts/EpisodeReturn": None, "Eval/return": None},
        {"env_steps": 128, "a": [1.0, None], "b": 0.25, "c": [1, 2]},
        {"env_steps": 256},
    ]


def test_a_row_is_taken_as_it_was_when_written(run):
    row, array = {"a": 1.0}, np.array([1.0, 2.0])
    with writer_for(run) as writer:
        writer.write(1, {**row, "b": array})
        array[:] = 0.0
        writer.write(2, row)
        row["a"] = 9.0
    assert [(found["a"], found.get("b")) for found in rows_of(run)] == [(1.0, [1.0, 2.0]), (1.0, None)]


def test_tensorboard_holds_the_same_scalars(run):
    with writer_for(run, tensorboard=True) as writer:
        for step in range(0, 700, 7):
            writer.write(step, {"Losses/Policy": step / 8, "list": [1.0], "none": None, "nan": math.nan, "int": 3})
    expected = [
        (step, tag, value) for step in range(0, 700, 7) for tag, value in (("Losses/Policy", step / 8), ("int", 3.0))
    ]
    assert scalars_of(run) == expected
    assert [row["env_steps"] for row in rows_of(run)] == list(range(0, 700, 7))


def test_resuming_cuts_what_came_after_the_checkpoint(run):
    with writer_for(run, tensorboard=True) as writer:
        for step in (10, 20, 30, 40):
            writer.write(step, {"a": float(step)})
    kept = run.metrics_path.read_text().splitlines()[:2]
    with run.metrics_path.open("a") as file:
        file.write('{"env_steps": 5, "wall_sec')  # torn by a kill
    with writer_for(run, tensorboard=True, resume=20) as writer:
        assert run.metrics_path.read_text().splitlines() == kept
        writer.write(30, {"a": -30.0})
    rows = rows_of(run)
    assert [(row["env_steps"], row["a"]) for row in rows] == [(10, 10.0), (20, 20.0), (30, -30.0)]
    assert rows[2]["wall_seconds"] >= rows[1]["wall_seconds"]
    assert [path.name for path in run.path.glob(".*.tmp")] == []
    restart = [event for event in events_of(run) if event.HasField("session_log")]
    assert [(event.step, event.session_log.status) for event in restart] == [(21, 1)]  # START: forget step 21 and later


def test_wall_seconds_go_on_after_a_resume(run):
    run.metrics_path.write_text('{"env_steps": 10, "wall_seconds": 1000.5, "a": 1}\n')
    with writer_for(run, resume=10) as writer:
        writer.write(11, {})
    assert 1000.5 <= rows_of(run)[1]["wall_seconds"] < 1060


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[1]",
        '{"env_steps": "3", "wall_seconds": 1}',
        '{"env_steps": 3}',
        '{"env_steps": 99, "wall_seconds": 1}',
    ],
)
def test_lines_that_are_no_rows_are_cut(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    good = '{"env_steps": 1, "wall_seconds": 2.5}\n'
    path.write_text(good + line + "\n" + good)
    assert cut_rows(path, 50) == 2.5
    assert path.read_text() == good + good


def test_cutting_what_is_not_there(tmp_path):
    assert cut_rows(tmp_path / "metrics.jsonl", 50) == 0.0
    assert os.listdir(tmp_path) == []


def test_steps_never_fall(run):
    with writer_for(run) as writer:
        writer.write(20, {})
        writer.write(20, {})
        with pytest.raises(ValueError, match="must not fall: 19 after 20"):
            writer.write(19, {})
    with writer_for(run, resume=20) as writer, pytest.raises(ValueError, match="must not fall"):
        writer.write(19, {})


def test_flush_means_on_disk(run):
    with writer_for(run, tensorboard=True) as writer:
        for step in range(50):
            writer.write(step, {"a": float(step)})
        writer.flush()
        assert len(rows_of(run)) == 50
        assert len(scalars_of(run)) == 50


class Full:
    """A sink that takes some rows, then fails like a full disk."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def write(self, env_steps, wall_seconds, row):
        self.rows -= 1
        if self.rows < 0:
            raise OSError(28, "No space left on device")

    def flush(self): ...

    def close(self): ...


@pytest.mark.parametrize("call", ["write", "flush", "close"])
def test_an_error_of_the_thread_surfaces(run, monkeypatch, call):
    monkeypatch.setattr(metrics, "JsonlSink", lambda path: Full(1))
    writer = writer_for(run)
    writer.write(1, {})
    writer.write(2, {})
    writer._queue.join()
    with pytest.raises(RunError, match=r"cannot write metrics to .*run: No space left on device"):
        {"write": lambda: writer.write(3, {}), "flush": writer.flush, "close": writer.close}[call]()
    writer.close()  # it was heard: closing says no more
    with pytest.raises(ValueError, match="closed"):
        writer.write(4, {})


def test_an_error_found_on_leaving_does_not_hide_another(run, monkeypatch, caplog):
    monkeypatch.setattr(metrics, "JsonlSink", lambda path: Full(0))
    with caplog.at_level(logging.ERROR), pytest.raises(KeyError), writer_for(run) as writer:
        writer.write(1, {})
        raise KeyError("the real trouble")
    assert "No space left on device" in caplog.text
    with pytest.raises(RunError), writer_for(run) as writer:
        writer.write(1, {})


def test_a_failing_writer_never_blocks_its_caller(run, monkeypatch):
    sink = Full(0)
    monkeypatch.setattr(metrics, "JsonlSink", lambda path: sink)
    monkeypatch.setattr(metrics, "MAX_WAITING_ROWS", 3)
    writer = writer_for(run)
    with pytest.raises(RunError):
        for step in range(1000):
            writer.write(step, {})
        writer.flush()
    writer.close()
    assert sink.rows == -1  # after the row that failed none was tried: no gap in the file


class Slow(JsonlSink):
    gate = threading.Event()

    def write(self, env_steps, wall_seconds, row):
        self.gate.wait()
        super().write(env_steps, wall_seconds, row)


def test_a_full_queue_blocks_and_drops_nothing(run, monkeypatch):
    monkeypatch.setattr(metrics, "JsonlSink", Slow)
    monkeypatch.setattr(metrics, "MAX_WAITING_ROWS", 5)
    with writer_for(run) as writer:
        producer = threading.Thread(target=lambda: [writer.write(step, {}) for step in range(23)])
        producer.start()
        producer.join(0.2)
        assert producer.is_alive()  # blocked: at most five wait and one is being written
        assert writer._queue.qsize() == 5
        Slow.gate.set()
        producer.join()
    assert [row["env_steps"] for row in rows_of(run)] == list(range(23))


def test_a_directory_that_cannot_be_written_is_named(run):
    run.metrics_path.mkdir()
    with pytest.raises(RunError, match=r"cannot write metrics to .*: Is a directory"):
        writer_for(run)


def test_wandb_gets_the_rows(run, monkeypatch):
    logged, finished = [], []
    service = types.SimpleNamespace(
        log=lambda row, step: logged.append((step, row["a"])), finish=lambda: finished.append(True)
    )
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **facts: service))
    with MetricWriter(run, tensorboard=False, wandb=True, resume_env_steps=None) as writer:
        writer.write(3, {"a": 0.5})
    assert (logged, finished) == ([(3, 0.5)], [True])


@pytest.mark.parametrize("moment", ["import", "init", "log", "finish"])
def test_wandb_may_fail_at_any_time(run, monkeypatch, caplog, moment):
    def fail(*_, **__):
        raise RuntimeError(f"no\nnetwork at {moment}")

    works = lambda *_, **__: None  # noqa: E731
    service = types.SimpleNamespace(
        log=fail if moment == "log" else works, finish=fail if moment == "finish" else works
    )
    module = types.SimpleNamespace(init=fail if moment == "init" else lambda **facts: service)
    monkeypatch.setitem(sys.modules, "wandb", None if moment == "import" else module)
    with (
        caplog.at_level(logging.WARNING),
        MetricWriter(run, tensorboard=False, wandb=True, resume_env_steps=None) as writer,
    ):
        writer.write(1, {"a": 1.0})
        writer.write(2, {"a": 1.0})
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert warnings[0].startswith("no metrics to Weights & Biases: ")
    assert "\n" not in warnings[0]
    assert len(rows_of(run)) == 2


def test_two_event_files_of_the_same_second_do_not_share_a_name(tmp_path):
    for _ in range(2):
        TensorBoardSink(tmp_path, None).close()
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 2
