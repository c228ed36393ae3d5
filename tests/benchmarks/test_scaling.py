"""All-reduces and costs against those counted by hand; everything measured as small as it goes."""

import dataclasses
import json
import math

import pytest

from benchmarks import cost_model, scaling, scaling_report
from benchmarks.cost_formulas import (
    Assumptions,
    AsyncPieces,
    SyncPieces,
    checks,
    hops_seconds,
    predict_async,
    predict_sync,
)
from benchmarks.machine import ROOT
from benchmarks.scaling_devices import all_reduces
from benchmarks.scaling_pieces import Wire, sync_bytes

PROGRAM = """HloModule jit_learn

%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %add = f32[] add(%a, %b)
}

%body (carry: (s32[], f32[3,5])) -> (s32[], f32[3,5]) {
  %all-reduce.1 = f32[3,5]{1,0} all-reduce(%gradient), to_apply=%sum
  %all-reduce.2 = (f32[7]{0}, bf16[]) all-reduce(%moments, %scale), to_apply=%sum
  %start = s32[2]{0} all-reduce-start(%count), to_apply=%sum
  %done = s32[2]{0} all-reduce-done(%start)
}

ENTRY %main (x: f32[11]) -> f32[11] {
  %all-reduce.3 = pred[11]{0} all-reduce(%finite), to_apply=%sum
  ROOT %use = f32[11]{0} add(%x, %all-reduce.3)
}
"""


def test_all_reduces_by_hand():
    assert all_reduces(PROGRAM) == {
        "in_loops": 3, "bytes_in_loops": 4 * 15 + 4 * 7 + 2 + 4 * 2, "outside": 1, "bytes_outside": 11
    }  # fmt: skip
    assert all_reduces("") == {"in_loops": 0, "bytes_in_loops": 0, "outside": 0, "bytes_outside": 0}


def test_a_tree_there_and_back():
    # Eight members are three hops apart; each sends and receives 7/8 of the bytes.
    assert hops_seconds(8, 5, 1000, 0.01, 100.0) == pytest.approx(5 * 2 * 3 * 0.01 + 2 * 7 / 8 * 1000 / 100)
    assert hops_seconds(5, 1, 0, 0.01, 100.0) == pytest.approx(2 * 3 * 0.01)
    assert hops_seconds(1, 5, 1000, 0.01, 100.0) == 0.0


PIECES = SyncPieces(
    update_seconds_per_sample=3e-3, rollout_seconds_per_sample=2e-3, gradient_steps=5, gradient_bytes=700,
    reduces_per_gradient_step=2, bytes_per_gradient_step=1000, steps_per_environment=7,
    state_bytes_per_environment=11.0, temporary_bytes_per_environment=13.0,
)  # fmt: skip
FREE = Assumptions(
    gpu_times_host=10.0, floor_seconds=0.0, local_latency=0.0, local_bandwidth=math.inf, network_latency=0.0,
    network_bandwidth=math.inf, gpu_dollars_per_hour=3600.0,
)  # fmt: skip


def test_devices_that_exchange_nothing_are_as_many_times_as_fast():
    alone, all_of_them = (predict_sync(gpus, 64, PIECES, FREE) for gpus in (1, 16))
    # 64 · 7 samples, each of 5 ms on the host, a tenth of it on the device.
    assert alone["steps_per_second"] == pytest.approx(64 * 7 / (64 * 7 * 5e-4))
    assert all_of_them["steps_per_second"] == pytest.approx(16 * alone["steps_per_second"])
    assert all_of_them["dollars_per_billion_steps"] == pytest.approx(alone["dollars_per_billion_steps"]) == 5e5
    assert all_of_them["memory_per_gpu"] == 4 * 24 and all_of_them["checkpoint"] == 64 * 11


def test_what_does_not_shrink_with_the_batch():
    slow = dataclasses.replace(FREE, floor_seconds=1.0, local_latency=0.1, network_latency=0.2)
    told = predict_sync(16, 64, PIECES, slow)
    assert told["rollout"] == pytest.approx(7.0) and told["learning"] == pytest.approx(5.0)
    # Two all-reduces per gradient step: three hops there and back in a host of eight, one among two hosts.
    assert told["exchange"] == pytest.approx(5 * 2 * (2 * 3 * 0.1 + 2 * 1 * 0.2))


def test_what_of_the_learner_breaks_first():
    pieces = AsyncPieces(
        steps_per_host=100.0, learned_steps=1000.0, updates=2.0, bytes_per_step=30.0, steps_per_rollout=50,
        broadcast_bytes=700, replay_bytes=0.0, learner_dollars_per_hour=4.0,
    )  # fmt: skip
    assumed = Assumptions(learner_bandwidth=10_000.0, message_seconds=0.01, collector_dollars_per_hour=0.7)
    told = predict_async(20, pieces, assumed)
    # 2,000 steps/s in 40 rollouts/s; two of them per host, each with new parameters.
    assert (told["learner"], told["inbound"], told["messages"]) == (2.0, 6.0, pytest.approx(0.4))
    assert told["outbound"] == pytest.approx(40 * 700 / 10_000)
    assert told["useful"] == pytest.approx(2000 / 6)
    assert told["dollars_per_hour"] == pytest.approx(18.0)
    assert told["dollars_per_billion_steps"] == pytest.approx(18 / 3600 * 1e9 / (2000 / 6))
    # Fewer updates than rollouts: what has not changed is not sent again.
    rarely = predict_async(20, dataclasses.replace(pieces, updates=0.5), assumed)
    assert rarely["outbound"] == pytest.approx(10 * 700 / 10_000)


def test_two_processes_pay_for_their_all_reduces():
    records = {
        "all_reduce": [
            {"bytes": 500, "seconds": {"median": 0.6}},
            {"bytes": 700, "seconds": {"median": 0.7}},
            {"bytes": 1500, "seconds": {"median": 1.6}},
        ],
        "processes": {
            "num_envs": 10, "steps_per_environment": 3,
            "steps_per_second": {"1": {"median": 2.0}}, "two_over_one": {"median": 0.25},
        },
    }  # fmt: skip
    # 0.1 s and 1 ms per byte: five gradient steps of two all-reduces, 1,000 bytes in all, beside 15 s.
    ((_, computed, measured),) = checks(records, PIECES)
    assert computed == pytest.approx(15 / (15 + 5 * (2 * 0.1 + 1.0))) and measured == 0.25


def test_parameters_by_hand():
    # CartPole: 4 observations, 2 actions; two networks of 64-64 units.
    told = sync_bytes("gymnax:CartPole-v1")
    body = (4 * 64 + 64) + (64 * 64 + 64)
    assert told["parameters"] == (body + 64 * 2 + 2) + (body + 64 + 1)
    assert told["gradient_bytes"] == 4 * told["parameters"]
    assert told["gradient_steps"] == 16


def test_the_wire_takes_whole_messages_one_after_the_other():
    with Wire() as wire:
        for size in (1, 1_000_003, 0, 17):
            wire.send(bytes(size))


def test_every_assumption_is_said():
    assert set(cost_model.ASSUMED) == {field.name for field in dataclasses.fields(Assumptions)}


def test_tables_are_laid_between_the_words_of_a_document():
    text = "before\n<!-- model: begin -->\nold\n<!-- model: end -->\nafter\n"
    new = cost_model.between(text, "model", "| new |")
    assert new == "before\n<!-- model: begin -->\n\n| new |\n\n<!-- model: end -->\nafter\n"
    assert cost_model.between(new, "model", "| new |") == new
    with pytest.raises(ValueError, match="no block between <!-- measured: begin -->"):
        cost_model.between(text, "measured", "")


@pytest.mark.slow
def test_what_a_gpu_would_be_asked_for_runs_here():
    question = {"part": "climb", "env": "gymnax:CartPole-v1", "num_envs": 4, "rounds": 2, "seconds": 0.01}
    told = scaling.ask("benchmarks.scaling_devices", question)
    assert told["num_envs"] == 4 and told["peak_memory_bytes"] > 2**20
    assert 0 < told["steps_per_second"]["min"] <= told["steps_per_second"]["max"]
    assert "| 65,536 | 1.5 M | 2.50 |" in scaling_report.report(
        {"gpu": [{**told, "num_envs": 65_536, "steps_per_second": {"median": 1.5e6}, "peak_memory_bytes": 2.5 * 2**30}]}
    )
    assert scaling_report.report({"gpu": None}) == ""


@pytest.mark.slow
@pytest.mark.timeout(600)  # nine processes start one after the other
def test_every_section_is_measured_and_the_model_reads_it(tmp_path, capsys):
    output = tmp_path / "out.json"
    scaling.main(["--quick", "--rounds", "1", "--output", str(output)])
    shown = capsys.readouterr().out
    told = {name: each["record"] for name, each in json.loads(output.read_text()).items()}
    assert set(told) == set(scaling.SECTIONS)
    cells = {(cell["num_envs"], cell["devices"]): cell for cell in told["devices"]["cells"]}
    assert set(cells) == {(8, 1), (8, 2), (4, 1)}
    for cell in cells.values():
        for part in ("update", "rollout", "chunk"):
            seconds = cell[part]["seconds"]
            assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
        assert cell["chunk_temporary_bytes_per_device"] > 0
        reduces = cell["all_reduces"]
        # In every gradient step at least the gradients are summed.
        enough = told["pieces"]["sync"]["gradient_bytes"]
        assert reduces["bytes_in_loops"] >= enough if cell["devices"] > 1 else reduces["in_loops"] == 0
    assert cells[8, 1]["update"]["over_one_device"]["median"] == 1.0
    assert "over_one_device" in cells[8, 2]["update"]
    weak = cells[8, 2]["update"]["over_as_many_updates_of_one"]
    assert 0 < weak["min"] <= weak["median"] <= weak["max"]
    assert told["processes"]["two_over_one"]["min"] > 0
    assert [each["bytes"] for each in told["all_reduce"]] == [1000, 4000]
    assert all(each["seconds"]["min"] > 0 for each in told["all_reduce"])
    for title in ("same batch over more simulated devices", "processes on the same cores", "gloo", "per broadcast"):
        assert title in shown
    cost_model.main(["--scaling", str(output), "--assume", "gpu_times_host=50"])
    shown = capsys.readouterr().out
    assert "measured host | 50 | assumed |" in shown
    paper = tmp_path / "scaling.md"
    paper.write_text((ROOT / "docs" / "scaling.md").read_text())
    cost_model.main(["--scaling", str(output), "--write", str(paper)])
    assert "measured host | 100 | assumed |" in paper.read_text() and "**The same batch" in paper.read_text()
    for line in ("Sync mode on GPUs (computed)", "Async mode with many collectors (computed)"):
        assert line in shown
