"""Chunks cut from rollouts written by hand: the true final observation once, and whose steps it is missing for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.algos.chunks import cut_into_chunks, unpack_mask, valid_steps
from jaxrl_engine.algos.ppo_types import PPOExtras
from jaxrl_engine.core.spaces import Box, Discrete, MultiDiscrete
from jaxrl_engine.core.types import EnvSpec, TimeStep, Trajectory, Transition

T, B, A, D, N = 5, 3, 2, 7, 11
SPEC = EnvSpec("made", A, Box.uniform((D,), -1.0, 1.0), Box.uniform((1,), 0.0, 1.0), Discrete(N), masks_actions=True)


@pytest.fixture
def trajectory() -> Trajectory:
    """Numbers that say where they belong: observation [t, b, a] is 100 t + 10 b + a, a final one half more."""
    place = 100.0 * np.arange(T)[:, None, None] + 10.0 * np.arange(B)[None, :, None] + np.arange(A)[None, None]
    seen = np.repeat(place[..., None], D, axis=-1).astype(np.float32)
    truncated, terminated = np.zeros((2, T, B), bool)
    truncated[2, 0] = terminated[1, 1] = truncated[4, 1] = True
    truncated[[1, 3], 2] = True
    mask = np.arange(N)[None, None, None] <= (place % 7)[..., None]
    steps = Transition(
        observation=seen, global_state=np.zeros((T, B, 1)), action_mask=mask, action=place.astype(np.int32),
        log_prob=-place.astype(np.float32), reward=place.astype(np.float32) / 10, terminated=terminated,
        truncated=truncated, final_observation=seen + 0.5, final_global_state=np.zeros((T, B, 1)),
        is_first=np.zeros((T, B), bool), policy_version=np.full((T, B), 17),
        extras=PPOExtras(discounted_return=place.astype(np.float32)),
    )  # fmt: skip
    last = TimeStep(
        observation=seen[0] + 1000, global_state=np.zeros((B, 1)), action_mask=None, reward=np.zeros((B, A)),
        terminated=np.zeros(B, bool), truncated=np.zeros(B, bool), metrics={},
    )  # fmt: skip
    return jax.tree.map(jnp.asarray, Trajectory(transitions=steps, initial_carry=(), last=last))


def test_each_environment_becomes_a_chunk(trajectory):
    chunks, steps = cut_into_chunks(trajectory), trajectory.transitions
    assert chunks.observation.shape == (B, T + 1, A, D)
    np.testing.assert_array_equal(chunks.observation[1, 3], steps.observation[3, 1])
    np.testing.assert_array_equal(chunks.observation[2, T], trajectory.last.observation[2])
    for name in ("action", "log_prob", "reward", "terminated", "truncated", "done"):
        np.testing.assert_array_equal(getattr(chunks, name)[2], getattr(steps, name)[:, 2])
    np.testing.assert_array_equal(chunks.discounted_return[0, 4], steps.extras.discounted_return[4, 0])
    np.testing.assert_array_equal(chunks.policy_version, [17] * B)


def test_the_final_observation_of_the_first_truncated_step_is_kept(trajectory):
    cut = cut_into_chunks(trajectory).cut_observation
    for environment, step in ((0, 2), (1, 4), (2, 1)):
        np.testing.assert_array_equal(cut[environment], trajectory.transitions.final_observation[step, environment])


def test_steps_whose_final_observation_there_is_no_room_for_are_not_valid(trajectory):
    """Environment 2 is truncated at steps 1 and 3: of the second episode, steps 2 and 3, nothing can be learned."""
    np.testing.assert_array_equal(
        cut_into_chunks(trajectory).valid, [[True] * 5, [True] * 5, [True, True, False, False, True]]
    )


def test_an_episode_that_terminates_is_valid_between_truncated_ones():
    truncated = jnp.array([True, False, False, False, True, False])
    done = jnp.array([True, False, True, False, True, False])
    np.testing.assert_array_equal(valid_steps(truncated, done), [True, True, True, False, False, True])


def test_a_mask_survives_in_an_eighth_of_its_size(trajectory):
    packed = cut_into_chunks(trajectory).packed_mask
    assert packed.shape == (B, T, A, 2) and packed.dtype == jnp.uint8
    mask = np.moveaxis(trajectory.transitions.action_mask, 0, 1)
    np.testing.assert_array_equal(unpack_mask(SPEC, packed), mask)
    pairs = dataclasses.replace(SPEC, action=MultiDiscrete((6, 5)))
    np.testing.assert_array_equal(unpack_mask(pairs, packed), mask)
    assert unpack_mask(SPEC, None) is None
