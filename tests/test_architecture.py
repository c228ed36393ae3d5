"""The house has floors: who may import whom is read from the source, for every import, wherever in a file it stands."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = "jaxrl_engine"
ROOT = Path(__file__).resolve().parent.parent

SIBLINGS = ("envs", "nets", "replay", "qd")
BELOW_MODES = {"core", "ops", *SIBLINGS, "algos"}
FLOORS = {
    "core": set(),
    "ops": {"core"},
    **{room: {"core", "ops"} for room in SIBLINGS},
    "algos": {"core", "ops", *SIBLINGS},
    "runtime": {"core"},
    "live": {"core"},
    "modes": BELOW_MODES | {"runtime", "live"},
}
"""What each room may import besides itself."""

ENTRY_POINTS = {"__init__", "run", "launch", "play", "status", "api", "live.__main__"}
"""Files beside the rooms, and what `python -m` starts inside one: they may import everything, and only one another may
import them."""

PURE = ("core", "ops", "nets", "replay", "qd", "algos")
WORLDLY = {
    "asyncio", "concurrent", "multiprocessing", "os", "pathlib", "signal", "socket", "subprocess", "threading", "time",
}  # fmt: skip
"""Threads, processes, files and clocks: no business of a pure room."""


# --- the checker ----------------------------------------------------------------------------------------------------


def modules_of(root, package):
    """Map the dotted name of every module under `root/package` to its file; a package goes by its directory's name."""
    names = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imported_names(name, path):
    """Yield `(module, attribute or None)` for every import in a file, relative and dynamic ones resolved."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((source, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if function in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value, None


def import_graph(root, package):
    """Map each module to the modules of the package that it imports."""
    modules = modules_of(root, package)
    graph = {name: set() for name in modules}
    for name, path in modules.items():
        for source, attribute in imported_names(name, path):
            target = f"{source}.{attribute}" if f"{source}.{attribute}" in modules else source
            if target.split(".")[0] == package and target != name:
                graph[name].add(target)
    return graph


def room_of(module):
    parts = module.split(".")
    inside = ".".join(parts[1:])
    return inside if inside in ENTRY_POINTS else parts[1] if len(parts) > 1 else "__init__"


def violations(root, package):
    """Return one line for every edge or room that the floors forbid, and for a cycle if there is one."""
    graph = import_graph(root, package)
    found = []
    for room in sorted({room_of(module) for module in graph}):
        if room not in FLOORS and room not in ENTRY_POINTS:
            found.append(f"{room} has no floor: give it one in FLOORS")
    for module, targets in graph.items():
        room = room_of(module)
        for target in sorted(targets):
            other = room_of(target)
            free = room in ENTRY_POINTS or room == other or other in FLOORS.get(room, ())
            if not free:
                found.append(f"{module} imports {target}: {room} may not import {other}")
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found.append("cycle: " + " -> ".join(error.args[1]))
    return found


# --- the package ----------------------------------------------------------------------------------------------------


def test_every_import_runs_down():
    assert violations(ROOT, PACKAGE) == []


def test_pure_rooms_know_no_threads_files_or_clocks():
    found = []
    for name, path in modules_of(ROOT, PACKAGE).items():
        if room_of(name) in PURE:
            used = {source.split(".")[0] for source, _ in imported_names(name, path)} & WORLDLY
            found += [f"{name} imports {module}" for module in sorted(used)]
    assert found == []


@pytest.mark.parametrize(
    "module", ["core.config", "core.errors", "runtime.config", "run", "status", "play", "live.__main__"]
)
def test_arguments_are_read_before_jax_is_loaded(module):
    code = f"import sys, {PACKAGE}.{module}; print(*sorted({{'jax', 'jaxlib', 'flax', 'optax'}} & set(sys.modules)))"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == []


# --- the checker, checked -------------------------------------------------------------------------------------------


def build(root, files):
    """Write a small package `house` of the given modules, with an empty `__init__` in every room."""
    for name, source in files.items():
        path = root / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        for directory in path.relative_to(root).parents[:-1]:
            (root / directory / "__init__.py").touch()
    return violations(root, "house")


SOUND = {
    "core/types.py": "import dataclasses\nimport jax",
    "ops/losses.py": "from house.core.types import Array\nfrom house.core import types",
    "envs/vector.py": "from house.core import types\nfrom .protocol import Environment",
    "envs/protocol.py": "",
    "nets/heads.py": "from ..ops import losses",
    "algos/ppo.py": "import house.nets.heads\nfrom house.envs import protocol",
    "runtime/metrics.py": "from house.core.types import Array",
    "modes/sync.py": "from house.algos.ppo import PPO\nfrom house.runtime import metrics",
    "run.py": "def main():\n    from house.modes import sync",
}


def test_a_sound_house_passes(tmp_path):
    assert build(tmp_path, SOUND) == []


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("core/types.py", "from house.ops import losses", "house.core.types imports house.ops.losses: core may"),
        ("ops/losses.py", "import house.nets.heads", "house.ops.losses imports house.nets.heads: ops may"),
        ("nets/heads.py", "from house.envs.vector import x", "nets may not import envs"),
        ("nets/heads.py", "from ..envs.vector import x", "nets may not import envs"),
        ("nets/heads.py", "def f():\n    from house.envs import vector", "nets may not import envs"),
        ("nets/heads.py", "if TYPE_CHECKING:\n    import house.qd.x", "nets may not import qd"),
        ("algos/ppo.py", "from house.runtime.metrics import write", "algos may not import runtime"),
        ("runtime/metrics.py", "from house.ops import losses", "runtime may not import ops"),
        ("runtime/metrics.py", "importlib.import_module('house.modes.sync')", "runtime may not import modes"),
        ("modes/sync.py", "from house import run", "modes may not import run"),
        ("envs/vector.py", "from house import make", "envs may not import __init__"),
        ("envs/vector.py", "import house.live.wall", "envs may not import live"),
        ("gadgets/new.py", "", "gadgets has no floor"),
        ("helpers.py", "", "helpers has no floor"),
    ],
)
def test_an_edge_that_runs_up_or_sideways_is_found(tmp_path, file, line, complaint):
    found = build(tmp_path, SOUND | {file: SOUND.get(file, "") + "\n" + line})
    edges = [complaint for complaint in found if not complaint.startswith("cycle")]  # an edge upward may also close one
    assert len(edges) == 1, found
    assert complaint in edges[0]


def test_a_cycle_is_found(tmp_path):
    files = {
        "envs/a.py": "from house.envs import b",
        "envs/b.py": "import house.envs.c",
        "envs/c.py": "from . import a",
    }
    found = build(tmp_path, SOUND | files)
    assert len(found) == 1, found
    assert found[0].startswith("cycle: ")
    assert {"house.envs.a", "house.envs.b", "house.envs.c"} == set(found[0].removeprefix("cycle: ").split(" -> "))
