"""Whether MuJoCo can render here, and through what: tried out in a process of its own, before anybody imports it.

MuJoCo reads `MUJOCO_GL` once, when it is imported. Its own choice needs a window on Linux; others fail while importing
or rendering where a library is missing, and a bad driver takes the process with it.
"""

import os
import subprocess
import sys

from jaxrl_engine.runtime.errors import one_line

VARIABLE = "MUJOCO_GL"
WINDOWLESS = ("egl", "osmesa")
PROBE_SECONDS = 30.0
_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size="1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
with mujoco.Renderer(model, 16, 16) as renderer:
    renderer.update_scene(data)
    renderer.render()
"""


def find_graphics() -> str | None:
    """Set `MUJOCO_GL` to what renders here; return None, or in one line why nothing does.

    Call it before MuJoCo is imported, which Brax does, too. A value that is set already is tried as it is, and so is
    MuJoCo's own choice outside Linux. Where nothing renders, MuJoCo is told not to try: it could not be imported.
    """
    problems = []
    for choice in _choices():
        problem = _probe(choice)
        if problem is None:
            os.environ[VARIABLE] = choice
            return None
        problems.append(f"{VARIABLE}={choice}: {problem}")
    os.environ[VARIABLE] = "disabled"
    return "; ".join(problems)


def _choices() -> tuple[str, ...]:
    if VARIABLE in os.environ:
        return (os.environ[VARIABLE],)
    return WINDOWLESS if sys.platform == "linux" else ("",)


def _probe(choice: str) -> str | None:
    """Render one picture elsewhere; return what went wrong, or None."""
    environment = {**os.environ, VARIABLE: choice}
    command = [sys.executable, "-P", "-c", _PROBE]
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=PROBE_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no picture within {PROBE_SECONDS:.0f} s"
    except OSError as error:
        return one_line(error)
    if done.returncode == 0:
        return None
    said = done.stderr.strip().splitlines()
    return said[-1] if said else f"ended with code {done.returncode}"
