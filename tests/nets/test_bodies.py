"""Networks of bodies against NumPy on the joints a body has, and what they must not depend on."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_networks import attend, dense, double, feed_forward, gelu, layer_norm, perturbed

from jaxrl_engine.core.config import NetworkConfig
from jaxrl_engine.core.spaces import Box, Discrete, Tokens
from jaxrl_engine.nets.actor_critic import Actor, Critic
from jaxrl_engine.nets.bodies import LONGEST_WAVE
from jaxrl_engine.nets.heads import POLICY_GAIN
from jaxrl_engine.ops.distributions import DiagonalGaussian, TanhGaussian

N, COUNT, SIZE, WHOLE, HEADS = 7, 5, 4, 3, 2
LAYOUT = Tokens(COUNT, SIZE)
TORSOS = ["body-mlp", "body-set", "body-transformer"]
SHARED = TORSOS[1:]  # the same weights for any number of slots
JOINTS = np.array([1, 2, 3, 4, 5, 2, 5])
all_torsos = pytest.mark.parametrize("torso", TORSOS)
shared_weights = pytest.mark.parametrize("torso", SHARED)


def config(torso, **changes):
    sizes = {"hidden_sizes": (11, 13), "transformer_blocks": 2, "transformer_heads": HEADS, "transformer_width": 10}
    return NetworkConfig(torso=torso, initial_log_std=-0.3, **(sizes | changes))


def box(count=COUNT):
    return Box.uniform((count,), -1.0, 1.0)


MOTORS = box()


def flat(tokens, enabled, whole):
    """Observations `[*batch, D]` of these tokens, whose last number is set to the flag."""
    tokens = np.concatenate([tokens[..., :-1], enabled[..., None]], axis=-1)
    parts = [tokens.reshape(*tokens.shape[:-2], -1), whole]
    return np.concatenate(parts, axis=-1).astype(np.float32)


@pytest.fixture(scope="module")
def seen():
    """Seven bodies of one to five joints: tokens, flags, the whole."""
    random = np.random.default_rng(0)
    enabled = np.arange(COUNT)[None] < JOINTS[:, None]
    return random.normal(size=(N, COUNT, SIZE)), enabled, random.normal(size=(N, WHOLE))


@pytest.fixture(scope="module")
def networks(seen):
    """`torso -> actor, its parameters, critic, its parameters`, all of them away from their start."""

    def make(torso):
        observation = jnp.asarray(flat(*seen))
        actor = Actor(config(torso), observation.shape[1:], MOTORS, LAYOUT)
        critic = Critic(config(torso), observation.shape[1:], LAYOUT)
        keys = jax.random.split(jax.random.key(1), 4)
        params = actor.init(keys[0], (), observation, None), critic.init(keys[1], (), observation)
        return actor, perturbed(params[0], keys[2]), critic, perturbed(params[1], keys[3])

    return {torso: make(torso) for torso in TORSOS}


@pytest.fixture(scope="module")
def say(networks):
    """`(torso, observation, action) -> mode, log-prob, entropy, value and their gradients`, compiled."""

    def make(torso):
        actor, of_actor, critic, of_critic = networks[torso]

        def answers(params, observation, action):
            law, value = actor.apply(params[0], (), observation, None)[1], critic.apply(params[1], (), observation)[1]
            return {"mode": law.mode(), "log_prob": law.log_prob(action), "entropy": law.entropy(), "value": value}

        def total(params, observation, action):
            return sum(jnp.sin(leaf).sum() for leaf in answers(params, observation, action).values())

        compiled = jax.jit(lambda *inputs: (answers(*inputs), jax.grad(total, argnums=(0, 1))(*inputs)))
        return lambda observation, action: compiled(
            (of_actor, of_critic), jnp.asarray(observation), jnp.asarray(action)
        )

    return {torso: make(torso) for torso in TORSOS}


# --- what they compute ----------------------------------------------------------------------------------------------


def hidden(params, x):
    for name in sorted(params):
        x = np.tanh(dense(params[name], x))
    return x


def token_head(params, x):
    return dense(params["Dense_1"], layer_norm(params["LayerNorm_0"], gelu(dense(params["Dense_0"], x))))


def features(torso, params, joints, whole):
    """Of each joint of one body, which has no others."""
    x = np.concatenate([joints, np.tile(whole, (len(joints), 1))], axis=1)
    if torso == "body-set":
        return hidden(params["SetEncoder_0"]["MLP_0"], x)
    p = params["TransformerEncoder_0"]
    width = p["embedding"]["kernel"].shape[1]
    wave = LONGEST_WAVE ** (-np.arange(width // 2) / (width // 2))
    phase = np.arange(len(x))[:, None] * wave
    x = (dense(p["embedding"], x) + np.concatenate([np.sin(phase), np.cos(phase)], axis=1))[None]
    for block in (p["PreNormBlock_0"], p["PreNormBlock_1"]):
        normed = layer_norm(block["LayerNorm_0"], x)
        x = x + attend(block["Attention_0"], normed, normed, False, HEADS)
        x = x + feed_forward(block["FeedForward_0"], layer_norm(block["LayerNorm_1"], x))
    return layer_norm(p["LayerNorm_0"], x)[0]


def in_numpy(torso, actor, critic, joints, whole):
    """Mean action of each joint and value of one body, which has these joints and no others."""
    if torso == "body-mlp":
        padding = np.zeros((COUNT - len(joints), SIZE - 1))
        flags = np.arange(COUNT) < len(joints)
        x = np.concatenate([np.concatenate([joints, padding]).reshape(-1), flags, whole])
        mean = dense(actor["mean"], hidden(actor["FlatEncoder_0"]["MLP_0"], x))[: len(joints)]
        return mean, dense(critic["value"], hidden(critic["FlatEncoder_0"]["MLP_0"], x))[0]
    each = features(torso, actor, joints, whole)
    state = np.concatenate([features(torso, critic, joints, whole).mean(axis=0), whole])
    if torso == "body-transformer":
        return token_head(actor["mean"]["TokenHead_0"], each)[:, 0], token_head(critic["value"]["TokenHead_0"], state)[
            0
        ]
    each = np.concatenate([each, np.tile(each.mean(axis=0), (len(each), 1))], axis=1)
    mean, value = (
        dense(params["Dense_0"], hidden(params["MLP_0"], x))
        for params, x in ((actor["mean"], each), (critic["value"], state))
    )
    return mean[:, 0], value[0]


@all_torsos
def test_networks_equal_numpy_on_the_joints_there_are(torso, networks, seen):
    """NumPy never sees an empty slot of the set's and the transformer's; body-mlp's are zeros."""
    actor, of_actor, critic, of_critic = networks[torso]
    tokens, enabled, whole = seen
    observation = jnp.asarray(flat(*seen))
    law = actor.apply(of_actor, (), observation, None)[1]
    values = critic.apply(of_critic, (), observation)[1]
    p, q = double(of_actor["params"]["BodyActor_0"]), double(of_critic["params"]["BodyCritic_0"])
    assert isinstance(law, DiagonalGaussian) and values.shape == (N,)
    np.testing.assert_array_equal(law.mask, enabled)
    np.testing.assert_allclose(law.log_std, np.broadcast_to(p["log_std"], (N, COUNT)), rtol=1e-6)
    assert p["log_std"].shape == ((COUNT,) if torso == "body-mlp" else (1,))
    for body, joints in enumerate(JOINTS):
        mean, value = in_numpy(torso, p, q, tokens[body, :joints, :-1], whole[body])
        np.testing.assert_allclose(law.mode()[body, :joints], mean, rtol=1e-3, atol=1e-3)
        assert not np.asarray(law.mode())[body, joints:].any()
        assert float(values[body]) == pytest.approx(value, rel=1e-3, abs=1e-3)


@all_torsos
def test_a_fresh_policy_hardly_moves_and_all_of_it_learns(torso, networks, seen):
    actor, _, critic, _ = networks[torso]
    observation, action = jnp.asarray(flat(*seen)), jax.random.normal(jax.random.key(2), (N, COUNT))
    params = actor.init(jax.random.key(3), (), observation, None), critic.init(jax.random.key(4), (), observation)
    law = actor.apply(params[0], (), observation, None)[1]
    assert 0 < np.abs(law.mode()).max() < 5 * POLICY_GAIN
    np.testing.assert_allclose(law.log_std, -0.3, rtol=1e-6)

    def score(params):
        return (actor.apply(params[0], (), observation, None)[1].log_prob(action).sum()
                + jnp.sin(critic.apply(params[1], (), observation)[1]).sum())  # fmt: skip

    for path, leaf in jax.tree.leaves_with_path(jax.grad(score)(params)):
        assert np.abs(np.asarray(leaf)).max() > 0, jax.tree_util.keystr(path)


# --- what they must not depend on -----------------------------------------------------------------------------------

anything = st.floats(width=32) | st.sampled_from([np.nan, np.inf, -np.inf, 3e38])


@all_torsos
@hypothesis.given(st.lists(anything, min_size=5, max_size=23), st.integers(0, 2**32 - 1), anything)
def test_what_an_empty_slot_holds_changes_nothing(torso, say, seen, garbage, seed, idle):
    """Neither action nor log-probability, entropy, value or any gradient, to the bit; nor what an empty motor did."""
    random = np.random.default_rng(seed)
    tokens, whole = seen[0], seen[2]
    enabled = random.random((N, COUNT)) < 0.5
    empty = ~enabled
    dirty = np.where(empty[..., None], np.resize(random.permutation(garbage), tokens.shape), tokens)
    action = random.normal(size=(N, COUNT)).astype(np.float32)
    answers, (of_params, of_seen) = say[torso](flat(tokens, enabled, whole), action)
    others, (of_params_too, of_dirt) = say[torso](
        flat(dirty, enabled, whole), np.where(empty, idle, action).astype(np.float32)
    )
    jax.tree.map(np.testing.assert_array_equal, (answers, of_params), (others, of_params_too))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((answers, of_params)))
    of_tokens, _, _ = LAYOUT.split(of_dirt)
    assert not np.asarray(of_tokens)[empty].any()
    assert np.asarray(of_tokens)[enabled][:, :-1].all()
    np.testing.assert_array_equal(of_dirt, of_seen)


@all_torsos
def test_flags_decide_not_masks(torso, networks, say, seen):
    tokens, enabled, whole = seen
    action = np.zeros((N, COUNT), np.float32)
    longer = enabled.copy()
    longer[0, 1] = True
    answers, _ = say[torso](flat(tokens, enabled, whole), action)
    others, _ = say[torso](flat(tokens, longer, whole), action)
    for name in answers:
        changed = np.abs(np.asarray(answers[name] - others[name])).reshape(N, -1).max(axis=1)
        assert changed[0] > 1e-4 and not changed[1:].any(), name
    actor, of_actor, _, _ = networks[torso]
    law = actor.apply(of_actor, (), jnp.asarray(flat(*seen)), jnp.zeros((N, COUNT), bool))[1]
    np.testing.assert_array_equal(law.mask, enabled)


@all_torsos
def test_bodies_in_a_batch_of_any_shape_are_each_alone_and_jit_equals_no_jit(torso, networks, say, seen):
    actor, of_actor, critic, of_critic = networks[torso]
    observation = flat(*seen)
    action = np.random.default_rng(3).normal(size=(N, COUNT)).astype(np.float32)
    answers, _ = say[torso](observation, action)
    for body in range(N):
        law = actor.apply(of_actor, (), jnp.asarray(observation[body]), None)[1]
        value = critic.apply(of_critic, (), jnp.asarray(observation[body]))[1]
        alone = {"mode": law.mode(), "log_prob": law.log_prob(jnp.asarray(action[body])), "entropy": law.entropy(),
                 "value": value}  # fmt: skip
        for name, answer in alone.items():
            np.testing.assert_allclose(answers[name][body], answer, rtol=1e-4, atol=1e-4)
    shaped = jnp.asarray(observation[:6].reshape(2, 3, 1, -1))
    law, values = actor.apply(of_actor, (), shaped, None)[1], critic.apply(of_critic, (), shaped)[1]
    np.testing.assert_allclose(law.mode().reshape(6, COUNT), answers["mode"][:6], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(values, answers["value"][:6].reshape(2, 3, 1), rtol=1e-4, atol=1e-4)


@all_torsos
def test_a_set_knows_no_order_of_its_joints(torso, say, seen):
    """The actions of a set are permuted with the joints, its value stays; the others tell slots apart."""
    tokens, enabled, whole = seen
    order = np.stack([np.random.default_rng(body).permutation(COUNT) for body in range(N)])
    moved = [np.take_along_axis(tokens, order[..., None], 1), np.take_along_axis(enabled, order, 1)]
    action = np.zeros((N, COUNT), np.float32)
    answers, others = say[torso](flat(*seen), action)[0], say[torso](flat(*moved, whole), action)[0]
    expected = np.take_along_axis(np.asarray(answers["mode"]), order, 1)
    assert np.abs(expected - answers["mode"]).max() > 0.1
    same = (np.allclose(others["mode"], expected, rtol=1e-4, atol=1e-5),
            np.allclose(others["value"], answers["value"], rtol=1e-4, atol=1e-5))  # fmt: skip
    assert same == ((True, True) if torso == "body-set" else (False, False))


@shared_weights
def test_a_body_is_the_same_in_a_world_with_more_slots(torso, networks, seen):
    actor, of_actor, critic, of_critic = networks[torso]
    tokens, enabled, whole = seen
    laws, values = actor.apply(of_actor, (), jnp.asarray(flat(*seen)), None)[1], critic.apply(
        of_critic, (), jnp.asarray(flat(*seen)))[1]  # fmt: skip
    for joints in (1, 2, 3):
        body = int(np.flatnonzero(joints == JOINTS)[0])
        observation = jnp.asarray(flat(tokens[body, :joints], enabled[body, :joints], whole[body]))
        small = {"observation_shape": observation.shape, "tokens": Tokens(joints, SIZE)}
        law = actor.clone(action=box(joints), **small).apply(of_actor, (), observation, None)[1]
        value = critic.clone(**small).apply(of_critic, (), observation)[1]
        np.testing.assert_allclose(law.mode(), laws.mode()[body, :joints], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(law.entropy(), laws.entropy()[body], rtol=1e-5)
        np.testing.assert_allclose(value, values[body], rtol=1e-4, atol=1e-5)


# --- what fits ------------------------------------------------------------------------------------------------------


@all_torsos
def test_squashed_actions_and_half_precision(torso, seen):
    observation = jnp.asarray(flat(*seen))
    dtype = "float32" if torso == "body-transformer" else "bfloat16"
    settings = config(torso, gaussian="tanh", compute_dtype=dtype)
    actor, critic = (
        Actor(settings, observation.shape[1:], MOTORS, LAYOUT),
        Critic(settings, observation.shape[1:], LAYOUT),
    )
    (_, law), _ = actor.init_with_output(jax.random.key(0), (), observation, None)
    (_, value), params = critic.init_with_output(jax.random.key(0), (), observation)
    assert isinstance(law, TanhGaussian) and law.mean.dtype == value.dtype == jnp.float32
    np.testing.assert_array_equal(law.mask, seen[1])
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@all_torsos
def test_worlds_that_show_no_body_are_refused(torso, seen):
    observation = jnp.asarray(flat(*seen))

    def start(action=MOTORS, tokens=LAYOUT, **changes):
        actor = Actor(config(torso, **changes), observation.shape[1:], action, tokens)
        jax.eval_shape(lambda: actor.init(jax.random.key(0), (), observation, None))

    start()
    with pytest.raises(ValueError, match=rf"^network\.torso must be auto, .* in a world without tokens, not '{torso}'"):
        start(tokens=None)
    for wrong in (Discrete(COUNT), box(COUNT + 1)):
        with pytest.raises(
            ValueError, match=rf"^network\.torso must be auto, mlp or cnn for 5 tokens and actions .*{torso}"
        ):
            start(action=wrong)
    with pytest.raises(ValueError, match=r"^network\.gaussian must be diagonal where actions are unbounded"):
        start(action=Box.uniform((COUNT,), -np.inf, np.inf), gaussian="tanh")
    with pytest.raises(ValueError, match="in a world without tokens"):
        Critic(config(torso), observation.shape[1:]).init(jax.random.key(0), (), observation)


def test_other_torsos_read_the_same_observation_as_a_vector(seen):
    plain = dataclasses.replace(config("body-mlp"), torso="auto")
    observation = jnp.asarray(flat(*seen))
    params = Actor(plain, observation.shape[1:], MOTORS, LAYOUT).init(jax.random.key(0), (), observation, None)
    without = Actor(plain, observation.shape[1:], MOTORS).init(jax.random.key(0), (), observation, None)
    jax.tree.map(np.testing.assert_array_equal, params, without)
