"""Where users stand at the reset, and how they walk."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

Placement = Literal["uniform", "clusters", "hotspot"]
NUM_CLUSTERS = 5
CLUSTER_SPREAD = 0.1  # standard deviation, of the area's side
HOTSPOT_SHARE = 0.7  # of the users
HOTSPOT_RADIUS = 1 / 3  # of the area's side
TURN = 0.3  # rad: standard deviation of a walker's change of heading per step


def place_users(key: Key[Array, ""], count: int, side: float, placement: Placement) -> Float[Array, "users 2"]:
    """Return where users stand, in metres, on a square of the given side. The key is consumed.

    `uniform` over the square; `clusters`: in turn around five centres uniform over the square, normal with standard
    deviation side/10, clipped to the square; `hotspot`: the first 70 % uniform over the disc of radius side/3 in the
    middle, the others uniform over the square.
    """
    if placement == "uniform":
        return side * jax.random.uniform(key, (count, 2))
    key, own_key = jax.random.split(key)
    if placement == "clusters":
        centres = jax.random.uniform(key, (NUM_CLUSTERS, 2))[jnp.arange(count) % NUM_CLUSTERS]
        return side * jnp.clip(centres + CLUSTER_SPREAD * jax.random.normal(own_key, (count, 2)), 0.0, 1.0)
    draw = jax.random.uniform(key, (count, 2))
    radius, bearing = HOTSPOT_RADIUS * jnp.sqrt(draw[:, :1]), 2 * jnp.pi * draw[:, 1:]
    near = 0.5 + radius * jnp.concatenate([jnp.cos(bearing), jnp.sin(bearing)], axis=1)
    inside = jnp.arange(count)[:, None] < round(HOTSPOT_SHARE * count)
    return side * jnp.where(inside, near, jax.random.uniform(own_key, (count, 2)))


def walk(
    key: Key[Array, ""],
    users: Float[Array, "users 2"],
    headings: Float[Array, "users"],
    side: float,
    step_length: float,
) -> tuple[Float[Array, "users 2"], Float[Array, "users"]]:
    """Turn every user by 0.3 rad · `normal(key, [users])` and move it by `step_length` metres. The key is consumed.

    The square's walls are mirrors: a user that would leave comes back by as much, and its heading with it.
    """
    headings = headings + TURN * jax.random.normal(key, headings.shape)
    users = users + step_length * jnp.stack([jnp.cos(headings), jnp.sin(headings)], axis=1)
    out = (users < 0.0) | (users > side)
    users = jnp.where(users < 0.0, -users, jnp.where(users > side, 2.0 * side - users, users))
    headings = jnp.where(out[:, 0], jnp.pi - headings, headings)
    return users, jnp.where(out[:, 1], -headings, headings)
