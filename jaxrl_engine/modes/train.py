"""A run from start to end: build, compile, restore or begin, train, evaluate, summarise."""

import contextlib
import dataclasses
import importlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl_engine.algos.hmasd.learner import HMASD
from jaxrl_engine.core.config import Config
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.core.types import TrainState
from jaxrl_engine.live.wall import WallOptions
from jaxrl_engine.modes.actor_learner.program import AsyncProgram, AsyncState
from jaxrl_engine.modes.build import Build, build
from jaxrl_engine.modes.evaluator import Evaluator
from jaxrl_engine.modes.first_actions import tell_runs
from jaxrl_engine.modes.fused import FusedProgram, RunState
from jaxrl_engine.modes.hung_wall import HungWall, hang_wall
from jaxrl_engine.modes.probe import split_times
from jaxrl_engine.modes.programs import make_program
from jaxrl_engine.modes.record import skill_maps
from jaxrl_engine.modes.session import Job, Outcome, Session, evaluation_points
from jaxrl_engine.runtime.checkpoint import CheckpointStore
from jaxrl_engine.runtime.config import config_to_dict, differences, load_config
from jaxrl_engine.runtime.devices import CompileClock, environment_record, peak_memory_bytes
from jaxrl_engine.runtime.drawing import save_maps
from jaxrl_engine.runtime.errors import RunError, one_line
from jaxrl_engine.runtime.memory import bytes_of, require_memory
from jaxrl_engine.runtime.metrics import MetricWriter
from jaxrl_engine.runtime.progress import Progress
from jaxrl_engine.runtime.run_directory import RunDirectory
from jaxrl_engine.runtime.signals import StopSignals
from jaxrl_engine.runtime.tensorboard_viewer import tensorboard_viewer

CHANGEABLE = ("total_steps", "max_skipped_updates", "evaluation.", "checkpoint.", "logging.")
"""Settings a resumed run may change; any other would make it a different run."""
GROWS_WITH = {
    "sync": "num_envs, num_steps and num_seeds",
    "async": "num_envs, num_steps and impact.buffer_capacity",
    "map-elites": "num_envs, num_steps, num_seeds, qd.num_offspring and qd.num_targets",
}
"""What a run's memory depends on most."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What a finished (or interrupted) run leaves in memory; the same is in its directory."""

    run_dir: Path
    summary: dict[str, Any]
    signal: int | None


def train(
    config: Config,
    *,
    run_dir: Path | None = None,
    resume: Path | None = None,
    num_devices: int = 1,
    quiet: bool = False,
    wall: WallOptions = WallOptions(),
    tensorboard: bool = False,
) -> Result:
    """Train as configured, in a new run directory or going on in the one to `resume`; `tensorboard` shows it meanwhile.

    Raises:
        UserError: the input is at fault (nothing on disk is lost).
        RunError: the machine is (disk full, …); the last checkpoint stands.
    """
    clock = CompileClock()
    if resume is not None:  # first: another algorithm or world may not even fit the other settings
        _refuse_changes(resume, config)
    built = build(config)
    program = make_program(built, num_devices)
    with hang_wall(built, wall) as hung:  # before anything is written: it may be refused its port
        run = RunDirectory.create(run_dir, config) if resume is None else _reopen(resume, config)
        viewer = tensorboard_viewer(run.path) if tensorboard else contextlib.nullcontext()
        return _in_directory(built, program, run, clock, hung, viewer, quiet=quiet, resuming=resume is not None)


def _in_directory(
    built: Build,
    program: FusedProgram[Any] | AsyncProgram,
    run: RunDirectory,
    clock: CompileClock,
    hung: HungWall,
    viewer: contextlib.AbstractContextManager[Any],
    *,
    quiet: bool,
    resuming: bool,
) -> Result:
    config = built.config
    with run, StopSignals() as signals, clock, viewer:
        progress = Progress(total_steps=config.num_updates * config.samples_per_update, quiet=quiet)
        hung.begin(run, progress)
        run.write_status(state="starting", message="compiling")
        try:
            return _train(built, program, run, signals, clock, progress, hung, resuming=resuming)
        except BaseException as error:
            message = f"{type(error).__name__}: {one_line(error)}"
            hung.tell(state="failed", message=message)
            with contextlib.suppress(RunError):  # a disk that refuses this too must not hide the cause
                run.write_status(state="failed", message=message)
            raise
        finally:
            progress.close()


def _train(
    built: Build,
    program: FusedProgram[Any] | AsyncProgram,
    run: RunDirectory,
    signals: StopSignals,
    clock: CompileClock,
    progress: Progress,
    hung: HungWall,
    *,
    resuming: bool,
) -> Result:
    config, started = built.config, time.perf_counter()
    store = CheckpointStore(run.checkpoints, keep=config.checkpoint.keep)
    state, updates = _first_state(built, program, store, resuming)
    onlooker = hung.onlooker(program, state)
    chunk, evaluator = _compile(built, program, state)
    hung.ready()
    compile_seconds = time.perf_counter() - started
    progress.message(f"run directory {run.path}")
    tell_runs(built, program, state)
    run.write_status(model=_describe_model(built, state.train_state), checkpoints=str(run.checkpoints))
    if built.env.spec.remark:
        progress.message(f"{config.env}: {built.env.spec.remark}")
    progress.message(f"compiled in {compile_seconds:.1f} s ({clock.cache_hits} of {clock.compilations} from the cache)")
    random = evaluator.summarize(jax.device_get(evaluator(state, 0, uniform=True)))
    writer = MetricWriter(
        run, tensorboard=config.logging.tensorboard, wandb=config.logging.wandb,
        resume_env_steps=updates * config.samples_per_update if resuming else None, others=hung.sinks,
    )  # fmt: skip
    hung.remember(run)
    with store, writer:
        job = dataclasses.replace(_job(built, chunk, evaluator), onlooker=onlooker)
        if isinstance(program, AsyncProgram):
            program.interrupted = lambda: signals.received is not None
            job = dataclasses.replace(job, broken=program.broken, saved=program.saved)
        elif config.logging.split_times:
            job = dataclasses.replace(job, timings=split_times(program, state))  # type: ignore[arg-type]
        try:
            outcome = Session(job, run, store, writer, progress).run(state, updates, signals)
        finally:
            _end_actors(program, progress)
    summary = _summary(built, outcome, outcome.updates - updates, compile_seconds, random)
    if isinstance(program, AsyncProgram):
        summary["actor_failures"] = program.failures()
    run.write_summary(summary)
    run.write_status(
        state=outcome.status, env_steps=summary["env_steps"], updates=outcome.updates,
        steps_per_second=summary["steps_per_second"], message=outcome.message,
    )  # fmt: skip
    hung.tell(state=outcome.status, message=outcome.message, env_steps=summary["env_steps"], updates=outcome.updates)
    _leave_pictures(built, program, run, evaluator, outcome, summary, progress)
    return Result(run_dir=run.path, summary=summary, signal=outcome.signal)


def _leave_pictures(
    built: Build,
    program: FusedProgram[Any] | AsyncProgram,
    run: RunDirectory,
    evaluator: Evaluator,
    outcome: Outcome,
    summary: dict[str, Any],
    progress: Progress,
) -> None:
    """Draw what a run of its kind leaves behind."""
    if built.config.mode == "map-elites":
        assert isinstance(program, FusedProgram)
        record = importlib.import_module("jaxrl_engine.modes.map_elites.record")  # matplotlib takes most of a second
        record.leave_elites(run.path, evaluator, program.trainer, outcome.state, outcome.updates, summary)
        progress.message(f"repertoire, pictures and report.html are in {run.path}")
    if outcome.status == "finished" and isinstance(built.algorithm, HMASD):
        _draw_skills(built, outcome, run.path / "skills.png", progress)


def _draw_skills(built: Build, outcome: Outcome, path: Path, progress: Progress) -> None:
    """Leave a picture of where agents are under each skill, of the run that evaluated best."""
    train_state = outcome.state.train_state
    if built.num_runs is not None:
        best = int(np.argmax(outcome.evaluation["return_per_seed"]))
        train_state = jax.tree.map(lambda leaf: leaf[best], train_state)
    maps = skill_maps(built, train_state)
    if maps is None:
        progress.message(f"no map of the skills: {built.config.env} does not show where its agents are")
        return
    try:
        save_maps(maps.counts, maps.agents, maps.skills, maps.title, path)
    except OSError as error:
        raise RunError(f"{path}: {one_line(error)}") from error


def _first_state(
    built: Build, program: FusedProgram[Any] | AsyncProgram, store: CheckpointStore, resuming: bool
) -> tuple[RunState | AsyncState, int]:
    """Begin, or go on from the newest checkpoint; killed before its first one, a run begins again."""
    abstract = jax.eval_shape(program.init, built.keys, built.hyper)
    require_memory(bytes_of(abstract), GROWS_WITH[built.config.mode])
    if not resuming or not store.steps():
        return program.init(built.keys, built.hyper), 0
    restored = store.restore(program.saved(abstract))
    state = program.whole(restored.state.with_hyper(built.hyper))
    return jax.device_put(state, program.shardings(abstract)), int(restored.metadata["updates"])


def _compile(built: Build, program: FusedProgram[Any] | AsyncProgram, state: Any) -> tuple[Any, Evaluator]:
    """Compile training and evaluation side by side: XLA does not hold the interpreter while it works."""
    evaluator = Evaluator(built, program, state)
    with ThreadPoolExecutor(max_workers=1) as pool:
        other = pool.submit(evaluator.compile)
        chunk = program.compile(state)
        other.result()
    if isinstance(program, FusedProgram):
        planned: Any = chunk
        require_memory(planned.memory_analysis().temp_size_in_bytes, GROWS_WITH[built.config.mode])
    return chunk, evaluator


def _end_actors(program: FusedProgram[Any] | AsyncProgram, progress: Progress) -> None:
    """Let the actors of the async mode end, and say which did not."""
    if isinstance(program, AsyncProgram):
        for name in program.close():
            progress.message(f"thread {name} did not end; the process takes it with it")


def _job(built: Build, chunk: Any, evaluator: Evaluator) -> Job:
    config = built.config
    return Job(
        chunk=chunk,
        evaluate=evaluator,
        summarize=evaluator.summarize,
        steps_per_update=config.samples_per_update,
        total_updates=config.num_updates,
        updates_per_row=config.updates_per_row,
        evaluation_points=evaluation_points(config.num_updates, config.evaluation.count, _first_evaluation(config)),
        max_skipped_updates=config.max_skipped_updates,
        save_seconds=config.checkpoint.every_seconds,
        metadata={"config": config_to_dict(config)},
        timings={},
    )


def _describe_model(built: Build, train_state: TrainState) -> str:
    """Say what learns, and how large it is."""
    config = built.config
    network = f" with network.torso {config.network.torso}" if config.algo in ("ppo", "mappo", "impact") else ""
    numbers = sum(leaf.size for leaf in jax.tree.leaves(train_state.params)) // (built.num_runs or 1)
    several = "" if built.num_runs is None else f", {built.num_runs} times"
    return f"{config.algo}{network}: {numbers:,} parameters{several}"


def _first_evaluation(config: Config) -> int:
    """The first update after which there is something to evaluate: bodies, in the mode map-elites."""
    return config.warm_up_generations + 1 if config.mode == "map-elites" else 1


def _refuse_changes(path: Path, config: Config) -> None:
    """Accept only changes that leave a resumed run the same run."""
    begun = load_config(RunDirectory.open(path, exclusive=False).config_path)
    changed = [line for line in differences(begun, config) if not line.startswith(CHANGEABLE)]
    if changed:
        raise UserError(f"--resume keeps a run's settings, but {'; '.join(changed)}")


def _reopen(path: Path, config: Config) -> RunDirectory:
    run = RunDirectory.open(path)
    run.write_config(config)
    return run


def _summary(
    built: Build, outcome: Outcome, updates_here: int, compile_seconds: float, random: dict[str, Any]
) -> dict[str, Any]:
    config = built.config
    steps_here = updates_here * config.samples_per_update
    record = environment_record()
    summary = {
        "mode": config.mode,
        "env": config.env,
        "algo": config.algo,
        "seed": config.seed,
        "num_seeds": config.num_seeds,
        "status": outcome.status,
        "message": outcome.message,
        "env_steps": outcome.updates * config.samples_per_update,
        "updates": outcome.updates,
        "wall_seconds": outcome.train_seconds + compile_seconds,
        "compile_seconds": compile_seconds,
        "steps_per_second": steps_here / outcome.train_seconds if outcome.train_seconds else None,
        "eval": outcome.evaluation,
        "random_policy": random,
        "peak_memory_bytes": peak_memory_bytes(),
        "platform": record.pop("platform"),
        "versions": record,
    }
    if built.num_runs is not None:
        summary["runs"] = built.run_labels
    return summary
