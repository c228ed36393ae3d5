"""The networks of skill discovery: two ways to decode, masks, memories, and what they think before learning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.core.spaces import Box, Discrete
from jaxrl_engine.nets.skills import Coordinator, DiscovererActor, DiscovererCritic, Discriminator, choose_skills

N, A, T, WIDTH = 11, 3, 5, 8
STATE, SEEN = 7, 4


def perturbed(params, key):
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    return tree.unflatten([leaf + 0.5 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)])


@pytest.fixture
def state(key):
    return jax.random.normal(jax.random.fold_in(key, 1), (N, STATE))


@pytest.fixture
def observation(key):
    return jax.random.normal(jax.random.fold_in(key, 2), (N, A, SEEN))


def make(key, state, observation, team_skills, individual_skills):
    network = Coordinator(A, team_skills, individual_skills, WIDTH, heads=2, blocks=1)
    params = network.init(key, state, observation, jnp.zeros((N, A + 1), jnp.int32))
    return network, perturbed(params, key)


@pytest.mark.parametrize(("team_skills", "individual_skills"), [(2, 5), (5, 2), (1, 3)])
def test_sampled_log_probabilities_are_the_teacher_forced_ones(key, state, observation, team_skills, individual_skills):
    network, params = make(key, state, observation, team_skills, individual_skills)
    noise = jax.random.uniform(jax.random.fold_in(key, 3), (N, A + 1))
    value, encoded = network.apply(params, state, observation, method=Coordinator.encode)
    skills, log_prob = choose_skills(network, params, encoded, noise)
    forced, law = network.apply(params, state, observation, skills)
    np.testing.assert_allclose(log_prob, law.log_prob(skills), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(value, forced)
    assert np.asarray(skills)[:, 0].max() < team_skills
    assert np.asarray(skills)[:, 1:].max() < individual_skills
    # Every law is over its own skills: probabilities of those there are sum to 1.
    sizes = [team_skills] + [individual_skills] * A
    logits = np.asarray(law.logits)
    for token, size in enumerate(sizes):
        total = sum(np.exp(np.asarray(law.log_prob(jnp.full_like(skills, s))))[:, token] for s in range(size))
        np.testing.assert_allclose(total, 1.0, rtol=1e-5)
        own = logits[:, token, :size]
        exact = np.exp(own - own.max(-1, keepdims=True))
        exact = exact / exact.sum(-1, keepdims=True)
        entropy = -(exact * np.log(exact)).sum(-1)
        np.testing.assert_allclose(law.entropy()[:, token], entropy, rtol=1e-4, atol=1e-5)


def test_each_skill_depends_on_those_before_it_and_on_no_later_one(key, state, observation):
    network, params = make(key, state, observation, 3, 5)
    plain = jnp.ones((N, A + 1), jnp.int32)
    logits = network.apply(params, state, observation, plain)[1].logits
    for changed in range(A + 1):
        other = network.apply(params, state, observation, plain.at[:, changed].set(2))[1].logits
        np.testing.assert_array_equal(other[:, : changed + 1], logits[:, : changed + 1])
        if changed < A:
            assert np.abs(np.asarray(other - logits))[:, changed + 1 :].max(axis=(0, 2)).min() > 1e-4


def test_greedy_choices_are_the_most_likely_ones_given_those_before(key, state, observation):
    network, params = make(key, state, observation, 2, 5)
    _, encoded = network.apply(params, state, observation, method=Coordinator.encode)
    skills, _ = choose_skills(network, params, encoded, None)
    logits = np.asarray(network.apply(params, state, observation, skills)[1].logits)
    np.testing.assert_array_equal(skills[:, 0], logits[:, 0, :2].argmax(-1))
    np.testing.assert_array_equal(skills[:, 1:], logits[:, 1:].argmax(-1))


def test_skills_are_drawn_as_often_as_their_probabilities_say(key, state, observation):
    """One state, many draws: shares of the joint choice within five standard errors."""
    network, params = make(key, state, observation, 2, 3)
    draws = 4001
    one = (jnp.repeat(state[:1], draws, axis=0), jnp.repeat(observation[:1], draws, axis=0))
    _, encoded = network.apply(params, *one, method=Coordinator.encode)
    noise = jax.random.uniform(jax.random.fold_in(key, 4), (draws, A + 1))
    skills, log_prob = choose_skills(network, params, encoded, noise)
    joint, first, counts = np.unique(np.asarray(skills), axis=0, return_index=True, return_counts=True)
    expected = np.exp(np.asarray(log_prob).sum(-1))[first]
    assert len(joint) > 10
    np.testing.assert_array_less(
        np.abs(counts / draws - expected), 5 * np.sqrt(expected * (1 - expected) / draws) + 1e-3
    )


def actor_and_inputs(key, skill_input):
    actor = DiscovererActor(Discrete(6), 5, WIDTH, skill_input)
    keys = jax.random.split(key, 4)
    memory = jax.random.normal(keys[0], (N, A, WIDTH))
    first = jax.random.bernoulli(keys[1], 0.3, (T, N))
    seen = jax.random.normal(keys[2], (T, N, A, SEEN))
    skill = jax.random.randint(keys[3], (T, N, A), 0, 5)
    params = perturbed(actor.init(key, memory, first, seen, skill, None), key)
    return actor, params, memory, first, seen, skill


@pytest.mark.parametrize("skill_input", ["after", "before"])
def test_actor_step_by_step_equals_the_sequence(key, skill_input):
    actor, params, memory, first, seen, skill = actor_and_inputs(key, skill_input)
    last, law = actor.apply(params, memory, first, seen, skill, None)
    for t in range(T):
        memory, step = actor.apply(params, memory, first[t : t + 1], seen[t : t + 1], skill[t : t + 1], None)
        np.testing.assert_allclose(step.logits[0], law.logits[t], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(memory, last, rtol=1e-4, atol=1e-5)


def test_agents_share_one_policy(key):
    """Swapping two agents swaps what they do, and an agent's memory is its own."""
    actor, params, memory, first, seen, skill = actor_and_inputs(key, "after")
    order = jnp.asarray([2, 0, 1])
    _, law = actor.apply(params, memory, first, seen, skill, None)
    _, other = actor.apply(params, memory[:, order], first, seen[:, :, order], skill[:, :, order], None)
    np.testing.assert_allclose(other.logits, law.logits[:, :, order], rtol=1e-4, atol=1e-5)


def test_a_skill_joins_after_or_before_the_recurrence(key):
    """After it, a skill shifts every logit by the same amount in every state, and leaves no trace in the memory."""
    for skill_input in ("after", "before"):
        actor, params, memory, first, seen, skill = actor_and_inputs(key, skill_input)
        other = (skill + 1) % 5
        last, law = actor.apply(params, memory, first, seen, skill, None)
        changed, shifted = actor.apply(params, memory, first, seen, other, None)
        difference = np.asarray(shifted.logits - law.logits)[np.asarray(skill) == 2]
        same = np.abs(difference - difference[:1]).max() < 1e-4
        assert same == (skill_input == "after")
        assert np.array_equal(last, changed) == (skill_input == "after")


def test_critic_knows_the_state_and_the_team_skill(key):
    critic = DiscovererCritic(3, WIDTH, "after")
    memory, first = jnp.zeros((N, WIDTH)), jnp.zeros((T, N), bool)
    state = jax.random.normal(key, (T, N, STATE))
    team = jnp.zeros((T, N), jnp.int32)
    params = perturbed(critic.init(key, memory, first, state, team), key)
    _, value = critic.apply(params, memory, first, state, team)
    _, other = critic.apply(params, memory, first, state, team + 1)
    assert value.shape == (T, N)
    assert np.abs(np.asarray(value - other)).min() > 1e-4
    assert np.asarray(value).std() > 1e-2


def test_continuous_actions_get_a_gaussian(key):
    actor = DiscovererActor(Box.uniform((2,), -1.0, 1.0), 5, WIDTH, "after")
    memory, first = jnp.zeros((N, A, WIDTH)), jnp.zeros((1, N), bool)
    inputs = (memory, first, jnp.ones((1, N, A, SEEN)), jnp.zeros((1, N, A), jnp.int32), None)
    _, law = actor.apply(actor.init(key, *inputs), *inputs)
    assert law.mode().shape == (1, N, A, 2)
    assert np.abs(np.asarray(law.mode())).max() < 0.1


def test_discriminators_begin_without_opinion(key):
    """log q = −ln n for every skill, up to the small gain of the last layer."""
    for skills in (2, 5):
        network = Discriminator(skills, 64)
        seen = 10.0 * jax.random.normal(key, (N, 100))
        log_q = network.apply(network.init(key, seen), seen)
        np.testing.assert_allclose(log_q, -np.log(skills), atol=0.1)
        np.testing.assert_allclose(np.exp(log_q).sum(-1), 1.0, rtol=1e-5)


def test_gradients_reach_every_parameter(key, state, observation):
    network = Coordinator(A, 2, 5, WIDTH, heads=1, blocks=1)
    skills = jax.random.randint(key, (N, A + 1), 0, 2)
    params = network.init(key, state, observation, skills)

    def loss(params):
        value, law = network.apply(params, state, observation, skills)
        return jnp.square(value - 1.0).sum() - law.log_prob(skills).sum()

    for path, leaf in jax.tree.leaves_with_path(jax.grad(loss)(params)):
        assert np.abs(np.asarray(leaf)).max() > 0.0, jax.tree_util.keystr(path)
