"""What every collector promises, whoever steps its worlds; and what is lost with a process of Ray's."""

import os
import signal
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from patience import wait_until
from troubled_sources import DIES, HANGS, RAISES, WORKS, Troubled, parameters

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.modes.actor_learner import ray_collector
from jaxrl_engine.modes.actor_learner.actors import Supervisor
from jaxrl_engine.modes.actor_learner.collector import Collector, Source
from jaxrl_engine.modes.actor_learner.program import AsyncProgram, make_source
from jaxrl_engine.modes.actor_learner.ray_collector import LostActorError, RaySource
from jaxrl_engine.modes.build import build
from jaxrl_engine.modes.train import train
from jaxrl_engine.runtime import ray_session
from jaxrl_engine.runtime.config import parse

ENVS, STEPS, WORKERS = 3, 5, 2
WORLDS = {
    "jax": "gymnax:CartPole-v1",
    "host": "gymnasium:CartPole-v1",
    "own": "gymnasium:fake_host_worlds:Painter-v0 --env-params processes=1 max_episode_steps=7",
}
SIZES = (
    f"--mode async --num-envs {ENVS * WORKERS} --num-workers {WORKERS} --num-steps {STEPS} "
    f"--batch-size {STEPS * 12} --min-buffer-size {STEPS * 12} --num-epochs 1 --ppo.num-minibatches 1 "
    f"--network.hidden-sizes 7 --total-steps {STEPS * 6 * 20} --buffer-capacity 500 --logging.every-updates 1 "
    "--evaluation.episodes 2 --evaluation.count 0 --evaluation.max-steps 50"
)


def config_of(world, kind, more=""):
    return parse(f"--env {WORLDS[world]} {SIZES} --actors {kind} {more}".split()).config


@pytest.fixture(scope="module", autouse=True)
def one_ray():
    """A Ray for all tests: it takes seconds to start."""
    ray_session.join("")
    yield
    ray_session.leave()
    assert not ray_session.ray().is_initialized()


@pytest.fixture(scope="module", params=["jax", "host"])
def world(request):
    """Parameters to act with, and a source of this process."""
    built = build(config_of(request.param, "threads"))
    behaviour = jax.jit(built.algorithm.init)(jax.random.key(0), built.hyper).replace(optimizer=None)
    here = make_source(built, ENVS)
    here.compile(behaviour)
    return request.param, behaviour, here


@pytest.fixture(scope="module", params=["threads", "ray"])
def contestant(request, world):
    """A source, two collectors of it that began differently, and two rollouts of each on end."""
    name, behaviour, here = world
    source = here
    if request.param == "ray":
        source = make_source(build(config_of(name, "ray")), ENVS)
        source.compile(behaviour)
    both = [source.begin(jax.random.key(seed), seed - 11) for seed in (11, 12)]
    keys = [jax.random.key(number) for number in (1, 2)]
    yield source, both, [[each.collect(behaviour, key) for key in keys] for each in both]
    for each in (*both, *both):
        each.close()
    if request.param == "ray":
        source.close()
        source.close()


def bits(tree):
    return [(np.asarray(leaf).dtype, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]


# --- the contract ---------------------------------------------------------------------------------------------------


def test_it_is_what_the_interface_says(world, contestant):
    source, both, rollouts = contestant
    assert isinstance(source, Source) and all(isinstance(each, Collector) for each in both)
    collected = rollouts[0][0]
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (collected.chunks, source.example(world[1])))
    assert shapes[0] == shapes[1]
    assert collected.episodes.ended.shape == (STEPS, ENVS)
    if isinstance(source, RaySource):
        assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(rollouts))


def test_the_same_keys_and_parameters_give_the_rollouts_of_a_collector_of_this_process(world, contestant):
    """To the bit: sums over seven hidden units are the same however many threads there are."""
    _, behaviour, here = world
    collector = here.begin(jax.random.key(11))
    expected = [collector.collect(behaviour, jax.random.key(number)) for number in (1, 2)]
    collector.close()
    assert bits(contestant[2][0]) == bits(expected)


def test_no_two_rollouts_are_alike(contestant):
    seen = {np.asarray(each.chunks.observation).tobytes() for rollouts in contestant[2] for each in rollouts}
    assert len(seen) == 4


def test_chunks_bear_the_version_of_the_parameters(world, contestant):
    for version in (7, 31):
        acting = world[1].replace(policy_version=jnp.int32(version))
        collected = contestant[1][0].collect(acting, jax.random.key(version))
        np.testing.assert_array_equal(collected.chunks.policy_version, np.full(ENVS, version))


# --- of Ray only ----------------------------------------------------------------------------------------------------


@pytest.fixture
def begin():
    """Begin collectors; all are closed, twice."""
    begun = []

    def make(source, seed, actor=0):
        begun.append(source.begin(jax.random.key(seed), actor))
        return begun[-1]

    yield make
    for each in begun:
        each.close()
        each.close()


@pytest.fixture
def troubled():
    """Sources whose collectors do what the parameters say, at work in Ray."""
    made = []

    def make(seconds=30.0, workers=1, seconds_to_begin=0.0):
        source = RaySource(Troubled(seconds_to_begin), "", workers, seconds)
        made.append(source)
        source.compile(parameters(0))
        return source

    yield make
    for each in made:
        each.close()


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_comes_from_ray_is_numpy_of_another_process_and_parameters_are_put_once(troubled, begin, monkeypatch):
    source, puts = troubled(workers=2), []
    ray = ray_session.ray()
    put = ray.put
    monkeypatch.setattr(ray, "put", lambda value: (puts.append(value), put(value))[1])
    both = [begin(source, 0, actor) for actor in range(2)]
    versions = [parameters(WORKS, params=jnp.full(3, float(version))) for version in range(3)]
    for acting in (versions[0], versions[1], versions[0], versions[2]):
        for actor, collector in enumerate(both):
            collected = collector.collect(acting, jax.random.key(0))
            assert float(collected.chunks.reward[0, 0, 0]) == actor
            assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(collected))
    assert [value.params.tolist() for value in puts] == [[0.0] * 3, [1.0] * 3, [2.0] * 3]
    assert all(type(leaf) is np.ndarray for value in puts for leaf in jax.tree.leaves(value))
    assert len({os.getpid(), *(collector.worker.pid for collector in both)}) == 3


def test_what_a_world_raises_arrives_as_it_is_and_a_closed_process_is_gone(troubled, begin):
    collector = begin(troubled(), 0)
    with pytest.raises(OSError, match=r"^the game is gone$"):
        collector.collect(parameters(RAISES), jax.random.key(0))
    collector.collect(parameters(WORKS), jax.random.key(1))
    assert alive(collector.worker.pid)
    collector.close()
    wait_until(lambda: not alive(collector.worker.pid))


def test_a_dead_process_is_told_by_its_number(troubled, begin):
    collector = begin(troubled(), 0)
    with pytest.raises(LostActorError, match=f"^the Ray actor in process {collector.worker.pid} is gone: The actor"):
        collector.collect(parameters(DIES), jax.random.key(0))
    with pytest.raises(LostActorError):
        collector.collect(parameters(WORKS), jax.random.key(0))


def test_a_process_that_hangs_is_given_up_in_time_and_killed(troubled, begin):
    collector, begun = begin(troubled(seconds=0.5), 0), time.monotonic()
    with pytest.raises(TimeoutError, match=r"process \d+ did not answer within 0\.5 s"):
        collector.collect(parameters(HANGS), jax.random.key(0))
    collector.close()
    assert time.monotonic() - begun < 2.5  # not asked to end its worlds, as it would not hear
    wait_until(lambda: not alive(collector.worker.pid))


def test_the_supervisor_counts_and_replaces_what_dies_or_hangs(troubled):
    todo = iter([WORKS, DIES, WORKS, HANGS, WORKS, WORKS])
    source = troubled(seconds=4.0)
    supervisor = Supervisor(
        lambda index, generation: source.begin(jax.random.key(generation), index),
        lambda *numbers: jax.random.key(sum(numbers) % 2**31), lambda: (0, parameters(next(todo))),
        num_actors=1, max_restarts=2, heartbeat_seconds=4.0,
    )  # fmt: skip
    supervisor.begin()
    pids, generations, deadline = [], [], time.monotonic() + 60
    supervisor.grant(0, (0, None))
    while len(generations) < 4:
        assert time.monotonic() < deadline, supervisor.causes
        message = supervisor.take(0.05)
        if message is not None:
            generations.append(message.generation)
            pids.append(supervisor.actors[0].collector.worker.pid)
            supervisor.grant(0, (len(generations), None))
    assert generations == [0, 1, 2, 2] and supervisor.restarts == 2
    assert "is gone" in supervisor.causes[0] and "4 s" in supervisor.causes[1]
    wait_until(lambda: [alive(pid) for pid in pids] == [False, False, True, True])
    supervisor.end()
    source.close()
    wait_until(lambda: not alive(pids[-1]))


def test_whoever_waits_for_a_process_wakes_when_all_are_dismissed(troubled):
    source, woken = troubled(seconds_to_begin=1e6), []

    def wait():
        with pytest.raises(LostActorError):
            source.begin(jax.random.key(0))
        woken.append(True)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.5)
    assert not woken
    source.dismiss()
    thread.join(10.0)
    assert woken
    with pytest.raises(LostActorError, match="dismissed"):
        source.begin(jax.random.key(1))


@pytest.mark.parametrize(("cores", "workers", "threads"), [(2, 1, 4), (2, 2, 1), (8, 5, 1), (8, 4, 4), (64, 4, 16)])
def test_processes_share_the_cores_out_and_never_have_two_or_three_threads(cores, workers, threads, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert ray_collector._environment("", workers)["NPROC"] == str(threads)


def test_a_run_goes_on_when_a_process_is_killed():
    program = AsyncProgram(build(config_of("jax", "ray")))
    state = program.init(jax.random.key(0), program.hyper)
    chunk = program.compile(state)
    try:
        state, _ = chunk(state, 3)
        killed = program._running.supervisor.actors[0].collector.worker.pid
        os.kill(killed, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while program._running.supervisor.actors[0].collector.worker.pid == killed:
            assert time.monotonic() < deadline
            state, rows = chunk(state, 5)
        state, rows = chunk(state, 5)
        assert rows.values["Async/ActorsRestarted"][4] == 1 and rows.values["Async/ActorsAlive"][4] == WORKERS
        (failure,) = program.failures()
        assert failure.startswith(f"actor 0: LostActorError: the Ray actor in process {killed} is gone")
    finally:
        assert program.close() == []


def test_a_run_in_a_world_outside_jax_from_start_to_end(tmp_path):
    """Another world in JAX is played from the command line: `tests/test_ray_runs.py`."""
    result = train(config_of("own", "ray"), run_dir=tmp_path / "run", quiet=True)
    assert result.summary["status"] == "finished" and result.summary["actor_failures"] == []
    assert result.summary["env_steps"] == STEPS * 6 * 20


def test_a_ray_of_the_runs_own_keeps_to_this_machine_and_leaves_signals_alone():
    (node,) = ray_session.ray().nodes()
    assert node["NodeManagerAddress"] == "127.0.0.1"
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_process_joins_one_ray():
    with pytest.raises(UserError, match=r"^actors\.ray_address must be '', which this process has joined, not 'auto'$"):
        ray_session.join("auto")
