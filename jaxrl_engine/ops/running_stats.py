"""Mean and deviation of everything seen so far, per feature, in float32 and mergeable in any order.

Statistics are merged by the parallel formula of Chan, Golub and LeVeque 1979 ("Updating formulae and a pairwise
algorithm for computing sample variances", STAN-CS-79-773), written with weights instead of counts so that nothing
grows with the run. The mean is kept as an offset near the data plus a small shift: near 1e4 a float32 resolves only
1e-3, and single corrections of a mean stored there would round away.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf

MAX_COUNT = 2.0**24
"""Samples remembered. Up to here float32 counts exactly; from here on the oldest samples fade, so that new ones always
count: the statistics become a moving average over about this many samples."""

MIN_DEVIATION = 1e-6
"""A feature that deviates less than this, absolutely or relative to its mean (some eight roundings), is constant."""

MIN_VALUE_DEVIATION = 0.1
"""Values are never divided by less: while hardly any reward has been seen, targets deviate by the critic's own noise,
and standardised by that the first reward would be enormous. Source: ValueNorm, in the code of Yu et al. 2022
(arXiv:2103.01955), holds the variance above 0.01."""


class RunningStatistics(Struct):
    """Statistics per feature; all arrays have the shape of one sample, `*batch` included when runs are stacked."""

    count: Float[Leaf, "*shape"]  # samples seen, at most `MAX_COUNT`; per feature, as masked ones are not counted
    offset: Float[Leaf, "*shape"]  # near the data; the mean is offset + shift
    shift: Float[Leaf, "*shape"]
    variance: Float[Leaf, "*shape"]  # population variance

    @property
    def mean(self) -> Float[Array, "*shape"]:
        return jnp.asarray(self.offset + self.shift)


def init(shape: tuple[int, ...]) -> RunningStatistics:
    """Statistics of nothing: `normalize` leaves features as they are (clipped) until they have been seen."""
    # Four arrays, not one four times: a buffer can be donated only once.
    count, offset, shift, variance = (jnp.zeros(shape, jnp.float32) for _ in range(4))
    return RunningStatistics(count=count, offset=offset, shift=shift, variance=variance)


def update(
    statistics: RunningStatistics,
    batch: Shaped[Array, "..."],
    weights: Shaped[Array, "..."] | None = None,
) -> RunningStatistics:
    """Add a batch `[*samples, *shape]`, every axis before the features being samples.

    `weights` of the batch's shape say how much each number counts: a mask of booleans, or numbers >= 0.
    """
    return merge(statistics, summarize(batch, statistics.count.ndim, weights))


def summarize(
    batch: Shaped[Array, "..."], feature_ndim: int, weights: Shaped[Array, "..."] | None = None
) -> RunningStatistics:
    """Statistics of one batch `[*samples, *shape]` whose last `feature_ndim` axes are features. Two passes, exact."""
    batch = batch.astype(jnp.float32)
    axes = tuple(range(batch.ndim - feature_ndim))
    weight = jnp.ones_like(batch) if weights is None else weights.astype(jnp.float32)
    count = jnp.sum(weight, axis=axes)

    def average(values: Array) -> Array:
        return jnp.sum(weight * values, axis=axes) / jnp.maximum(count, 1e-30)

    def centre(values: Array, around: Array) -> Array:
        # A masked number may be anything, even NaN, and 0 · NaN is NaN: it is replaced, not only weighed with 0.
        return jnp.where(weight > 0.0, values - jnp.expand_dims(around, axes), 0.0)

    offset = average(centre(batch, jnp.zeros_like(count)))
    centred = centre(batch, offset)
    shift = average(centred)
    variance = average(jnp.square(centre(centred, shift)))
    return RunningStatistics(count=jnp.minimum(count, MAX_COUNT), offset=offset, shift=shift, variance=variance)


def merge(a: RunningStatistics, b: RunningStatistics) -> RunningStatistics:
    """Statistics of both together. Associative and commutative up to rounding, as long as `MAX_COUNT` is not reached.

    With b the one of fewer samples:  w = n_b / (n_a + n_b) ≤ ½,  δ = mean_b − mean_a,  mean = mean_a + w δ,
    variance = variance_a + w (variance_b − variance_a) + w (1 − w) δ²
    """
    a_leads = a.count >= b.count
    lead, other = (
        jax.tree.map(lambda x, y, first=first: jnp.where(first, x, y), a, b) for first in (a_leads, ~a_leads)
    )
    count = a.count + b.count
    weight = other.count / jnp.maximum(count, 1e-30)
    # The offsets are subtracted first: where they are close, their difference is exact.
    delta = (other.offset - lead.offset) + (other.shift - lead.shift)
    spread = weight * (1.0 - weight) * jnp.square(delta)
    return RunningStatistics(
        count=jnp.minimum(count, MAX_COUNT),
        offset=lead.offset,
        shift=lead.shift + weight * delta,
        variance=lead.variance + weight * (other.variance - lead.variance) + spread,
    )


def deviation(statistics: RunningStatistics) -> Float[Array, "*shape"]:
    """Population standard deviation, or 1 for a feature that has not varied (see `MIN_DEVIATION`)."""
    floor = MIN_DEVIATION * jnp.maximum(jnp.abs(statistics.mean), 1.0)
    varied = statistics.variance > jnp.square(floor)
    # Replaced before the root as well as after: the root's slope at 0 is infinite, and 0 · inf = NaN.
    return jnp.where(varied, jnp.sqrt(jnp.where(varied, statistics.variance, 1.0)), 1.0)


def normalize(statistics: RunningStatistics, x: Float[Array, "..."], clip: float = 10.0) -> Float[Array, "..."]:
    """(x − mean) / deviation, held within ±`clip`, for `x` `[*samples, *shape]`. A constant feature becomes 0."""
    axes = tuple(range(x.ndim - statistics.count.ndim))
    offset, shift, scale = (
        jnp.expand_dims(jnp.asarray(array), axes)
        for array in (statistics.offset, statistics.shift, 1.0 / deviation(statistics))
    )
    return jnp.clip((x - offset - shift) * scale, -clip, clip)


def normalize_values(statistics: RunningStatistics, value: Float[Array, "..."]) -> Float[Array, "..."]:
    """(V − mean) / max(deviation, `MIN_VALUE_DEVIATION`), for values `[*samples, *shape]`: what a critic predicts.

    Inverse of `denormalize_values`, so nothing is clipped. Source: Yu et al. 2022, arXiv:2103.01955, §5.1.
    """
    mean, scale = _value_units(statistics, value)
    return (value - mean) / scale


def denormalize_values(statistics: RunningStatistics, value: Float[Array, "..."]) -> Float[Array, "..."]:
    """V · max(deviation, `MIN_VALUE_DEVIATION`) + mean: a critic's prediction in the units of the rewards."""
    mean, scale = _value_units(statistics, value)
    return value * scale + mean


def _value_units(statistics: RunningStatistics, value: Float[Array, "..."]) -> tuple[Array, Array]:
    axes = tuple(range(value.ndim - statistics.count.ndim))
    scale = jnp.maximum(jnp.sqrt(statistics.variance), MIN_VALUE_DEVIATION)
    return jnp.expand_dims(statistics.mean, axes), jnp.expand_dims(scale, axes)
