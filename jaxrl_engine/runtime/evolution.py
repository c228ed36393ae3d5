"""What an evolution of arms left behind, as NumPy arrays: a table a person reads, a file programs read, all pictures.

Empty cells have fitness −inf; what their other entries hold means nothing.
"""

import csv
import dataclasses
import importlib
import io
import typing
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, jaxtyped

from jaxrl_engine.core.checks import require
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime.json_files import replace_file, whole_file

CSV_FILE, NPZ_FILE = "repertoire.csv", "repertoire.npz"


class Axis(NamedTuple):
    """How people call a descriptor, and its unit (empty: a plain number)."""

    name: str
    unit: str

    @property
    def label(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name


AXES = {
    "links": Axis("number of links", ""),
    "length": Axis("total length", "m"),
    "area": Axis("area the tip can reach", "m²"),
    "asymmetry": Axis("share of the length in the inner half", ""),
    "energy": Axis("energy", "J"),
}


@dataclasses.dataclass(frozen=True)
class EvolutionRecord:
    """`N` cells, each with at most one arm, over `F` snapshots of the search. Every picture is drawn from this alone.

    Raises:
        ValueError: an axis is unknown, or numbers contradict one another.
    """

    title: str
    axes: tuple[str, str]  # names in AXES
    shape: tuple[int, int] | None  # cells along axis 0 and axis 1, the latter varies fastest; None: Voronoi cells
    low: Float[np.ndarray, "2"]  # of each axis
    high: Float[np.ndarray, "2"]
    centroids: Float[np.ndarray, "N 2"]
    feasible: Bool[np.ndarray, "N"]  # an arm can be in the cell
    feasible_is_estimate: bool
    fitness: Float[np.ndarray, "N"]  # under the current policy; −inf: empty
    archived: Float[np.ndarray, "N"]  # that each elite was inserted with
    policy_version: Int[np.ndarray, "N"]  # that `fitness` was measured under
    born: Int[np.ndarray, "N"]  # generation
    evaluations: Int[np.ndarray, "N"]  # how often the elite's fitness was measured
    lengths: Float[np.ndarray, "N links"]  # m; those from `counts` on the arm does not have
    counts: Int[np.ndarray, "N"]  # links
    thickness: Float[np.ndarray, "N"]  # of the family's
    gear: Float[np.ndarray, "N"]  # of the family's
    descriptors: Float[np.ndarray, "N 2"]
    successes: Int[np.ndarray, "N"]  # on fresh targets, which no selection has seen
    trials: Int[np.ndarray, "N"]
    history_fitness: Float[np.ndarray, "F N"]
    history_generation: Int[np.ndarray, "F"]  # −1: this snapshot was not taken
    env_steps: int  # that the policy was trained on
    evaluation_steps: int
    generations: int
    offset: float = 0.0  # fitness from which the QD score counts

    def __post_init__(self) -> None:
        known = all(name in AXES for name in self.axes)
        require(known, "axes", f"two of {', '.join(AXES)}", self.axes)
        cells = len(self.centroids) if self.shape is None else self.shape[0] * self.shape[1]
        require(cells == len(self.fitness), "shape", f"that of {len(self.fitness)} cells", self.shape)
        require(bool((self.low < self.high).all()), "low", "below high on both axes", self.low.tolist())
        for name in ("fitness", "history_fitness"):
            values = getattr(self, name)
            require(bool((np.isfinite(values) | np.isneginf(values)).all()), name, "finite, or -inf", "another number")
        held, links = self.counts[self.occupied], self.lengths.shape[1]
        valid = bool(((held >= 1) & (held <= links)).all())
        require(valid, "counts", f"from 1 to {links} where there is an elite", held.tolist())
        valid = bool(((self.successes >= 0) & (self.successes <= self.trials)).all())
        require(valid, "successes", "from 0 to the number of trials", "another number")

    @property
    def occupied(self) -> Bool[np.ndarray, "N"]:
        return self.fitness > -np.inf

    @property
    def coverage(self) -> float:
        """Share of the feasible cells that hold an elite."""
        return float((self.occupied & self.feasible).sum() / max(int(self.feasible.sum()), 1))

    @property
    def score(self) -> float:
        """QD score under the current policy, Σ (fitness − offset) over elites (Pugh et al. 2016, section 4)."""
        return float((self.fitness[self.occupied].astype(np.float64) - self.offset).sum())

    @property
    def archived_score(self) -> float:
        """QD score that an archive which never measures again would claim."""
        return float((self.archived[self.occupied].astype(np.float64) - self.offset).sum())

    @property
    def tested(self) -> Bool[np.ndarray, "N"]:
        """Elites that were tried on fresh targets."""
        return self.occupied & (self.trials > 0)


def wilson(
    successes: Int[np.ndarray, "*batch"], trials: Int[np.ndarray, "*batch"], z: float = 1.96
) -> tuple[Float[np.ndarray, "*batch"], Float[np.ndarray, "*batch"]]:
    """Return the ends of the score interval of a proportion p̂ = successes / trials; NaN without trials.

        (p̂ + z²/2n ± z √(p̂ (1 − p̂)/n + z²/4n²)) / (1 + z²/n)

    Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference".
    """
    number = np.where(trials > 0, trials, np.nan)
    share = successes / number
    centre = (share + z**2 / (2 * number)) / (1 + z**2 / number)
    half = z * np.sqrt(share * (1 - share) / number + z**2 / (4 * number**2)) / (1 + z**2 / number)
    return np.asarray(np.maximum(centre - half, 0.0)), np.asarray(np.minimum(centre + half, 1.0))


def genotypes(record: EvolutionRecord) -> Float[np.ndarray, "N genes"]:
    """Return the cells' genes in a row each: all lengths (also those the arm does not have), count, thickness, gear."""
    return np.column_stack([record.lengths, record.counts, record.thickness, record.gear]).astype(record.lengths.dtype)


def save_tables(record: EvolutionRecord, directory: Path) -> None:
    """Write repertoire.csv (elites, with pyribs' column names) and repertoire.npz (all, also under QDax's names).

    Raises:
        RunError: the file system refuses; what was there before is still there.
    """
    stored: dict[str, Any] = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    stored |= {"axes": np.array(record.axes), "shape": np.array(record.shape or (), np.int64)}
    with whole_file(directory / NPZ_FILE) as file:
        np.savez_compressed(file, **stored, genotypes=genotypes(record), fitnesses=record.fitness[:, None])
    replace_file(directory / CSV_FILE, _csv(record))


def _csv(record: EvolutionRecord) -> str:
    share = record.successes / np.where(record.trials > 0, record.trials, np.nan)
    columns: dict[str, np.ndarray] = {
        "index": np.arange(len(record.fitness)), "objective": record.fitness,
        **{f"measures_{number}": column for number, column in enumerate(record.descriptors.T)},
        **{f"solution_{number}": column for number, column in enumerate(genotypes(record).T)},
        "archived": record.archived, "policy_version": record.policy_version, "born": record.born,
        "evaluations": record.evaluations, "links": record.counts, "success": share,
    }  # fmt: skip
    columns["success_low"], columns["success_high"] = wilson(record.successes, record.trials)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for cell in np.flatnonzero(record.occupied):
        values = (column[cell] for column in columns.values())
        writer.writerow("" if np.isnan(value) else str(value) for value in values)  # the shortest that reads back equal
    return text.getvalue()


def load_record(directory: Path, axes: tuple[str, str] | None = None) -> EvolutionRecord:
    """Read what `save_tables` wrote; with `axes` only a repertoire over these.

    Raises:
        UserError: the file is missing, damaged, not one of ours, or over other axes; one line names it.
    """
    path = directory / NPZ_FILE
    try:
        arrays = _read_arrays(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: no repertoire was saved there") from None
    except Exception as error:  # a damaged archive fails in whatever part of it is read first
        raise UserError(f"{path} cannot be read as a repertoire: {error or type(error).__name__}") from None
    missing = [field.name for field in dataclasses.fields(EvolutionRecord) if field.name not in arrays]
    if missing:
        raise UserError(f"{path} is not a repertoire of this program: it has no {', '.join(missing)}")
    try:
        values = {field.name: _value(field, arrays) for field in dataclasses.fields(EvolutionRecord)}
        _check_shapes(values)
        record = EvolutionRecord(**values)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {error}") from None
    if axes is not None and record.axes != axes:
        raise UserError(f"{path} is a repertoire over {' and '.join(record.axes)}, not over {' and '.join(axes)}")
    return record


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read every array; the archive's checksums are compared before anything is made of the bytes."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    return {
        name.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        for name, data in files.items()
    }


def _value(field: dataclasses.Field, arrays: dict[str, np.ndarray]) -> Any:
    array = arrays[field.name]
    if field.name in ("axes", "shape"):
        allowed = ((2,),) if field.name == "axes" else ((2,), (0,))
        require(array.shape in allowed, field.name, "two values", array.tolist())
        return tuple(array.tolist()) or None
    if hasattr(field.type, "dim_str"):
        return array
    require(array.shape == (), field.name, "one value", array.tolist())
    return typing.cast(Any, field.type)(array.item())


def _check_shapes(values: Mapping[str, Any]) -> None:
    """Hold what a file said against the declared types, shapes and common axes."""
    with jaxtyped("context"):  # an axis has one length in all arrays
        for field in dataclasses.fields(EvolutionRecord):
            value, kind = values[field.name], typing.cast(Any, field.type)
            if hasattr(kind, "dim_str") and not isinstance(value, kind):
                wanted = f"{kind.__name__.split('[')[0].lower()} [{', '.join(kind.dim_str.split())}]"
                found = f"{value.dtype} {list(value.shape)}"
                raise ValueError(f"{field.name} must be {wanted} with axes as long as in other arrays, not {found}")


def to_ribs_dataframe(directory: Path) -> Any:
    """Return the elites that `save_tables` wrote as a pyribs `ArchiveDataFrame`, for its plots and analyses.

    Raises:
        UserError: pyribs is not installed, or there is no such table.
    """
    try:
        pandas, archives = importlib.import_module("pandas"), importlib.import_module("ribs.archives")
    except ImportError:
        raise UserError("to_ribs_dataframe needs pyribs: pip install ribs pandas") from None
    path = directory / CSV_FILE
    if not path.is_file():
        raise UserError(f"{path} does not exist: no repertoire was saved there")
    return archives.ArchiveDataFrame(pandas.read_csv(path))
