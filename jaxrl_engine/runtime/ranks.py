"""Several processes that are one run: who takes part, what is checked before JAX connects them, and how one leaves.

Every process is a *rank* from 0 to size − 1 and runs the same program; rank 0 alone writes. Importing this module does
not import jax.

    roll call (here, plain TCP) → jax.distributed.initialize → training → `leave`

JAX connects processes by aborting those that cannot be connected, with a page of C++ and no chance for Python to say
why. So before it is asked, rank 0 holds a roll call on the very address JAX will use: who does not come, who was
started with other settings, and who runs other code, is told in one line, on every rank.
"""

import hashlib
import importlib.metadata
import os
import platform as host
import sys
import time
from pathlib import Path
from typing import NoReturn

from jaxrl_engine.core.config import Config
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime.config import Invocation
from jaxrl_engine.runtime.errors import EXIT_FAILURE, EXIT_USER_ERROR, RunError, one_line
from jaxrl_engine.runtime.places import Place, parse_place
from jaxrl_engine.runtime.roll_call import answer, call
from jaxrl_engine.runtime.settings import flatten

HEARTBEAT_SECONDS = 10
"""A rank that has been silent for so long is given up, and the others end."""
SHUTDOWN_SECONDS = 600
"""How long ranks that have finished wait for rank 0, which may still be drawing pictures."""
LAST_WORDS_SECONDS = 3.0
_LOST = ("Gloo", "NCCL", "nccl", "coordination service", "Connection reset by peer", "Socket closed")
"""What errors of JAX hold that mean another rank has gone."""


def find_place(text: str, patience: float) -> Place | None:
    """Return this process's place as `--distributed` says it: None for `off`; `auto` asks JAX for that of a cluster.

    Raises:
        UserError: there is no cluster that JAX knows.
    """
    if text == "off":
        return None
    return _of_cluster(patience) if text == "auto" else parse_place(text)


def _of_cluster(patience: float) -> Place:
    """SLURM, Open MPI, Kubernetes: JAX finds the variables they set, but shows them in no public function."""
    try:
        from jax._src.clusters import ClusterEnv

        found = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, int(patience))
    except Exception as error:  # of any kind, as this is not JAX's to keep as it is
        raise UserError(f"distributed auto: {one_line(error)}; write HOST:PORT,RANK,SIZE instead") from None
    coordinator, size, rank, devices = found
    if coordinator is None or size is None or rank is None:
        kinds = "SLURM, Open MPI or Kubernetes"
        raise UserError(f"distributed auto: no variables of {kinds} are set; write off or HOST:PORT,RANK,SIZE")
    return Place(coordinator, rank, size, None if devices is None else tuple(devices))


def join(place: Place, invocation: Invocation) -> None:
    """Take this process's place; returns once all have taken theirs. Call it before JAX is first used.

    Raises:
        UserError: somebody did not come within `distributed_timeout` seconds, or was started otherwise than rank 0.
    """
    patience = invocation.distributed_timeout
    facts = {"devices": str(invocation.devices), **_settings(invocation.config), **_code()}
    if place.rank == 0:
        call(place.address, place.size, facts, patience)
    else:
        answer(place.address, place.rank, place.size, facts, patience)
    import jax

    # Its notifier would take over SIGTERM, which is ours, and stop at steps of its own.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        place.coordinator, place.size, place.rank, local_device_ids=place.local_devices,
        cluster_detection_method="deactivate", initialization_timeout=max(15, int(patience)),
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS, shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        coordinator_bind_address=place.coordinator,
    )  # fmt: skip


def _code() -> dict[str, str]:
    """What runs: versions, and a digest of this package's sources."""
    root, digest = Path(__file__).resolve().parent.parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes())
    versions = {f"the version of {name}": importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")}
    return {"the version of Python": host.python_version(), **versions, "jaxrl_engine's code": digest.hexdigest()[:12]}


def _settings(config: Config) -> dict[str, str]:
    return {name: repr(value) for name, value in flatten(config).items()}


def leave() -> None:
    """End JAX's connections in good order, all ranks together."""
    import jax

    jax.distributed.shutdown()


def abandon(place: Place, error: BaseException) -> NoReturn:
    """Say in one line why this rank ends, and end at once: the others wait for it, and notice nothing else."""
    code = EXIT_USER_ERROR if isinstance(error, UserError) else EXIT_FAILURE
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else EXIT_FAILURE
    elif isinstance(error, UserError | RunError):
        print(f"error: {one_line(error)}", file=sys.stderr)
    elif _is_loss(error):
        print(f"error: rank {place.rank}: another rank ended: {one_line(error)}", file=sys.stderr)
    else:
        sys.excepthook(type(error), error, error.__traceback__)
        print(f"error: rank {place.rank}: {type(error).__name__}: {one_line(error)}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    if place.rank == 0:  # its end takes JAX's service along, which aborts the others: they may have words of their own
        time.sleep(LAST_WORDS_SECONDS)
    os._exit(code)  # Python's own end would wait for the others, who wait for this rank


def _is_loss(error: BaseException) -> bool:
    """Whether an error of JAX says that another rank has gone."""
    return any(word in str(error) for word in _LOST)
