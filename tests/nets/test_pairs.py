"""The head for pairs of cells against NumPy, its symmetries, and when it is chosen."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.core.config import NetworkConfig
from jaxrl_engine.core.spaces import Box, Discrete, MultiDiscrete
from jaxrl_engine.nets.actor_critic import Actor, Critic
from jaxrl_engine.nets.heads import POLICY_GAIN, PairsHead, takes_pairs
from jaxrl_engine.nets.torsos import by_kind, make_torso

HEIGHT, WIDTH, CHANNELS, FEATURES, SAMPLES = 7, 11, 3, 5, 2
CELLS = HEIGHT * WIDTH
CONFIG = NetworkConfig(cnn_channels=(5, 13), hidden_sizes=(17,), activation="relu")


@pytest.fixture(scope="module")
def policy():
    """An actor whose two factors have weights of one size and biases that are not zero, and images for it."""
    actor = Actor(CONFIG, (HEIGHT, WIDTH, CHANNELS), Discrete(CELLS**2))
    image = jax.random.normal(jax.random.key(1), (SAMPLES, HEIGHT, WIDTH, CHANNELS))
    params = actor.init(jax.random.key(2), (), image, None)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(3), len(leaves))
    drawn = [0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return actor, jax.tree.unflatten(tree, drawn), image


@pytest.mark.parametrize("kinds", [1, 3])
def test_logits_are_those_of_numpy(kinds):
    own = 2
    head = PairsHead(cells=CELLS, own=own, kinds=kinds)
    features = jax.random.normal(jax.random.key(0), (SAMPLES, CELLS * kinds * FEATURES))
    params = head.init(jax.random.key(1), features, None, (SAMPLES, 1))
    params["params"]["worth"]["bias"] = jnp.arange(4.0)
    logits = np.asarray(head.apply(params, features, None, (SAMPLES, 1)).logits)
    kernel = np.asarray(params["params"]["worth"]["kernel"])
    cells = np.asarray(features).reshape(SAMPLES, CELLS, kinds, FEATURES)
    worth = cells @ kernel + np.arange(4.0)
    assert logits.shape == (SAMPLES, 1, CELLS**2)
    for sample, origin, target in itertools.product(range(SAMPLES), (0, 13, CELLS - 1), (0, 10, 11, CELLS - 2)):
        lying, there, here = (
            cells[sample, origin, :, :own],
            worth[sample, target, :, :own],
            worth[sample, origin, :, own:],
        )
        expected = (lying * (there + here)).sum()
        assert logits[sample, 0, origin * CELLS + target] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    np.testing.assert_allclose(kernel.T @ kernel, POLICY_GAIN**2 * np.eye(4), atol=1e-8)


def test_a_shifted_image_shifts_the_logits(policy):
    """For pairs of cells that see no edge: two convolutions reach two cells far."""
    actor, params, image = policy
    down, right, reach = 1, 3, 2

    def pairs(image):
        logits = actor.apply(params, (), image, None)[1].logits
        return np.asarray(logits).reshape(SAMPLES, HEIGHT, WIDTH, HEIGHT, WIDTH)

    before, after = pairs(image), pairs(jnp.roll(image, (down, right), axis=(1, 2)))
    rows, columns = slice(reach, HEIGHT - reach - down), slice(reach, WIDTH - reach - right)
    moved_rows, moved_columns = slice(reach + down, HEIGHT - reach), slice(reach + right, WIDTH - reach)
    inner = before[:, rows, columns, rows, columns]
    np.testing.assert_allclose(
        after[:, moved_rows, moved_columns, moved_rows, moved_columns], inner, rtol=1e-3, atol=1e-4
    )
    assert inner.shape == (SAMPLES, 2, 4, 2, 4) and inner.std() > 0.1


def test_kinds_pass_through_the_same_weights():
    """Kinds exchanged, with all their planes: the policy makes no difference of it, the value neither."""
    kinds, planes, order = 3, 2, np.array([2, 0, 1])
    config = dataclasses.replace(CONFIG, cnn_kinds=kinds)
    shape = (HEIGHT, WIDTH, planes * kinds)
    image = np.random.default_rng(5).normal(size=(SAMPLES, *shape)).astype(np.float32)
    exchanged = np.concatenate([image[..., plane * kinds + order] for plane in range(planes)], axis=-1)
    one_plane_exchanged = np.concatenate([image[..., order], image[..., kinds:]], axis=-1)
    actor, critic = Actor(config, shape, Discrete(CELLS**2)), Critic(config, shape)
    for network, rest, outcome in ((actor, (None,), lambda d: d.logits), (critic, (), lambda value: value)):
        params = network.init(jax.random.key(2), (), jnp.asarray(image), *rest)
        first, same, other = (
            np.asarray(outcome(network.apply(params, (), each, *rest)[1]))
            for each in map(jnp.asarray, (image, exchanged, one_plane_exchanged))
        )
        np.testing.assert_allclose(same, first, rtol=1e-3, atol=1e-5)
        assert np.abs(other - first).max() > 0.01 * first.std()
    # What the convolutions see, written out: own planes, then the sums over all kinds.
    seen = by_kind(jnp.asarray(image), kinds).reshape(SAMPLES, kinds, HEIGHT, WIDTH, 2 * planes)
    assert seen[1, 2, 3, 4].tolist() == pytest.approx(
        [image[1, 3, 4, 2], image[1, 3, 4, 5], image[1, 3, 4, :3].sum(), image[1, 3, 4, 3:].sum()], rel=1e-5
    )
    with pytest.raises(ValueError, match=r"network\.cnn_kinds must divide the image's 6 channels, not 5"):
        make_torso(dataclasses.replace(CONFIG, cnn_kinds=5), shape)


def test_features_of_a_cell_begin_with_its_own_channels():
    """Cell by cell, kind by kind: own planes and sums, then the convolutions' features."""
    shape, kinds = (HEIGHT, WIDTH, 4), 2
    torso = make_torso(dataclasses.replace(CONFIG, cnn_kinds=kinds), shape, of_cells=True)
    image = jax.random.normal(jax.random.key(4), (SAMPLES, *shape))
    features, _ = torso.init_with_output(jax.random.key(5), image)
    laid_out = np.asarray(features).reshape(SAMPLES, HEIGHT, WIDTH, kinds, 4 + CONFIG.cnn_channels[-1])
    for kind in range(kinds):
        own = np.asarray(image)[..., kind::kinds]
        np.testing.assert_array_equal(laid_out[..., kind, :2], own)
    assert (laid_out[..., 4:] >= 0).all()


def test_gradients_reach_all_parameters_from_the_start():
    actor = Actor(CONFIG, (HEIGHT, WIDTH, CHANNELS), Discrete(CELLS**2))
    image = jax.random.normal(jax.random.key(1), (SAMPLES, HEIGHT, WIDTH, CHANNELS))
    params = actor.init(jax.random.key(2), (), image, None)
    actions = jnp.array([3, CELLS**2 - 7])
    gradient = jax.grad(lambda params: actor.apply(params, (), image, None)[1].log_prob(actions).sum())(params)
    names = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)}
    assert len(names) == 6 and all(np.abs(leaf).max() > 1e-5 for leaf in names.values()), names
    assert not any("MLP" in name for name in names)


def test_any_batch_axes_and_the_mask(policy):
    actor, params, image = policy
    mask = np.zeros((SAMPLES, 1, CELLS**2), bool)
    mask[0, 0, [5, 7]], mask[1, 0, 11] = True, True
    _, distribution = actor.apply(params, (), image[:, None], jnp.asarray(mask))
    _, alone = actor.apply(params, (), image[1], None)
    np.testing.assert_allclose(distribution.logits[1, 0], alone.logits, rtol=1e-4, atol=1e-5)
    assert distribution.mode()[1, 0] == 11 and int(distribution.mode()[0, 0]) in (5, 7)


@pytest.mark.parametrize(
    ("setting", "shape", "action", "expected"),
    [
        ({}, (2, 3, 5), Discrete(36), True),
        ({"head": "pairs"}, (2, 3, 5), Discrete(36), True),
        ({"head": "dense"}, (2, 3, 5), Discrete(36), False),
        ({"torso": "mlp"}, (2, 3, 5), Discrete(36), False),
        ({"recurrent": "gru"}, (2, 3, 5), Discrete(36), False),
        ({}, (2, 3, 5), Discrete(6), False),
        ({}, (2, 3, 5), MultiDiscrete((6, 6)), False),
        ({}, (6,), Discrete(36), False),
    ],
)
def test_auto_takes_pairs_where_there_are_some(setting, shape, action, expected):
    assert takes_pairs(NetworkConfig(**setting), shape, action) == expected


@pytest.mark.parametrize(
    ("shape", "action"),
    [((2, 3, 5), Discrete(35)), ((6,), Discrete(36)), ((2, 3, 5), Box.uniform((36,), -1.0, 1.0))],
)
def test_pairs_that_do_not_exist_are_refused(shape, action):
    with pytest.raises(ValueError, match=r"network\.head must be auto or dense for observations of shape"):
        takes_pairs(NetworkConfig(head="pairs"), shape, action)
