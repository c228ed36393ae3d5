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
    """3×3 convolutions that keep height and width, then fully connected layers (Young & Tian 2019, §3: MinAtar)."""

    channels: tuple[int, ...]
    hidden_sizes: tuple[int, ...]
    activation: str
    compute_dtype: str

    @nn.compact
    def __call__(self, observation: Float[Array, "samples height width channel"]) -> Float[Array, "samples H"]:
        activation = ACTIVATIONS[self.activation]
        x = observation
        for width in self.channels:
            x = activation(Conv(width, 2**0.5, compute_dtype=self.compute_dtype)(x))
        return MLP(self.hidden_sizes, self.activation, self.compute_dtype)(x)


def make_torso(config: NetworkConfig, observation_shape: tuple[int, ...], of_cells: bool = False) -> nn.Module:
    """Choose the torso for observations of this shape; `auto` takes the CNN for three axes.

    `of_cells` leaves out a CNN's fully connected layers: the features of its cells, one after the other.

    Raises:
        ValueError: a CNN was asked for observations that are not `[height, width, channels]`.
    """
    is_image = len(observation_shape) == 3
    if config.torso == "cnn" and not is_image:
        raise ValueError(f"network.torso must be mlp for observations of shape {observation_shape}, not 'cnn'")
    if is_image and config.torso != "mlp":
        hidden_sizes = () if of_cells else config.hidden_sizes
        return CNN(config.cnn_channels, hidden_sizes, config.activation, config.compute_dtype)
    return MLP(config.hidden_sizes, config.activation, config.compute_dtype)
