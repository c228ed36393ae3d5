"""When skills are chosen, what is remembered, and what greedy play does."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hmasd_rollouts import (
    NEVER,
    OWN,
    SEEN,
    STATE,
    TEAM,
    TERMINATED,
    TRUNCATED,
    A,
    B,
    T,
    collect,
    compiled,
    init,
    make,
    timestep,
)

from jaxrl_engine.core.spaces import Box


def still(key, envs=B, done=False):
    keys = jax.random.split(key, 2)
    flag = jnp.full(envs, done)
    return timestep(
        jax.random.normal(keys[0], (envs, A, SEEN)), jax.random.normal(keys[1], (envs, STATE)),
        jnp.zeros((envs, A)), flag, jnp.zeros(envs, bool),
    )  # fmt: skip


def chosen_at(trajectory):
    """Steps at which each environment's skills were chosen."""
    decided = np.asarray(trajectory.transitions.extras.decided)
    return [np.flatnonzero(decided[:, env]).tolist() for env in range(B)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [[0, 2, 6, 11], [0, 3, 8], [0, 5, 7, 8], [0, 4, 9], [0, 5, 8]]),
        ({"quirks": "source", "skill_length": 4}, [[0, 4, 8]] * 5),
    ],
)
def test_skills_are_chosen_at_first_steps_and_after_k_steps(key, settings, expected):
    """k = 5. Episodes end, env by env, after steps 1 and 5; 2 and 11; 6 and 7; 3; 7 and 11. Worked by hand."""
    algorithm = make(**settings)
    trajectory, _ = collect(algorithm, init(algorithm, key), key, TERMINATED, TRUNCATED)
    assert chosen_at(trajectory) == expected
    extras = trajectory.transitions.extras
    skills, decided = np.asarray(extras.skills), np.asarray(extras.decided)
    kept = (skills[1:] == skills[:-1]).all(-1)
    assert kept[~decided[1:]].all()
    assert not kept[decided[1:]].all()


def test_skills_chosen_under_another_version_are_replaced_at_once(key):
    algorithm = make()
    state = init(algorithm, key)
    _, carry = collect(algorithm, state, key, NEVER, NEVER)
    same, _ = collect(algorithm, state, key, NEVER, NEVER, carry)
    assert chosen_at(same) == [[3, 8]] * B  # of the interval begun at step 10 two steps were played
    later = state.replace(policy_version=state.policy_version + 1)
    replaced, _ = collect(algorithm, later, key, NEVER, NEVER, carry)
    assert chosen_at(replaced) == [[0, 5, 10]] * B
    assert np.asarray(replaced.transitions.extras.skill_version == 1).all()


def test_what_is_stored_is_what_the_coordinator_says_of_it(key):
    algorithm = make()
    state = init(algorithm, key)
    trajectory, _ = collect(algorithm, state, key, TERMINATED, TRUNCATED)
    steps = trajectory.transitions
    decided = np.asarray(steps.extras.decided)
    rows = jax.tree.map(lambda leaf: leaf[decided], (steps.global_state, steps.observation, steps.extras.skills))
    value, law = algorithm.networks.coordinator.apply(state.params.coordinator, *rows)
    np.testing.assert_allclose(steps.extras.skill_log_prob[decided], law.log_prob(rows[2]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(steps.extras.skill_value[decided], value, rtol=1e-4, atol=1e-5)


def test_memory_lives_through_new_skills_and_ends_with_the_episode(key):
    """Log-probabilities and values of a rollout equal those of the networks replayed over each whole episode."""
    algorithm = make()
    state = init(algorithm, key)
    trajectory, _ = collect(algorithm, state, key, TERMINATED, TRUNCATED)
    steps, networks = trajectory.transitions, algorithm.networks
    done = np.asarray(steps.done)
    for env in range(B):
        starts = [0, *(np.flatnonzero(done[:-1, env]) + 1), T]
        for first, last in itertools.pairwise(starts):
            one = jax.tree.map(lambda leaf, env=env, part=slice(first, last): leaf[part, env : env + 1], steps)
            never = jnp.zeros((last - first, 1), bool)
            skills = one.extras.skills
            _, law = networks.actor.apply(
                state.params.actor, jnp.zeros((1, A, 8)), never, one.observation, skills[..., 1:], None
            )
            _, value = networks.critic.apply(
                state.params.critic, jnp.zeros((1, 8)), never, one.global_state, skills[..., 0]
            )
            np.testing.assert_allclose(law.log_prob(one.action), one.log_prob, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(value, one.extras.value, rtol=1e-4, atol=1e-5)


def test_greedy_play_takes_the_most_likely_skills_and_actions(key):
    algorithm = make()
    state, step = init(algorithm, key), still(key)
    act = compiled(algorithm, "act")
    decision, carry = act(state, algorithm.initial_carry(B), step, None)
    again, _ = act(state, algorithm.initial_carry(B), step, None)
    np.testing.assert_array_equal(decision.env_action, again.env_action)
    seen = (step.global_state, step.observation)
    law = algorithm.networks.coordinator.apply(state.params.coordinator, *seen, carry.skills)[1]
    logits = np.asarray(law.logits)
    np.testing.assert_array_equal(carry.skills[:, 0], logits[:, 0, :TEAM].argmax(-1))
    np.testing.assert_array_equal(carry.skills[:, 1:], logits[:, 1:, :OWN].argmax(-1))
    first = jnp.zeros((1, B), bool)
    _, actions = algorithm.networks.actor.apply(
        state.params.actor, jnp.zeros((B, A, 8)), first, step.observation[None], carry.skills[None, :, 1:], None
    )
    np.testing.assert_array_equal(decision.env_action, np.asarray(actions.logits)[0].argmax(-1))


def test_a_batch_is_its_environments_one_by_one_compiled_or_not(key):
    """Half of them choose skills at this step, the other half go on."""
    algorithm = make()
    state = init(algorithm, key)
    noise = algorithm.noise(key, B)
    alone = compiled(algorithm, "act")
    _, carry = alone(state, algorithm.initial_carry(B), still(key), noise)
    step = still(jax.random.fold_in(key, 1)).replace(terminated=jnp.arange(B) % 2 == 0)
    together = algorithm.act(state, carry, step, noise)
    fused = alone(state, carry, step, noise)
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(fused), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for env in range(B):
        one = jax.tree.map(lambda leaf, env=env: leaf[env : env + 1], (carry, step, noise))
        decision, after = alone(state, *one)
        expected, remembered = jax.tree.map(lambda leaf, env=env: leaf[env : env + 1], together)
        for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(remembered), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(decision.env_action, expected.env_action)
        np.testing.assert_allclose(decision.log_prob, expected.log_prob, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("greedy", [False, True])
def test_chance_as_coordinator_draws_every_skill_alike(key, greedy):
    algorithm = make(high="uniform")
    state, envs = init(algorithm, key), 2003
    step = still(key, envs)
    noise = None if greedy else algorithm.noise(key, envs)
    act = compiled(algorithm, "act")
    _, carry = act(state, algorithm.initial_carry(envs), step, noise)
    for column, count in enumerate([TEAM] + [OWN] * A):
        shares = np.bincount(np.asarray(carry.skills)[:, column], minlength=count) / envs
        np.testing.assert_allclose(shares, 1 / count, atol=0.05)
    ended = step.replace(terminated=jnp.ones(envs, bool))
    noise = None if greedy else algorithm.noise(jax.random.fold_in(key, 1), envs)
    _, later = act(state, carry, ended, noise)
    assert 0.005 < (np.asarray(later.skills) == np.asarray(carry.skills)).all(-1).mean() < 0.04  # 1 in 54 by chance


def test_actions_without_choices_reach_the_world_within_their_bounds(key):
    algorithm = make(action=Box.uniform((2,), -1.0, 3.0))
    act = compiled(algorithm, "act")
    decision, _ = act(init(algorithm, key), algorithm.initial_carry(B), still(key), algorithm.noise(key, B))
    np.testing.assert_allclose(decision.env_action, 1.0 + 2.0 * np.clip(decision.action, -1.0, 1.0), rtol=1e-5)


def test_coordinator_is_asked_only_where_somebody_decides(key):
    """Where nobody does, stored log-probabilities and values are 0: nothing was computed."""
    algorithm = make()
    trajectory, _ = collect(algorithm, init(algorithm, key), key, NEVER, NEVER)
    extras = trajectory.transitions.extras
    idle = ~np.asarray(extras.decided)
    assert idle.sum() == (T - 3) * B
    assert np.abs(np.asarray(extras.skill_value)[idle]).max() == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"skill_length": T + 1}, r"hmasd\.skill_length must be at most num_steps = 12, not 13"),
        ({"skill_length": 5, "quirks": "source"}, r"hmasd\.skill_length must be a divisor of num_steps = 12"),
        ({"chunk_length": 5}, r"hmasd\.chunk_length must be a divisor of num_steps = 12, not 5"),
        ({"num_agents": 1}, r"hmasd\.team_skills must be 1 in a world with one agent, not 2"),
    ],
)
def test_what_does_not_fit_the_world_or_the_rollout_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_one_agent_may_have_skills_of_its_own(key):
    algorithm = make(num_agents=1, team_skills=1)
    trajectory, _ = collect(algorithm, init(algorithm, key), key, TERMINATED, TRUNCATED)
    assert trajectory.transitions.extras.skills.shape == (T, B, 2)


def test_the_algorithm_is_static(key):
    assert hash(make()) == hash(make())
    assert dataclasses.replace(make(), num_steps=24) != make()
