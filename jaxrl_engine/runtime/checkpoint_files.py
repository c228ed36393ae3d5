"""One checkpoint on disk: `state/`, written by Orbax, and `record.json`, which can vouch for it.

Orbax itself does not notice a changed byte and hands back wrong numbers. So the record holds a CRC-32 of every file,
verified before Orbax sees any of them, one of every leaf, verified on what Orbax returns, and one of itself. The
directory is filled under another name and renamed: a checkpoint is there as a whole or not at all.
"""

import json
import math
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxrl_engine.core.types import PyTree
from jaxrl_engine.runtime.checkpoint_leaves import LeafFacts, checksum, empty_array, from_host
from jaxrl_engine.runtime.errors import one_line
from jaxrl_engine.runtime.json_files import plain, replace_file, to_json
from jaxrl_engine.runtime.logs import silence

if TYPE_CHECKING:
    import orbax.checkpoint

FORMAT = 1
RECORD_FILE = "record.json"
STATE = "state"
_NOISY = ("absl", "asyncio")
_READ_BYTES = 1 << 20


class DamagedError(Exception):
    """A checkpoint that cannot be trusted; the text says what is wrong with it."""


def write_checkpoint(path: Path, arrays: list[np.ndarray], facts: list[LeafFacts], record: dict[str, Any]) -> None:
    """Fill a new directory with the arrays and a record of their facts and checksums.

    Raises:
        Exception: whatever Orbax or the file system raises, e.g. when the disk is full.
    """
    import orbax.checkpoint as ocp

    path.mkdir()
    stored = {_leaf_name(index): array for index, array in enumerate(arrays) if array.size}  # Orbax refuses size 0
    with silence(*_NOISY), _checkpointer() as checkpointer:
        checkpointer.save((path / STATE).absolute(), args=ocp.args.PyTreeSave(stored))
    leaves = [
        {"path": leaf.path, "shape": leaf.shape, "dtype": leaf.dtype, "crc32": checksum(array)}
        for leaf, array in zip(facts, arrays, strict=True)
    ]
    files = {str(file.relative_to(path)): _file_checksum(file) for file in sorted(path.rglob("*")) if file.is_file()}
    content = plain({"format": FORMAT, **record, "leaves": leaves, "files": files})
    replace_file(path / RECORD_FILE, to_json({"crc32": _record_checksum(content), "content": content}, indent=1))


def _checkpointer() -> "orbax.checkpoint.Checkpointer":
    """Import Orbax only here: it takes half a second, which the writing thread can spend while training goes on.

    Of several processes it must not know: all of them would have to meet at every step of a save that one makes.
    """
    import orbax.checkpoint as ocp

    own = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"rank{own}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _leaf_name(index: int) -> str:
    return f"leaf_{index:05d}"  # a number, because paths may hold characters that file names may not


def _file_checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            value = zlib.crc32(block, value)
    return value


def _record_checksum(content: Any) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


def read_record(path: Path) -> dict[str, Any]:
    """Return what `write_checkpoint` recorded.

    Raises:
        DamagedError: it cannot be read, failed its checksum, or was written by something else.
    """
    try:
        stored = json.loads((path / RECORD_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DamagedError(f"{RECORD_FILE} is missing") from None
    except OSError as error:
        raise DamagedError(f"{RECORD_FILE} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):  # no longer text, or no longer JSON
        raise DamagedError(f"{RECORD_FILE} failed its checksum") from None
    content = stored.get("content") if isinstance(stored, dict) else None
    if not isinstance(content, dict) or stored.get("crc32") != _record_checksum(content):
        raise DamagedError(f"{RECORD_FILE} failed its checksum")
    if content.get("format") != FORMAT:
        raise DamagedError(f"its format is {content.get('format')}, and this version reads {FORMAT}")
    return content


def recorded_facts(record: dict[str, Any]) -> list[LeafFacts]:
    """Return the facts of the leaves a record speaks of."""
    return [LeafFacts(leaf["path"], tuple(leaf["shape"]), leaf["dtype"]) for leaf in record["leaves"]]


def read_state(path: Path, record: dict[str, Any], template: PyTree) -> PyTree:
    """Return the arrays of a checkpoint in the form of the template, whose facts must be the recorded ones.

    Raises:
        DamagedError: a file or an array is missing, cannot be read or failed its checksum.
    """
    _verify_files(path, record["files"])
    leaves = record["leaves"]
    names = [_leaf_name(index) if math.prod(leaf["shape"]) else None for index, leaf in enumerate(leaves)]
    stored = _read_arrays(path / STATE, [name for name in names if name is not None])
    arrays = [
        np.asarray(stored[name]) if name is not None else empty_array(leaf)
        for name, leaf in zip(names, jax.tree.leaves(template), strict=True)
    ]
    for array, leaf in zip(arrays, leaves, strict=True):
        if checksum(array) != leaf["crc32"]:
            raise DamagedError(f"{leaf['path']} failed its checksum")
    return from_host(template, arrays)


def _verify_files(path: Path, checksums: dict[str, int]) -> None:
    for name, expected in checksums.items():
        try:
            found = _file_checksum(path / name)
        except FileNotFoundError:
            raise DamagedError(f"{name} is missing") from None
        except OSError as error:
            raise DamagedError(f"{name} cannot be read: {error.strerror}") from None
        if found != expected:
            raise DamagedError(f"{name} failed its checksum")


def _read_arrays(path: Path, names: list[str]) -> dict[str, Any]:
    import orbax.checkpoint as ocp

    kinds = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
    arguments = ocp.args.PyTreeRestore(item=dict.fromkeys(names, 0), restore_args=kinds)
    try:
        with silence(*_NOISY), _checkpointer() as checkpointer:
            return dict(checkpointer.restore(path.absolute(), args=arguments))
    except Exception as error:  # intact files that Orbax cannot read, e.g. in another version: it may raise anything
        raise DamagedError(f"its {STATE} cannot be read: {one_line(error)[:120]}") from None
