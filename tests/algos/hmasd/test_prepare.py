"""What is made of a rollout before learning: rewards, advantages, targets and metrics, against NumPy."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hmasd_rollouts import (
    NEVER,
    OWN,
    TEAM,
    TERMINATED,
    TRUNCATED,
    A,
    B,
    T,
    by_walking,
    collect,
    init,
    make,
)

from jaxrl_engine.algos.hmasd.prepare import prepare

GAMMA, LAMBDA = 0.9, 0.7
RAW = {"normalize_advantages": False, "normalize_values": False, "gamma": GAMMA, "gae_lambda": LAMBDA}
SOURCE = {"quirks": "source", "skill_length": 4}


def prepared_by(algorithm, state, trajectory):
    return jax.jit(lambda *arguments: prepare(algorithm.networks, algorithm.ppo, *arguments))(state, trajectory)


def team_values(algorithm, state, states, team):
    """V_l of a sequence of states under one team skill each, from the start of an episode."""
    never = jnp.zeros((len(states), 1), bool)
    critic, params = algorithm.networks.critic, state.params.critic
    _, value = critic.apply(params, jnp.zeros((1, 8)), never, jnp.asarray(states)[:, None], jnp.asarray(team)[:, None])
    return np.asarray(value[:, 0], np.float64)


def next_values(algorithm, state, trajectory, env):
    """What follows each step of one environment: each episode is replayed from its start, with its true end."""
    steps = trajectory.transitions
    world, final, team = (
        np.asarray(x[:, env]) for x in (steps.global_state, steps.final_global_state, steps.extras.skills[..., 0])
    )
    done = np.asarray(steps.done[:, env])
    value, following = np.zeros(T), np.zeros(T)
    starts = [0, *(np.flatnonzero(done[:-1]) + 1), T]
    for first, stop in itertools.pairwise(starts):
        own = team_values(algorithm, state, world[first:stop], team[first:stop])
        value[first:stop] = own
        following[first : stop - 1] = own[1:]
        path = np.concatenate([world[first:stop], final[stop - 1 : stop]])
        if done[stop - 1]:
            following[stop - 1] = team_values(algorithm, state, path, np.append(team[first:stop], team[stop - 1]))[-1]
            continue
        last = trajectory.last
        _, law = algorithm.networks.coordinator.apply(
            state.params.coordinator, last.global_state, last.observation, jnp.zeros((B, A + 1), jnp.int32)
        )
        logits = np.asarray(law.logits, np.float64)[env, 0, :TEAM]
        chances = np.exp(logits) / np.exp(logits).sum()
        each = [team_values(algorithm, state, path, np.append(team[first:stop], z))[-1] for z in range(TEAM)]
        following[stop - 1] = chances @ each
    return value, following


def test_discoverer_advantages_equal_numpy(key):
    """Values, their true successors at every kind of end, rewards by equation 4, and the sum of discounted errors."""
    algorithm = make(ppo=RAW, extrinsic=2.0, team_discriminator=0.3, individual_discriminator=0.7)
    state = init(algorithm, key)
    trajectory, _ = collect(algorithm, state, key, TERMINATED, TRUNCATED)
    steps, ours = trajectory.transitions, prepared_by(algorithm, state, trajectory)
    team, own = scores(algorithm, state, steps, steps.final_global_state, steps.final_observation)
    reward = 2.0 * np.asarray(steps.reward) + 0.3 * team[..., None] + 0.7 * own
    done, terminated = np.asarray(steps.done), np.asarray(steps.terminated)
    for env in range(B):
        value, following = next_values(algorithm, state, trajectory, env)
        delta = reward[:, env] + GAMMA * np.where(terminated[:, env], 0.0, following)[:, None] - value[:, None]
        expected = np.zeros((T, A))
        for t in range(T):
            for later in range(t, T):
                expected[t] += (GAMMA * LAMBDA) ** (later - t) * delta[later]
                if done[later, env]:
                    break
        np.testing.assert_allclose(ours.samples.advantage[:, env], expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(ours.samples.target[:, env], expected + value[:, None], rtol=1e-3, atol=1e-4)


def scores(algorithm, state, steps, world, seen):
    """log q_D(Z | world) and log q_d(z | seen, Z), row by row."""
    networks, params, skills = algorithm.networks, state.params, np.asarray(steps.extras.skills)
    team, own = np.zeros((T, B)), np.zeros((T, B, A))
    for t, b in np.ndindex(T, B):
        log_q = networks.team_discriminator.apply(params.team_discriminator, world[t, b][None])
        team[t, b] = log_q[0, skills[t, b, 0]]
        context = jnp.broadcast_to(jax.nn.one_hot(skills[t, b, 0], TEAM), (A, TEAM))
        log_q = networks.individual_discriminator.apply(params.individual_discriminator, seen[t, b], context)
        own[t, b] = np.asarray(log_q)[np.arange(A), skills[t, b, 1:]]
    return team, own


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (5.0, 2.0)])
def test_coordinator_advantages_equal_numpy(key, mean, deviation):
    """Every token earns the team's reward of its interval; the values of the true final observation follow a cut.

    What the network predicts is in units of the targets seen so far; the value of what follows an end is 0, not their
    mean.
    """
    algorithm = make(ppo={**RAW, "normalize_values": mean != 0.0})
    state = init(algorithm, key)
    if mean != 0.0:
        seen = {"count": 100.0, "offset": mean, "shift": 0.0, "variance": deviation**2}
        statistics = state.statistics.high_value.replace(**{name: jnp.float32(value) for name, value in seen.items()})
        state = state.replace(statistics=state.statistics.replace(high_value=statistics))
    trajectory, _ = collect(algorithm, state, key, TERMINATED, TRUNCATED)
    steps, ours = trajectory.transitions, prepared_by(algorithm, state, trajectory)
    decided = np.asarray(steps.extras.decided)

    def values(world, seen):
        unknown = jnp.zeros((len(world), A + 1), jnp.int32)
        network, params = algorithm.networks.coordinator, state.params.coordinator
        return mean + deviation * np.asarray(network.apply(params, world, seen, unknown)[0], np.float64)

    moved = ours.statistics.high_value
    unit, zero = (1.0, 0.0) if moved is None else (math.sqrt(moved.variance), float(moved.mean))
    last = values(trajectory.last.global_state, trajectory.last.observation)
    for env in range(B):
        value = values(steps.global_state[:, env], steps.observation[:, env])
        end = values(steps.final_global_state[:, env], steps.final_observation[:, env])
        end[np.asarray(steps.terminated[:, env])] = 0.0
        flags = decided[:, env], np.asarray(steps.done[:, env])
        for token in range(A + 1):
            expected, _ = by_walking(
                np.asarray(steps.reward[:, env, 0]), flags[0], value[:, token], last[env, token], end[:, token],
                flags[1], GAMMA, LAMBDA,
            )  # fmt: skip
            here = np.asarray(ours.decisions.advantage[:, env, token])
            np.testing.assert_allclose(here[flags[0]], expected[flags[0]], rtol=1e-3, atol=1e-4)
            target = zero + unit * np.asarray(ours.decisions.target[:, env, token])
            np.testing.assert_allclose(target[flags[0]], (expected + value[:, token])[flags[0]], rtol=1e-3, atol=1e-4)


def test_advantages_are_standardised_over_all_that_is_learned_from(key):
    algorithm = make()
    state = init(algorithm, key)
    trajectory, _ = collect(algorithm, state, key, TERMINATED, TRUNCATED)
    ours = prepared_by(algorithm, state, trajectory)
    decided = np.asarray(trajectory.transitions.extras.decided)
    for chosen in (np.asarray(ours.samples.advantage), np.asarray(ours.decisions.advantage)[decided]):
        assert abs(chosen.mean()) < 1e-5
        assert abs(chosen.std() - 1.0) < 1e-4


def test_value_targets_are_standardised_by_all_targets_so_far(key):
    """After the first rollout: by its own mean and deviation (at least 0.1); the coordinator's over decisions only."""
    algorithm, raw = make(), make(ppo={"normalize_values": False})
    state = init(algorithm, key)
    trajectory, _ = collect(algorithm, state, key, TERMINATED, TRUNCATED)
    ours = prepared_by(algorithm, state, trajectory)
    assert float(ours.statistics.low_value.count) == T * B * A
    decided = np.asarray(trajectory.transitions.extras.decided)
    assert float(ours.statistics.high_value.count) == decided.sum() * (A + 1)
    low, high = np.asarray(ours.samples.target), np.asarray(ours.decisions.target)[decided]
    for target, statistics in ((low, ours.statistics.low_value), (high, ours.statistics.high_value)):
        deviation = math.sqrt(float(statistics.variance))
        assert abs(target.mean()) < 1e-4
        assert abs(target.std() - min(deviation / 0.1, 1.0)) < 1e-3
    assert prepared_by(raw, init(raw, key), trajectory).statistics.low_value is None


def test_intrinsic_reward_at_first_is_that_of_a_blind_guess(key):
    """−λ_D ln n_Z − λ_d ln n_z per step: −0.1 · 0.693 − 0.2 · 1.099, up to the discriminators' small first opinions."""
    algorithm = make(width=64)
    state = init(algorithm, key)
    trajectory, _ = collect(algorithm, state, key, NEVER, NEVER)
    metrics = prepared_by(algorithm, state, trajectory).metrics
    expected = -0.1 * math.log(TEAM) - 0.2 * math.log(OWN)
    assert float(metrics["Rewards/LowLevel/Total"]) == pytest.approx(expected, abs=0.005)
    assert float(metrics["Rewards/Intrinsic/TeamLogLikelihood"]) == pytest.approx(-math.log(TEAM), abs=0.02)
    assert float(metrics["Rewards/Intrinsic/IndividualLogLikelihood"]) == pytest.approx(-math.log(OWN), abs=0.02)
    relative = make(width=64, subtract_prior=True)
    assert float(prepared_by(relative, state, trajectory).metrics["Rewards/LowLevel/Total"]) == pytest.approx(
        0.0, abs=0.005
    )


def test_skill_metrics_by_hand(key):
    """Shares, their entropy, and the estimates of mutual information, from the stored skills and the scores."""
    algorithm = make()
    state = init(algorithm, key)
    trajectory, _ = collect(algorithm, state, key, TERMINATED, TRUNCATED)
    steps, metrics = trajectory.transitions, prepared_by(algorithm, state, trajectory).metrics
    skills = np.asarray(steps.extras.skills)
    team, own = scores(algorithm, state, steps, steps.final_global_state, steps.final_observation)
    share = np.bincount(skills[..., 0].ravel(), minlength=TEAM) / (T * B)
    entropy = -(share * np.log(share)).sum()
    for index in range(TEAM):
        assert float(metrics[f"Skills/Team/Usage{index}"]) == pytest.approx(share[index], abs=1e-6)
    assert float(metrics["Skills/Team/UsageEntropy"]) == pytest.approx(entropy, abs=1e-5)
    estimate = entropy + team.mean()
    assert float(metrics["Skills/Team/MutualInformationEstimate"]) == pytest.approx(estimate, abs=1e-4)
    conditional = 0.0
    for z in range(TEAM):
        of_agents = np.bincount(skills[skills[..., 0] == z][:, 1:].ravel(), minlength=OWN)
        part = of_agents[of_agents > 0] / of_agents.sum()
        conditional -= share[z] * (part * np.log(part)).sum()
    estimate = conditional + own.mean()
    assert float(metrics["Skills/Individual/MutualInformationEstimate"]) == pytest.approx(estimate, abs=1e-4)
    assert float(metrics["Buffer/high_level_buffer_size"]) == 17  # see the decisions listed in test_acting
    assert float(metrics["Buffer/SamplesCollected"]) == T * B
    assert float(metrics["Buffer/low_level_buffer_size"]) == T * B * A


def test_samples_of_another_version_are_counted_apart(key):
    algorithm = make()
    state = init(algorithm, key)
    trajectory, _ = collect(algorithm, state, key, TERMINATED, TRUNCATED)
    steps = trajectory.transitions
    extras = steps.extras.replace(skill_version=steps.extras.skill_version.at[3, 1].set(-1))
    mixed = steps.replace(extras=extras, policy_version=steps.policy_version.at[5, 2:4].set(7))
    metrics = prepared_by(algorithm, state, trajectory.replace(transitions=mixed)).metrics
    assert (float(metrics["Sync/StaleSamples"]), float(metrics["Buffer/SamplesCollected"])) == (3.0, T * B - 3)


# --- the published code's quirks --------------------------------------------------------------------------------------


def test_source_a_reset_neither_ends_an_interval_nor_its_reward(key):
    """Only an end on an interval's last step (here 3, 7, 11) is seen by the coordinator; it is terminal."""
    algorithm = make(ppo=RAW, **SOURCE)
    state = init(algorithm, key)
    trajectory, _ = collect(algorithm, state, key, TERMINATED, TRUNCATED)
    steps, ours = trajectory.transitions, prepared_by(algorithm, state, trajectory)
    value = np.asarray(steps.extras.skill_value, np.float64)
    last = trajectory.last
    after = algorithm.networks.coordinator.apply(
        state.params.coordinator, last.global_state, last.observation, jnp.zeros((B, A + 1), jnp.int32)
    )[0]
    done = np.asarray(steps.done)
    reward = np.asarray(steps.reward)[..., 0]
    for env in range(B):
        following, advantage = np.asarray(after[env], np.float64), np.zeros(A + 1)
        for start in (8, 4, 0):
            goes_on = 1.0 - done[start + 3, env]
            earned = reward[start : start + 4, env].sum()
            delta = earned + GAMMA * goes_on * following - value[start, env]
            advantage = delta + GAMMA * LAMBDA * goes_on * advantage
            np.testing.assert_allclose(ours.decisions.advantage[start, env], advantage, rtol=1e-3, atol=1e-4)
            following = value[start, env]


def test_source_discriminators_judge_the_next_episode_and_time_limits_are_terminal(key):
    algorithm = make(ppo=RAW, **SOURCE)
    state = init(algorithm, key)
    trajectory, _ = collect(algorithm, state, key, TERMINATED, TRUNCATED)
    steps, ours = trajectory.transitions, prepared_by(algorithm, state, trajectory)
    world = jnp.concatenate([steps.global_state[1:], trajectory.last.global_state[None]])
    seen = jnp.concatenate([steps.observation[1:], trajectory.last.observation[None]])
    np.testing.assert_array_equal(ours.outcomes.state, world)
    np.testing.assert_array_equal(ours.outcomes.observation, seen)
    team, own = scores(algorithm, state, steps, world, seen)
    reward = 0.1 * team[..., None] + 0.2 * own
    ended = np.asarray(steps.done)
    expected = (reward - np.asarray(steps.extras.value)[..., None])[ended]
    np.testing.assert_allclose(np.asarray(ours.samples.advantage)[ended], expected, rtol=1e-3, atol=1e-4)


# --- settings ---------------------------------------------------------------------------------------------------------
