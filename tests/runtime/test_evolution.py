"""The repertoire as files: read back by strangers' rules and by our own, and refused when damaged."""

import csv
import dataclasses
import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binomtest

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime.errors import RunError
from jaxrl_engine.runtime.evolution import (
    CSV_FILE,
    NPZ_FILE,
    EvolutionRecord,
    load_record,
    save_tables,
    to_ribs_dataframe,
    wilson,
)
from jaxrl_engine.runtime.json_files import whole_file

ROWS, COLUMNS, LINKS, SNAPSHOTS = 3, 5, 7, 2
CELLS = ROWS * COLUMNS


def make_record(**changes) -> EvolutionRecord:
    """Three numbers of links by five lengths; the cells 0, 1 and 7 are empty, 0 and 14 not feasible."""
    rng = np.random.default_rng(11)
    fitness = rng.uniform(0.1, 0.9, CELLS).astype(np.float32)
    fitness[[0, 1, 7, 14]] = -np.inf
    share = [(np.arange(bins) + 0.5) / bins for bins in (ROWS, COLUMNS)]
    low, high = np.array([1.5, 0.2], np.float32), np.array([4.5, 1.2], np.float32)
    middle = low + np.stack([axis.ravel() for axis in np.meshgrid(*share, indexing="ij")], -1) * (high - low)
    trials = np.full(CELLS, 13, np.int32)
    trials[3] = 0
    whole = {
        "title": "reacher, body-mlp", "axes": ("links", "length"), "shape": (ROWS, COLUMNS), "low": low, "high": high,
        "centroids": middle.astype(np.float32), "feasible": ~np.isin(np.arange(CELLS), [0, 14]),
        "feasible_is_estimate": False, "fitness": fitness,
        "archived": (fitness + np.float32(0.0625)).astype(np.float32),
        "policy_version": np.full(CELLS, 17, np.int32), "born": np.arange(CELLS, dtype=np.int32),
        "evaluations": np.arange(CELLS, dtype=np.int32) + 1,
        "lengths": rng.uniform(0.1, 0.25, (CELLS, LINKS)).astype(np.float32),
        "counts": np.repeat(np.arange(2, 5, dtype=np.int32), COLUMNS),
        "thickness": np.ones(CELLS, np.float32), "gear": np.full(CELLS, 1.5, np.float32),
        "descriptors": middle.astype(np.float32), "trials": trials,
        "successes": np.minimum(np.arange(CELLS, dtype=np.int32), trials),
        "history_fitness": np.stack([np.where(np.arange(CELLS) < 9, fitness, -np.inf), fitness]).astype(np.float32),
        "history_generation": np.array([5, 19], np.int32),
        "env_steps": 1_000_003, "evaluation_steps": 500_009, "generations": 19, "offset": -0.5,
    }  # fmt: skip
    return EvolutionRecord(**(whole | changes))


def equal(a: EvolutionRecord, b: EvolutionRecord) -> bool:
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(EvolutionRecord)]
    return all(
        np.array_equal(x, y) and x.dtype == y.dtype if isinstance(x, np.ndarray) else (x, type(x)) == (y, type(y))
        for x, y in pairs
    )


# --- intervals and scores --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("successes", "trials"), [(0, 13), (13, 13), (1, 7), (128, 256), (251, 256)])
def test_wilson_is_scipys(successes, trials):
    truth = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    low, high = wilson(np.array([successes]), np.array([trials]), z=1.959963984540054)
    np.testing.assert_allclose((low[0], high[0]), truth, atol=1e-12)


def test_wilson_by_hand_and_without_trials():
    low, high = wilson(np.array([1, 0]), np.array([2, 0]), z=2.0)  # (1/2 + 1 ± 2 √(1/8 + 1/4)) / 3
    np.testing.assert_allclose(low[0], (1.5 - 2 * 0.375**0.5) / 3)
    np.testing.assert_allclose(high[0], (1.5 + 2 * 0.375**0.5) / 3)
    assert np.isnan(low[1])
    assert np.isnan(high[1])


def test_scores_count_elites_from_the_offset_and_coverage_feasible_cells():
    fitness = np.full(CELLS, -np.inf, np.float32)
    fitness[[0, 2, 3]] = [0.25, -0.25, 0.5]  # the first in a cell that was held to be out of reach
    record = make_record(fitness=fitness)
    assert record.score == 0.75 + 0.25 + 1.0
    assert record.coverage == 2 / 13
    np.testing.assert_allclose(make_record().archived_score - make_record().score, 11 * 0.0625, rtol=1e-6)


# --- tables ----------------------------------------------------------------------------------------------------------


def test_the_csv_file_holds_the_elites_exactly(tmp_path):
    record = make_record()
    save_tables(record, tmp_path)
    with (tmp_path / CSV_FILE).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "index", "objective", "measures_0", "measures_1", *[f"solution_{i}" for i in range(LINKS + 3)],
        "archived", "policy_version", "born", "evaluations", "links", "success", "success_low", "success_high",
    ]  # fmt: skip
    assert [int(row["index"]) for row in rows] == [2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13]
    for row in rows:
        cell = int(row["index"])
        solution = [np.float32(row[f"solution_{i}"]) for i in range(LINKS + 3)]
        assert solution == [*record.lengths[cell], record.counts[cell], 1.0, 1.5]
        assert [np.float32(row["measures_0"]), np.float32(row["measures_1"])] == [*record.descriptors[cell]]
        assert np.float32(row["objective"]) == record.fitness[cell]
        assert np.float32(row["archived"]) == record.archived[cell]
        whole = [int(row[name]) for name in ("policy_version", "born", "evaluations", "links")]
        assert whole == [17, cell, cell + 1, record.counts[cell]]
        if cell == 3:
            assert row["success"] == row["success_low"] == row["success_high"] == ""
        else:
            assert float(row["success"]) == min(cell, 13) / 13
            assert float(row["success_low"]) < float(row["success"]) < float(row["success_high"]) or cell == 13


def test_an_empty_repertoire_is_a_table_without_rows(tmp_path):
    save_tables(make_record(fitness=np.full(CELLS, -np.inf, np.float32)), tmp_path)
    assert len((tmp_path / CSV_FILE).read_text(encoding="utf-8").splitlines()) == 1


@pytest.mark.parametrize("shape", [(ROWS, COLUMNS), None])
def test_what_was_saved_is_read_back(tmp_path, shape):
    record = make_record(shape=shape)
    save_tables(record, tmp_path)
    assert equal(load_record(tmp_path, ("links", "length")), record)


def test_the_npz_file_has_qdaxs_names_and_shapes(tmp_path):
    record = make_record()
    save_tables(record, tmp_path)
    with np.load(tmp_path / NPZ_FILE, allow_pickle=False) as arrays:
        shapes = {name: arrays[name].shape for name in ("genotypes", "fitnesses", "descriptors", "centroids")}
        assert shapes == {
            "genotypes": (CELLS, LINKS + 3), "fitnesses": (CELLS, 1), "descriptors": (CELLS, 2), "centroids": (CELLS, 2)
        }  # fmt: skip
        np.testing.assert_array_equal(arrays["fitnesses"][:, 0], record.fitness)
        np.testing.assert_array_equal(arrays["genotypes"][8, -3:], [record.counts[8], 1.0, 1.5])


def test_a_crash_half_way_leaves_the_old_file(tmp_path):
    path = tmp_path / "whole"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as file:
        file.write(b"half of the n")
        file.flush()
        assert path.read_bytes() == b"old"
        raise KeyboardInterrupt
    assert [entry.name for entry in tmp_path.iterdir()] == ["whole"]
    assert path.read_bytes() == b"old"


def test_a_file_system_that_refuses_is_named(tmp_path):
    (tmp_path / "a_file").touch()
    with pytest.raises(RunError, match=r"cannot write .*a_file"):
        save_tables(make_record(), tmp_path / "a_file")


# --- damage ----------------------------------------------------------------------------------------------------------


def complaint(directory, axes=None) -> str:
    with pytest.raises(UserError) as caught:
        load_record(directory, axes)
    text = str(caught.value)
    assert text.startswith(str(directory / NPZ_FILE))
    assert "\n" not in text
    return text


def test_a_missing_file_is_named(tmp_path):
    assert "does not exist" in complaint(tmp_path)


def _bytes(save, array) -> bytes:
    buffer = io.BytesIO()
    save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("content", [b"", b"PK", b"a text", _bytes(np.save, np.arange(3))])
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / NPZ_FILE).write_bytes(content)
    assert "cannot be read as a repertoire" in complaint(tmp_path)


def test_an_archive_of_another_program_is_refused(tmp_path):
    np.savez(tmp_path / NPZ_FILE, genotypes=np.zeros((3, 2)), fitnesses=np.zeros((3, 1)))
    assert "not a repertoire of this program: it has no title, axes" in complaint(tmp_path)


def test_objects_are_not_unpickled(tmp_path):
    np.savez(tmp_path / NPZ_FILE, title=np.array([{}], object))
    assert "cannot be read as a repertoire" in complaint(tmp_path)


def test_every_damaged_byte_is_noticed_or_harmless(tmp_path):
    record = make_record()
    save_tables(record, tmp_path)
    whole = (tmp_path / NPZ_FILE).read_bytes()
    noticed = 0
    for place in range(0, len(whole), 23):
        (tmp_path / NPZ_FILE).write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            assert equal(load_record(tmp_path), record)  # a date in the archive's directory, for instance
        except UserError:
            noticed += 1
    assert noticed > len(whole) / 23 / 2
    for length in range(0, len(whole), 97):
        (tmp_path / NPZ_FILE).write_bytes(whole[:length])
        complaint(tmp_path)


def rewrite(directory, **changes) -> None:
    """Change arrays in a saved repertoire, as no damage could: the checksums are right."""
    with np.load(directory / NPZ_FILE) as arrays:
        changed = dict(arrays) | {name: np.asarray(value) for name, value in changes.items()}
    np.savez(directory / NPZ_FILE, **changed)


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"born": np.zeros(CELLS + 1, np.int32)}, "born must be int [N]"),
        ({"history_fitness": np.zeros((SNAPSHOTS, CELLS + 2), np.float32)}, "history_fitness must be float [F, N]"),
        ({"title": np.zeros(3)}, "title must be one value"),
        ({"feasible": np.zeros(CELLS, np.int32)}, "feasible must be bool [N]"),
        ({"low": np.zeros(3, np.float32)}, "low must be float [2]"),
        ({"low": np.array([9.0, 9.0], np.float32)}, "low must be below high"),
        ({"shape": np.array([2, 5])}, "shape must be that of 15 cells"),
        ({"shape": np.array([15])}, "shape must be two values"),
        ({"axes": np.array(["links", "colour"])}, "axes must be two of links, length"),
        ({"axes": np.zeros(0, np.str_)}, "axes must be two values"),
        ({"env_steps": np.zeros(2)}, "env_steps must be one value"),
        ({"env_steps": "many"}, "many"),
        ({"fitness": np.full(CELLS, np.nan, np.float32)}, "fitness must be finite, or -inf"),
        ({"fitness": np.full(CELLS, np.inf, np.float32)}, "fitness must be finite, or -inf"),
        ({"counts": np.full(CELLS, LINKS + 1, np.int32)}, "counts must be from 1 to 7"),
        ({"successes": np.full(CELLS, 14, np.int32)}, "successes must be from 0"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, changes, wrong):
    save_tables(make_record(), tmp_path)
    rewrite(tmp_path, **changes)
    assert wrong in complaint(tmp_path)


def test_other_axes_than_expected_are_refused(tmp_path):
    save_tables(make_record(), tmp_path)
    assert "over links and length, not over links and area" in complaint(tmp_path, ("links", "area"))


# --- for pyribs -----------------------------------------------------------------------------------------------------


def test_without_pyribs_it_is_said_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ribs.archives", None)
    with pytest.raises(UserError, match="pip install ribs pandas"):
        to_ribs_dataframe(tmp_path)


def test_pyribs_reads_the_table(tmp_path, monkeypatch):
    """Its class is pandas' with names of its own: what it is given is what the table holds."""
    pandas = pytest.importorskip("pandas")
    monkeypatch.setitem(sys.modules, "ribs.archives", SimpleNamespace(ArchiveDataFrame=pandas.DataFrame))
    record = make_record()
    save_tables(record, tmp_path)
    frame = to_ribs_dataframe(tmp_path)
    np.testing.assert_array_equal(frame["index"], np.flatnonzero(record.occupied))
    np.testing.assert_allclose(frame["objective"], record.fitness[record.occupied])
    with pytest.raises(UserError, match=r"repertoire\.csv does not exist"):
        to_ribs_dataframe(tmp_path / "elsewhere")
