"""Virtual environments of the peers, made on first use under `.peers/` from the pinned lists beside this file.

`python -m benchmarks.peers.install` makes all of them, with a name only that one.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

LISTS = Path(__file__).parent
ROOT = LISTS.parents[1]


def peer_python(name: str) -> Path:
    """Return the interpreter of a peer's environment, making it first where it is missing or its list has changed.

    Raises:
        subprocess.CalledProcessError: pip could not install what the list asks for.
    """
    requirements = LISTS / f"{name}.txt"
    home = ROOT / ".peers" / name
    python, stamp = home / "bin" / "python", home / "installed.sha256"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text() == digest:
        return python
    print(f"installing {requirements.name} into {home.relative_to(ROOT)}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
    (home.parent / ".gitignore").write_text("*\n")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", requirements], check=True)
    stamp.write_text(digest)
    return python


def main() -> None:
    """Install the peers named on the command line, or all."""
    names = sys.argv[1:] or sorted(path.stem for path in LISTS.glob("*.txt"))
    for name in names:
        print(peer_python(name))


if __name__ == "__main__":
    main()
