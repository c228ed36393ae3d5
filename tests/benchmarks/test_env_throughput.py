"""The benchmark of the worlds: what it times, and how it reports it."""

from benchmarks import env_throughput, peer_worlds


def test_a_world_is_timed_with_and_without_reset():
    row = env_throughput.measure(env_throughput.Entry("constant", "probe:constant", {}), 3, 1)
    assert row["steps_per_second"] > 0 and row["bare_steps_per_second"] > 0 and row["compile_seconds"] > 0
    assert row["num_envs"] == 3 and row["goal"] is None and "peer" not in row


def test_a_missed_goal_is_named_and_a_peer_compared():
    row = {
        "world": "w", "num_envs": 1024, "steps_per_second": 900.0, "bare_steps_per_second": 1000.0, "reset_share": 0.1,
        "goal": 1000, "peer": "other:w", "peer_steps_per_second": 450.0, "ratio": 2.0,
    }  # fmt: skip
    assert env_throughput.table([row]).splitlines()[-1] == (
        "| w | 1,024 | 900 | 1,000 | 10% | 1,000 **missed** | other:w | 450 | 2 |"
    )
    met = {**row, "steps_per_second": 1000.0}
    assert "missed" not in env_throughput.table([met])


def test_every_peer_that_is_named_can_be_made():
    families = {entry.peer.partition(":")[0] for entry in env_throughput.WORLDS if entry.peer}
    assert families == set(peer_worlds._FAMILIES)
    assert not peer_worlds.installed("no_such_library:world")
