"""Results of `benchmarks.scaling` as Markdown tables."""

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.report import rate, table

Record = Mapping[str, Any]

GOAL = 0.15
"""Of the update's time on one device, at most, for eight simulated devices with the same batch."""


def report(records: Record) -> str:
    """Return a table of every section there is."""
    parts: list[str] = []
    for name, write in WRITE.items():
        if records.get(name) is not None:
            parts.append(write(records[name]))
    return "\n\n".join(parts)


def _devices(record: Record) -> str:
    return "\n\n".join([_strong(record), _weak(record), _memory(record)])


def _strong(record: Record) -> str:
    rows = []
    for cell in record["cells"]:
        if cell["devices"] > 1 and "over_one_device" in cell["update"]:
            over = [cell[part]["over_one_device"] for part in ("update", "rollout", "chunk")]
            update, most = over[0]["median"] - 1.0, max(each["devices"] for each in record["cells"])
            verdict = ("met" if update <= GOAL else "missed") if cell["devices"] == most else ""
            rows.append([
                f"{cell['num_envs']:,}", str(cell["devices"]), f"{1e3 * cell['update']['seconds']['median']:.3g}",
                *(f"{each['median']:.2f} ({each['min']:.2f} to {each['max']:.2f})" for each in over),
                str(cell["all_reduces"]["in_loops"]), verdict,
            ])  # fmt: skip
    header = (
        "environments", "simulated devices", "update, ms", "update, times one device", "rollout", "whole chunk",
        "all-reduces per gradient step", f"goal: at most {1 + GOAL:.2f} of the update",
    )  # fmt: skip
    return f"**The same batch over more simulated devices, which share the host's cores**\n\n{table(header, rows)}"


def _weak(record: Record) -> str:
    rows = []
    for cell in record["cells"]:
        if cell["devices"] > 1 and "over_as_many_updates_of_one" in cell["update"]:
            over = [cell[part]["over_as_many_updates_of_one"]["median"] for part in ("update", "rollout", "chunk")]
            rows.append([str(cell["devices"]), f"{cell['num_envs']:,}", *(f"{each:.2f}" for each in over)])
    header = ("simulated devices", "environments", "update", "rollout", "whole chunk")
    title = f"{record['per_device']} environments on each, against as many times the time of one device with its own"
    return f"**{title}** (below 1: larger batches are the cheaper ones)\n\n{table(header, rows)}"


def _memory(record: Record) -> str:
    rows = []
    for cell in record["cells"]:
        if cell["devices"] == 1:
            envs = cell["num_envs"]
            own, temporary = cell["state_bytes_of_environments"], cell["chunk_temporary_bytes_per_device"]
            fixed = cell["state_bytes"] - own
            rows.append([f"{envs:,}", f"{own / envs:,.0f}", f"{fixed:,}", f"{(temporary or 0) / envs:,.0f}"])
    header = (
        "environments", "state, bytes each", "state of the learner, bytes", "temporary memory of a chunk, bytes each"
    )  # fmt: skip
    return f"**Memory, one device (computed by the compiler)**\n\n{table(header, rows)}"


def _processes(record: Record) -> str:
    speeds, ratio = record["steps_per_second"], record["two_over_one"]
    rows = [
        [count, rate(speeds[count]["median"]), f"{rate(speeds[count]['min'])} to {rate(speeds[count]['max'])}", share]
        for count, share in (("1", ""), ("2", f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"))
    ]
    title = f"Sync mode, {record['env']}, {record['num_envs']:,} environments in all, processes on the same cores"
    return f"**{title}**\n\n{table(('processes', 'steps/s', 'range', 'two over one'), rows)}"


def _all_reduce(record: Any) -> str:
    rows = [
        [f"{each['bytes'] / 1e3:g}", *(f"{1e3 * each['seconds'][name]:.3g}" for name in ("median", "min", "max"))]
        for each in record
    ]
    title = "One all-reduce between two processes over loopback (gloo)"
    return f"**{title}**\n\n{table(('kB', 'ms, median', 'least', 'most'), rows)}"


def _pieces(record: Record) -> str:
    sync = record["sync"]
    words = (
        f"An update of the sync mode sums {sync['gradient_bytes']:,} bytes of gradients ({sync['parameters']:,} "
        f"parameters) in each of {sync['gradient_steps']} gradient steps."
    )
    rows = [
        [each["env"], f"{each['chunk_bytes']:,}", str(each["steps_per_chunk"]), f"{each['broadcast_bytes']:,}",
         *(f"{1e3 * each[name]['median']:.3g}" for name in ("get_seconds", "send_seconds", "put_seconds"))]
        for each in record["async"]
    ]  # fmt: skip
    header = (
        "async mode", "bytes per chunk", "steps per chunk", "bytes per broadcast", "from the device, ms",
        "over loopback, ms", "to the device, ms",
    )  # fmt: skip
    return f"{words}\n\n{table(header, rows)}"


def _gpu(record: Any) -> str:
    rows = [
        [f"{each['num_envs']:,}", rate(each["steps_per_second"]["median"]), f"{each['peak_memory_bytes'] / 2**30:.2f}"]
        for each in record
    ]
    return f"**{record[0]['device']}**\n\n{table(('environments', 'steps/s', 'peak memory, GiB'), rows)}"


WRITE: dict[str, Callable[[Any], str]] = {
    "devices": _devices, "processes": _processes, "all_reduce": _all_reduce, "pieces": _pieces, "gpu": _gpu
}  # fmt: skip
