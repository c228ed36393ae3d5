"""What a policy says about its next action: four distributions over one agent's actions, with any leading batch axes.

All follow one protocol, `Distribution`. Log-probabilities and entropies are in nats.
"""

import math
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxrl_engine.core.struct import Struct, static_field
from jaxrl_engine.core.types import Leaf

FORBIDDEN = -1e30
"""Logit of a masked choice: finite, so that no difference of two of them is NaN, and e^FORBIDDEN is exactly 0."""

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
_LOG_TWO = math.log(2.0)


@runtime_checkable
class Distribution(Protocol):
    """A batch of distributions. Keys are consumed; one key serves the whole batch, its elements are independent.

    `entropy` takes a key because a squashed Gaussian can only estimate its own; those that know theirs exactly may be
    asked without one and ignore it. What holds a `Distribution` passes a key and need not know which it holds.
    """

    def sample(self, key: Key[Array, ""], /) -> Array:
        """Draw an action for each element of the batch."""

    def sample_from(self, noise: Array, /) -> Array:
        """The action that this noise, drawn beforehand, stands for; its law is the family's own."""

    def mode(self) -> Array:
        """The most likely action (of the unsquashed Gaussian, for a squashed one)."""

    def log_prob(self, action: Array, /) -> Float[Array, "*batch"]:
        """Log-probability, or log-density, of an action as `sample` returns it."""

    def entropy(self, key: Key[Array, ""], /) -> Float[Array, "*batch"]:
        """Entropy, exact or an unbiased one-sample estimate."""


class Categorical(Struct):
    """One of `n` choices; an action is int32 `[*batch]`.

    Choices where `mask` is False have probability 0: they are never sampled and add nothing to the entropy; asked for
    one, `log_prob` answers about `FORBIDDEN`. A row with no choice left at all (an absent agent) samples uniformly,
    has mode 0, log-probability −log n whatever the logits, entropy 0, and passes no gradient.
    """

    logits: Float[Leaf, "*batch n"]  # unnormalised
    mask: Bool[Leaf, "*batch n"] | None = None  # True: allowed

    def sample(self, key: Key[Array, ""], /) -> Int[Array, "*batch"]:
        return self.sample_from(jax.random.uniform(key, self.logits.shape[:-1], self.logits.dtype))

    def sample_from(self, noise: Float[Array, "*batch"], /) -> Int[Array, "*batch"]:
        """Invert the cumulative distribution at a uniform number per row; resolves probabilities to 2⁻²³.

        The Gumbel trick needs a random number and two logarithms per *choice*; this shares its exponentials with
        `log_prob`. On CPU both cost the same for 2 or 3 choices, Gumbel twice as much for 6 and six times for 64.
        """
        return _invert(self._allowed_logits, noise)

    def mode(self) -> Int[Array, "*batch"]:
        return jnp.argmax(self._allowed_logits, axis=-1).astype(jnp.int32)

    def log_prob(self, action: Int[Array, "*batch"], /) -> Float[Array, "*batch"]:
        # A masked sum, not a gather: its gradient is no scatter, which is what CPUs and GPUs are slow at.
        log_probs = jax.nn.log_softmax(self._allowed_logits)
        chosen = jnp.expand_dims(action, -1) == _choices(log_probs)
        return jnp.sum(log_probs, axis=-1, where=chosen)

    def entropy(self, _key: Key[Array, ""] | None = None, /) -> Float[Array, "*batch"]:
        """−Σ p log p over the allowed choices; exact, the key is not used."""
        log_probs = jax.nn.log_softmax(self._allowed_logits)
        return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1, where=self.mask)

    @property
    def _allowed_logits(self) -> Float[Array, "*batch n"]:
        return self.logits if self.mask is None else jnp.where(self.mask, self.logits, FORBIDDEN)


class MultiDiscrete(Struct):
    """Several independent choices; an action is int32 `[*batch, len(nvec)]`. Masks work as in `Categorical`."""

    logits: Float[Leaf, "*batch n"]  # n = sum(nvec): the logits of each choice one after the other
    mask: Bool[Leaf, "*batch n"] | None = None
    nvec: tuple[int, ...] = static_field()

    def sample(self, key: Key[Array, ""], /) -> Int[Array, "*batch choices"]:
        return self.sample_from(jax.random.uniform(key, (*self.logits.shape[:-1], len(self.nvec)), self.logits.dtype))

    def sample_from(self, noise: Float[Array, "*batch choices"], /) -> Int[Array, "*batch choices"]:
        """Invert each choice's cumulative distribution at a uniform number."""
        return jnp.stack([part.sample_from(noise[..., i]) for i, part in enumerate(self._parts)], axis=-1)

    def mode(self) -> Int[Array, "*batch choices"]:
        return jnp.stack([part.mode() for part in self._parts], axis=-1)

    def log_prob(self, action: Int[Array, "*batch choices"], /) -> Float[Array, "*batch"]:
        return sum((part.log_prob(action[..., i]) for i, part in enumerate(self._parts)), self._zeros)

    def entropy(self, _key: Key[Array, ""] | None = None, /) -> Float[Array, "*batch"]:
        """Sum of the choices' entropies; exact, the key is not used."""
        return sum((part.entropy() for part in self._parts), self._zeros)

    @property
    def _zeros(self) -> Float[Array, "*batch"]:
        return jnp.zeros(self.logits.shape[:-1], self.logits.dtype)

    @property
    def _parts(self) -> list[Categorical]:
        ends = [sum(self.nvec[: i + 1]) for i in range(len(self.nvec))]
        spans = [slice(end - n, end) for n, end in zip(self.nvec, ends, strict=True)]
        masks = [None if self.mask is None else self.mask[..., span] for span in spans]
        return [Categorical(logits=self.logits[..., span], mask=mask) for span, mask in zip(spans, masks, strict=True)]


class DiagonalGaussian(Struct):
    """Independent normal numbers; an action is `[*batch, D]`. Clip it for the world, but store what was sampled.

    Dimensions where `mask` is False are not there: they have no density, a sample and the mode are 0 in them, whatever
    an action holds there changes nothing, and no gradient passes, even where mean or deviation is not finite.
    """

    mean: Float[Leaf, "*batch D"]
    log_std: Float[Leaf, "*batch D"]
    mask: Bool[Leaf, "*batch D"] | None = None  # True: there

    def sample(self, key: Key[Array, ""], /) -> Float[Array, "*batch D"]:
        return self.sample_from(jax.random.normal(key, self.mean.shape, self.mean.dtype))

    def sample_from(self, noise: Float[Array, "*batch D"], /) -> Float[Array, "*batch D"]:
        """Mean + σ · noise, for standard normal noise."""
        return where_there(self.mask, self.mean + jnp.exp(self._log_std) * noise)

    def mode(self) -> Float[Array, "*batch D"]:
        return where_there(self.mask, jnp.asarray(self.mean))

    def log_prob(self, action: Float[Array, "*batch D"], /) -> Float[Array, "*batch"]:
        """Σ −½ z² − log σ − ½ log 2π with z = (action − mean) / σ, over the dimensions that are there."""
        z = where_there(self.mask, action - self.mean) * jnp.exp(-self._log_std)
        return jnp.sum(-0.5 * jnp.square(z) - self._log_std - _HALF_LOG_TWO_PI, axis=-1, where=self.mask)

    def entropy(self, _key: Key[Array, ""] | None = None, /) -> Float[Array, "*batch"]:
        """Σ log σ + ½ log 2πe over the dimensions that are there; exact, the key is not used."""
        return jnp.sum(self._log_std + (0.5 + _HALF_LOG_TWO_PI), axis=-1, where=self.mask)

    @property
    def _log_std(self) -> Float[Array, "*batch D"]:
        return where_there(self.mask, self.log_std)


class TanhGaussian(Struct):
    """A diagonal Gaussian squashed by tanh into the box `low … high`; an action `[*batch, D]` is *before* squashing.

    Squashed actions near the bounds cannot be inverted in float32, so the raw ones are sampled, stored and asked for;
    `squash` turns them into what the world receives, and `log_prob` is the density of that. Bounds are one number for
    all dimensions or one per dimension. `mask` works as in `DiagonalGaussian`: what is not there is 0 before squashing.
    Source: Haarnoja et al. 2018, arXiv:1801.01290, appendix C.

    Raises:
        ValueError: bounds that are not finite, or not in order.
    """

    mean: Float[Leaf, "*batch D"]  # before squashing
    log_std: Float[Leaf, "*batch D"]
    mask: Bool[Leaf, "*batch D"] | None = None  # True: there
    low: float | tuple[float, ...] = static_field(default=-1.0)
    high: float | tuple[float, ...] = static_field(default=1.0)

    def __post_init__(self) -> None:
        low, high = np.asarray(self.low), np.asarray(self.high)
        if not (np.isfinite(low) & np.isfinite(high) & (low < high)).all():
            raise ValueError(f"TanhGaussian.low and .high must be finite with low < high, not {self.low}, {self.high}")

    def sample(self, key: Key[Array, ""], /) -> Float[Array, "*batch D"]:
        return self._gaussian.sample(key)

    def sample_from(self, noise: Float[Array, "*batch D"], /) -> Float[Array, "*batch D"]:
        """As for the Gaussian: the action is raw, not squashed."""
        return self._gaussian.sample_from(noise)

    def mode(self) -> Float[Array, "*batch D"]:
        """The mean before squashing: the median of the squashed action, not the peak of its density."""
        return self._gaussian.mode()

    def squash(self, raw: Float[Array, "*batch D"], /) -> Float[Array, "*batch D"]:
        """low + (high − low) (1 + tanh raw) / 2, never outside the bounds."""
        low, high = self._bounds
        return jnp.clip(low + (high - low) * (0.5 + 0.5 * jnp.tanh(raw)), low, high)

    def log_prob(self, action: Float[Array, "*batch D"], /) -> Float[Array, "*batch"]:
        """log N(raw) − Σ log |d squash(raw) / d raw|, for a raw action."""
        return self._gaussian.log_prob(action) - self._log_slope(action)

    def entropy(self, key: Key[Array, ""], /) -> Float[Array, "*batch"]:
        """Unbiased one-sample *estimate*: the Gaussian's entropy plus Σ log |d squash / d raw| at a fresh sample."""
        return self._gaussian.entropy() + self._log_slope(self.sample(key))

    def _log_slope(self, raw: Float[Array, "*batch D"]) -> Float[Array, "*batch"]:
        low, high = self._bounds
        slope = log_tanh_slope(where_there(self.mask, raw)) + jnp.log((high - low) / 2.0)
        return jnp.sum(slope, axis=-1, where=self.mask)

    @property
    def _bounds(self) -> tuple[Float[Array, "*batch D"], Float[Array, "*batch D"]]:
        low, high = (
            jnp.broadcast_to(jnp.asarray(bound, self.mean.dtype), self.mean.shape) for bound in (self.low, self.high)
        )
        return low, high

    @property
    def _gaussian(self) -> DiagonalGaussian:
        return DiagonalGaussian(mean=self.mean, log_std=self.log_std, mask=self.mask)


def where_there(mask: Bool[Array, "*shape"] | None, values: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the values, 0 where the mask is False; no gradient passes there."""
    return values if mask is None else jnp.where(mask, values, 0.0)


def log_tanh_slope(raw: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log(1 − tanh² x) = 2 (log 2 − x − softplus(−2x)), finite and exact where tanh has rounded to ±1."""
    return 2.0 * (_LOG_TWO - raw - jax.nn.softplus(-2.0 * raw))


def _choices(logits: Float[Array, "*batch n"]) -> Int[Array, "*batch n"]:
    return jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)


def _invert(logits: Float[Array, "*batch n"], uniform: Float[Array, "*batch"]) -> Int[Array, "*batch"]:
    """The first possible choice whose cumulative weight exceeds `uniform` ∈ [0, 1) times the total.

    A parallel cumulative sum may round differently from one position to the next, even where the weight is 0. So
    impossible choices are excluded by name, and the total is the largest sum of a *possible* choice: as u < 1 rounds
    `u · total` below it, one always exceeds.
    """
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    possible = weights > 0.0
    sums = jnp.where(possible, jnp.cumsum(weights, axis=-1), 0.0)
    threshold = jnp.expand_dims(uniform, -1) * jnp.max(sums, axis=-1, keepdims=True)
    last = logits.shape[-1] - 1
    return jnp.min(jnp.where(sums > threshold, _choices(logits), last), axis=-1)
