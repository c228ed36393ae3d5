"""From features `[samples, H]` to distributions over each agent's actions, `batch` being the samples' own axes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from jaxrl_engine.core.config import NetworkConfig
from jaxrl_engine.core.spaces import ActionSpace, Box, Discrete
from jaxrl_engine.nets.dense import Dense
from jaxrl_engine.ops.distributions import Categorical, DiagonalGaussian, Distribution, MultiDiscrete, TanhGaussian

POLICY_GAIN = 0.01
"""Gain of the last policy layer: nearly uniform actions at the start (Andrychowicz et al. 2021, §3.2)."""


class DiscreteHead(nn.Module):
    """Logits of one choice (`nvec` of length 1) or of several independent ones."""

    nvec: tuple[int, ...]
    joint: bool  # a Discrete space: its action is a scalar

    @nn.compact
    def __call__(
        self, features: Float[Array, "samples H"], mask: Bool[Array, "*batch n"] | None, batch: tuple[int, ...]
    ) -> Distribution:
        logits = Dense(sum(self.nvec), POLICY_GAIN, name="logits")(features)
        logits = logits.reshape(*batch, -1)
        if self.joint:
            return Categorical(logits=logits, mask=mask)
        return MultiDiscrete(logits=logits, mask=mask, nvec=self.nvec)


class PairsHead(nn.Module):
    """Logits of all ordered pairs of an image's cells, action = from · cells + to.

        logit[f, t] = Σ_c o_fc (G_tc + A_fc),   c over all channels of the image

    o are the channels of the cell itself, what lies there; G and A are affine in a cell's features, with the same
    weights for all cells and kinds: how well it would lie over there, and how badly it lies here. What is learned about
    one place so holds for all, and the weights do not grow with the image. Only one factor of the product is learned:
    with two (queries and keys, Vaswani et al. 2017) plain preferences for a place are found first, and the entropy is
    spent before their product is.
    """

    cells: int
    own: int  # channels of the image of each kind, the first of a cell's features
    kinds: int = 1

    @nn.compact
    def __call__(
        self, features: Float[Array, "samples H"], mask: Bool[Array, "*batch n"] | None, batch: tuple[int, ...]
    ) -> Distribution:
        size = features.shape[-1] // (self.cells * self.kinds)
        each = features.reshape(-1, size)
        worth = Dense(2 * self.own, POLICY_GAIN, name="worth")(each)
        shape = (-1, self.cells, self.kinds * self.own)
        lying, there, here = (x.reshape(shape) for x in (each[:, : self.own], *jnp.split(worth, 2, axis=-1)))
        logits = jnp.einsum("sfc,stc->sft", lying, there) + (lying * here).sum(axis=-1)[..., None]
        return Categorical(logits=logits.reshape(*batch, -1), mask=mask)


class GaussianHead(nn.Module):
    """Mean from the features, standard deviation a parameter of its own that no state changes."""

    size: int
    initial_log_std: float
    squash: bool

    @nn.compact
    def __call__(self, features: Float[Array, "samples H"], mask: None, batch: tuple[int, ...]) -> Distribution:
        mean = Dense(self.size, POLICY_GAIN, name="mean")(features).reshape(*batch, -1)
        log_std = self.param("log_std", nn.initializers.constant(self.initial_log_std), (self.size,))
        return gaussian(mean, jnp.broadcast_to(log_std, mean.shape), self.squash)


def gaussian(
    mean: Float[Array, "*batch D"],
    log_std: Float[Array, "*batch D"],
    squash: bool,
    mask: Bool[Array, "*batch D"] | None = None,
) -> Distribution:
    """The distribution over real actions, squashed or not; `mask` says which of them are there (None: all)."""
    family = TanhGaussian if squash else DiagonalGaussian
    return family(mean=mean, log_std=log_std, mask=mask)


def is_squashed(config: NetworkConfig, action: ActionSpace) -> bool:
    """Say whether real actions are squashed.

    Raises:
        ValueError: that was asked for actions without bounds.
    """
    if config.gaussian == "tanh" and not (isinstance(action, Box) and action.bounded):
        raise ValueError("network.gaussian must be diagonal where actions are unbounded, not 'tanh'")
    return config.gaussian == "tanh"


def takes_pairs(config: NetworkConfig, observation_shape: tuple[int, ...], action: ActionSpace) -> bool:
    """Say whether the policy scores pairs of an image's cells.

    Raises:
        ValueError: that was asked for, but the observation is no image or the actions are not its pairs.
    """
    cells = int(np.prod(observation_shape[:2]))
    possible = len(observation_shape) == 3 and isinstance(action, Discrete) and action.n == cells**2
    if config.head == "pairs" and not possible:
        allowed = f"auto or dense for observations of shape {observation_shape} and actions {action}"
        raise ValueError(f"network.head must be {allowed}, not 'pairs'")
    return possible and config.head != "dense" and config.sees_cells


def make_head(config: NetworkConfig, observation_shape: tuple[int, ...], action: ActionSpace) -> nn.Module:
    """Choose the head for an action space.

    Raises:
        ValueError: a squashed Gaussian was asked for actions without bounds, or pairs of cells where there are none.
    """
    if takes_pairs(config, observation_shape, action):
        cells, kinds = int(np.prod(observation_shape[:2])), config.cnn_kinds
        return PairsHead(cells, observation_shape[-1] // kinds, kinds)
    if isinstance(action, Discrete):
        return DiscreteHead(nvec=(action.n,), joint=True)
    if not isinstance(action, Box):
        return DiscreteHead(nvec=action.nvec, joint=False)
    return GaussianHead(int(np.prod(action.shape)), config.initial_log_std, is_squashed(config, action))


def draw_noise(key: Key[Array, ""], action: ActionSpace, batch: tuple[int, ...]) -> Float[Array, "..."]:
    """Draw what `Distribution.sample_from` needs for one action of each of `batch`. The key is consumed."""
    if isinstance(action, Box):
        return jax.random.normal(key, (*batch, int(np.prod(action.shape))))
    return jax.random.uniform(key, batch if isinstance(action, Discrete) else (*batch, len(action.nvec)))


def to_environment(action: ActionSpace, distribution: Distribution | None, raw: Array) -> Array:
    """Turn a sample of the policy into what the world receives; `distribution` only says whether it is squashed.

    Choices pass unchanged. Real actions are drawn in units of half the action range: `[-1, 1]` maps to `[low, high]`
    where both are finite and to itself elsewhere. A diagonal Gaussian's sample is clipped there (its log-probability
    stays that of the unclipped one); a squashed one goes through tanh.
    """
    if not isinstance(action, Box):
        return raw
    shaped = raw.reshape(*raw.shape[:-1], *action.shape)
    low, high = (np.reshape(np.asarray(bound, np.float32), action.shape) for bound in (action.low, action.high))
    finite = np.isfinite(low) & np.isfinite(high)
    with np.errstate(invalid="ignore"):  # inf − inf, where the result is not used
        centre = jnp.broadcast_to(np.where(finite, (low + high) / 2, np.float32(0)), shaped.shape)
        scale = jnp.broadcast_to(np.where(finite, (high - low) / 2, np.float32(1)), shaped.shape)
    if isinstance(distribution, TanhGaussian):
        return centre + scale * jnp.tanh(shaped)
    return jnp.clip(centre + scale * shaped, jnp.broadcast_to(low, shaped.shape), jnp.broadcast_to(high, shaped.shape))
