"""The measurement of lags, on a short run."""

import json

from benchmarks import async_lag


def test_every_update_is_looked_at_and_none_learns_from_older_data_than_allowed(tmp_path):
    path = tmp_path / "lag.json"
    async_lag.main(["--updates", "211", "--output", str(path)])
    record = json.loads(path.read_text())["record"]
    assert record["updates"] == 211
    assert record["violations"] == 0
    assert 0 < record["lag_max"] <= async_lag.MAX_LAG
