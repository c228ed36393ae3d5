"""The measurement of bodies by the batch, as small as it goes."""

import json

import pytest

from benchmarks import body_throughput


@pytest.mark.slow
def test_what_is_published_was_measured(tmp_path, capsys):
    path = tmp_path / "bodies.json"
    body_throughput.main(["--batches", "3", "--bodies-alone", "1", "--repetitions", "2", "--output", str(path)])
    record = json.loads(path.read_text())["record"]
    different, same, share = (record["stepping"][name] for name in ("different", "same", "share_of_one_body"))
    assert different["median"] > 0 and same["median"] > 0
    assert share["min"] <= share["median"] <= share["max"]
    assert set(record["judging"]) == {"3"} and record["judging"]["3"]["median"] > 0
    assert record["compiling"]["own_program_seconds_per_body"] > 0
    assert "bodies judged/s, batch 3" in capsys.readouterr().out
