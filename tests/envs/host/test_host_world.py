"""What every host world has from `HostWorld`: legal actions, true ends, copies of everything."""

import jax.numpy as jnp
import numpy as np
import pytest
from fake_host_worlds import PERIOD, Counter, simulate

from jaxrl_engine.core.spaces import Box, Discrete, MultiDiscrete
from jaxrl_engine.envs import team
from jaxrl_engine.envs.host.protocol import HostVectorEnv, HostWorldError
from jaxrl_engine.envs.host.simulator import Facts, stepped
from jaxrl_engine.envs.host.world import HostWorld, identified, joined, legal

COPIES = 3


class Scripted:
    """Shows what it is given."""

    def __init__(self, num_envs, **facts):
        self.num_envs, self.facts, self.actions = num_envs, Facts(**facts), None
        self.views = np.zeros((num_envs, facts["num_agents"], *facts["observation"].shape), np.float32)

    def reset(self, seed):
        return {"observation": self.views}

    def step(self, actions):
        self.actions = actions
        no = np.zeros(self.num_envs, bool)
        return stepped(self.views, np.zeros(self.views.shape[:2]), (no, no), [])

    def pictures(self, count):
        raise AssertionError("nobody asked for it")

    def close(self):
        assert self.actions is not None
        self.actions = None  # a second time it would fail


def arrays_of(step):
    named = {name: value for name, value in vars(step).items() if isinstance(value, np.ndarray)}
    return {**named, **step.metrics}


def test_final_observations_and_flags_at_the_end_of_an_episode():
    world = HostWorld("fake:counter", simulate("counter", COPIES))
    assert isinstance(world, HostVectorEnv)
    first = world.reset(4)  # seeds 4, 5, 6
    np.testing.assert_array_equal(first.final_observation, first.observation)
    for t in range(1, 2 * PERIOD + 1):
        step = world.step(np.full((COPIES, 1), 3))
        ends = t % PERIOD == 0
        np.testing.assert_array_equal(step.terminated, [ends, False, ends])
        np.testing.assert_array_equal(step.truncated, [False, ends, False])
        np.testing.assert_array_equal(step.observation[:, 0, 1], [t % PERIOD] * COPIES)
        np.testing.assert_array_equal(step.final_observation[:, 0, 1], [PERIOD if ends else t % PERIOD] * COPIES)
        np.testing.assert_array_equal(step.final_observation[:, 0, 0], [4, 5, 6])
        np.testing.assert_array_equal(step.global_state, step.observation[:, 0])
        np.testing.assert_array_equal(step.final_global_state, step.final_observation[:, 0])
        np.testing.assert_array_equal(step.metrics["steps"], step.final_observation[:, 0, 1])
        np.testing.assert_array_equal(step.reward, np.full((COPIES, 1), 3.0, np.float32))


def test_nothing_that_was_returned_is_shared():
    world = HostWorld("fake:counter", simulate("counter", COPIES))
    steps = [world.reset(0)]
    shown = []
    for _ in range(PERIOD + 1):
        steps.append(world.step(np.zeros((COPIES, 1), np.int32)))
        arrays = [array for step in steps for array in arrays_of(step).values()]
        assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i] if a.size)
        assert not any(np.shares_memory(array, world.simulator.views) for array in arrays)
        shown.append(steps[-1].observation.copy())
        for array in arrays_of(steps[-1]).values():
            array[...] = 1 if array.dtype == bool else 77
    np.testing.assert_array_equal([view[0, 0, 1] for view in shown], [1, 2, 3, 4, 0, 1])


def test_illegal_actions_are_counted_over_the_episode_and_arrive_legal():
    world = HostWorld("fake:counter", Counter(2))
    world.reset(0)
    counts = [world.step(np.array([[action], [4.0]])) for action in (np.nan, 3.0, 99.0, -1.0, 2.5, 1.0)]
    np.testing.assert_array_equal([step.reward[0, 0] for step in counts], [0, 3, 10, 0, 2, 1])
    np.testing.assert_array_equal([step.metrics["invalid_actions"][0] for step in counts], [1, 1, 2, 3, 4, 0])
    np.testing.assert_array_equal([step.metrics["invalid_actions"][1] for step in counts], [0] * 6)


@pytest.mark.parametrize(
    ("space", "asked", "arrives", "changed"),
    [
        (Discrete(3), [[0], [2], [3]], [[0], [2], [2]], [[0], [0], [1]]),
        (MultiDiscrete((2, 5)), [[[1, 4]], [[1, 5]], [[-3, 0]]], [[[1, 4]], [[1, 4]], [[0, 0]]], [[0], [1], [1]]),
        (Box((2,), (-1.0, 0.0), (1.0, 2.0)), [[[np.nan, 1.0]], [[-np.inf, np.inf]], [[0.1, 2.0]]],
         [[[0.0, 1.0]], [[-1.0, 2.0]], [[0.1, 2.0]]], [[1], [1], [0]]),
    ],
)  # fmt: skip
def test_legal_actions_of_every_space(space, asked, arrives, changed):
    low, high = team.action_bounds(space)
    actions, counted = legal(np.array(asked), low, high)
    np.testing.assert_array_equal(actions, np.array(arrives, low.dtype))
    assert actions.dtype == low.dtype
    np.testing.assert_array_equal(counted, changed)


def test_the_world_gets_the_types_its_space_has():
    box = Box((2,), (-1.0, -1.0), (1.0, 1.0))
    simulator = Scripted(2, num_agents=1, observation=Box.uniform((2,), 0.0, 1.0), action=box)
    world = HostWorld("x", simulator)
    world.reset(0)
    world.step(np.full((2, 1, 2), 0.1, np.float64))  # 0.1 is another number in float32: no illegal action
    assert simulator.actions.dtype == np.float32
    assert world.step(np.full((2, 1, 2), 0.1)).metrics["invalid_actions"].tolist() == [0, 0]


def test_choices_that_an_agent_does_not_have_are_masked_and_clipped():
    simulator = Scripted(
        2, num_agents=3, observation=Box.uniform((5,), 0.0, 1.0), action=Discrete(7), choices=(2, 7, 3), agent_ids=True
    )
    world = HostWorld("x", simulator)
    mask = world.reset(0).action_mask
    assert mask.shape == (2, 3, 7) and mask.sum(axis=2).tolist() == [[2, 7, 3]] * 2 and mask[:, :, 0].all()
    step = world.step(np.full((2, 3), 6))
    assert simulator.actions.tolist() == [[1, 6, 2]] * 2
    assert step.metrics["invalid_actions"].tolist() == [2, 2]
    assert world.spec.observation.shape == (8,) and step.observation[0, :, 5:].tolist() == np.eye(3).tolist()
    assert world.spec.global_state.shape == step.global_state.shape[1:] == (15,)


@pytest.mark.parametrize("shape", [(5,), (3, 2), (2, 3, 7)])
def test_views_are_joined_and_identified_as_those_of_jax_worlds(shape):
    views = np.random.default_rng(1).normal(size=(2, 5, *shape)).astype(np.float32)
    on_device = [jnp.asarray(view) for view in views]
    np.testing.assert_array_equal(joined(views), jnp.stack([team.joined(view) for view in on_device]))
    np.testing.assert_array_equal(identified(views), jnp.stack([team.identified(view) for view in on_device]))
    assert not np.shares_memory(joined(views), views)


def test_misuse_is_told():
    simulator = Scripted(2, num_agents=1, observation=Box.uniform((2,), 0.0, 1.0), action=Discrete(2))
    world = HostWorld("x", simulator)
    with pytest.raises(ValueError, match="step must be called after reset"):
        world.step(np.zeros((2, 1)))
    for seed in (-1, 2**31 - 2):
        with pytest.raises(ValueError, match=r"seed must be from 0 to 2147483645"):
            world.reset(seed)
    world.reset(2**31 - 3)
    with pytest.raises(ValueError, match=r"actions' shape must be \(2, 1\), not \(2, 3\)"):
        world.step(np.zeros((2, 3)))
    world.step(np.zeros((2, 1)))
    world.close()
    world.close()
    with pytest.raises(HostWorldError, match="x is closed"):
        world.reset(0)


def test_a_failure_in_the_calling_thread_is_one_kind_of_error():
    world = HostWorld("fake:counter", Counter(1, trouble=9))
    world.reset(0)
    with pytest.raises(HostWorldError, match="fake:counter failed: RuntimeError: the cartridge fell out"):
        world.step(np.array([[9]]))
    with pytest.raises(HostWorldError, match="make a new one"):
        world.step(np.array([[0]]))
