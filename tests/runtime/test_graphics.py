"""What MuJoCo could render through, tried out in processes that stand for machines with and without it."""

import os

import pytest

from jaxrl_engine.runtime import graphics


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    """No choice beforehand, and none left behind."""
    monkeypatch.setenv(graphics.VARIABLE, "")
    monkeypatch.delenv(graphics.VARIABLE)
    monkeypatch.setattr(graphics.sys, "platform", "linux")


def machine_with(monkeypatch, what):
    monkeypatch.setattr(graphics, "_PROBE", f"import os\nassert os.environ['MUJOCO_GL'] in {what!r}, 'no library'")


@pytest.mark.parametrize(("what", "chosen"), [(("egl", "osmesa"), "egl"), (("osmesa",), "osmesa")])
def test_the_first_that_renders_is_chosen(monkeypatch, what, chosen):
    machine_with(monkeypatch, what)
    assert graphics.find_graphics() is None
    assert os.environ["MUJOCO_GL"] == chosen


def test_where_nothing_renders_each_reason_is_given_and_mujoco_stays_importable(monkeypatch):
    machine_with(monkeypatch, ())
    problem = graphics.find_graphics()
    assert problem == "MUJOCO_GL=egl: AssertionError: no library; MUJOCO_GL=osmesa: AssertionError: no library"
    assert os.environ["MUJOCO_GL"] == "disabled"
    monkeypatch.setattr(graphics, "_PROBE", "import mujoco")
    assert graphics.find_graphics() is None


def test_a_choice_made_beforehand_is_the_only_one_tried(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    problem = graphics.find_graphics()
    assert problem.startswith("MUJOCO_GL=nonsense: RuntimeError: invalid value") and "egl" not in problem


def test_a_driver_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(graphics, "_PROBE", "import time\ntime.sleep(60)")
    monkeypatch.setattr(graphics, "PROBE_SECONDS", 0.5)
    assert graphics.find_graphics().startswith("MUJOCO_GL=egl: no picture within")


def test_a_driver_that_takes_the_process_with_it_is_no_problem_of_ours(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(graphics, "_PROBE", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    assert graphics.find_graphics() == "MUJOCO_GL=egl: ended with code -11"
