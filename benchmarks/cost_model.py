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
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cost_formulas import (
    Assumptions,
    Record,
    SyncPieces,
    async_pieces,
    checks,
    predict_async,
    predict_sync,
)
from benchmarks.machine import ROOT
from benchmarks.report import rate, table
from benchmarks.scaling_report import report

RESULTS = ROOT / "benchmarks" / "results"
HOSTS = (1, 10, 100, 256, 1000)
MOST_ACTORS = 256
"""That `--num-workers` admits."""
ASSUMED = {
    "gpu_times_host": "speed of a GPU with a large batch, times that of the measured host",
    "floor_seconds": "s, one environment step or gradient step on a GPU, however small",
    "gpus_per_host": "GPUs of a host",
    "local_latency": "s, one hop between GPUs of a host (NVLink)",
    "local_bandwidth": "bytes/s between them",
    "network_latency": "s, one hop between GPU hosts (InfiniBand)",
    "network_bandwidth": "bytes/s between them",
    "gpu_dollars_per_hour": "$ per hour of one GPU",
    "collector_dollars_per_hour": "$ per hour of a collector host of two cores",
    "learner_bandwidth": "bytes/s into the learner's host, and out of it (10 Gbit/s Ethernet)",
    "message_seconds": "s of the learner's Python for one rollout",
    "slow_world_steps_per_second": "steps/s of a collector host in a slow world, its steps as large as Color Lines'",
}


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
            limit = first if shares[first] > 1 else "none"
            limit += f"; more than {MOST_ACTORS} actors" if hosts > MOST_ACTORS else ""
            rows.append([
                label, f"{hosts:,}", rate(told["steps"]), *(f"{share:.2g}" for share in shares.values()),
                limit, rate(told["useful"]),
                *(f"{told[name]:.2f}" for name in ("dollars_per_hour", "dollars_per_billion_steps")),
            ])  # fmt: skip
    header = (
        "", "collector hosts", "steps/s offered", "learner", "link in", "link out", "Python", "breaks first",
        "steps/s learned", "$ per hour", "$ per 10⁹ steps learned",
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
    values = dataclasses.asdict(assumed)
    rows += [[f"`{name}`: {meaning}", f"{values[name]:g}", "assumed"] for name, meaning in ASSUMED.items()]
    return table(("input", "value", ""), rows)


def document(records: Record, throughput: Record, assumed: Assumptions) -> str:
    """Return all tables."""
    pieces = SyncPieces.of(records)
    tested = [[what, f"{said:.2f}", f"{seen:.2f}"] for what, said, seen in checks(records, pieces)]
    parts = {
        "Inputs": inputs_table(pieces, records, throughput, assumed),
        "The model against this machine": table(("", "computed", "measured"), tested),
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
