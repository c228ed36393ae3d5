"""A run from start to end: build, compile, restore or begin, train, evaluate, summarise."""

import contextlib
import dataclasses
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from jaxrl_engine.core.config import Config
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.live.wall import WallOptions
from jaxrl_engine.modes.actor_learner.program import AsyncProgram, AsyncState
from jaxrl_engine.modes.build import Build, build
from jaxrl_engine.modes.council import ALONE, Together
from jaxrl_engine.modes.evaluator import Evaluator
from jaxrl_engine.modes.first_actions import tell_runs
from jaxrl_engine.modes.fused import FusedProgram, RunState
from jaxrl_engine.modes.hung_wall import HungWall, hang_wall
from jaxrl_engine.modes.placement import agreed, here, lay
from jaxrl_engine.modes.probe import split_times
from jaxrl_engine.modes.programs import make_program
from jaxrl_engine.modes.session import Job, Outcome, Session, evaluation_points
from jaxrl_engine.modes.summary import describe_model, leave_pictures, summarize_run
from jaxrl_engine.runtime.checkpoint import CheckpointStore
from jaxrl_engine.runtime.config import config_to_dict, differences, load_config
from jaxrl_engine.runtime.devices import CompileClock
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
    devices: int | None = 1,
    quiet: bool = False,
    wall: WallOptions = WallOptions(),
    tensorboard: bool = False,
) -> Result:
    """Train as configured, in a new run directory or going on in the one to `resume`; `tensorboard` shows it meanwhile.

    The batch is split over the first `devices` devices of every process (None: all). Where JAX's processes are several,
    all must call this alike: rank 0 writes the run's directory, the others one of their own that they remove.

    Raises:
        UserError: the input is at fault (nothing on disk is lost).
        RunError: the machine is (disk full, …); the last checkpoint stands.
    """
    clock = CompileClock()
    if resume is not None:  # first: another algorithm or world may not even fit the other settings
        _refuse_changes(resume, config)
    built = build(config)
    program = make_program(built, devices)
    leads = jax.process_index() == 0
    with contextlib.ExitStack() as stack:
        # Before anything is written: it may be refused its port.
        hung = stack.enter_context(hang_wall(built, wall if leads else WallOptions()))
        run = _own_directory(run_dir, resume, config, stack)
        viewer = tensorboard_viewer(run.path) if tensorboard and leads else contextlib.nullcontext()
        store = CheckpointStore(_checkpoints(run, resume), keep=config.checkpoint.keep, writes=leads)
        task = _Task(built, program, run, store, clock, hung, resuming=resume is not None)
        return _in_directory(task, viewer, quiet=quiet or not leads)


@dataclasses.dataclass(frozen=True)
class _Task:
    """What this process has to do, and where."""

    built: Build
    program: FusedProgram[Any] | AsyncProgram
    run: RunDirectory
    store: CheckpointStore
    clock: CompileClock
    hung: HungWall
    resuming: bool


def _own_directory(
    run_dir: Path | None, resume: Path | None, config: Config, stack: contextlib.ExitStack
) -> RunDirectory:
    """The run's directory on rank 0. What another rank would write there is nobody's: it gets one for the meantime."""
    if jax.process_index() > 0:
        return RunDirectory.create(Path(stack.enter_context(tempfile.TemporaryDirectory())), config)
    return RunDirectory.create(run_dir, config) if resume is None else _reopen(resume, config)


def _checkpoints(run: RunDirectory, resume: Path | None) -> Path:
    """Where checkpoints are read from, by every rank."""
    return run.checkpoints if resume is None else RunDirectory.open(resume, exclusive=False).checkpoints


def _in_directory(task: _Task, viewer: contextlib.AbstractContextManager[Any], *, quiet: bool) -> Result:
    config, run, hung = task.built.config, task.run, task.hung
    with run, StopSignals() as signals, task.clock, viewer:
        progress = Progress(total_steps=config.num_updates * config.samples_per_update, quiet=quiet)
        hung.begin(run, progress)
        run.write_status(state="starting", message="compiling")
        try:
            return _train(task, signals, progress)
        except BaseException as error:
            message = f"{type(error).__name__}: {one_line(error)}"
            hung.tell(state="failed", message=message)
            with contextlib.suppress(RunError):  # a disk that refuses this too must not hide the cause
                run.write_status(state="failed", message=message)
            raise
        finally:
            progress.close()


def _train(task: _Task, signals: StopSignals, progress: Progress) -> Result:
    built, program, run, store, hung = task.built, task.program, task.run, task.store, task.hung
    config, started, leads = built.config, time.perf_counter(), jax.process_index() == 0
    state, updates = _first_state(built, program, store, task.resuming)
    onlooker = hung.onlooker(program, state)
    chunk, evaluator = _compile(built, program, state)
    hung.ready()
    compile_seconds = time.perf_counter() - started
    _introduce(task, state, progress, compile_seconds)
    random = evaluator.summarize(jax.device_get(evaluator(state, 0, uniform=True)))
    writer = MetricWriter(
        run, tensorboard=config.logging.tensorboard and leads, wandb=config.logging.wandb and leads,
        resume_env_steps=updates * config.samples_per_update if task.resuming else None, others=hung.sinks,
    )  # fmt: skip
    hung.remember(run)
    with store, writer:
        job = dataclasses.replace(_job(built, chunk, evaluator), onlooker=onlooker)
        if isinstance(program, AsyncProgram):
            program.interrupted = lambda: signals.received is not None
            job = dataclasses.replace(job, broken=program.broken, saved=program.saved)
        else:
            council = ALONE if jax.process_count() == 1 else Together(program.placement)
            timings = split_times(program, state) if config.logging.split_times else {}  # type: ignore[arg-type]
            job = dataclasses.replace(job, timings=timings, council=council)
        try:
            outcome = Session(job, run, store, writer, progress).run(state, updates, signals)
        finally:
            _end_actors(program, progress)
    summary = summarize_run(built, outcome, outcome.updates - updates, compile_seconds, random)
    if isinstance(program, AsyncProgram):
        summary["actor_failures"] = program.failures()
    run.write_summary(summary)
    run.write_status(
        state=outcome.status, env_steps=summary["env_steps"], updates=outcome.updates,
        steps_per_second=summary["steps_per_second"], message=outcome.message,
    )  # fmt: skip
    hung.tell(state=outcome.status, message=outcome.message, env_steps=summary["env_steps"], updates=outcome.updates)
    _finish(task, evaluator, outcome, summary, progress)
    return Result(run_dir=run.path, summary=summary, signal=outcome.signal)


def _introduce(task: _Task, state: Any, progress: Progress, compile_seconds: float) -> None:
    """Say what begins."""
    built, run, clock = task.built, task.run, task.clock
    progress.message(f"run directory {run.path}")
    if jax.process_count() > 1:
        progress.message(f"{jax.process_count()} processes, {jax.device_count()} devices")
    tell_runs(built, task.program, state)
    run.write_status(model=describe_model(built, state.train_state), checkpoints=str(run.checkpoints))
    if built.env.spec.remark:
        progress.message(f"{built.config.env}: {built.env.spec.remark}")
    progress.message(f"compiled in {compile_seconds:.1f} s ({clock.cache_hits} of {clock.compilations} from the cache)")


def _finish(task: _Task, evaluator: Evaluator, outcome: Outcome, summary: dict[str, Any], progress: Progress) -> None:
    """Evaluate once more what is to be drawn, which takes every rank, and draw it, which takes one."""
    built, program = task.built, task.program
    elites = None
    if built.config.mode == "map-elites":
        elites = jax.device_get(evaluator(outcome.state, outcome.updates))
    if isinstance(program, FusedProgram):
        outcome = dataclasses.replace(outcome, state=here(outcome.state, program.placement))
    if jax.process_index() == 0:
        leave_pictures(built, program, task.run, outcome, elites, summary, progress)


def _first_state(
    built: Build, program: FusedProgram[Any] | AsyncProgram, store: CheckpointStore, resuming: bool
) -> tuple[RunState | AsyncState, int]:
    """Begin, or go on from the newest checkpoint; killed before its first one, a run begins again."""
    abstract: Any = program.shapes(built.keys, built.hyper)
    shardings = program.shardings(abstract)
    require_memory(bytes_of(abstract, shardings), GROWS_WITH[built.config.mode])
    restored = None
    if resuming and jax.process_index() == 0 and store.steps():
        restored = store.restore(program.saved(abstract))
    step = agreed(-1 if restored is None else restored.step)
    if step < 0:
        return program.init(built.keys, built.hyper), 0
    restored = restored or store.restore(program.saved(abstract), step)
    state = program.whole(restored.state.with_hyper(built.hyper))
    return lay(state, shardings), int(restored.metadata["updates"])


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
        chunk = program.placement.in_turn(chunk)
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
