"""Pictures of host worlds: what the world itself draws, only when asked, and never a reason to stop."""

import importlib
import logging
import sys
import time

import gymnasium
import numpy as np
import pytest
from fake_host_worlds import Counter, Emulator, simulate

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.envs.host.pictures import reduced, stacked
from jaxrl_engine.envs.host.protocol import HostVectorEnv, HostWorldError
from jaxrl_engine.envs.host.registry import make_host_env
from jaxrl_engine.envs.host.retro_host import RetroSimulator
from jaxrl_engine.envs.host.workers import Workers
from jaxrl_engine.envs.host.world import HostWorld, _tell_once

COPIES = 3


@pytest.fixture
def made():
    worlds = []

    def make(env_id, num_envs=COPIES, **params):
        worlds.append(make_host_env(env_id, num_envs, params))
        return worlds[-1]

    _tell_once.cache_clear()
    yield make
    for world in worlds:
        world.close()


def start(num_envs=5, processes=2, seconds=30.0, **values):
    """Copies in processes of their own: shares of 3 and 2."""
    return HostWorld("fake:counter", Workers("fake:counter", "fake_host_worlds", num_envs, processes, seconds, values))


# --- worlds that draw themselves ------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [0, 2])
def test_cart_poles_are_those_that_gymnasium_draws(made, processes):
    pytest.importorskip("pygame", reason="the extra pictures is not installed")
    world = made("gymnasium:CartPole-v1", processes=processes)
    beside = [gymnasium.make("CartPole-v1", render_mode="rgb_array") for _ in range(COPIES)]
    world.reset(7)
    for i, env in enumerate(beside):
        env.reset(seed=7 + i)
    actions = np.array([[1], [0], [1]])
    ends = 0
    for _ in range(13):
        step = world.step(actions)
        for env, action in zip(beside, actions[:, 0], strict=True):
            if any(env.step(action)[2:4]):
                env.reset()
        ends += step.done.sum()
    shown = world.pictures(COPIES)
    truth = np.stack([env.render()[::3, ::3] for env in beside])  # 400 rows become 134
    assert ends >= 2 and shown.shape == (COPIES, 134, 200, 3)
    np.testing.assert_array_equal(shown, truth)
    assert (truth[0] != truth[1]).any() and (truth[1] != truth[2]).any()
    np.testing.assert_array_equal(world.pictures(2), truth[:2])
    np.testing.assert_array_equal(world.pictures(99), truth)
    for env in beside:
        env.close()


def test_a_closed_world_takes_nothing_from_the_others(made):
    pytest.importorskip("pygame", reason="the extra pictures is not installed")
    worlds = [made("gymnasium:CartPole-v1", 1) for _ in range(2)]
    for world in worlds:
        world.reset(3)
    before = [world.pictures(1) for world in worlds]
    worlds[0].close()  # which ends all of pygame
    np.testing.assert_array_equal(worlds[1].pictures(1), before[1])


def test_no_world_draws_before_it_is_asked(made):
    """The second number of its view counts what it drew: at every step, where it has a render mode."""
    world = made("gymnasium:fake_host_worlds:Painter-v0")
    envs = [env.unwrapped for env in world.simulator.vector.envs]
    assert [env.made_with for env in envs] == ["rgb_array"] * COPIES
    world.reset(0)
    for _ in range(4):
        step = world.step(np.zeros((COPIES, 1), int))
    assert step.observation[:, 0].tolist() == [[4, 0]] * COPIES
    shown = world.pictures(2)
    assert shown.shape == (2, 107, 3, 3)  # every third of 321 rows and of 7 columns
    np.testing.assert_array_equal(shown[1, :, 1, 0], (np.arange(0, 321, 3) % 256 + 4) % 256)
    np.testing.assert_array_equal(shown[0, :, 2, 2], np.arange(0, 321, 3) % 256)
    step = world.step(np.zeros((COPIES, 1), int))
    assert step.observation[:, 0].tolist() == [[5, 1], [5, 1], [5, 0]]


def test_a_world_that_has_a_mode_of_its_own_is_left_alone(made):
    world = made("gymnasium:fake_host_worlds:Own-v0")
    assert world.reset(0).observation[:, 0, 1].tolist() == [1] * COPIES
    assert world.pictures(1) is None and world.step(np.zeros((COPIES, 1), int)).observation[0, 0, 1] == 2


def test_a_world_that_hides_its_mode_is_made_without(made):
    world = made("gymnasium:fake_host_worlds:Secretive-v0")
    assert world.reset(0).observation[:, 0, 1].tolist() == [0] * COPIES
    assert world.pictures(1) is None


@pytest.mark.parametrize(
    ("env_id", "mood", "said"),
    [
        ("fake_host_worlds:Painter-v0", "raises", "RuntimeError: the pencil broke"),
        ("fake_host_worlds:Painter-v0", "grey", r"what it draws is no RGB picture of bytes: uint8 (5, 7)"),
        ("fake_host_worlds:Painter-v0", "none", "what it draws is no RGB picture of bytes: NoneType"),
        ("fake_host_worlds:Painter-v0", "refuses", "ImportError: no paint"),
        ("fake_host_worlds:Stubborn-v0", None, "rgb_array is none of its render modes"),
    ],
)
@pytest.mark.parametrize("processes", [0, 1])
def test_a_world_without_pictures_plays_on_and_says_so_once(made, caplog, env_id, mood, said, processes):
    params = {"processes": processes} | ({} if mood is None else {"mood": mood})
    caplog.set_level(logging.WARNING, "jaxrl_engine")
    for _ in range(2):  # as two actors
        world = made(f"gymnasium:{env_id}", 2, **params)
        assert world.pictures(1) is None  # too early: no reason to give up
        world.reset(0)
        steps = [world.step(np.zeros((2, 1), int)) for _ in range(2)]
        assert steps[1].observation[0, 0, 0] == 2
        assert world.pictures(1) is None
        world.step(np.zeros((2, 1), int))  # where the broken pencil would be whole again
        assert world.pictures(1) is None
    assert [record.getMessage() for record in caplog.records] == [f"gymnasium:{env_id}: no pictures of it: {said}"]


def test_until_it_raises_it_draws(made):
    world = made("gymnasium:fake_host_worlds:Painter-v0", mood="raises")
    world.reset(0)
    assert world.pictures(1) is not None


def test_without_pygame_there_are_no_pictures_and_all_else(made, monkeypatch, caplog):
    caplog.set_level(logging.WARNING, "jaxrl_engine")
    monkeypatch.setitem(sys.modules, "pygame", None)  # its import fails
    world = made("gymnasium:CartPole-v1")
    world.reset(0)
    assert world.pictures(1) is None
    assert world.step(np.ones((COPIES, 1), int)).reward.tolist() == [[1.0]] * COPIES
    (record,) = caplog.records
    assert "DependencyNotInstalled: pygame is not installed" in record.getMessage()


def test_a_users_mistake_is_still_told_as_one():
    with pytest.raises(UserError, match="the actions of this world"):
        make_host_env("gymnasium:fake_host_worlds:Stubborn-v0", 1, {"kind": "text"})
    with pytest.raises(UserError, match="fell over"):
        make_host_env("gymnasium:fake_host_worlds:Painter-v0", 1, {"mood": "falls over"})
    with pytest.raises(UserError, match=r"env_params\.mood of .* must be text, not 3"):
        make_host_env("gymnasium:fake_host_worlds:Painter-v0", 1, {"mood": 3})


# --- emulators ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [0, 2])
def test_a_picture_of_atari_is_the_newest_frame(made, processes):
    pytest.importorskip("ale_py", reason="the extra atari is not installed")
    world = made("gymnasium:ALE/Breakout-v5", max_frames=80, processes=processes)
    world.reset(5)
    rng = np.random.default_rng(3)
    for t in range(1, 22):  # games are cut after 20 steps
        step = world.step(rng.integers(0, 4, (COPIES, 1)))
        assert step.done.all() == (t == 20)
        if t in (7, 20, 21):
            shown = world.pictures(COPIES)
            assert shown.shape == (COPIES, 84, 84, 3)
            for colour in range(3):
                np.testing.assert_array_equal(shown[..., colour], step.observation[:, 0, :, :, 3])
    assert (step.observation[:, 0, :, :, 3] != step.observation[:, 0, :, :, 2]).any() and shown.std() > 10


def test_a_picture_of_a_console_is_its_screen_in_colour():
    world = HostWorld("retro:Fake", RetroSimulator(Emulator(last=9), ["score"], {"noop_max": 0}))
    world.reset(0)
    expected = {1: 4, 2: 8}  # the left half shows the number of the last frame, the right one a flickering sprite
    for t in range(1, 3):
        world.step(np.array([[0]]))
        shown = world.pictures(1)
        assert shown.shape == (1, 84, 84, 3)  # every other of 168 rows
        assert (shown[0, :, :42] == expected[t]).all() and (shown[0, :, 42:] == 40).all()
    assert world.step(np.array([[0]])).done.all()
    assert (world.pictures(1)[0, :, :42] == 0).all()  # the new episode


def test_airstriker_in_processes_shows_its_screen(made):
    stable_retro = pytest.importorskip("stable_retro", reason="the extra retro is not installed")
    world = made("retro:Airstriker-Genesis", 2, noop_max=0)
    world.reset(0)
    emulator = stable_retro.make("Airstriker-Genesis-v0", render_mode="rgb_array")  # this process's only one
    emulator.reset()
    left = np.array([button == "LEFT" for button in emulator.buttons])
    for _ in range(30):
        world.step(np.array([[3], [0]]))
        frames = [emulator.step(left)[0].copy() for _ in range(4)]
    emulator.close()
    shown = world.pictures(2)
    assert shown.shape == (2, 112, 160, 3)  # 224 × 320
    np.testing.assert_array_equal(shown[0], np.maximum(frames[2], frames[3])[::2, ::2])
    assert (shown[0] != shown[1]).any() and (shown[..., 0] != shown[..., 2]).any()


# --- PettingZoo -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [0, 2])
def test_particles_are_those_that_pettingzoo_draws(made, processes):
    pytest.importorskip("mpe2", reason="the extra pettingzoo is not installed")
    world = made("pettingzoo:mpe2/simple_spread-v3", 2, processes=processes)
    module = importlib.import_module("mpe2.simple_spread_v3")
    beside = [module.parallel_env(render_mode="rgb_array") for _ in range(2)]
    world.reset(11)
    for i, env in enumerate(beside):
        env.reset(seed=11 + i)
    for action in (1, 3, 3, 4):
        world.step(np.full((2, 3), action))
        for env in beside:
            env.step(dict.fromkeys(env.agents, action))
    truth = np.stack([env.render()[::5, ::5] for env in beside])  # 700 rows become 140
    shown = world.pictures(2)
    assert shown.shape == (2, 140, 140, 3) and (truth[0] != truth[1]).any()
    np.testing.assert_array_equal(shown, truth)
    if not processes:
        assert {each.unwrapped.render_mode for each in world.simulator.worlds} == {None}


# --- in processes ---------------------------------------------------------------------------------------------------


def test_pictures_come_from_the_processes_that_have_them():
    world = start()
    assert isinstance(world, HostVectorEnv)
    try:
        world.reset(20)
        for _ in range(3):
            world.step(np.zeros((5, 1), np.int32))
        alone = Counter(5)
        alone.reset(20)
        alone.views[:, 0, 1] = 3
        np.testing.assert_array_equal(world.pictures(2), alone.pictures(2))
        whole = world.pictures(5)  # the second process draws wider: 3 + 23 columns
        np.testing.assert_array_equal(whole[:3, :, :23], alone.pictures(3))
        assert whole.shape == (5, 2, 26, 3) and not whole[:3, :, 23:].any()
        assert whole[3:, :, :, 0].tolist() == [[[23] * 26] * 2, [[24] * 26] * 2]
        np.testing.assert_array_equal(world.pictures(4), whole[:4])
        np.testing.assert_array_equal(world.step(np.zeros((5, 1), np.int32)).observation[:, 0, 1], [4] * 5)
    finally:
        world.close()


def test_only_those_are_asked():
    world = start()
    try:
        world.reset(0)
        world.simulator._workers[1].process.kill()
        assert world.pictures(3).shape[0] == 3
        with pytest.raises(HostWorldError, match=r"worker 1 of 2 .* was killed by SIGKILL"):
            world.pictures(4)
        with pytest.raises(HostWorldError, match="is failed"):
            world.step(np.zeros((5, 1), np.int32))
    finally:
        world.close()


@pytest.mark.parametrize(("trouble", "said"), [(4, "did not answer within 2 s"), (3, "ended with exit code 6")])
def test_a_process_that_hangs_or_dies_over_a_drawing_is_named_in_time(trouble, said):
    world = start(num_envs=1, processes=1, seconds=2.0, trouble=trouble)
    try:
        world.reset(0)
        before = time.monotonic()
        with pytest.raises(HostWorldError, match=f"worker 0 of 1 of fake:counter .* {said}"):
            world.pictures(1)
        assert time.monotonic() - before < 8
    finally:
        world.close()


def test_a_process_whose_drawing_fails_goes_on_and_all_are_heard(caplog):
    _tell_once.cache_clear()
    caplog.set_level(logging.WARNING, "jaxrl_engine")
    world = start(trouble=5)
    try:
        world.reset(0)
        assert world.pictures(5) is None
        for t in range(1, 4):
            step = world.step(np.full((5, 1), 2, np.int32))
            assert step.observation[:, 0, 1].tolist() == [t] * 5 and step.reward.tolist() == [[2.0]] * 5
    finally:
        world.close()
    assert [each.getMessage() for each in caplog.records] == [
        "fake:counter: no pictures of it: RuntimeError: the pencil broke"
    ]


def test_how_many_are_wanted_is_checked():
    world = HostWorld("fake:counter", simulate("counter", 2))
    world.reset(0)
    assert world.pictures(7).shape[0] == 2
    with pytest.raises(ValueError, match="count must be a whole number >= 1, not 0"):
        world.pictures(0)


# --- their size -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "step"), [(1, 1), (160, 1), (161, 2), (320, 2), (321, 3), (481, 4)])
def test_whole_steps_leave_at_most_160_rows(height, step):
    picture = np.random.default_rng(0).integers(0, 256, (height, 11, 3), np.uint8)
    shown = reduced(picture)
    np.testing.assert_array_equal(shown, picture[::step, ::step])
    assert shown.shape[0] <= 160


def test_pictures_of_different_sizes_are_stacked_on_black():
    small, large = np.full((2, 3, 3), 5, np.uint8), np.full((1, 7, 3), 9, np.uint8)
    both = stacked([small, large])
    assert both.shape == (2, 2, 7, 3)
    assert both[0, :, :3].min() == 5 and both[0, :, 3:].max() == 0
    assert both[1, 0].min() == 9 and both[1, 1].max() == 0
