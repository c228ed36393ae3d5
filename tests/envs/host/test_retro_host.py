"""Console games: the preprocessing on a drawn emulator, and Airstriker beside stable-retro."""

import importlib.util

import numpy as np
import pytest
from fake_host_worlds import Emulator
from PIL import Image

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.envs.host.registry import make_host_env
from jaxrl_engine.envs.host.retro_host import DIRECTIONS, RetroSimulator, presses
from jaxrl_engine.envs.host.workers import Workers
from jaxrl_engine.envs.host.world import HostWorld

needs_retro = pytest.mark.skipif(
    importlib.util.find_spec("stable_retro") is None, reason="the extra retro is not installed"
)
NO_CHANCE = {"noop_max": 0}


def world_of(emulator, **values):
    return HostWorld("retro:Fake", RetroSimulator(emulator, ["score"], values))


def press(world, action=0):
    return world.step(np.array([[action]]))


def test_four_frames_an_action_the_greater_of_the_last_two_and_four_of_those():
    world = world_of(Emulator(), **NO_CHANCE)
    views = [world.reset(0), *(press(world) for _ in range(5))]
    left = [[view.observation[0, 0, 0, 0, c] for c in range(4)] for view in views]
    assert left == [[0, 0, 0, 0], [0, 0, 0, 4], [0, 0, 4, 8], [0, 4, 8, 12], [4, 8, 12, 16], [8, 12, 16, 20]]
    # The sprite is there on even frames only: on frame 4 of 3 and 4.
    assert (views[5].observation[0, 0, :, 42:, :] == 40).all() and views[5].observation.shape == (1, 1, 84, 84, 4)
    assert [view.reward[0, 0] for view in views[:3]] == [0, 1 + 2 + 3 + 4, 5 + 6 + 7 + 8]
    assert views[2].metrics["score"] == [80]


def test_a_sprite_on_odd_frames_is_seen_as_well():
    world = world_of(Emulator(), frame_skip=3, **NO_CHANCE)
    world.reset(0)
    assert (press(world).observation[0, 0, :, 42:, 3] == 40).all()  # frames 2 and 3: on frame 3 it is dark


def test_grey_is_itu_601_and_the_picture_shrinks_by_area():
    emulator = Emulator()
    picture = np.random.default_rng(0).integers(0, 256, (168, 168, 3), np.uint8)
    emulator._picture = lambda: picture
    seen = world_of(emulator, **NO_CHANCE).reset(0).observation[0, 0, :, :, 0]
    grey = np.round(picture @ np.array([0.299, 0.587, 0.114])).reshape(84, 2, 84, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(seen, grey, atol=1.5)  # rounded to whole numbers three times


def test_an_end_within_an_action_and_an_end_by_patience():
    world = world_of(Emulator(last=6), max_episode_steps=3, **NO_CHANCE)
    world.reset(0)
    press(world)
    step = press(world)
    assert step.terminated.all() and not step.truncated.any() and step.reward == [[5 + 6]]
    assert step.final_observation[0, 0, 0, 0].tolist() == [0, 0, 4, 6] and not step.observation[0, 0, :, :42].any()
    world = world_of(Emulator(), max_episode_steps=3, **NO_CHANCE)
    world.reset(0)
    steps = [press(world) for _ in range(6)]
    assert [step.truncated.item() for step in steps] == [False, False, True] * 2
    assert not any(step.terminated.any() for step in steps)
    assert steps[2].final_observation[0, 0, 0, 0].tolist() == [0, 4, 8, 12]
    world = world_of(Emulator(last=12), max_episode_steps=3, **NO_CHANCE)
    world.reset(0)
    assert [(press(world).terminated.item(), press(world).truncated.item()) for _ in range(1)] == [(False, False)]
    last = press(world)
    assert last.terminated.all() and not last.truncated.any()  # both at once: the game's own end


def test_an_episode_begins_after_some_frames_of_nothing():
    def begins(seed):
        world = world_of(Emulator(last=50), noop_max=7)
        firsts = [world.reset(seed).observation[0, 0, 0, 0, 0]]
        while len(firsts) < 60:
            step = press(world)
            firsts += [step.observation[0, 0, 0, 0, 0]] if step.done.any() else []
        return firsts

    assert set(begins(0)) == set(range(8))
    assert begins(1) == begins(1) != begins(2)


def test_the_actions_of_the_pad():
    held = presses(list(Emulator.buttons), "B, A+B")
    assert held.shape == (3 * 9, 9)
    names = [[name for name, down in zip(Emulator.buttons, row, strict=True) if down] for row in held]
    assert names[0] == [] and names[1] == ["UP"] and names[8] == ["DOWN", "RIGHT"]
    assert names[9] == ["B"] and names[9 + 3] == ["B", "LEFT"]
    assert names[18] == ["B", "A"] and sorted(names[18 + 6]) == ["A", "B", "RIGHT", "UP"]
    assert len(DIRECTIONS) == 9 and not any("START" in name for name in names)
    emulator = Emulator()
    world = world_of(emulator, buttons="A", **NO_CHANCE)
    world.reset(0)
    press(world, 9 + 4)
    assert emulator.pressed == [["RIGHT", "A"]] * 4 and world.spec.action.n == 18


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("buttons", "K", "buttons must be some of A, B, DOWN"), ("stack", 0, "stack must"), ("noop_max", -1, "noop_max")],
)
def test_values_out_of_range(field, value, said):
    with pytest.raises(ValueError, match=said):
        world_of(Emulator(), **{field: value})


def test_an_emulator_in_each_process():
    workers = Workers("fake:retro", "fake_host_worlds", 2, 2, 30.0, {"emulator": {"last": 9}, **NO_CHANCE})
    world = HostWorld("fake:retro", workers)
    try:
        world.reset(0)
        steps = [world.step(np.array([[0], [1]])) for _ in range(3)]
    finally:
        world.close()
    assert steps[2].terminated.all() and steps[2].final_observation[:, 0, 0, 0].tolist() == [[0, 4, 8, 9]] * 2


@needs_retro
def test_airstriker_is_stable_retro_stepped_directly():
    import stable_retro

    world = make_host_env("retro:Airstriker-Genesis", 2, {"max_episode_steps": 40, **NO_CHANCE})
    emulator = stable_retro.make("Airstriker-Genesis-v0", render_mode="rgb_array")  # this process's only one
    actions = np.random.default_rng(2).integers(0, 27, (45, 1))
    fire, left = emulator.buttons.index("B"), emulator.buttons.index("LEFT")
    held = presses(emulator.buttons, "B,A")
    assert held[9 + 3].nonzero()[0].tolist() == sorted([fire, left])
    try:
        steps = [world.reset(0), *(world.step(np.repeat(action[None], 2, axis=0)) for action in actions)]
    finally:
        world.close()
    stack = [small(emulator.reset()[0])] * 4
    np.testing.assert_array_equal(steps[0].observation[1, 0], np.stack(stack, axis=-1))
    for t, action in enumerate(actions[:40], 1):
        frames = [emulator.step(held[action[0]]) for _ in range(4)]
        stack = [*stack[1:], small(np.maximum(frames[2][0], frames[3][0]))]
        for copy in range(2):
            np.testing.assert_array_equal(steps[t].final_observation[copy, 0], np.stack(stack, axis=-1))
            assert steps[t].reward[copy, 0] == sum(frame[1] for frame in frames)
        assert steps[t].truncated.all() == (t == 40) and not steps[t].terminated.any()
    emulator.close()
    np.testing.assert_array_equal(steps[40].observation, steps[0].observation)
    assert steps[0].observation.std() > 10 and world.spec.metric_names == ("invalid_actions", "score")


def small(frame):
    return np.asarray(Image.fromarray(frame).convert("L").resize((84, 84), Image.Resampling.BOX))


@needs_retro
def test_a_missing_rom_and_a_missing_state_are_one_line():
    with pytest.raises(UserError, match=r"the ROM of Jackal-Nes-v0 is not here; python -m stable_retro.import"):
        make_host_env("retro:Jackal-Nes", 1, {})
    with pytest.raises(UserError, match=r"has no state 'Level9' .* its states are Level1$"):
        make_host_env("retro:Airstriker-Genesis", 1, {"state": "Level9"})
