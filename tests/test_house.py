"""Gates on the source itself: nothing that runs what a file says, nothing too long, nothing that names a machine."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = sorted((ROOT / "jaxrl_engine").rglob("*.py"))
MAX_FILE_LINES, MAX_FUNCTION_LINES = 350, 60

CODE_IN_DATA = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
"""Modules whose readers run code that a file names."""

OTHER_NAMES = {
    "orbax-checkpoint": "orbax.checkpoint",
    "pillow": "PIL",
    "pytest-xdist": "xdist",
    "pyyaml": "yaml",
    "tensorboardx": "tensorboardX",
}
"""What a distribution is imported as, where that is not its own name."""


# --- nothing runs what a file says ----------------------------------------------------------------------------------


def safe_loaders(trees):
    """Names of the classes in the package that derive from PyYAML's safe loader."""
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return {node.name for node in classes if any("SafeLoader" in ast.unparse(base) for base in node.bases)}


def unsafe_call(call, loaders):
    """Say what is wrong with a call, or nothing."""
    name = ast.unparse(call.func)
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name in ("eval", "exec", "builtins.eval", "builtins.exec") or name.endswith("torch.load"):
        return name
    if re.fullmatch(r"yaml\.(unsafe_|full_)?load(_all)?", name):
        given = keywords.get("Loader", ast.unparse(call.args[1]) if len(call.args) > 1 else "")
        return "" if name in ("yaml.load", "yaml.load_all") and given in loaders else f"{name} with Loader={given}"
    return f"{name} with allow_pickle" if keywords.get("allow_pickle", "False") != "False" else ""


def unsafe_code(tree, loaders):
    """Yield what in a file would run code that another file names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (name for name in names if name.split(".")[0] in CODE_IN_DATA)
        elif isinstance(node, ast.Call) and (wrong := unsafe_call(node, loaders)):
            yield wrong


def test_nothing_in_the_package_runs_what_a_file_says():
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE}
    loaders = safe_loaders(trees.values())
    assert [f"{path.name}: {wrong}" for path, tree in trees.items() for wrong in unsafe_code(tree, loaders)] == []


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("import pickle", True),
        ("from pickle import loads", True),
        ("eval(text)", True),
        ("exec(text)", True),
        ("model.eval()", False),
        ("yaml.load(text)", True),
        ("yaml.load(text, Loader=yaml.Loader)", True),
        ("yaml.load(text, Strict)", False),
        ("yaml.load(text, Loader=Strict)", False),
        ("yaml.unsafe_load(text)", True),
        ("yaml.safe_load(text)", False),
        ("torch.load(path)", True),
        ("np.load(path, allow_pickle=True)", True),
        ("np.load(path)", False),
    ],
)
def test_the_gate_tells_safe_from_unsafe(line, wrong):
    tree = ast.parse("class Strict(yaml.SafeLoader):\n    pass\n" + line)
    assert bool(list(unsafe_code(tree, safe_loaders([tree])))) == wrong


# --- nothing is too long --------------------------------------------------------------------------------------------


def test_no_file_is_too_long():
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE}
    assert {name: length for name, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_no_function_is_too_long():
    found = {}
    for path in PACKAGE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1
                found |= {f"{path.name}:{node.name}": length} if length > MAX_FUNCTION_LINES else {}
    assert found == {}


# --- nothing names a machine ----------------------------------------------------------------------------------------

LOCAL = re.compile(
    r"file:/{2}"  # a path as an address
    r"|(?<!no-emit-)index[-_]url|(?<!no-emit-)find[-_]links"  # where packages come from is the user's own setting
    r"|://[^/\s:@\"'`]+:[^/\s@\"'`]+@",  # a password
    re.IGNORECASE,
)


def tracked_files():
    """Files that git tracks or would track; outside a checkout, every visible file."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0 and listed.stdout:
        return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    visible = (path for path in ROOT.rglob("*") if path.is_file())
    return [path for path in visible if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)]


def read_text(path):
    """The text of a file, empty if it holds none."""
    data = path.read_bytes()
    return "" if b"\0" in data else data.decode("utf-8", errors="replace")


def test_no_tracked_file_names_a_local_source():
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}" for path in tracked_files() for match in LOCAL.finditer(read_text(path))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("file:" + "///opt/wheels", True),
        ("--extra-" + "index" + "-url x", True),
        ("find" + "_links = x", True),
        ("uv pip compile --no-emit-index-url --no-emit-find-links", False),
        ("https://user" + ":secret@host/", True),
        ("https://host/a:b@c", False),
        ("git@host:a/b", False),
    ],
)
def test_the_gate_tells_local_from_public(text, wrong):
    assert bool(LOCAL.search(text)) == wrong


# --- what is declared is there --------------------------------------------------------------------------------------

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {name: [Requirement(line) for line in lines] for name, lines in PROJECT["optional-dependencies"].items()}
BASE = [Requirement(line) for line in PROJECT["dependencies"]]


def constraints():
    """Map each pinned distribution to its versions (several where they depend on the Python version)."""
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line)
            pins.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return pins


def test_every_direct_dependency_imports():
    """Only an import tells: one of them once needed a package that it did not declare."""
    needed = [requirement.name for requirement in BASE + EXTRAS["dev"] if not requirement.name.startswith("types-")]
    modules = [OTHER_NAMES.get(canonicalize_name(name), name.replace("-", "_")) for name in needed]
    code = f"import importlib\nfor name in {modules!r}: importlib.import_module(name)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=110)
    assert process.returncode == 0, process.stderr


def test_installed_versions_are_the_declared_ones():
    for requirement in BASE + EXTRAS["dev"]:
        assert requirement.specifier.contains(importlib.metadata.version(requirement.name), prereleases=True), (
            requirement
        )


def test_constraints_cover_every_direct_dependency():
    pins = constraints()
    for requirement in [*BASE, *(requirement for extra in EXTRAS.values() for requirement in extra)]:
        pinned = pins.get(canonicalize_name(requirement.name))
        assert pinned, f"{requirement.name} is not in constraints.txt: see CONTRIBUTING.md"
        for pin in pinned:
            (version,) = [specifier.version for specifier in pin.specifier]
            assert requirement.specifier.contains(version, prereleases=True), f"{pin} is outside {requirement}"


def test_constraints_are_versions_and_nothing_else():
    for pins in constraints().values():
        for pin in pins:
            assert [specifier.operator for specifier in pin.specifier] == ["=="], pin
            assert pin.url is None, pin
            assert not pin.extras, f"{pin}: old versions of pip refuse extras in constraints"
