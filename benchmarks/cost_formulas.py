"""The formulas of `benchmarks.cost_model`, and where their inputs come from."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

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
    learner_dollars_per_hour: float


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
        learner_dollars_per_hour=assumed.gpu_dollars_per_hour if gpu else assumed.collector_dollars_per_hour,
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
    dollars = hosts * assumed.collector_dollars_per_hour + pieces.learner_dollars_per_hour
    cost = {"dollars_per_hour": dollars, "dollars_per_billion_steps": dollars / 3600 * 1e9 / useful}
    return {**shares, "steps": steps, "useful": useful, **cost}


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
