"""Flipped bytes, missing files, full disks and kill -9: never wrong in silence, and something is always left."""

import logging
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime import checkpoint_files
from jaxrl_engine.runtime.checkpoint import CheckpointStore
from jaxrl_engine.runtime.errors import RunError

pytestmark = pytest.mark.slow


def make_state(step: int) -> dict:
    generator = np.random.default_rng(step)
    return {
        "w": jnp.asarray(generator.normal(size=(5, 7)), jnp.float32),
        "half": jnp.asarray(generator.normal(size=3), jnp.bfloat16),
        "step": jnp.int32(step),
        "key": jax.random.key(step),
    }


def equal(a: dict, b: dict) -> bool:
    a, b = ({**tree, "key": jax.random.key_data(tree["key"])} for tree in (a, b))
    return all(np.asarray(a[name]).tobytes() == np.asarray(b[name]).tobytes() for name in a)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    """Checkpoints of steps 1 and 2."""
    directory = tmp_path_factory.mktemp("pristine")
    with CheckpointStore(directory, keep=3) as store:
        for step in (1, 2):
            store.save(step, make_state(step), {"updates": step})
    return directory


def files_of(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(bytes(data))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, truncate, empty, Path.unlink])
def test_damage_to_any_file_falls_back_with_a_warning(pristine, tmp_path, caplog, damage: Callable[[Path], None]):
    names = [path.relative_to(pristine) for path in files_of(pristine / "2")]
    assert len(names) > 8  # Orbax's files and our record
    for name in names:
        shutil.rmtree(tmp_path)
        shutil.copytree(pristine, tmp_path)
        damage(tmp_path / name)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            restored = CheckpointStore(tmp_path, keep=3).restore(make_state(0))
        assert (restored.step, restored.metadata) == (1, {"updates": 1})
        assert equal(restored.state, make_state(1))
        [record] = caplog.records
        wrong = "is missing" if damage is Path.unlink else "failed its checksum"
        inner = name.relative_to("2")
        assert record.getMessage() == f"checkpoint 2 is damaged: {inner} {wrong}; falling back to step 1"


def test_a_preferred_step_is_taken_and_the_newest_where_it_is_damaged(pristine, tmp_path, caplog):
    shutil.copytree(pristine, tmp_path, dirs_exist_ok=True)
    store = CheckpointStore(tmp_path, keep=3)
    assert store.restore(make_state(0), prefer=1).step == 1
    assert store.restore(make_state(0), prefer=None).step == 2
    flip(files_of(tmp_path / "1")[0])
    with caplog.at_level(logging.WARNING):
        assert store.restore(make_state(0), prefer=1).step == 2
    assert "checkpoint 1 is damaged" in caplog.text


def test_any_flipped_bit_is_found(pristine, tmp_path, caplog):
    generator = np.random.default_rng(7)
    shutil.copytree(pristine, tmp_path / "store")
    store = CheckpointStore(tmp_path / "store", keep=3)
    names = files_of(tmp_path / "store" / "2")
    for _ in range(100):
        path = names[generator.integers(len(names))]
        good = path.read_bytes()
        bad = bytearray(good)
        bad[generator.integers(len(bad))] ^= 1 << generator.integers(8)
        path.write_bytes(bytes(bad))
        restored = store.restore(make_state(0))
        assert equal(restored.state, make_state(restored.step))
        assert restored.metadata == {"updates": restored.step}
        path.write_bytes(good)
    assert store.restore(make_state(0)).step == 2


@pytest.mark.parametrize(
    "misread",
    [
        lambda w: w.T.reshape(w.shape),
        lambda w: w.reshape(7, 5),
        lambda w: w.view(np.int32),
        lambda w: w.astype(np.float64),
    ],
    ids=["order", "shape", "type", "cast"],
)
def test_arrays_that_orbax_reads_wrong_are_found_by_the_leaf(pristine, tmp_path, monkeypatch, caplog, misread):
    """The second line of defence: the files are intact, what comes out of them is not."""
    shutil.copytree(pristine, tmp_path / "store")
    store = CheckpointStore(tmp_path / "store", keep=3)
    read = checkpoint_files._read_arrays

    def read_wrong(path: Path, names: list[str]) -> dict[str, np.ndarray]:
        arrays = read(path, names)
        return {**arrays, names[-1]: misread(arrays[names[-1]])} if path.parent.name == "2" else arrays

    monkeypatch.setattr(checkpoint_files, "_read_arrays", read_wrong)
    with caplog.at_level(logging.WARNING):
        assert store.restore(make_state(0)).step == 1
    assert caplog.messages == ["checkpoint 2 is damaged: w failed its checksum; falling back to step 1"]


def test_if_all_are_damaged_the_line_says_so(pristine, tmp_path, caplog):
    shutil.copytree(pristine, tmp_path / "store")
    for step in ("1", "2"):
        flip(tmp_path / "store" / step / "record.json")
    store = CheckpointStore(tmp_path / "store", keep=3)
    with pytest.raises(UserError, match=r"no usable checkpoint in .*: checkpoint 1 is damaged: record.json failed"):
        store.restore(make_state(0))
    with pytest.raises(UserError, match=r"no usable checkpoint in .*: checkpoint 2 is damaged: record.json failed"):
        store.restore(make_state(0), step=2)
    assert store.best_step() is None


def test_a_damaged_checkpoint_is_replaced_when_the_run_gets_there_again(pristine, tmp_path):
    shutil.copytree(pristine, tmp_path / "store")
    flip(tmp_path / "store" / "2" / "record.json")
    with CheckpointStore(tmp_path / "store", keep=3) as store:
        assert store.restore(make_state(0)).step == 1
        store.save(2, make_state(2), {"updates": 2})
        restored = store.restore(make_state(0))
    assert restored.step == 2
    assert equal(restored.state, make_state(2))


def test_a_damaged_file_makes_one_line_of_noise(pristine, tmp_path):
    """In a process of its own, where nothing captures what libraries print."""
    shutil.copytree(pristine, tmp_path / "store")
    data = next(path for path in files_of(tmp_path / "store" / "2") if "/d/" in str(path))
    flip(data)
    program = (
        "import sys, jax.numpy as jnp, jax\nfrom pathlib import Path\n"
        "from jaxrl_engine.runtime.checkpoint import CheckpointStore\n"
        "from jaxrl_engine.runtime.logs import configure_logging\n"
        "configure_logging('info')\n"
        "template = {'w': jnp.zeros((5, 7)), 'half': jnp.zeros(3, jnp.bfloat16)}\n"
        "template |= {'step': jnp.int32(0), 'key': jax.random.key(0)}\n"
        "print(CheckpointStore(Path(sys.argv[1]), 3).restore(template).step)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "store")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "1\n"
    assert re.fullmatch(
        r"warning: checkpoint 2 is damaged: state/\S+ failed its checksum; falling back to step 1\n", result.stderr
    )


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from jaxrl_engine.runtime.checkpoint import CheckpointStore
from jaxrl_engine.runtime.errors import RunError, exit_with
noise = np.random.default_rng(0).bytes(4_000_000)
store = CheckpointStore(Path(sys.argv[1]), keep=3)
store.save(1, {"x": np.arange(7)}, {})
store.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
store.save(2, {"x": np.frombuffer(noise, np.uint8)}, {})
try:
    store.wait()
except RunError as error:
    print(store.steps(), sorted(path.name for path in Path(sys.argv[1]).iterdir()), flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert store.restore({"x": np.zeros(7, int)}).state["x"].tolist() == list(range(7))
    store.save(3, {"x": np.frombuffer(noise, np.uint8)}, {})
    store.wait()
    print(store.steps(), flush=True)
    exit_with(error)
"""


def test_a_full_disk_is_one_line_and_spares_the_earlier_steps(tmp_path):
    """A limit on the size of files stands in for the disk: writing fails in the same call, with a similar error."""
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout == "[1] ['1']\n[1, 3]\n"
    assert result.stderr == f"error: cannot save checkpoint 2 in {tmp_path}: the disk is full\n"
    assert result.returncode == 1


def test_a_failed_save_surfaces_at_the_next_call(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    store = CheckpointStore(tmp_path, keep=3)
    monkeypatch.setattr("jaxrl_engine.runtime.checkpoint.write_checkpoint", refuse)
    for call in (lambda: store.save(2, {}, {}), store.wait, store.close):
        store.save(1, make_state(1), {})
        with pytest.raises(RunError, match=r"cannot save checkpoint 1 in .*: the disk is full"):
            call()
        store.wait()  # said once
    with pytest.raises(KeyError), store:
        store.save(1, make_state(1), {})
        raise KeyError("the real trouble")
    assert caplog.messages[-1].endswith("the disk is full")


SAVE_FOREVER = """
import sys
from pathlib import Path
import numpy as np
from jaxrl_engine.runtime.checkpoint import CheckpointStore
store = CheckpointStore(Path(sys.argv[1]), keep=2)
step = int(sys.argv[2])
while True:
    step += 1
    store.save(step, {"x": np.full(300_000, step), "step": np.int64(step)}, {"step": step})
    store.wait()
    print(step, flush=True)
"""


def test_kill_9_while_saving_leaves_the_last_finished_step(tmp_path):
    template = {"x": np.zeros(300_000, int), "step": np.int64(0)}
    finished = 0
    for delay in (0.011, 0.029, 0.047):  # each process starts among what the one before left behind
        command = [sys.executable, "-c", SAVE_FOREVER, str(tmp_path), str(finished)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for _ in range(3):
                finished = int(process.stdout.readline())
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            finished = max([finished, *map(int, process.stdout.read().split())])
        restored = CheckpointStore(tmp_path, keep=2).restore(template)
        assert restored.step in (finished, finished + 1)  # + 1: committed, and killed before it could say so
        assert restored.metadata == {"step": restored.step}
        assert (restored.state["x"] == restored.step).all()
        finished = restored.step
    with CheckpointStore(tmp_path, keep=2) as store:
        store.save(finished + 1, template, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([str(finished), str(finished + 1)])
