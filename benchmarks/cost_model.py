"""What many machines would do, computed from what one machine did.

    python -m benchmarks.cost_model                              prints the tables of docs/scaling.md
    python -m benchmarks.cost_model --write docs/scaling.md      lays them, and those of benchmarks.scaling, into it

Reads `results/scaling.json` and `results/async_throughput.json`. Every input is marked: *measured* there, *computed*
from shapes or programs, or *assumed* (`Assumptions`, which `--assume name=value` changes). What is printed of many
machines is computed from these, and was never measured.
"""

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.report import rate, table
from benchmarks.scaling_report import report

RESULTS = ROOT / "benchmarks" / "results"
HOSTS = (1, 10, 100, 256, 1000)
Record = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """What nothing here measured."""

    gpu_times_host: float = 100.0  # what a GPU computes in the time of the measured host, batch large enough
    floor_seconds: float = 3e-4  # of one environment step or one gradient step on a GPU, however small: its kernels
    gpus_per_host: int = 8
    local_latency: float = 5e-6  # seconds of one hop between GPUs of a host (NVLink)
    local_bandwidth: float = 2e11  # bytes/s
    network_latency: float = 2e-5  # seconds of one hop between GPU hosts (InfiniBand, 200 Gbit/s)
    network_bandwidth: float = 2e10  # bytes/s
    gpu_dollars_per_hour: float = 2.5
    collector_dollars_per_hour: float = 0.08  # a host of two cores
    learner_bandwidth: float = 1.25e9  # bytes/s into, and out of, the learner's host (10 Gbit/s Ethernet)
    message_seconds: float = 5e-4  # of the learner's Python for one rollout, whatever its size
    slow_world_steps_per_second: float = 200.0  # of a collector host that steps an expensive simulator


@dataclasses.dataclass(frozen=True)
class SyncPieces:
    """What one machine did in the sync mode."""

    update_seconds_per_sample: float  # one device, largest batch; all epochs of one environment step
    rollout_seconds_per_sample: float
    gradient_steps: int
    gradient_bytes: int
    reduces_per_gradient_step: int
    bytes_per_gradient_step: int  # of all of these
    steps_per_environment: int
    state_bytes_per_environment: float
    temporary_bytes_per_environment: float

    @classmethod
    def of(cls, records: Record) -> "SyncPieces":
        """Read the measured."""
        cells, sync = records["devices"]["cells"], records["pieces"]["sync"]
        alone = max((cell for cell in cells if cell["devices"] == 1), key=lambda cell: cell["num_envs"])
        split = max(cells, key=lambda cell: (cell["devices"], cell["num_envs"]))["all_reduces"]
        samples = alone["num_envs"] * sync["steps_per_environment"]
        return cls(
            update_seconds_per_sample=alone["update"]["seconds"]["median"] / samples,
            rollout_seconds_per_sample=alone["rollout"]["seconds"]["median"] / samples,
            gradient_steps=sync["gradient_steps"], gradient_bytes=sync["gradient_bytes"],
            reduces_per_gradient_step=split["in_loops"], bytes_per_gradient_step=split["bytes_in_loops"],
            steps_per_environment=sync["steps_per_environment"],
            state_bytes_per_environment=alone["state_bytes_of_environments"] / alone["num_envs"],
            temporary_bytes_per_environment=(alone["chunk_temporary_bytes_per_device"] or 0) / alone["num_envs"],
        )  # fmt: skip


def hops_seconds(members: int, count: int, size: int, latency: float, bandwidth: float) -> float:
    """Seconds of `count` all-reduces of `size` bytes in all among n members.

        count · 2 ⌈log₂ n⌉ · latency  +  2 (n − 1)/n · size / bandwidth

    A tree there and back sets the latency, every member sends and receives twice its share.
    """
    if members == 1:
        return 0.0
    return count * 2 * math.ceil(math.log2(members)) * latency + 2 * (members - 1) / members * size / bandwidth


def all_reduce_seconds(gpus: int, pieces: SyncPieces, assumed: Assumptions) -> float:
    """Seconds of a gradient step's all-reduces: within each host, then among the hosts."""
    local = min(gpus, assumed.gpus_per_host)
    of = (pieces.reduces_per_gradient_step, pieces.bytes_per_gradient_step)
    within = hops_seconds(local, *of, assumed.local_latency, assumed.local_bandwidth)
    hosts = math.ceil(gpus / assumed.gpus_per_host)
    return within + hops_seconds(hosts, *of, assumed.network_latency, assumed.network_bandwidth)


def predict_sync(gpus: int, num_envs: int, pieces: SyncPieces, assumed: Assumptions) -> dict[str, float]:
    """An update of the sync mode on so many GPUs, `num_envs` environments in all.

    rollout = T · max(floor, envs/GPU · rollout per sample / speed)
    update  = G · (max(floor, envs/GPU · T · update per sample / (G · speed)) + all-reduces)
    """
    share, steps, gradient_steps = num_envs / gpus, pieces.steps_per_environment, pieces.gradient_steps
    speed = assumed.gpu_times_host
    rollout = steps * max(assumed.floor_seconds, share * pieces.rollout_seconds_per_sample / speed)
    of_one = share * steps * pieces.update_seconds_per_sample / (gradient_steps * speed)
    learning = gradient_steps * max(assumed.floor_seconds, of_one)
    exchange = gradient_steps * all_reduce_seconds(gpus, pieces, assumed)
    per_second = num_envs * steps / (rollout + learning + exchange)
    memory = share * (pieces.state_bytes_per_environment + pieces.temporary_bytes_per_environment)
    return {
        "rollout": rollout, "learning": learning, "exchange": exchange, "steps_per_second": per_second,
        "memory_per_gpu": memory, "checkpoint": num_envs * pieces.state_bytes_per_environment,
        "dollars_per_billion_steps": gpus * assumed.gpu_dollars_per_hour / 3600 * 1e9 / per_second,
    }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class AsyncPieces:
    """What one machine did in the async mode."""

    steps_per_host: float  # environment steps/s of one collector host
    learned_steps: float  # new environment steps/s that the learner takes
    updates: float  # of the learner in a second, so many steps keep it busy
    bytes_per_step: float
    steps_per_rollout: int  # of one message
    broadcast_bytes: int
    replay_bytes: float


def async_pieces(records: Record, throughput: Record, assumed: Assumptions, *, slow: bool, gpu: bool) -> AsyncPieces:
    """Read the measured: Color Lines, or a slow world with its chunks; a learner on two cores, or on an assumed GPU."""
    told = records["pieces"]["async"][0]
    updates = throughput["updates_per_second_alone"]["median"] * (assumed.gpu_times_host if gpu else 1.0)
    per_step = told["chunk_bytes"] / told["steps_per_chunk"]
    measured = throughput["collected_steps_per_second"]["median"]
    return AsyncPieces(
        steps_per_host=assumed.slow_world_steps_per_second if slow else measured,
        learned_steps=updates * throughput["new_steps_per_update"], updates=updates, bytes_per_step=per_step,
        steps_per_rollout=told["steps_per_chunk"] * told["environments_per_actor"],
        broadcast_bytes=told["broadcast_bytes"], replay_bytes=told["replay_steps"] * per_step,
    )  # fmt: skip


def predict_async(hosts: int, pieces: AsyncPieces, assumed: Assumptions) -> dict[str, float]:
    """Shares of what the learner's host can bear that so many hosts would take, each an actor that collects freely.

    learner  = hosts · steps/s / steps learned per second
    inbound  = hosts · steps/s · bytes per step / bandwidth
    outbound = rollouts/s · bytes per broadcast / bandwidth       (parameters anew for each rollout, at most)
    messages = rollouts/s · seconds of Python per rollout
    """
    steps = hosts * pieces.steps_per_host
    rollouts = steps / pieces.steps_per_rollout
    sent = min(rollouts, hosts * pieces.updates) * pieces.broadcast_bytes
    shares = {
        "learner": steps / pieces.learned_steps, "inbound": steps * pieces.bytes_per_step / assumed.learner_bandwidth,
        "outbound": sent / assumed.learner_bandwidth, "messages": rollouts * assumed.message_seconds,
    }  # fmt: skip
    useful = steps / max(1.0, *shares.values())
    dollars = hosts * assumed.collector_dollars_per_hour
    return {**shares, "steps": steps, "useful": useful, "collector_dollars_per_hour": dollars}


def checks(records: Record, pieces: SyncPieces) -> list[tuple[str, float, float]]:
    """What the model says of two processes on this machine, beside what was measured: its only test here.

    Seconds of an all-reduce are the measured ones, laid on a line between the smallest size and the largest.
    """
    first, last = records["all_reduce"][0], records["all_reduce"][-1]
    slope = (last["seconds"]["median"] - first["seconds"]["median"]) / (last["bytes"] - first["bytes"])
    base = first["seconds"]["median"] - slope * first["bytes"]
    step = pieces.reduces_per_gradient_step * base + slope * pieces.bytes_per_gradient_step
    runs = records["processes"]
    samples = runs["num_envs"] * runs["steps_per_environment"]
    alone = samples / runs["steps_per_second"]["1"]["median"]
    predicted = alone / (alone + pieces.gradient_steps * step)
    return [("steps/s of two processes, over one", predicted, runs["two_over_one"]["median"])]


def simulated_reduce(records: Record, pieces: SyncPieces) -> list[list[str]]:
    """Milliseconds that an all-reduce of the most simulated devices seems to take, from the time it adds."""
    cells = records["devices"]["cells"]
    most, rows = max(cell["devices"] for cell in cells), []
    alone = {cell["num_envs"]: cell for cell in cells if cell["devices"] == 1}
    for cell in cells:
        if cell["devices"] == most and cell["num_envs"] in alone:
            times = [each["update"]["seconds"]["median"] for each in (cell, alone[cell["num_envs"]])]
            each = (times[0] - times[1]) / (pieces.gradient_steps * max(1, cell["all_reduces"]["in_loops"]))
            rows.append(
                [f"{cell['num_envs']:,}", f"{1e3 * times[1]:.3g}", f"{1e3 * times[0]:.3g}", f"{1e3 * each:.2g}"]
            )
    return rows


def sync_table(pieces: SyncPieces, assumed: Assumptions) -> str:
    """The sync mode on 1, 8 and 64 GPUs: the same environments in all, and as many on each."""
    rows = []
    for kind, envs_of in (("same batch", lambda gpus: 65_536), ("as many each", lambda gpus: 65_536 * gpus)):
        alone = predict_sync(1, 65_536, pieces, assumed)["steps_per_second"]
        for gpus in (1, 8, 64):
            told = predict_sync(gpus, envs_of(gpus), pieces, assumed)
            rows.append([
                kind, str(gpus), f"{envs_of(gpus):,}",
                *(f"{1e3 * told[name]:.3g}" for name in ("rollout", "learning", "exchange")),
                rate(told["steps_per_second"]), f"{told['steps_per_second'] / alone / gpus:.0%}",
                f"{told['memory_per_gpu'] / 2**30:.2g}", f"{told['checkpoint'] / 2**30:.2g}",
                f"{told['dollars_per_billion_steps']:.2f}",
            ])  # fmt: skip
    header = (
        "", "GPUs", "environments", "rollout, ms", "learning, ms", "all-reduces, ms", "steps/s", "of n times one GPU",
        "GiB per GPU", "GiB per checkpoint", "$ per 10⁹ steps",
    )  # fmt: skip
    return table(header, rows)


def async_table(records: Record, throughput: Record, assumed: Assumptions) -> str:
    """The async mode with more and more collector hosts."""
    rows = []
    cases = (("Color Lines, learner on two cores", False, False), ("Color Lines, learner on a GPU", False, True),
             ("slow world, learner on a GPU", True, True))  # fmt: skip
    for label, slow, gpu in cases:
        pieces = async_pieces(records, throughput, assumed, slow=slow, gpu=gpu)
        for hosts in HOSTS:
            told = predict_async(hosts, pieces, assumed)
            shares = {name: told[name] for name in ("learner", "inbound", "outbound", "messages")}
            first = max(shares, key=lambda name: shares[name])
            rows.append([
                label, f"{hosts:,}", rate(told["steps"]), *(f"{share:.2g}" for share in shares.values()),
                first if shares[first] > 1 else "none", rate(told["useful"]),
                f"{told['collector_dollars_per_hour']:.2f}",
            ])  # fmt: skip
    header = (
        "", "collector hosts", "steps/s offered", "learner", "link in", "link out", "Python", "breaks first",
        "steps/s learned", "collectors, $/h",
    )  # fmt: skip
    return table(header, rows)


def inputs_table(pieces: SyncPieces, records: Record, throughput: Record, assumed: Assumptions) -> str:
    """Every number the model starts from, and where it comes from."""
    colour = async_pieces(records, throughput, assumed, slow=False, gpu=False)
    rows = [
        ["update, µs per environment step, two cores", f"{1e6 * pieces.update_seconds_per_sample:.3g}", "measured"],
        ["rollout, µs per environment step, two cores", f"{1e6 * pieces.rollout_seconds_per_sample:.3g}", "measured"],
        ["gradient steps per update", str(pieces.gradient_steps), "computed"],
        ["bytes of gradients per gradient step", f"{pieces.gradient_bytes:,}", "computed"],
        ["all-reduces per gradient step", str(pieces.reduces_per_gradient_step), "computed (compiled program)"],
        ["their bytes", f"{pieces.bytes_per_gradient_step:,}", "computed (compiled program)"],
        ["state, bytes per environment", f"{pieces.state_bytes_per_environment:,.0f}", "computed"],
        ["temporary, bytes per environment", f"{pieces.temporary_bytes_per_environment:,.0f}", "computed (compiler)"],
        ["Color Lines: steps/s of a collector host of two cores", rate(colour.steps_per_host), "measured"],
        ["Color Lines: updates/s of a learner on two cores", f"{colour.updates:.3g}", "measured"],
        ["Color Lines: bytes per environment step", f"{colour.bytes_per_step:,.0f}", "computed"],
        ["Color Lines: bytes per rollout", f"{colour.bytes_per_step * colour.steps_per_rollout:,.0f}", "computed"],
        ["Color Lines: bytes per parameter broadcast", f"{colour.broadcast_bytes:,}", "computed"],
        ["Color Lines: replay in the learner's process, MiB", f"{colour.replay_bytes / 2**20:.0f}", "computed"],
    ]
    rows += [[name.replace("_", " "), f"{value:g}", "assumed"] for name, value in dataclasses.asdict(assumed).items()]
    return table(("input", "value", ""), rows)


def document(records: Record, throughput: Record, assumed: Assumptions) -> str:
    """Return all tables."""
    pieces = SyncPieces.of(records)
    tested = [[what, f"{said:.2f}", f"{seen:.2f}"] for what, said, seen in checks(records, pieces)]
    header = ("environments", "update on one device, ms", "on all, ms", "one all-reduce, ms")
    parts = {
        "Inputs": inputs_table(pieces, records, throughput, assumed),
        "The model against this machine": table(("", "computed", "measured"), tested),
        "What an all-reduce of the simulated devices seems to cost (computed from measured times)": table(
            header, simulated_reduce(records, pieces)
        ),
        "Sync mode on GPUs (computed)": sync_table(pieces, assumed),
        "Async mode with many collectors (computed); shares above 1 are more than there is": async_table(
            records, throughput, assumed
        ),
    }
    return "\n\n".join(f"**{title}**\n\n{text}" for title, text in parts.items())


def between(text: str, name: str, tables: str) -> str:
    """Return a document with the block of this name replaced.

    Raises:
        ValueError: there is no such block.
    """
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    if begin not in text or end not in text:
        raise ValueError(f"no block between {begin.strip()} and {end}")
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{tables}\n\n{end}{rest.partition(end)[2]}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, or write them into a document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost_model", description=__doc__.split("\n")[0])
    parser.add_argument("--scaling", type=Path, default=RESULTS / "scaling.json")
    parser.add_argument("--throughput", type=Path, default=RESULTS / "async_throughput.json")
    parser.add_argument("--assume", nargs="*", default=[], metavar="NAME=VALUE", help="instead of what is assumed")
    parser.add_argument("--write", type=Path, metavar="DOCUMENT", help="lay the tables into its blocks")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    given = {name: float(value) for name, _, value in (word.partition("=") for word in options.assume)}
    assumed = dataclasses.replace(Assumptions(), **given)  # type: ignore[arg-type]
    records = {name: told["record"] for name, told in json.loads(options.scaling.read_text()).items()}
    throughput = json.loads(options.throughput.read_text())["record"]
    model = document(records, throughput, assumed)
    if options.write is None:
        print(model)
        return
    text = between(options.write.read_text(), "measured", report(records))
    options.write.write_text(between(text, "model", model))


if __name__ == "__main__":
    main()
