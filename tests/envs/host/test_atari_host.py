"""Atari: ale-py's own vector environment, stepped beside it."""

import numpy as np
import pytest

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.envs.host.registry import make_host_env

ale_py = pytest.importorskip("ale_py", reason="the extra atari is not installed")

COPIES, SEED, MAX_FRAMES = 3, 5, 240


def beside(mode, **kwargs):
    """Make ale-py's own environment; by default it resets a step later: what it shows at an end is the last frame."""
    return ale_py.AtariVectorEnv(
        "breakout", COPIES, autoreset_mode=mode, reward_clipping=False, repeat_action_probability=0.25, **kwargs
    )


def actions(steps):
    return np.random.default_rng(3).integers(0, 4, (steps, COPIES, 1))


def seen(frames):
    return np.moveaxis(frames, 1, -1)[:, None]  # the oldest of four frames first, channels last


def played(world, rows):
    return [world.reset(SEED), *(world.step(row) for row in rows)]


@pytest.fixture(scope="module")
def short():
    """Games cut after 240 frames, 60 steps, played beyond that."""
    world = make_host_env("gymnasium:ALE/Breakout-v5", COPIES, {"max_frames": MAX_FRAMES})
    yield world, played(world, actions(70))
    world.close()


@pytest.fixture(scope="module")
def whole():
    """Whole games."""
    world = make_host_env("gymnasium:ALE/Breakout-v5", COPIES, {})
    yield world, played(world, actions(400))
    world.close()


def test_the_specification(short):
    spec = short[0].spec
    assert spec.observation.shape == spec.global_state.shape == (84, 84, 4) and spec.observation.dtype == "uint8"
    assert (spec.action.n, spec.time_limit, spec.num_agents) == (4, 60, 1)


def test_until_the_first_end_it_shows_what_ale_shows(short):
    _, steps = short
    vector = beside("NextStep", max_num_frames_per_episode=MAX_FRAMES)
    np.testing.assert_array_equal(steps[0].observation, seen(vector.reset(seed=SEED)[0]))
    shown = [vector.step(row[:, 0]) for row in actions(70)]
    end = next(t for t, (_, _, terminated, truncated, _) in enumerate(shown) if (terminated | truncated).any())
    for step, (frames, reward, terminated, truncated, _) in zip(steps[1 : end + 2], shown[: end + 1], strict=True):
        np.testing.assert_array_equal(step.final_observation, seen(frames))
        np.testing.assert_array_equal(step.reward[:, 0], reward)
        np.testing.assert_array_equal(step.terminated, terminated)
        np.testing.assert_array_equal(step.truncated, truncated)
    last = steps[end + 1]
    assert last.truncated.all() and not last.terminated.any()
    # The step after an end is, there, the reset: the same new episode, by the same stream of chance.
    np.testing.assert_array_equal(last.observation, seen(shown[end + 1][0]))
    assert (last.observation != last.final_observation).any(axis=(1, 2, 3, 4)).all()
    assert last.final_global_state.shape == (COPIES, 84, 84, 4)
    np.testing.assert_array_equal(last.final_global_state, last.final_observation[:, 0])


def test_scores_and_lives_of_whole_games(whole):
    _, steps = whole
    score, games, paid = np.zeros(COPIES), 0, 0.0
    for step in steps[1:]:
        score += step.reward[:, 0]
        paid += step.reward.sum()
        np.testing.assert_array_equal(step.metrics["game_score"], score)
        assert (step.metrics["lives"][step.terminated] == 0).all() and not step.truncated.any()
        assert (step.metrics["lives"][~step.terminated] > 0).all()
        games += step.terminated.sum()
        score[step.terminated] = 0.0
    assert games >= COPIES and paid > 0


def test_a_life_lost_terminates_and_the_game_goes_on(whole):
    """With the same seeds and actions the same games are played: only the flags differ."""
    world = make_host_env("gymnasium:ALE/Breakout-v5", COPIES, {"episodic_life": True})
    steps = played(world, actions(400))
    world.close()
    before, lost = np.full(COPIES, 5.0), 0
    for step, other in zip(steps[1:], whole[1][1:], strict=True):
        np.testing.assert_array_equal(step.observation, other.observation)
        np.testing.assert_array_equal(step.final_observation, other.final_observation)
        for name in ("game_score", "lives"):
            np.testing.assert_array_equal(step.metrics[name], other.metrics[name])
        lives = step.metrics["lives"]
        np.testing.assert_array_equal(step.terminated, lives < before)
        before = np.where(lives == 0, 5.0, lives)
        lost += (step.terminated & ~other.terminated).sum()
    assert lost > 3


def test_rewards_are_clipped_when_asked_for():
    """Pong's and Breakout's first bricks pay one; in Space Invaders a hit pays five at least."""
    params = {"clip_rewards": True, "sticky": 0.0}
    world = make_host_env("gymnasium:ALE/SpaceInvaders-v5", COPIES, params)
    world.reset(0)
    steps = [world.step(np.ones((COPIES, 1), np.int32)) for _ in range(150)]
    world.close()
    rewards = np.array([step.reward for step in steps])
    assert set(np.unique(rewards)) == {0.0, 1.0}
    assert max(step.metrics["game_score"].max() for step in steps) >= 5 * rewards.sum(axis=0).max() > 0


def test_the_same_in_processes(short):
    world = make_host_env("gymnasium:ALE/Breakout-v5", COPIES, {"max_frames": MAX_FRAMES, "processes": 2})
    try:
        steps = played(world, actions(62))
    finally:
        world.close()
    for step, other in zip(steps, short[1], strict=False):
        for name in ("observation", "final_observation", "reward", "terminated", "truncated"):
            np.testing.assert_array_equal(getattr(step, name), getattr(other, name))


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("frame_skip", 0, "a whole number >= 1"),
        ("noop_max", -1, "a whole number >= 0"),
        ("sticky", 2.0, "a probability"),
    ],
)
def test_values_out_of_range_are_one_line(field, value, allowed):
    with pytest.raises(UserError, match=f"{field} must be {allowed}"):
        make_host_env("gymnasium:ALE/Breakout-v5", 1, {field: value})


def test_a_missing_rom_is_one_line(monkeypatch):
    monkeypatch.setattr("ale_py.roms.get_rom_path", lambda game: None)
    with pytest.raises(UserError, match="the ROM of breakout is not in ale-py's folder"):
        make_host_env("gymnasium:ALE/Breakout-v5", 1, {})
