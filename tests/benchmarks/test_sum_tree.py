"""The benchmark of prioritised replay: what it times, and how it reports it."""

import numpy as np

from benchmarks import sum_tree


def row(contestant, microseconds, ratio, goal=None, operation="set"):
    return {
        "capacity": 100_000, "batch": 128, "operation": operation, "contestant": contestant,
        "microseconds": microseconds, "fastest": 1.0, "slowest": 99.0, "ratio": ratio, "goal": goal,
    }  # fmt: skip


def test_a_missed_goal_is_named_and_a_gap_is_empty():
    rows = [row("ours", 12.5, 1.0), row("flashbax", 10.0, 0.8, 1.0), row("ours", 40.0, 1.0, operation="sample")]
    rows.append(row("flashbax", 60.0, 1.5, 1.3, operation="sample"))
    rows.append(row("cpprb", 4.0, 0.32))
    assert sum_tree.table(rows).splitlines()[2:] == [
        "| set | 100,000 | 128 | 12.5 | 10 (0.80×) **goal 1 missed** | 4 (0.32×) |",
        "| sample | 100,000 | 128 | 40 | 60 (1.50×) |  |",
    ]


def test_ratios_are_of_neighbours():
    times = {"ours": [1.0, 2.0, 10.0], "flashbax": [3.0, 2.0, 20.0]}
    made = sum_tree._row(100_000, 128, "sample", "flashbax", times)
    assert made["microseconds"] == 3.0 and made["ratio"] == 2.0 and made["goal"] == 1.3
    assert sum_tree._row(10_000, 128, "sample", "flashbax", times)["goal"] is None


def test_ours_and_plain_python_are_timed(monkeypatch, tmp_path):
    monkeypatch.setattr(sum_tree, "SECONDS_PER_RUN", 0.0)
    rows = sum_tree.measure(97, 5, ["ours", "plain Python"], 1)
    assert [each["operation"] for each in rows if each["contestant"] == "ours"] == list(sum_tree.OPERATIONS)
    assert all(each["microseconds"] > 0 for each in rows)
    sum_tree.draw(rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 0


def test_plain_python_finds_what_ours_finds():
    work = sum_tree.Work.draw(97, 5)
    write, _ = sum_tree.plain_python(work)["set"]
    find, _ = sum_tree.plain_python(work)["sample"]
    write(0)
    assert find(0) == np.floor(work.uniforms[0] * 97).astype(int).tolist()  # a tree of its own: every priority one
    assert not sum_tree.installed("no_such_library") and sum_tree.installed("ours")
