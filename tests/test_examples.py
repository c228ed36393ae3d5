"""The examples run as they stand."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def play(name: str, directory: Path) -> str:
    done = subprocess.run([sys.executable, EXAMPLES / name], cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_a_new_environment_is_learned(tmp_path):
    last = play("new_environment.py", tmp_path)[-1]
    learned, random = (float(part.split(": ")[1]) for part in last.split(", "))
    assert learned > 0.8 > 0.3 > random


@pytest.mark.slow
def test_a_new_loss_term_calms_the_logits(tmp_path):
    plain, calm = play("new_loss_term.py", tmp_path)
    assert float(calm.split()[-1]) < 1.0
    assert float(calm.split()[4]) > float(plain.split()[4])  # smaller logits, more entropy
