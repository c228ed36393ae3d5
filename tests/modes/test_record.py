"""Watched episodes against the world itself, played step by step; captions and maps of episodes written by hand."""

import jax
import numpy as np
import pytest

from jaxrl_engine.core.scene import make_scene
from jaxrl_engine.modes.build import build
from jaxrl_engine.modes.record import Watched, film, occupancy, skill_maps, watch
from jaxrl_engine.runtime.config import parse

SMALL = "--num-envs 2 --num-steps 4 --total-steps 8"
HMASD = f"{SMALL} --algo hmasd --hmasd.skill-length 2 --hmasd.chunk-length 2 --hmasd.individual-skills 3"


def trained(arguments: str):
    built = build(parse(arguments.split()).config)
    return built, jax.jit(built.algorithm.init)(jax.random.key(3), built.hyper)


def test_a_world_without_a_picture_is_not_watched(key):
    built, train_state = trained(f"--env gymnax:CartPole-v1 {SMALL} --ppo.num-minibatches 1")
    assert watch(built, train_state, key, 2, 5) is None
    assert skill_maps(built, train_state) is None


def test_an_episode_is_the_policy_in_its_world_and_stays_as_it_ended(key):
    """Lone arms whose episodes last 3 steps: what is watched for 5 is the world stepped by hand, then stands still."""
    arguments = f"--env reacher --env-params episode_length=3 num_links=2 {SMALL} --ppo.num-minibatches 1"
    built, train_state = trained(arguments)
    watched = watch(built, train_state, key, 2, 5)
    np.testing.assert_array_equal(watched.running[:, 0], [True] * 4 + [False] * 2)
    np.testing.assert_array_equal(watched.done[:, 0], [False] * 3 + [True] * 3)
    np.testing.assert_array_equal(watched.scenes.discs[3], watched.scenes.discs[5])
    assert not np.array_equal(watched.scenes.discs[2], watched.scenes.discs[3])
    np.testing.assert_array_equal(watched.reward[4:], 0.0)

    key_reset = jax.random.split(key)[0]
    state, timestep = built.env.reset(jax.random.split(key_reset, 2)[1], built.env_params)
    memory, rewards = built.algorithm.initial_carry(1), [0.0]
    for _ in range(3):
        batched = jax.tree.map(lambda leaf: leaf[None], timestep)
        decision, memory = built.algorithm.act(train_state, memory, batched, None)
        state, timestep = built.env.step(jax.random.key(0), state, decision.env_action[0], built.env_params)
        rewards.append(float(timestep.reward.mean()))
    np.testing.assert_allclose(watched.reward[:4, 1], rewards, atol=1e-5)
    np.testing.assert_allclose(watched.scenes.discs[3, 1], built.env.scene(state, built.env_params).discs, atol=1e-5)


@pytest.mark.slow
def test_skills_are_in_force_for_their_length(key):
    built, train_state = trained(f"--env alice_and_bob {HMASD}")
    watched = watch(built, train_state, key, 5, 9)
    assert watched.skills.shape == (10, 5, 3)
    # Chosen every second step: frames 0 and 1, 2 and 3, … are under the same skills.
    np.testing.assert_array_equal(watched.skills[0::2], watched.skills[1::2])
    assert watched.skills.min() >= 0 and watched.skills[..., 0].max() < 2 and watched.skills[..., 1:].max() < 3
    maps = skill_maps(built, train_state)
    assert maps.counts.shape == (2, 3 + 2, 10, 10)
    assert maps.skills[3] == "team's skill Z = 0"


def written() -> Watched:
    """Two worlds of 2 x 2 cells, two agents, three frames; the second world's episode ends in the second frame."""
    agents = np.zeros((3, 2, 2, 2), np.float32)
    agents[:, 0, 0] = [[0.5, 0.5], [0.5, 1.5], [1.5, 1.5]]
    agents[:, 0, 1] = [[1.5, 0.5]] * 3
    agents[:, 1] = 0.5
    one = make_scene((0.0, 0.0, 2.0, 2.0), cells=np.zeros((2, 2)), agents=np.zeros((2, 2)))
    scenes = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (3, 2, *leaf.shape)), one).replace(agents=agents)
    skills = np.zeros((3, 2, 3), np.int32)
    skills[2, 0] = [1, 1, 0]
    return Watched(
        scenes=scenes, reward=np.array([[0, 0], [0.5, 0.25], [1.0, 0]]), done=np.zeros((3, 2), bool),
        running=np.array([[True, True], [True, True], [True, False]]), metrics={}, skills=skills,
    )  # fmt: skip


def test_maps_count_the_frames_of_running_episodes_by_place_and_skill():
    counts = occupancy(written(), team_skills=2, individual_skills=2)
    zero = [[0, 0], [0, 0]]
    # Agent 0: twice in the cell below left (once in each frame of world 1, once in world 0), then above left; then,
    # under skill 1, above right. Agent 1 stays: below right in world 0, below left in world 1.
    np.testing.assert_array_equal(counts[0], [[[1, 0], [3, 0]], [[0, 1], [0, 0]], [[1, 0], [3, 0]], [[0, 1], [0, 0]]])
    np.testing.assert_array_equal(counts[1], [[[0, 0], [2, 3]], zero, [[0, 0], [2, 2]], [[0, 0], [0, 1]]])


def test_captions_tell_return_step_and_skills():
    made = film(written())
    assert made.captions[1] == ("R 0.5  S 1  Z 0  z 0 0", "R 0.25  S 1  Z 0  z 0 0")
    assert made.captions[2] == ("R 1.5  S 2  Z 1  z 1 0", "R 0.25  S 1  Z 0  z 0 0")
    assert film(written().replace(skills=None)).captions[0][0] == "R 0  S 0"
    ended = written().replace(running=np.array([[True, True], [True, True], [False, False]]))
    assert len(film(ended).captions) == 2 == len(film(ended).scenes.agents)
    assert occupancy(written().replace(skills=None), 2, 2) is None
