"""`python -m jaxrl_engine.play RUN`: roll a saved policy; prints a table, and draws what it does."""

import dataclasses
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jaxrl_engine.core.config import require
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime.command_line import HELP_OPTIONS, print_help, read_arguments
from jaxrl_engine.runtime.config import MOST_SCREENS
from jaxrl_engine.runtime.errors import RunError, exit_with
from jaxrl_engine.runtime.graphics import find_graphics
from jaxrl_engine.runtime.logs import configure_logging
from jaxrl_engine.runtime.tables import results_table

PROGRAM = "python -m jaxrl_engine.play RUN"


@dataclasses.dataclass(frozen=True)
class Options:
    """Roll the saved policy of the run directory RUN greedily in fresh episodes."""

    episodes: int = 256
    """Episodes to play for the table."""
    seed: int = 0
    """Seed of the episodes."""
    run: int | None = None
    """Which of several seeds or settings (default: the one that evaluated best)."""
    step: int | None = None
    """Environment step of the checkpoint (default: the one that evaluated best)."""
    elite: int | str | None = None
    """Map-elites: whose body, best or the number of a cell of the repertoire (default: best)."""
    export_mjcf: Path | None = None
    """Map-elites: where to write the elite's body as an MJCF document."""
    gif: Path | None = None
    """Where to write the moving picture (only of worlds that can be drawn; default: play.gif in the run's directory,
    unless --mp4 is given)."""
    mp4: Path | None = None
    """Where to write it as a video that browsers play (needs the extra video)."""
    render: Literal["auto", "mujoco", "flat"] = "auto"
    """What the picture is made by: MuJoCo's renderer, where the world has joints and this machine can, or the flat
    drawing."""
    screens: int = 9
    """Worlds side by side in the picture."""
    frames: int = 200
    """Steps in the picture, at most."""
    live: bool = False
    """Go on playing in a browser, until Ctrl-C, instead of writing the picture."""
    live_port: int = 8765
    """Where that page is served; where it is taken, on the next free port."""
    live_host: str = "127.0.0.1"
    """Address it is served on; beyond this machine only with a random token, which is printed."""
    platform: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to compute."""

    def __post_init__(self) -> None:
        for name in ("episodes", "screens", "frames"):
            require(getattr(self, name) >= 1, name, "a whole number >= 1", getattr(self, name))
        most = MOST_SCREENS if self.live else self.screens
        require(self.screens <= most, "screens", f"at most {most} with live", self.screens)
        require(1 <= self.live_port <= 65535, "live_port", "from 1 to 65535", self.live_port)


def parse_arguments(argv: Sequence[str]) -> tuple[Path, Options]:
    """Return the run directory and the options.

    Raises:
        UserError: no directory is named, or an option is unknown or not valid.
        SystemExit: help was asked for and has been printed.
    """
    if any(token in HELP_OPTIONS for token in argv):
        print_help(Options(), PROGRAM)
        raise SystemExit(0)
    if not argv or argv[0].startswith("--"):
        raise UserError(f"name the run directory first: {PROGRAM}")
    try:
        return Path(argv[0]), Options(**read_arguments(argv[1:], Options, {}))
    except ValueError as error:
        raise UserError(str(error)) from None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        return _play(*parse_arguments(sys.argv[1:] if argv is None else argv))
    except (UserError, RunError) as error:
        exit_with(error)
    except KeyboardInterrupt:  # the usual way to leave --live
        return 0


def _play(run_dir: Path, arguments: Options) -> int:
    configure_logging("warning")
    _check_files(arguments)
    no_graphics = _find_graphics(arguments.render)
    from jaxrl_engine.runtime.devices import configure_platform, enable_compile_cache

    configure_platform(arguments.platform, 1)
    enable_compile_cache()
    from jaxrl_engine.envs.protocol import Jointed
    from jaxrl_engine.modes.map_elites.export import describe_body, export_mjcf
    from jaxrl_engine.modes.policy import load_policy

    policy = load_policy(run_dir, run=arguments.run, step=arguments.step, elite=arguments.elite)
    if arguments.render == "mujoco" and not isinstance(policy.built.env, Jointed):
        raise UserError(f"render must be auto or flat: {policy.built.config.env} is no world that MuJoCo knows")
    if policy.elite is not None:
        print(f"elite {policy.elite}: {describe_body(policy.built.env_params)}")
    if arguments.export_mjcf is not None:
        export_mjcf(policy, arguments.export_mjcf)
    print(f"{policy.built.config.env}: the policy after {policy.env_steps} steps, {arguments.episodes} fresh episodes")
    greedy = policy.evaluate(arguments.episodes, seed=arguments.seed)
    print(
        results_table(
            {"policy": greedy, "random": policy.evaluate(arguments.episodes, seed=arguments.seed, uniform=True)}
        )
    )
    if arguments.live:
        from jaxrl_engine.modes.theatre import show_policy

        show_policy(policy, arguments.screens, arguments.live_host, arguments.live_port, arguments.seed)
        return 0
    if arguments.render == "auto" and no_graphics is not None and isinstance(policy.built.env, Jointed):
        print(f"no picture by MuJoCo, only the flat drawing if there is one: {no_graphics}")
    watched = policy.watch(arguments.screens, arguments.frames, seed=arguments.seed, with_joints=no_graphics is None)
    if watched is None:
        print(f"no picture: {policy.built.config.env} cannot be drawn")
        return 0
    _save(policy.built.env, watched, run_dir, arguments)
    return 0


def _find_graphics(render: str) -> str | None:
    """Return why MuJoCo renders nothing, or None; before anything imports it, as Brax does."""
    if render == "flat":
        return "render is flat"
    problem = find_graphics()
    if problem is not None and render == "mujoco":
        raise UserError(f"render must be auto or flat: MuJoCo cannot render here: {problem}")
    return problem


def _check_files(arguments: Options) -> None:
    """Refuse what could not be written, before any work is done."""
    for name in ("gif", "mp4"):
        path: Path | None = getattr(arguments, name)
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise UserError(f"{name} must be a file in a directory that exists, not {path}")
    if arguments.mp4 is not None:
        importlib.import_module("jaxrl_engine.runtime.video").require_ffmpeg()


def _save(env: Any, watched: Any, run_dir: Path, arguments: Options) -> None:
    from jaxrl_engine.modes.record import film
    from jaxrl_engine.runtime.drawing import FRAME_MILLISECONDS, draw_film, save_gif
    from jaxrl_engine.runtime.video import save_mp4

    filmed = film(watched)
    if watched.joints is not None:
        filmed = importlib.import_module("jaxrl_engine.modes.render").rendered(env, watched, filmed)
    frames = draw_film(filmed)
    if arguments.gif is not None or arguments.mp4 is None:
        path = arguments.gif or run_dir / "play.gif"
        save_gif(frames, path)
        print(f"wrote {path}")
    if arguments.mp4 is not None:
        save_mp4(frames, arguments.mp4, FRAME_MILLISECONDS)
        print(f"wrote {arguments.mp4}")


if __name__ == "__main__":
    sys.exit(main())
