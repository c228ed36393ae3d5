"""Radio between base stations in the air and users on the ground: path loss in dB, then signal over interference.

Every function is element-wise or reduces over the UAV axis, so one call serves all pairs. Axes: `uavs`, `users`.

    free_space  Friis: 20 log10(4π d f / c)                                             (ITU-R P.525)
    urban       128.1 + 37.6 log10(d / 1 km): a macro cell at 2 GHz, antenna 15 m above the roofs (TR 36.942, §4.5.2)
    suburban    120 + 35 log10(d / 1 km): log-distance with exponent 3.5
    3gpp        urban macro with aerial ends (UMa-AV): LoS probability, path loss and shadowing of TR 36.777, annex B,
                tables B-1, B-2, B-3. There the UAV is the user; here it is the base station. Loss is reciprocal.

`d` is the distance in space, `f` the carrier. Urban and suburban laws have no frequency term.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf

ChannelModel = Literal["free_space", "urban", "suburban", "3gpp"]
AERIAL_ALTITUDES = (22.5, 300.0)  # m: where UMa-AV holds, lower end excluded
ALWAYS_LOS_ABOVE = 100.0  # m
NLOS_SHADOW_DB = 6.0
LIGHT_SPEED = 299_792_458.0  # m/s


class Fading(Struct):
    """What chance decides about each link, once per episode: quantiles, so that a link changes only as its ends move.

    A link is in line of sight where `los` < P(LoS); its shadowing is `shadow` times the standard deviation.
    """

    los: Float[Leaf, "*batch uavs users"]  # uniform in [0, 1)
    shadow: Float[Leaf, "*batch uavs users"]  # standard normal


def draw_fading(key: Key[Array, ""], num_uavs: int, num_users: int) -> Fading:
    """Draw every link's quantiles. The key is consumed."""
    los_key, shadow_key = jax.random.split(key)
    shape = (num_uavs, num_users)
    return Fading(los=jax.random.uniform(los_key, shape), shadow=jax.random.normal(shadow_key, shape))


def free_space_loss(distance: Float[Array, "*shape"], carrier_ghz: float) -> Float[Array, "*shape"]:
    """Return Friis' loss in dB over `distance` in metres."""
    return 20.0 * jnp.log10(distance) + 20.0 * math.log10(4e9 * math.pi * carrier_ghz / LIGHT_SPEED)


def los_probability(horizontal: Float[Array, "*shape"], altitude: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return P(LoS) of UMa-AV (TR 36.777, table B-1): with r = min(1, d1/d2D), r + (1 - r) exp(-d2D/p1).

    p1 = 4300 log10(h) - 3800 and d1 = max(460 log10(h) - 700, 18) up to h = 100 m; 1 above. Metres.
    """
    log_altitude = jnp.log10(altitude)
    p1 = 4300.0 * log_altitude - 3800.0
    d1 = jnp.maximum(460.0 * log_altitude - 700.0, 18.0)
    ratio = d1 / jnp.maximum(horizontal, d1)
    probability = ratio + (1.0 - ratio) * jnp.exp(-horizontal / p1)
    return jnp.where(altitude > ALWAYS_LOS_ABOVE, 1.0, probability)


def aerial_losses(
    distance: Float[Array, "*shape"], altitude: Float[Array, "*shape"], carrier_ghz: float
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Return UMa-AV's path loss in dB with and without line of sight (TR 36.777, table B-2).

    28 + 22 log10(d) + 20 log10(f), and -17.5 + (46 - 7 log10(h)) log10(d) + 20 log10(40π f / 3); metres and GHz.
    """
    log_distance = jnp.log10(distance)
    los = 28.0 + 22.0 * log_distance + 20.0 * math.log10(carrier_ghz)
    slope = 46.0 - 7.0 * jnp.log10(altitude)
    return los, slope * log_distance + (20.0 * math.log10(40.0 * math.pi * carrier_ghz / 3.0) - 17.5)


def los_shadow_db(altitude: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the standard deviation of shadowing in line of sight: 4.64 exp(-0.0066 h) dB (TR 36.777, table B-3)."""
    return 4.64 * jnp.exp(-0.0066 * altitude)


def path_loss(
    model: ChannelModel,
    positions: Float[Array, "uavs 3"],
    users: Float[Array, "users 2"],
    user_height: float,
    carrier_ghz: float,
    fading: Fading | None = None,
) -> Float[Array, "uavs users"]:
    """Return the loss in dB of every link; `positions`, `users` and `user_height` are in metres.

    Without `fading` the 3gpp loss is its mean over line of sight in dB, P·LoS + (1 - P)·NLoS, and shadowing is nil.
    """
    offset = positions[:, None, :2] - users[None]
    horizontal_squared = jnp.square(offset).sum(axis=-1)
    altitude = jnp.broadcast_to(positions[:, 2:], horizontal_squared.shape)
    distance = jnp.sqrt(horizontal_squared + jnp.square(altitude - user_height))
    if model == "free_space":
        return free_space_loss(distance, carrier_ghz)
    if model == "urban":
        return 128.1 + 37.6 * jnp.log10(distance / 1000.0)
    if model == "suburban":
        return 120.0 + 35.0 * jnp.log10(distance / 1000.0)
    probability = los_probability(jnp.sqrt(horizontal_squared), altitude)
    los, nlos = aerial_losses(distance, altitude, carrier_ghz)
    if fading is None:
        return probability * los + (1.0 - probability) * nlos
    shadowed = los + los_shadow_db(altitude) * fading.shadow
    return jnp.where(fading.los < probability, shadowed, nlos + NLOS_SHADOW_DB * fading.shadow)


def signal_to_interference(
    loss: Float[Array, "uavs users"], tx_power_dbm: float, noise_dbm: float
) -> Float[Array, "uavs users"]:
    """Return each link's SINR as a ratio, all UAVs sending at once in one band: S / (N + Σ of the other UAVs' S).

    The others are summed, not subtracted from the total: beside a strong signal the difference would be rounding.
    """
    signal = from_db(tx_power_dbm - noise_dbm - loss)  # over noise
    other = ~jnp.eye(loss.shape[0], dtype=bool)
    interference = jnp.where(other[:, :, None], signal[None], 0.0).sum(axis=1)
    return signal / (1.0 + interference)


def shannon_rate(bandwidth_mhz: float, ratio: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return Shannon's capacity B log2(1 + ratio) in Mbit/s."""
    return bandwidth_mhz / math.log(2.0) * jnp.log1p(ratio)


def to_db(ratio: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return 10 log10(ratio)."""
    return 10.0 * jnp.log10(ratio)


def from_db(decibels: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return 10^(decibels / 10)."""
    return jnp.exp(decibels * (math.log(10.0) / 10.0))
