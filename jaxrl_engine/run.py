"""`python -m jaxrl_engine.run`: parse, then hand over. Arguments are checked before jax is imported.

Exit codes: 0 finished; 2 bad input (one line); 1 a failure of the run, named; 130 and 143 after SIGINT and SIGTERM,
with a checkpoint of the last finished chunk.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime.config import Invocation, parse, to_yaml
from jaxrl_engine.runtime.errors import RunError, exit_with
from jaxrl_engine.runtime.logs import configure_logging
from jaxrl_engine.runtime.places import Place
from jaxrl_engine.runtime.ranks import abandon, find_place, join, leave
from jaxrl_engine.runtime.tables import results_table
from jaxrl_engine.runtime.tensorboard_viewer import require_tensorboard


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    invocation = parse(sys.argv[1:] if argv is None else argv)
    if invocation.print_config:
        print(to_yaml(invocation.config), end="")
        return 0
    configure_logging(invocation.log_level, invocation.quiet)
    try:
        place = find_place(invocation.distributed, invocation.distributed_timeout)
        return _run(invocation) if place is None else _run_as_rank(place, invocation)
    except (UserError, RunError) as error:
        exit_with(error)


def _run_as_rank(place: Place, invocation: Invocation) -> int:
    """Run with others: all end together, or at once where anything goes wrong."""
    if invocation.config.mode == "async":
        raise UserError(
            "distributed must be off with mode async, whose learner is one process (its actors may be many)"
        )
    if place.size == 1:
        return _run(invocation)
    try:
        code = _run(invocation, lambda: join(place, invocation))
    except BaseException as error:
        abandon(place, error)
    leave()
    return code


def _run(invocation: Invocation, connect: Callable[[], None] = lambda: None) -> int:
    if invocation.tensorboard:
        require_tensorboard()
    from jaxrl_engine.runtime.devices import configure_platform, enable_compile_cache

    configure_platform(invocation.platform, invocation.device_count, connect)
    enable_compile_cache()
    if invocation.eval_only:
        return _evaluate_only(invocation)
    import jax

    from jaxrl_engine.live.wall import WallOptions
    from jaxrl_engine.modes.train import train
    from jaxrl_engine.runtime.signals import exit_code

    wall = WallOptions(
        live=invocation.live, host=invocation.live_host, port=invocation.live_port, screens=invocation.live_screens,
        record=invocation.record,
    )  # fmt: skip

    result = train(
        invocation.config,
        run_dir=invocation.run_dir,
        resume=invocation.resume,
        devices=invocation.device_count,
        quiet=invocation.quiet,
        wall=wall,
        tensorboard=invocation.tensorboard,
    )
    if jax.process_index() == 0:
        print(_report(result.summary))
    if result.summary["status"] == "failed":
        print(f"error: {result.summary['message']}", file=sys.stderr)
        return 1
    return 0 if result.signal is None else exit_code(result.signal)


def _evaluate_only(invocation: Invocation) -> int:
    from jaxrl_engine.modes.policy import load_policy

    if invocation.resume is None:
        raise UserError("--eval-only needs --resume DIR, the run to evaluate")
    policy = load_policy(invocation.resume)
    episodes = invocation.config.evaluation.episodes
    print(results_table({"policy": policy.evaluate(episodes), "random": policy.evaluate(episodes, uniform=True)}))
    return 0


def _report(summary: dict[str, Any]) -> str:
    head = f"{summary['status']} after {summary['env_steps']} steps, {summary['wall_seconds']:.1f} s"
    speed = summary["steps_per_second"]
    if speed:
        head += f" ({summary['compile_seconds']:.1f} s compiling, then {speed:,.0f} steps/s)"
    return head + "\n" + results_table({"policy": summary["eval"], "random": summary["random_policy"]})


if __name__ == "__main__":
    sys.exit(main())
