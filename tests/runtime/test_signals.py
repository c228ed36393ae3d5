"""The first signal asks, the second Ctrl-C insists."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxrl_engine.runtime.signals import StopSignals, exit_code

WORK = """
import sys, time
from jaxrl_engine.runtime.signals import StopSignals, exit_code
with StopSignals() as stop:
    print("ready", flush=True)
    while stop.received is None or "deaf" in sys.argv:
        time.sleep(0.01)
print("orderly", flush=True)
sys.exit(exit_code(stop.received))
"""


def start(*arguments) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", WORK, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_exit_codes_are_the_shells():
    assert (exit_code(signal.SIGINT), exit_code(signal.SIGTERM)) == (130, 143)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_signal_ends_the_work_in_order(signum, code):
    process = start()
    process.send_signal(signum)
    out, err = process.communicate(timeout=10)
    assert (out, process.returncode) == ("orderly\n", code)
    assert err == f"{signum.name}: stopping after the running chunk; Ctrl-C exits at once without saving\n"


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_ctrl_c_leaves_at_once(first):
    process = start("deaf")
    process.send_signal(first)
    assert "stopping" in process.stderr.readline()  # the handler has run
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert time.monotonic() - begun < 1.0
    assert (out, err, process.returncode) == ("", "", 130)


def test_a_second_sigterm_changes_nothing():
    process = start("deaf")
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    assert process.poll() is None
    process.kill()
    process.communicate()


def test_the_former_handlers_return(capfd):
    former = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    with StopSignals() as stop:
        assert signal.getsignal(signal.SIGTERM) not in former
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == signal.SIGTERM
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == former
    assert "SIGTERM: stopping" in capfd.readouterr().err


def test_another_thread_cannot_listen():
    caught = []

    def enter() -> None:
        try:
            StopSignals().__enter__()
        except ValueError as error:
            caught.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert len(caught) == 1
