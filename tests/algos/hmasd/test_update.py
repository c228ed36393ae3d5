"""What an update does with a rollout: everything learns, nothing broken is kept, compiled or side by side or not."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hmasd_rollouts import (
    TERMINATED,
    TRUNCATED,
    collect,
    compiled,
    init,
    make,
)

from jaxrl_engine.algos.hmasd.discoverer import in_chunks
from jaxrl_engine.algos.hmasd.types import make_hyper
from jaxrl_engine.core.algo_config import PPOConfig
from jaxrl_engine.core.hmasd_config import HMASDConfig


def test_chunks_are_consecutive_steps_of_one_environment():
    time, env = np.meshgrid(np.arange(6), np.arange(5), indexing="ij")
    cut = np.asarray(in_chunks(jnp.asarray(np.stack([time, env], -1)), 3))
    assert cut.shape == (3, 10, 2)
    assert sorted((first, own) for first, own in cut[0].tolist()) == [(t, b) for t in (0, 3) for b in range(5)]
    assert (cut[1:, :, 1] == cut[0, :, 1]).all()
    assert (np.diff(cut[..., 0], axis=0) == 1).all()


@pytest.mark.parametrize("settings", [{}, {"skill_input": "before", "ppo": {"num_minibatches": 2, "clip_value": True}}])
def test_first_ratios_are_one_and_everything_learns(key, settings):
    """Replayed in chunks, old actions are as likely as when they were taken; then every parameter moves."""
    algorithm = make(**settings)
    state = init(algorithm, key)
    trajectory, _ = collect(algorithm, state, key, TERMINATED, TRUNCATED)
    learned, metrics = compiled(algorithm, "update")(state, trajectory, key)
    assert float(metrics["Losses/Coordinator/FirstRatioError"]) < 1e-5
    assert float(metrics["Losses/Discoverer/FirstRatioError"]) < 1e-5
    assert float(metrics["Losses/Discoverer/ApproxKL"]) > 1e-9
    assert int(learned.policy_version) == 1
    paths = jax.tree.leaves_with_path(learned.params)
    for (path, new), old in zip(paths, jax.tree.leaves(state.params), strict=True):
        assert np.abs(np.asarray(new - old)).max() > 1e-7, jax.tree_util.keystr(path)


def test_an_update_that_is_not_finite_changes_nothing_but_the_count(key):
    algorithm = make()
    state, update = init(algorithm, key), compiled(algorithm, "update")
    trajectory, _ = collect(algorithm, state, key, TERMINATED, TRUNCATED)
    good, _ = update(state, trajectory, key)
    for name, place in (("reward", (2, 3)), ("final_global_state", (4, 1)), ("observation", (0, 0))):
        steps = trajectory.transitions
        broken = steps.replace(**{name: getattr(steps, name).at[place].set(jnp.nan)})
        bad, _ = update(good, trajectory.replace(transitions=broken), key)
        for part in ("params", "optimizer", "statistics", "policy_version"):
            before, after = jax.tree.leaves(getattr(good, part)), jax.tree.leaves(getattr(bad, part))
            for a, b in zip(before, after, strict=True):
                np.testing.assert_array_equal(a, b)
        assert (int(bad.skipped_updates), int(bad.skipped_in_a_row)) == (1, 1), name
    again, _ = update(bad, trajectory, key)
    assert (int(again.skipped_updates), int(again.skipped_in_a_row), int(again.policy_version)) == (1, 0, 2)


def test_runs_side_by_side_are_the_runs_alone(key):
    """Two seeds and two settings under one `vmap`, against each by itself."""
    algorithm = make()
    changes = [{"hmasd.extrinsic": 0.0}, {"hmasd.extrinsic": 5.0, "ppo.gamma": 0.5}]
    keys = jax.random.split(key, 2)
    states = [init(algorithm, k, change) for k, change in zip(keys, changes, strict=True)]
    rollouts = [collect(algorithm, s, k, TERMINATED, TRUNCATED)[0] for s, k in zip(states, keys, strict=True)]
    update = compiled(algorithm, "update")
    alone = [update(s, r, k) for s, r, k in zip(states, rollouts, keys, strict=True)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *zip(states, rollouts, strict=True))
    together = jax.jit(jax.vmap(algorithm.update))(*stacked, keys)
    for index in range(2):
        mine = jax.tree.map(lambda leaf, index=index: leaf[index], together)
        for a, b in zip(jax.tree.leaves(mine[0].params), jax.tree.leaves(alone[index][0].params), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
        for name, x in mine[1].items():
            np.testing.assert_allclose(x, alone[index][1][name], rtol=1e-2, atol=1e-4, err_msg=name)


@pytest.mark.slow
@pytest.mark.timeout(900)  # uncompiled, every operation is a program of its own
def test_compiled_or_not_it_learns_the_same(key):
    algorithm = make(ppo={"num_epochs": 1}, discriminator_epochs=1)
    state = init(algorithm, key)
    trajectory, _ = collect(algorithm, state, key, TERMINATED, TRUNCATED)
    fused, metrics = compiled(algorithm, "update")(state, trajectory, key)
    with jax.disable_jit():
        plain, numbers = algorithm.update(state, trajectory, key)
    for a, b in zip(jax.tree.leaves(fused.params), jax.tree.leaves(plain.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    for name, x in metrics.items():
        np.testing.assert_allclose(x, numbers[name], rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    "settings",
    [
        {"team_skills": 1, "team_discriminator": 0.0},
        {"individual_skills": 1, "individual_discriminator": 0.0},
        {"high": "uniform"},
    ],
)
def test_ablations_are_settings(key, settings):
    algorithm = make(**settings)
    state = init(algorithm, key)
    trajectory, _ = collect(algorithm, state, key, TERMINATED, TRUNCATED)
    learned, metrics = compiled(algorithm, "update")(state, trajectory, key)
    assert int(learned.policy_version) == 1
    pair = (jax.tree.leaves(each.params.coordinator) for each in (learned, state))
    moved = any(not np.array_equal(a, b) for a, b in zip(*pair, strict=True))
    assert moved == (settings.get("high") != "uniform")
    if "team_skills" in settings:
        assert float(metrics["Rewards/Intrinsic/TeamLogLikelihood"]) == 0.0
    if "individual_skills" in settings:
        assert float(metrics["Rewards/Intrinsic/IndividualLogLikelihood"]) == 0.0


def test_a_sweep_changes_what_it_names_and_nothing_else():
    plain = make_hyper(PPOConfig(), HMASDConfig(), 10)
    swept = make_hyper(PPOConfig(), HMASDConfig(), 10, {"ppo.gamma": 0.5, "hmasd.extrinsic": 7.0})
    assert (float(swept.gamma), float(swept.extrinsic)) == (0.5, 7.0)
    assert swept.replace(gamma=plain.gamma, extrinsic=plain.extrinsic) == plain
    with pytest.raises(ValueError, match=r"hmasd\.skill_length is not traced; choose from ppo\.learning_rate"):
        make_hyper(PPOConfig(), HMASDConfig(), 10, {"hmasd.skill_length": 3.0})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"skill_length": 0}, r"hmasd\.skill_length must be a whole number >= 1, not 0"),
        ({"team_skills": 0}, r"hmasd\.team_skills must be a whole number >= 1, not 0"),
        ({"individual_skills": -2}, r"hmasd\.individual_skills must be a whole number >= 1, not -2"),
        ({"high_entropy": -0.1}, r"hmasd\.high_entropy must be a number >= 0, not -0\.1"),
        ({"team_discriminator": math.nan}, r"hmasd\.team_discriminator must be a number >= 0, not nan"),
        ({"heads": 3}, r"hmasd\.heads must be a divisor of hmasd\.width = 64, not 3"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        HMASDConfig(**settings)
