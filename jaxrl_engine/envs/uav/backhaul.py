"""How traffic reaches the ground: routes over UAVs within range of one another to a ground station."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf
from jaxrl_engine.envs.uav.channel import free_space_loss, from_db, shannon_rate

CLOSEST = 1.0  # m: nearer than this a link gains nothing, so that two UAVs in one place have a finite capacity


class Routes(Struct):
    """Each UAV's way to the ground."""

    hops: Int[Leaf, "*batch uavs"]  # links from the UAV to a ground station, 0: there is no way
    rate: Float[Leaf, "*batch uavs"]  # Mbit/s end to end, 0 without a way


def link_rate(
    distance: Float[Array, "*shape"], carrier_ghz: float, bandwidth_mhz: float, power_over_noise_db: float
) -> Float[Array, "*shape"]:
    """Return the capacity in Mbit/s of a free-space link over `distance` metres, in a band without interference."""
    loss = free_space_loss(jnp.maximum(distance, CLOSEST), carrier_ghz)
    return shannon_rate(bandwidth_mhz, from_db(power_over_noise_db - loss))


def find_routes(
    air_rate: Float[Array, "uavs uavs"], ground_rate: Float[Array, "uavs stations"], max_hops: int
) -> Routes:
    """Return each UAV's route with the fewest hops, of those the one whose narrowest link is widest.

    `air_rate` and `ground_rate` are the capacities of the links in Mbit/s, 0 where there is none. A relay hears or
    sends, never both, so the hops of a route take turns: rate = narrowest link / hops.
    """
    width = ground_rate.max(axis=1)
    hops = (width > 0).astype(jnp.int32)

    def one_hop_more(hop: Int[Array, ""] | int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        hops, width = carry
        via = jnp.where((hops == hop - 1)[None], jnp.minimum(air_rate, width[None]), 0.0).max(axis=1)
        found = (hops == 0) & (via > 0)
        return jnp.where(found, hop, hops), jnp.where(found, via, width)

    most = min(max_hops, air_rate.shape[0])  # no route passes a UAV twice
    hops, width = jax.lax.fori_loop(2, most + 1, one_hop_more, (hops, width), unroll=max(1, min(most - 1, 8)))
    return Routes(hops=hops, rate=width / jnp.maximum(hops, 1).astype(jnp.float32))


def pairwise_distance(a: Float[Array, "n 3"], b: Float[Array, "m 3"]) -> Float[Array, "n m"]:
    """Return the distance from every point of `a` to every point of `b`."""
    return jnp.sqrt(jnp.square(a[:, None] - b[None]).sum(axis=-1))
