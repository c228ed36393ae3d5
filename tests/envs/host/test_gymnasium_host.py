"""Gymnasium's worlds: they do what gymnasium does when it is stepped directly."""

import gymnasium
import numpy as np
import pytest

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.core.spaces import Box, Discrete, MultiDiscrete
from jaxrl_engine.envs.host.gymnasium_host import seen_as_box
from jaxrl_engine.envs.host.registry import make_host_env
from jaxrl_engine.envs.host.simulator import action_space_of, box_of

COPIES, STEPS, SEED = 3, 97, 13


def directly(env_id, actions, **kwargs):
    """Play with gymnasium alone, an episode after the other; yields what every copy shows at every step."""
    copies = [gymnasium.make(env_id, **kwargs) for _ in range(actions.shape[1])]
    first = [copy.reset(seed=SEED + i)[0] for i, copy in enumerate(copies)]
    yield first, None, None, None, first
    for row in actions:
        shown = []
        for copy, action in zip(copies, row[:, 0], strict=True):
            final, reward, terminated, truncated, _ = copy.step(action)
            view = copy.reset()[0] if terminated or truncated else final
            shown.append((view, reward, terminated, truncated, final))
        yield tuple(zip(*shown, strict=True))


@pytest.mark.parametrize("processes", [0, 2])
@pytest.mark.parametrize(
    ("env_id", "limit"), [("CartPole-v1", 0), ("CartPole-v1", 11), ("Pendulum-v1", 17)], ids=["end", "limit", "box"]
)
def test_it_is_gymnasium_stepped_directly(env_id, limit, processes):
    params = {"processes": processes} | ({"max_episode_steps": limit} if limit else {})
    world = make_host_env(f"gymnasium:{env_id}", COPIES, params)
    single = gymnasium.make(env_id).action_space
    single.seed(5)
    actions = np.array([[[single.sample()] for _ in range(COPIES)] for _ in range(STEPS)])
    ends = {"terminated": 0, "truncated": 0}
    truth = directly(env_id, actions, **({"max_episode_steps": limit} if limit else {}))
    try:
        steps = [world.reset(SEED), *(world.step(action) for action in actions)]
    finally:
        world.close()
    for t, (step, (view, reward, terminated, truncated, final)) in enumerate(zip(steps, truth, strict=True)):
        np.testing.assert_array_equal(step.observation[:, 0], np.float32(view))
        np.testing.assert_array_equal(step.final_observation[:, 0], np.float32(final))
        np.testing.assert_array_equal(step.final_global_state, np.float32(final))
        if t:
            np.testing.assert_array_equal(step.reward[:, 0], np.float32(reward))
            np.testing.assert_array_equal(step.terminated, terminated)
            np.testing.assert_array_equal(step.truncated, truncated)
        ends = {name: count + getattr(step, name).sum() for name, count in ends.items()}
    assert ends["truncated" if limit else "terminated"] > COPIES
    if env_id == "Pendulum-v1":
        assert ends["terminated"] == 0 and ends["truncated"] == STEPS // limit * COPIES
    assert world.spec.time_limit == (limit or 500)


def test_a_world_that_shows_one_array_again_and_again_keeps_its_final_observation():
    world = make_host_env("gymnasium:fake_host_worlds:Stubborn-v0", 2, {"first": 40})
    views = [world.reset(0), *(world.step(np.array([[0], [2]])) for _ in range(4))]
    assert [step.observation[0, 0, 0] for step in views] == [40, 41, 42, 40, 41]
    assert [step.final_observation[1, 0].tolist() for step in views[2:4]] == [[42, 7], [43, 7]]  # choices start at 5
    assert [step.truncated.tolist() for step in views[2:4]] == [[False] * 2, [True] * 2]
    assert not views[3].terminated.any() and views[3].observation.dtype == np.float32


def test_the_worlds_own_parameters_reach_it():
    world = make_host_env("gymnasium:Pendulum-v1", 1, {"g": 3})
    assert world.simulator.vector.get_attr("g") == (3.0,)


@pytest.mark.parametrize(
    ("space", "ours"),
    [
        (gymnasium.spaces.Discrete(7), Discrete(7)),
        (gymnasium.spaces.MultiDiscrete([2, 5]), MultiDiscrete((2, 5))),
        (gymnasium.spaces.MultiBinary(3), MultiDiscrete((2, 2, 2))),
        (gymnasium.spaces.Box(np.float32([-1, 0]), np.float32([1, np.inf])), Box((2,), (-1.0, 0.0), (1.0, np.inf))),
    ],
)
def test_action_spaces(space, ours):
    assert action_space_of(space, "it") == ours


def test_observation_spaces():
    spaces = gymnasium.spaces
    image = spaces.Box(0, 255, (2, 3, 1), np.uint8)
    assert box_of(image) == Box.uniform((2, 3, 1), 0.0, 255.0, "uint8")
    assert box_of(spaces.Box(-2, 3, (5,), np.int64)).dtype == "float32"
    world = make_host_env("gymnasium:FrozenLake-v1", 2, {"is_slippery": False})
    step = world.reset(0)
    np.testing.assert_array_equal(step.observation[:, 0], np.eye(16)[[0, 0]])
    step = world.step(np.array([[1], [2]]))  # down, right
    np.testing.assert_array_equal(step.observation[:, 0], np.eye(16)[[4, 1]])


@pytest.mark.parametrize(("kind", "said"), [("graph", "its observations must be"), ("text", "the actions of this")])
def test_an_unknown_space_is_one_line(kind, said):
    with pytest.raises(UserError, match=said) as told:
        make_host_env("gymnasium:fake_host_worlds:Stubborn-v0", 1, {"kind": kind})
    assert "\n" not in str(told.value)


def test_a_box_is_left_as_it_is():
    env = gymnasium.make("CartPole-v1")
    assert seen_as_box(env) is env
