"""The promise of strictly on-policy learning, kept over a hundred updates of 32 environments and 32 steps."""

import jax
import numpy as np
import pytest

from jaxrl_engine.algos.hmasd.learner import HMASD
from jaxrl_engine.algos.hmasd.types import make_hyper
from jaxrl_engine.core.algo_config import PPOConfig
from jaxrl_engine.core.hmasd_config import HMASDConfig
from jaxrl_engine.envs.alice_and_bob import AliceAndBob
from jaxrl_engine.envs.vector import VectorEnv
from jaxrl_engine.modes.rollout import rollout, start

ENVS, STEPS, UPDATES = 32, 32, 100
EPISODE = 23


@pytest.fixture(scope="module")
def history():
    """For each update: the versions in the rollout, where skills were chosen, and what the update counted."""
    env = AliceAndBob(episode_length=EPISODE)
    ppo = PPOConfig(num_epochs=1, num_minibatches=1)
    config = HMASDConfig(skill_length=7, chunk_length=8, width=4, discriminator_epochs=1)
    algorithm, vector_env = HMASD(env.spec, ppo, config, STEPS), VectorEnv(env, ENVS)
    key_init, key_start, key_run = jax.random.split(jax.random.key(3), 3)
    hyper = make_hyper(ppo, config, UPDATES)
    state = jax.jit(algorithm.init)(key_init, hyper)
    actor = start(algorithm, vector_env, key_start, ())

    def one(loop, key):
        state, actor = loop
        key_rollout, key_update = jax.random.split(key)
        actor, trajectory, _ = rollout(algorithm, vector_env, state, actor, key_rollout, (), STEPS)
        state, metrics = algorithm.update(state, trajectory, key_update)
        steps = trajectory.transitions
        seen = {
            "policy": steps.policy_version, "skills": steps.extras.skill_version, "decided": steps.extras.decided,
            "is_first": steps.is_first, "ratio": metrics["Losses/Coordinator/FirstRatioError"],
            "low_ratio": metrics["Losses/Discoverer/FirstRatioError"],
            "samples": metrics["Buffer/SamplesCollected"], "stale": metrics["Sync/StaleSamples"],
            "decisions": metrics["Buffer/high_level_buffer_size"],
        }  # fmt: skip
        return (state, actor), seen

    (state, _), seen = jax.jit(lambda loop, keys: jax.lax.scan(one, loop, keys))(
        (state, actor), jax.random.split(key_run, UPDATES)
    )
    assert int(state.policy_version) == UPDATES
    return jax.tree.map(np.asarray, seen)


def test_no_sample_carries_another_version(history):
    """Neither in the parameters that acted nor in those that chose the skills acted on."""
    expected = np.broadcast_to(np.arange(UPDATES)[:, None, None], (UPDATES, STEPS, ENVS))
    np.testing.assert_array_equal(history["policy"], expected)
    np.testing.assert_array_equal(history["skills"], expected)


def test_every_rollout_and_every_episode_begins_with_a_decision(history):
    assert history["decided"][:, 0].all()
    assert history["decided"][history["is_first"]].all()
    held = np.zeros((UPDATES, ENVS), int)
    for step in range(STEPS):
        held = np.where(history["decided"][:, step], 1, held + 1)
        assert held.max() <= 7


def test_an_update_learns_from_exactly_1024_samples_and_from_every_decision(history):
    np.testing.assert_array_equal(history["samples"], ENVS * STEPS)
    np.testing.assert_array_equal(history["stale"], 0)
    np.testing.assert_array_equal(history["decisions"], history["decided"].sum(axis=(1, 2)))


def test_what_is_learned_from_is_what_acted(history):
    """Probability ratios before the first gradient step are 1: for every decision and every action, in every update."""
    assert history["ratio"].max() < 1e-4
    assert history["low_ratio"].max() < 1e-4
