"""What is restored is what was saved, bit for bit, or nothing."""

import json
import logging
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.core.struct import Struct, static_field
from jaxrl_engine.runtime.checkpoint import CheckpointStore


class Inner(Struct):
    weights: jax.Array  # [5, 7]
    name: str = static_field(default="inner")


def make_state(seed: int = 0) -> dict:
    generator = np.random.default_rng(seed)
    return {
        "float": jnp.asarray(generator.normal(size=(3, 5)), jnp.float32),
        "bfloat": jnp.asarray(generator.normal(size=11), jnp.bfloat16),
        "half": jnp.asarray(generator.normal(size=2), jnp.float16),
        "int": jnp.int32(seed),
        "byte": jnp.asarray(generator.integers(0, 256, 13), jnp.uint8),
        "flags": jnp.asarray(generator.integers(0, 2, 17), bool),
        "odd": jnp.array([jnp.nan, -0.0, jnp.inf, 1e-40], jnp.float32),
        "empty": jnp.zeros((0, 3), jnp.float32),
        "key": jax.random.key(seed),
        "keys": jax.random.split(jax.random.key(seed + 1), (2, 3)),
        "other keys": jax.random.key(seed, impl="rbg"),
        "no keys": jax.random.split(jax.random.key(0), 0),
        "nested": (Inner(weights=jnp.asarray(generator.normal(size=(5, 7)), jnp.float32)), [jnp.float32(1)], None),
        "host": generator.normal(size=4),
        "host long": np.int64(2**40 + seed),
        "a/b.c [d]": jnp.float32(seed),
        "number": 0.1,
        "count": 7,
        "yes": True,
    }


def bits(tree) -> list[tuple[str, str, bytes]]:
    """Every leaf as kind, dtype and bytes: NaN equals NaN, 0 differs from -0."""
    facts = []
    for leaf in jax.tree.leaves(tree):
        is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        kind = (
            "jax"
            if isinstance(leaf, jax.Array)
            else "numpy"
            if isinstance(leaf, np.ndarray | np.generic)
            else type(leaf)
        )
        facts.append((str(kind), str(getattr(leaf, "dtype", "")) + str(array.shape), array.tobytes()))
    return facts


@pytest.fixture
def store(tmp_path):
    with CheckpointStore(tmp_path / "checkpoints", keep=3) as checkpoints:
        yield checkpoints


def save(store, *steps, **scores):
    for step in steps:
        store.save(step, make_state(step), {"updates": 2 * step}, score=scores.get(f"score_{step}"))
    store.wait()


def test_round_trip_is_exact(store):
    state = make_state(3)
    store.save(5, state, {"updates": 3, "note": "x", "list": (1, 2), "loss": float("nan")}, score=0.5)
    restored = store.restore(make_state(4))
    assert restored.step == 5
    assert bits(restored.state) == bits(state)
    assert jax.tree.structure(restored.state) == jax.tree.structure(state)
    assert restored.metadata == store.metadata(5) == {"updates": 3, "note": "x", "list": [1, 2], "loss": None}


def test_shapes_are_a_template_too(store):
    state = {name: leaf for name, leaf in make_state(3).items() if isinstance(leaf, jax.Array)}
    store.save(5, state, {})
    template = jax.eval_shape(lambda: state)
    assert bits(store.restore(template).state) == bits(state)


def test_a_state_that_is_one_array(store):
    store.save(1, jnp.arange(7), {})
    assert store.restore(jnp.zeros(7, jnp.int32)).state.tolist() == list(range(7))


def test_restored_keys_draw_the_same_numbers(store):
    key = jax.random.key(11)
    store.save(1, {"key": key}, {})
    restored = store.restore({"key": jax.random.key(0)}).state["key"]
    assert jax.random.normal(restored, (5,)).tolist() == jax.random.normal(key, (5,)).tolist()


def test_a_state_may_be_overwritten_or_donated_as_soon_as_save_returns(store):
    host = np.arange(1_000_000, dtype=np.float32)
    device = jnp.asarray(host)
    expected = host.copy()
    store.save(1, {"host": host, "device": device}, {})
    host[:] = -1
    jax.jit(lambda x: x * 0, donate_argnums=0)(device).block_until_ready()
    restored = store.restore({"host": host, "device": jnp.zeros(1_000_000)}).state
    np.testing.assert_array_equal(restored["host"], expected)
    np.testing.assert_array_equal(restored["device"], expected)


def test_the_newest_are_kept_besides_the_best(store, tmp_path):
    for step, score in ((10, 1.0), (20, 7.0), (30, None), (40, float("nan")), (50, 2.0), (60, 3.0)):
        store.save(step, {"x": jnp.float32(step)}, {}, score=score)
    store.wait()
    assert store.steps() == [20, 40, 50, 60]
    assert store.best_step() == 20
    again = CheckpointStore(tmp_path / "checkpoints", keep=1)
    assert again.best_step() == 20  # also in a new process
    again.save(70, {"x": jnp.float32(70)}, {}, score=7.0)
    again.wait()
    assert (again.steps(), again.best_step()) == ([70], 70)  # the newest of equals
    assert again.restore({"x": jnp.float32(0)}).state["x"] == 70
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["70"]


def test_no_score_no_best(store):
    assert (store.steps(), store.best_step()) == ([], None)
    save(store, 1, 2)
    assert (store.steps(), store.best_step()) == ([1, 2], None)


def test_a_given_step_is_restored(store):
    save(store, 1, 2, 3)
    restored = store.restore(make_state(), step=2)
    assert (restored.step, restored.metadata) == (2, {"updates": 4})
    assert bits(restored.state) == bits(make_state(2))
    with pytest.raises(UserError, match=r"there is no checkpoint 9 in .* \(there are: 1, 2, 3\)"):
        store.restore(make_state(), step=9)
    with pytest.raises(UserError, match="there is no checkpoint 9"):
        store.metadata(9)


def test_saving_a_step_again_replaces_it(store):
    store.save(5, {"x": jnp.float32(1)}, {"try": 1}, score=9.0)
    store.save(5, {"x": jnp.float32(2)}, {"try": 2}, score=1.0)
    restored = store.restore({"x": jnp.float32(0)})
    assert (restored.state["x"], restored.metadata) == (2.0, {"try": 2})
    assert store.steps() == [5]


def test_going_back_forgets_the_abandoned_future(tmp_path):
    with CheckpointStore(tmp_path, keep=2) as store:
        save(store, 10, 20, 30, score_30=99.0)
        store.restore(make_state(), step=20)
        save(store, 25)
        assert store.steps() == [20, 25]  # else 30 would be taken for the newest, and for the best
        assert store.best_step() is None


def test_nothing_there(store):
    with pytest.raises(UserError, match=r"no usable checkpoint in .*: there is none"):
        store.restore({})


def test_what_is_no_checkpoint_is_refused(store, tmp_path):
    directory = tmp_path / "checkpoints"
    directory.mkdir()
    (directory / "100").write_bytes(pickle.dumps({"w": 1}))  # a file where a directory belongs
    (directory / "200").mkdir()
    (directory / "200" / "params.pkl").write_bytes(pickle.dumps({"w": 1}))
    (directory / "300").mkdir()
    (directory / "300" / "record.json").write_bytes(pickle.dumps({"w": 1}))
    (directory / "notes").mkdir()
    (directory / "007").mkdir()
    assert store.steps() == [200, 300]
    with pytest.raises(
        UserError, match=r"no usable checkpoint in .*: checkpoint 200 is damaged: record.json is missing"
    ):
        store.restore({"w": jnp.float32(0)})
    with pytest.raises(UserError, match=r"checkpoint 300 .* is damaged"):
        store.metadata(300)
    with pytest.raises(UserError, match="there is no checkpoint 100"):
        store.restore({"w": jnp.float32(0)}, step=100)


def test_a_record_of_another_format_is_refused(store, tmp_path):
    save(store, 1)
    path = tmp_path / "checkpoints" / "1" / "record.json"
    from jaxrl_engine.runtime.checkpoint_files import _record_checksum

    content = json.loads(path.read_text())["content"] | {"format": 999}
    path.write_text(json.dumps({"crc32": _record_checksum(content), "content": content}))
    with pytest.raises(UserError, match="its format is 999, and this version reads 1"):
        store.restore(make_state())


# The tree must fit


def fits(store, change) -> str:
    """Return what restoring into a changed template complains about."""
    template = {"w": jnp.zeros((5, 7)), "b": jnp.zeros(7), "key": jax.random.key(0), "n": jnp.int32(0)}
    store.save(4, template, {})
    store.wait()
    change(template)
    with pytest.raises(UserError) as caught:
        store.restore(template)
    assert "\n" not in str(caught.value)
    prefix = "does not fit this run: "
    assert str(caught.value).startswith("checkpoint 4 in ")
    return str(caught.value).partition(prefix)[2]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"w": jnp.zeros((5, 11))}, "w is float32[5,7] in the checkpoint, float32[5,11] here"),
        ({"w": jnp.zeros((7, 5))}, "w is float32[5,7] in the checkpoint, float32[7,5] here"),
        ({"w": jnp.zeros((5, 7), jnp.bfloat16)}, "w is float32[5,7] in the checkpoint, bfloat16[5,7] here"),
        ({"n": jnp.float32(0)}, "n is int32[] in the checkpoint, float32[] here"),
        ({"n": np.int64(0)}, "n is int32[] in the checkpoint, int64[] here"),
        ({"key": jax.random.key(0, impl="rbg")}, "key is key<fry>[] in the checkpoint, key<rbg>[] here"),
        ({"key": jnp.zeros(2, jnp.uint32)}, "key is key<fry>[] in the checkpoint, uint32[2] here"),
        ({"new": jnp.zeros(1)}, "new is not in the checkpoint"),
        ({"b": {"deep": jnp.zeros(7)}}, "b is only in the checkpoint; b.deep is not in the checkpoint"),
        ({"b": None}, "b is only in the checkpoint"),
    ],
)
def test_a_tree_that_does_not_fit_is_named(store, change, expected):
    assert fits(store, lambda template: template.update(change)) == expected


def test_many_differences_are_counted(store):
    found = fits(store, lambda template: (template.clear(), template.update(x=jnp.zeros(1))))
    assert found == "b is only in the checkpoint; key is only in the checkpoint; n is only in the checkpoint; 2 more"


def test_a_tree_that_does_not_fit_is_no_reason_to_fall_back(store, caplog):
    save(store, 1)
    store.save(2, {"x": jnp.zeros(3)}, {})
    with pytest.raises(UserError, match=r"checkpoint 2 in .* does not fit this run"):
        store.restore(make_state())
    assert caplog.records == []


def test_leaves_that_are_no_numbers_are_refused_at_once(store):
    with pytest.raises(TypeError, match="name holds a str, which is not a number"):
        store.save(1, {"name": "text"}, {})


def test_committed_arrays_return_to_their_device(store):
    device = jax.devices()[0]
    state = {"committed": jax.device_put(jnp.arange(3), device), "free": jnp.arange(3)}
    store.save(1, state, {})
    restored = store.restore(state).state
    assert restored["committed"].committed
    assert restored["committed"].sharding == state["committed"].sharding
    assert not restored["free"].committed


def test_a_changed_environment_is_mentioned_once(store, monkeypatch, caplog):
    monkeypatch.setenv("XLA_FLAGS", "")
    save(store, 1)
    store.wait()
    monkeypatch.setenv("XLA_FLAGS", "--xla_changed=1")
    with caplog.at_level(logging.WARNING):
        store.restore(make_state())
    assert [record.getMessage() for record in caplog.records] == [
        "the run may not continue bit for bit, because this changed: xla_flags  -> --xla_changed=1"
    ]


def test_reading_leaves_the_directory_as_it_is(store, tmp_path):
    save(store, 1, 2)
    leftover = tmp_path / "checkpoints" / "writing-3"
    leftover.mkdir()

    def snapshot() -> dict[Path, tuple[int, int]]:
        paths = (tmp_path / "checkpoints").rglob("*")
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}

    before = snapshot()
    reader = CheckpointStore(tmp_path / "checkpoints", keep=1)
    reader.restore(make_state())
    reader.best_step()
    reader.close()
    assert snapshot() == before


def test_bfloat16_of_numpy_too(store):
    state = {"x": np.arange(5).astype(ml_dtypes.bfloat16)}
    store.save(1, state, {})
    assert bits(store.restore(state).state) == bits(state)
