"""The benchmark of the repertoire: what it times, and how it reports it."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import qd_throughput


def row(operation, contestant, seconds, ratio=1.0, goal=None):
    return {
        "operation": operation, "contestant": contestant, "seconds": seconds, "fastest": 1.0, "slowest": 2.0,
        "ratio": ratio, "goal": goal, "elites": 97,
    }  # fmt: skip


ROWS = [
    row("insert", "ours", 20e-6), row("insert", "qdax", 150e-6, 7.5, 10.0), row("insert inside", "ours", 12.5e-6),
    row("loop 256", "ours", 0.4e-6), row("loop 256", "qdax", 4e-6, 10.0, 1.0),
    row("loop 256", "pyribs", 1e-6, 2.5, 1.0), row("loop 1024", "ours", 1e-6),
]  # fmt: skip


def test_a_table_of_microseconds_and_rates():
    assert qd_throughput.table(ROWS).splitlines()[2:] == [
        "| insert, µs | 20 | 150 (7.5×) |  |",
        "| insert inside, µs | 12.5 |  |  |",
        "| loop 256, evaluations/s | 2.5 M | 250 k (10×) | 1 M (2.5×) |",
        "| loop 1024, evaluations/s | 1 M |  |  |",
    ]


def test_every_goal_is_called_met_or_missed():
    assert qd_throughput.verdict(ROWS).splitlines() == [
        "loop: 2.5 M evaluations/s, goal 2 M: met",
        "insert: 7.5 times qdax, goal 10: missed",
        "loop 256: 10 times qdax, goal 1: met",
        "loop 256: 2.5 times pyribs, goal 1: met",
    ]
    assert qd_throughput.verdict(ROWS[-1:]) == "loop: 1 M evaluations/s, goal 2 M: missed"


def test_ratios_are_of_neighbours():
    times = {"ours": [1.0, 2.0, 10.0], "pyribs": [3.0, 2.0, 20.0]}
    made = qd_throughput._row("loop 1024", "pyribs", times, 5)
    assert made["seconds"] == 3.0 and made["ratio"] == 2.0 and made["goal"] == 1.0
    assert qd_throughput._row("insert", "pyribs", times, 5)["goal"] is None


def test_an_arm_worked_by_hand_is_the_same_for_numpy_and_jax():
    """All angles 0 but one of π/2: five links along x, three along y; the mean square less the squared mean."""
    genotype = np.full((1, 8), 0.5, np.float32)
    genotype[0, 5] = 0.75
    variance = (np.pi / 2) ** 2 * (1 / 8 - 1 / 64)
    for xp in (np, jnp):
        fitness, tip = qd_throughput.arm(genotype, xp)
        np.testing.assert_allclose(fitness, [-variance], rtol=1e-5)
        np.testing.assert_allclose(tip, [[5 / 8, 3 / 8]], atol=1e-6)


@pytest.fixture
def short(monkeypatch):
    for name, value in (("EVALUATIONS", 97), ("SECONDS_PER_RUN", 0.0), ("DRAWN_TOGETHER", 26), ("CANDIDATES", 53)):
        monkeypatch.setattr(qd_throughput, name, value)


def test_ours_is_timed_and_fills_cells(short):
    rows = qd_throughput.measure(["ours"], [13], 1)
    assert [each["operation"] for each in rows] == ["insert", "insert inside", "loop 13"]
    assert all(each["seconds"] > 0 for each in rows)
    work = qd_throughput.Work.draw()
    cell = np.floor((work.descriptors + 1.0) * 16.0).astype(int)
    filled = len(np.unique(cell.reshape(-1, 2), axis=0))
    assert rows[1]["elites"] == filled
    first = len(np.unique(cell[0], axis=0))
    assert first <= rows[2]["elites"] < filled + 97 * 8


def test_a_results_file_without_peers(short, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(qd_throughput, "installed", lambda name: name == "ours")
    output = tmp_path / "made" / "result.json"
    qd_throughput.main(["--batches", "13", "--rounds", "1", "--output", str(output)])
    record = json.loads(output.read_text())
    assert record["left_out"] == ["qdax", "pyribs"] and record["versions"].keys() == {"jax"}
    assert {each["operation"] for each in record["rows"]} == {"insert", "insert inside", "loop 13"}
    assert "left out: qdax, pyribs" in capsys.readouterr().err
