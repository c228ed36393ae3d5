"""Networks from one agent's observation to features: fully connected, or convolutional for small images."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl_engine.core.config import NetworkConfig
from jaxrl_engine.nets.convolution import Conv
from jaxrl_engine.nets.dense import Dense

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "elu": jax.nn.elu,
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
}


class MLP(nn.Module):
    """Fully connected layers with one activation after each."""

    hidden_sizes: tuple[int, ...]
    activation: str
    compute_dtype: str

    @nn.compact
    def __call__(self, observation: Float[Array, "samples *shape"]) -> Float[Array, "samples H"]:
        x = observation.reshape(observation.shape[0], -1)
        for width in self.hidden_sizes:
            x = ACTIVATIONS[self.activation](Dense(width, 2**0.5, self.compute_dtype)(x))
        return x


class CNN(nn.Module):
    """Convolutions, then fully connected layers (Mnih et al. 2015, Methods; Young & Tian 2019, §3: MinAtar).

    With `of_cells` no layers follow: the features are those of the cells, one after the other, each with its own part
    of the observation beside what the convolutions make of its surroundings. Several kinds pass through the same
    convolutions one by one; a cell has features of each kind, and the layers that follow see their mean.
    """

    layers: tuple[tuple[int, int, int], ...]  # channels, side of the kernel, stride
    hidden_sizes: tuple[int, ...]
    activation: str
    compute_dtype: str
    kinds: int = 1
    of_cells: bool = False

    @nn.compact
    def __call__(self, observation: Float[Array, "samples height width channel"]) -> Float[Array, "samples H"]:
        activation = ACTIVATIONS[self.activation]
        seen = by_kind(observation, self.kinds) if self.kinds > 1 else observation
        x = seen
        for channels, size, stride in self.layers:
            x = activation(Conv(channels, 2**0.5, size, stride, self.compute_dtype)(x))
        if self.of_cells:
            cells = jnp.concatenate([seen.astype(x.dtype), x], axis=-1)
            per_kind = cells.reshape(-1, self.kinds, x.shape[1] * x.shape[2], cells.shape[-1])
            return jnp.swapaxes(per_kind, 1, 2).reshape(per_kind.shape[0], -1)
        if self.kinds > 1:
            x = x.reshape(-1, self.kinds, *x.shape[1:]).mean(axis=1)
        return MLP(self.hidden_sizes, self.activation, self.compute_dtype)(x)


def by_kind(
    observation: Float[Array, "samples height width channel"], kinds: int
) -> Float[Array, "images height width planes"]:
    """Return an image `[samples · kinds]` per kind: its own channels, then the same channels summed over all kinds.

    A function of these that is one for all kinds commutes with exchanging them. Source: Zaheer et al. 2017,
    arXiv:1703.06114, §3.
    """
    samples, height, width, channels = observation.shape
    own = jnp.moveaxis(observation.reshape(samples, height, width, channels // kinds, kinds), -1, 1)
    together = jnp.broadcast_to(own.sum(axis=1, keepdims=True), own.shape)
    return jnp.concatenate([own, together], axis=-1).reshape(samples * kinds, height, width, -1)


def make_torso(config: NetworkConfig, observation_shape: tuple[int, ...], of_cells: bool = False) -> nn.Module:
    """Choose the torso for observations of this shape; `auto` takes the CNN for three axes.

    `of_cells` asks a CNN for the features of its cells.

    Raises:
        ValueError: a CNN was asked for observations that are not `[height, width, channels]`, or for kinds that do not
            divide their channels.
    """
    is_image = len(observation_shape) == 3
    if config.torso == "cnn" and not is_image:
        raise ValueError(f"network.torso must be mlp for observations of shape {observation_shape}, not 'cnn'")
    if is_image and config.torso != "mlp":
        kinds, channels = config.cnn_kinds, observation_shape[-1]
        if channels % kinds:
            raise ValueError(f"network.cnn_kinds must divide the image's {channels} channels, not {kinds}")
        count = len(config.cnn_channels)
        each = (values * count if len(values) == 1 else values for values in (config.cnn_sizes, config.cnn_strides))
        layers = tuple(zip(config.cnn_channels, *each, strict=True))
        return CNN(layers, config.hidden_sizes, config.activation, config.compute_dtype, kinds, of_cells)
    return MLP(config.hidden_sizes, config.activation, config.compute_dtype)
