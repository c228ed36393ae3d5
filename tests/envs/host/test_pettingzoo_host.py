"""PettingZoo's worlds: agents that differ, agents that are out, ends of both kinds."""

import warnings

import gymnasium
import numpy as np
import pytest

from jaxrl_engine.core.spaces import Box, Discrete
from jaxrl_engine.envs.host.pettingzoo_host import ParallelSimulator
from jaxrl_engine.envs.host.registry import make_host_env
from jaxrl_engine.envs.host.world import HostWorld

spaces = gymnasium.spaces


class Duel:
    """Agent `a` is out at step 2; `b` leaves at step `ends[0]`, `terminated` or not as `ends[1]` says.

    Observations: (step, what the agent did last), for `b` a 7 more.
    """

    possible_agents = ("a", "b")

    def __init__(self, *ends):
        self.ends = ends
        self.resets = []

    def observation_space(self, agent):
        return spaces.Box(-1.0, 99.0, (2 + (agent == "b"),), np.float32)

    def action_space(self, agent):
        return spaces.Discrete(3 if agent == "a" else 5, start=10)

    def reset(self, seed=None, options=None):
        self.resets.append(seed)
        self.agents, self.time = ["a", "b"], 0
        return self._seen({}), {}

    def step(self, actions):
        assert sorted(actions) == self.agents
        self.time += 1
        seen = self._seen(actions)
        terminated = {"a": self.time == 2, "b": self.time == self.ends[0] and self.ends[1]}
        truncated = {"a": False, "b": self.time == self.ends[0] and not self.ends[1]}
        paid = {agent: 1.5 for agent in self.agents}
        flags = [{agent: flag[agent] for agent in self.agents} for flag in (terminated, truncated)]
        self.agents = [agent for agent in self.agents if not (terminated[agent] or truncated[agent])]
        return seen, paid, *flags, {}

    def _seen(self, actions):
        rest = {"a": [], "b": [7]}
        return {agent: np.float32([self.time, actions.get(agent, -1), *rest[agent]]) for agent in self.agents}

    def close(self):
        self.closed = True


def duel(*ends, agent_ids="never"):
    simulator = ParallelSimulator([Duel(*ends), Duel(*ends)], agent_ids, None)
    return HostWorld("pettingzoo:duel", simulator), simulator.worlds


def test_spaces_that_differ_are_padded_and_masked():
    world, _ = duel(4, True, agent_ids="auto")
    assert world.spec.observation.shape == (3 + 2,) and world.spec.action == Discrete(5) and world.spec.masks_actions
    step = world.reset(3)
    assert step.observation[1].tolist() == [[0, -1, 0, 1, 0], [0, -1, 7, 0, 1]]
    assert step.action_mask[0].tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    step = world.step(np.array([[4, 4], [1, 0]]))
    assert step.observation[:, :, 1].tolist() == [[12, 14], [11, 10]]  # choices begin at 10
    assert step.metrics["invalid_actions"].tolist() == [1, 0]


@pytest.mark.parametrize("terminates", [True, False])
def test_an_agent_that_is_out_and_the_true_end(terminates):
    world, copies = duel(4, terminates)
    world.reset(3)
    steps = [world.step(np.zeros((2, 2), np.int32)) for _ in range(8)]
    assert [step.reward[0].tolist() for step in steps[:4]] == [[1.5, 1.5]] * 2 + [[0, 1.5]] * 2
    assert [step.final_observation[0, 0].tolist() for step in steps[:4]] == [[1, 10, 0], [2, 10, 0], [0] * 3, [0] * 3]
    assert [step.final_observation[0, 1].tolist() for step in steps[:4]] == [[t, 10, 7] for t in (1, 2, 3, 4)]
    assert steps[3].observation[0].tolist() == [[0, -1, 0], [0, -1, 7]]
    done = [False, False, False, True] * 2
    assert [step.terminated.tolist() for step in steps] == [[d and terminates] * 2 for d in done]
    assert [step.truncated.tolist() for step in steps] == [[d and not terminates] * 2 for d in done]
    assert [copy.resets for copy in copies] == [[3, None, None], [4, None, None]]
    world.close()
    assert all(copy.closed for copy in copies)


def test_one_agent_terminated_and_the_last_one_cut_at_the_same_step_is_a_truncation():
    world, _ = duel(2, False)
    world.reset(0)
    world.step(np.zeros((2, 2), np.int32))
    step = world.step(np.zeros((2, 2), np.int32))
    assert step.truncated.all() and not step.terminated.any()


def test_an_agent_that_is_terminated_and_truncated_at_once_is_terminated():
    world, copies = duel(1, True)
    step_of = Duel.step

    def both(copy, actions):
        seen, paid, _terminated, _truncated, infos = step_of(copy, actions)
        copy.agents = []
        return seen, paid, {"a": True, "b": True}, {"a": False, "b": True}, infos

    for copy in copies:
        copy.step = both.__get__(copy)
    world.reset(0)
    step = world.step(np.zeros((2, 2), np.int32))
    assert step.terminated.all() and not step.truncated.any()


def with_spaces(**found):
    """Make a duel in which the two agents have the given spaces."""
    world = Duel(4, True)
    for name, pair in found.items():
        setattr(world, f"{name}_space", dict(zip("ab", pair, strict=True)).__getitem__)
    return ParallelSimulator([world], "never", None)


def test_controls_of_different_widths_share_the_widest():
    narrow, wide = (spaces.Box(-1.0, 1.0, (width,), np.float32) for width in (2, 3))
    simulator = with_spaces(action=(narrow, wide))
    assert simulator.facts.action == Box.uniform((3,), -1.0, 1.0) and not simulator.facts.choices
    assert simulator._own("a", np.float32([[0.1, 0.2, 0.3], [0.4] * 3])).tolist() == np.float32([0.1, 0.2]).tolist()


@pytest.mark.parametrize(
    "found",
    [
        {"action": (spaces.Discrete(2), spaces.Box(-1.0, 1.0, (2,)))},
        {"action": (spaces.Box(-2.0, 1.0, (2,)), spaces.Box(-1.0, 1.0, (3,)))},
        {"action": (spaces.Text(3), spaces.Text(3))},
        {"observation": (spaces.Box(0, 1, (3, 3, 1)), spaces.Box(0, 1, (5, 3, 1)))},
        {"observation": (spaces.Discrete(3), spaces.Discrete(3))},
    ],
)
def test_spaces_that_cannot_be_shared_are_told(found):
    with pytest.raises(ValueError, match=r"agents whose|the (actions|observations) of a must be"):
        with_spaces(**found)


# --- the real ones ----------------------------------------------------------------------------------------------------


def particles(name):
    module = pytest.importorskip(f"mpe2.{name}", reason="the extra pettingzoo is not installed")
    return module


@pytest.mark.parametrize("processes", [0, 2])
def test_it_is_pettingzoo_stepped_directly(processes):
    module = particles("simple_tag_v3")
    params = {"max_cycles": 5, "processes": processes}
    world = make_host_env("pettingzoo:mpe2/simple_tag-v3", 3, params)
    assert (world.spec.num_agents, world.spec.time_limit, world.spec.observation.shape) == (4, 5, (20,))
    actions = np.random.default_rng(1).integers(0, 5, (12, 3, 4))
    try:
        steps = [world.reset(11), *(world.step(row) for row in actions)]
    finally:
        world.close()
    for i in range(3):
        copy = module.parallel_env(max_cycles=5)
        seen, _ = copy.reset(seed=11 + i)
        agents = copy.possible_agents
        for t, row in enumerate(actions, 1):
            np.testing.assert_array_equal(steps[t - 1].observation[i, :3, :16], [seen[agent] for agent in agents[:3]])
            np.testing.assert_array_equal(steps[t - 1].observation[i, 3, :14], seen[agents[3]])
            seen, paid, terminated, truncated, _ = copy.step(dict(zip(agents, row[i], strict=True)))
            np.testing.assert_array_equal(steps[t].final_observation[i, 3, :14], seen[agents[3]])
            np.testing.assert_array_equal(steps[t].reward[i], np.float32([paid[agent] for agent in agents]))
            assert steps[t].truncated[i] == any(truncated.values()) == (t % 5 == 0)
            assert not steps[t].terminated[i] and not any(terminated.values())
            if not copy.agents:
                seen, _ = copy.reset()
    ids = steps[7].observation[:, :, 16:]
    np.testing.assert_array_equal(ids, np.broadcast_to(np.eye(4), (3, 4, 4)))


@pytest.mark.parametrize("name", ["mpe2.simple_spread_v3", "mpe2/simple_spread_v3"])
def test_other_spellings_and_continuous_controls(name):
    particles("simple_spread_v3")
    world = make_host_env(f"pettingzoo:{name}", 1, {"continuous_actions": True})
    assert world.spec.action == Box.uniform((5,), 0.0, 1.0) and not world.spec.masks_actions
    world.close()


def test_images_of_several_agents():
    pytest.importorskip("pettingzoo", reason="the extra pettingzoo is not installed")
    pytest.importorskip("pymunk", reason="PettingZoo's sisl is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pygame's own imports
        world = make_host_env("pettingzoo:sisl/pursuit-v5", 2, {"n_pursuers": 3, "max_cycles": 2})
    step = world.reset(0)
    assert step.observation.shape == (2, 3, 7, 7, 3) and step.global_state.shape == (2, 7, 7, 9)
    np.testing.assert_array_equal(step.global_state[1, :, :, 3:6], step.observation[1, 1])
    world.close()
