"""The team's policy decoded agent by agent: the chain rule, causality, and acting equal to learning."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.core.algo_config import MATConfig
from jaxrl_engine.core.spaces import Box, Discrete, MultiDiscrete
from jaxrl_engine.nets.agents_transformer import AgentsTransformer, decide
from jaxrl_engine.nets.heads import draw_noise

N, A, D = 5, 3, 7
SPACES = {
    "discrete": Discrete(5),
    "multi-discrete": MultiDiscrete((2, 3)),
    "real": Box.uniform((2,), -1.0, 1.0),
}
CONFIG = MATConfig(width=22, heads=2, blocks=2)


def randomised(params, key):
    """Weights of full size everywhere: the careful start hardly lets one token hear of another."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    return tree.unflatten(
        jax.random.normal(k, leaf.shape) / leaf.shape[0] ** 0.5 if leaf.ndim == 2 else leaf
        for k, leaf in zip(keys, leaves, strict=True)
    )


@pytest.fixture(scope="module", params=SPACES, ids=SPACES)
def team(request):
    """A network, its parameters, what is seen, actions drawn by it, their log-probabilities, and masks."""
    action = SPACES[request.param]
    network = AgentsTransformer(CONFIG, action)
    keys = jax.random.split(jax.random.key(3), 5)
    observation = jax.random.normal(keys[0], (N, A, D))
    dtype = jnp.float32 if isinstance(action, Box) else jnp.int32
    params = network.init(keys[1], observation, jnp.zeros((N, A, *action.shape), dtype), None)
    params = randomised(params, keys[4])
    mask = None
    if not isinstance(action, Box):
        mask = jax.random.bernoulli(keys[2], 0.6, (N, A, 5)).at[..., jnp.array([0, 2])].set(True)
    noise = draw_noise(keys[3], action, (N, A))

    @jax.jit
    def act(observation, mask, noise):
        _, encoded = network.apply(params, observation, method=AgentsTransformer.encode)
        return decide(network, params, encoded, mask, noise)

    learn = jax.jit(lambda observation, action, mask: network.apply(params, observation, action, mask))
    return action, act, learn, observation, mask, noise


def test_sampling_equals_the_teacher_forced_pass(team):
    _, act, learn, observation, mask, noise = team
    for chance in (noise, None):
        action, log_prob = act(observation, mask, chance)
        law, _ = learn(observation, action, mask)
        np.testing.assert_allclose(log_prob, law.log_prob(action), rtol=1e-4, atol=1e-5)
    # Without noise each agent takes the mode of its factor, given the modes of those before it.
    np.testing.assert_allclose(action, law.mode(), rtol=1e-4, atol=1e-5)


def test_an_agent_hears_of_those_before_it_and_of_no_other(team):
    space, act, learn, observation, mask, noise = team
    action, _ = act(observation, mask, noise)
    law, value = learn(observation, action, mask)
    for changed in range(A):
        other = action.at[:, changed].set(jnp.where(action[:, changed] > 0, action[:, changed] - 1, 1))
        new_law, new_value = learn(observation, other, mask)
        numbers = (law.mean, new_law.mean) if isinstance(space, Box) else (law.logits, new_law.logits)
        moved = np.abs(np.asarray(numbers[0] - numbers[1])).max(axis=(0, 2))
        assert (moved[: changed + 1] == 0).all()
        assert (moved[changed + 1 :] > 1e-3).all()
        np.testing.assert_array_equal(value, new_value)


def test_every_agent_sees_what_every_other_sees(team):
    _, act, learn, observation, mask, noise = team
    action, _ = act(observation, mask, noise)
    for changed in range(A):
        other = observation.at[:, changed, 0].add(1.0)
        moved = np.abs(np.asarray(learn(observation, action, mask)[1] - learn(other, action, mask)[1]))
        assert (moved.max(axis=0) > 1e-3).all()


def test_masked_choices_are_never_taken(team):
    space, act, _, observation, mask, _ = team
    if mask is None:
        pytest.skip("real actions have no mask")
    nvec = (space.n,) if isinstance(space, Discrete) else space.nvec
    starts = np.cumsum((0, *nvec[:-1]))
    for seed in range(30):
        action, _ = act(observation, mask, draw_noise(jax.random.key(seed), space, (N, A)))
        choices = np.asarray(action).reshape(N, A, -1) + starts
        assert np.take_along_axis(np.asarray(mask), choices, axis=-1).all()


def test_the_factors_make_one_law_over_joint_actions():
    """Σ over all joint actions of Π π(aⁱ | a¹ … aⁱ⁻¹) = 1, which holds only if no factor looks ahead."""
    network = AgentsTransformer(CONFIG, Discrete(3))
    joint = jnp.asarray(list(itertools.product(range(3), repeat=A)))
    seen = jnp.broadcast_to(jax.random.normal(jax.random.key(1), (1, A, D)), (len(joint), A, D))
    params = randomised(network.init(jax.random.key(2), seen, joint, None), jax.random.key(4))
    law, _ = network.apply(params, seen, joint, None)
    chances = np.exp(np.asarray(law.log_prob(joint), np.float64).sum(axis=1))
    assert chances.sum() == pytest.approx(1.0, abs=1e-5)
    # What is drawn follows that law: 20,000 teams, each of 27 joint actions within four standard errors.
    count = 20_000
    _, encoded = network.apply(params, seen[:1], method=AgentsTransformer.encode)
    encoded = jnp.broadcast_to(encoded, (count, *encoded.shape[1:]))
    drawn, _ = decide(network, params, encoded, None, draw_noise(jax.random.key(5), Discrete(3), (count, A)))
    frequency = np.bincount(np.asarray(drawn) @ np.array([9, 3, 1]), minlength=27) / count
    np.testing.assert_allclose(frequency, chances, atol=4 * np.sqrt(chances.max() / count))


def test_a_batch_is_its_samples_one_by_one_and_jit_changes_nothing(team):
    _, act, learn, observation, mask, noise = team
    action, _ = act(observation, mask, noise)
    law, value = learn(observation, action, mask)
    chosen = law.log_prob(action)
    for i in range(N):
        one_mask = None if mask is None else mask[i : i + 1]
        with jax.disable_jit():
            own, own_value = learn(observation[i : i + 1], action[i : i + 1], one_mask)
        np.testing.assert_allclose(own_value[0], value[i], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(own.log_prob(action[i : i + 1])[0], chosen[i], rtol=1e-4, atol=1e-5)
