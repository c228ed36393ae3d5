"""What both UAV worlds share: the fleet's parameters, flight, walking users, radio service and what an agent sees."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxrl_engine.core.config import require
from jaxrl_engine.core.scene import Ink, Scene, distinct, make_scene
from jaxrl_engine.core.spaces import Box
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import EnvSpec, Leaf, TimeStep
from jaxrl_engine.envs.uav.association import associate
from jaxrl_engine.envs.uav.channel import (
    AERIAL_ALTITUDES,
    ChannelModel,
    Fading,
    draw_fading,
    path_loss,
    shannon_rate,
    signal_to_interference,
    to_db,
)  # fmt: skip
from jaxrl_engine.envs.uav.users import Placement, place_users, walk

USER_HEIGHT = 1.5  # m: the phone in a hand
BEST_SINR_DB = 30.0  # above the least allowed: a link this good has quality 1


class FleetState(Struct):
    """All that moves, and what an episode has added up."""

    positions: Float[Leaf, "*batch uavs 3"]  # m: east, north, up
    users: Float[Leaf, "*batch users 2"]  # m: east, north
    headings: Float[Leaf, "*batch users"] | None  # rad from east; None where users stand still
    fading: Fading | None  # None where links take their mean loss
    served_share: Float[Leaf, "*batch"]  # share of users served, summed over the steps since the reset
    invalid_actions: Float[Leaf, "*batch"]  # action components since the reset that were NaN or beyond [-1, 1]
    time: Int[Leaf, "*batch"]  # steps since the reset


class Service(Struct):
    """Who serves whom, and how well."""

    serving: Int[Leaf, "*batch users"]  # the user's UAV, -1: unserved
    quality: Float[Leaf, "*batch users"]  # 0 at the least SINR allowed (and unserved), 1 from 30 dB above
    load: Float[Leaf, "*batch uavs"]  # users served
    rate: Float[Leaf, "*batch uavs"]  # Mbit/s to all of the UAV's users together

    @property
    def coverage(self) -> jax.Array:  # [*batch] share of users served
        return (self.serving >= 0).mean(axis=-1, dtype=jnp.float32)


@dataclasses.dataclass(frozen=True)
class Fleet:
    """Parameters of both worlds, and the rules they share."""

    num_uavs: int = 5
    num_users: int = 50
    side: float = 1000.0  # m: the area is a square
    min_altitude: float = 50.0  # m
    max_altitude: float = 150.0  # m
    max_speed: float = 30.0  # m/s, in any direction of space
    step_seconds: float = 1.0
    episode_length: int = 200  # steps
    placement: Placement = "uniform"
    user_speed: float = 0.0  # m/s; 0: users stand still
    channel: ChannelModel = "free_space"
    fading: bool = False  # 3gpp only: draw line of sight and shadowing of every link once per episode
    carrier_ghz: float = 2.4
    bandwidth_mhz: float = 20.0  # shared equally by the users of a UAV
    tx_power_dbm: float = 20.0
    noise_dbm: float = -104.0  # over the bandwidth
    min_sinr_db: float = 0.0  # a user is not served below
    capacity: int = 10  # users one UAV can serve

    def __post_init__(self) -> None:
        for name in ("num_uavs", "num_users", "episode_length", "capacity"):
            value = getattr(self, name)
            require(value >= 1, name, "a whole number >= 1", value)
        for name in ("side", "step_seconds", "carrier_ghz", "bandwidth_mhz"):
            value = getattr(self, name)
            require(0 < value < math.inf, name, "a number > 0", value)
        require(self.min_altitude > USER_HEIGHT, "min_altitude", f"above {USER_HEIGHT} metres", self.min_altitude)
        higher = self.min_altitude < self.max_altitude < math.inf
        require(higher, "max_altitude", f"above min_altitude, {self.min_altitude:g} metres", self.max_altitude)
        for name in ("max_speed", "user_speed"):
            fastest, value = self.side / self.step_seconds, getattr(self, name)
            require(0 <= value <= fastest, name, f"from 0 to {fastest:g} m/s, one side per step", value)
        require(self.channel == "3gpp" or not self.fading, "fading", "false where channel is not 3gpp", self.fading)
        low, high = AERIAL_ALTITUDES
        aerial = low < self.min_altitude and self.max_altitude <= high
        altitudes = (self.min_altitude, self.max_altitude)
        require(
            aerial or self.channel != "3gpp", "(min_altitude, max_altitude)",
            f"above {low:g} and up to {high:g} metres where channel is 3gpp", altitudes,
        )  # fmt: skip

    def specify(self, name: str, observation: int, global_state: int, metric_names: tuple[str, ...]) -> EnvSpec:
        """Describe a world whose observation and global state have so many entries, all from -1 to 1."""
        return EnvSpec(
            name=name, num_agents=self.num_uavs, action=Box.uniform((3,), -1.0, 1.0),
            observation=Box.uniform((observation,), -1.0, 1.0), global_state=Box.uniform((global_state,), -1.0, 1.0),
            time_limit=self.episode_length, metric_names=metric_names,
        )  # fmt: skip

    def default_params(self) -> tuple[()]:
        """Return nothing: the world is fixed when it is made."""
        return ()

    # --- what happens ----------------------------------------------------------------------------------------------

    def begin(self, key: Key[Array, ""]) -> FleetState:
        """Draw UAVs uniform in the box they may fly in, users by `placement`, headings uniform. The key is consumed."""
        position_key, user_key, heading_key, fading_key = jax.random.split(key, 4)
        low, high = self._corners()
        draw = jax.random.uniform(position_key, (self.num_uavs, 3))
        headings = jax.random.uniform(heading_key, (self.num_users,), minval=-jnp.pi, maxval=jnp.pi)
        return FleetState(
            positions=jnp.clip(low + (high - low) * draw, low, high),
            users=place_users(user_key, self.num_users, self.side, self.placement),
            headings=headings if self.user_speed > 0 else None,
            fading=draw_fading(fading_key, self.num_uavs, self.num_users) if self.fading else None,
            served_share=jnp.zeros(()), invalid_actions=jnp.zeros(()), time=jnp.zeros((), jnp.int32),
        )  # fmt: skip

    def advance(self, key: Key[Array, ""], state: FleetState, action: Float[Array, "uavs 3"]) -> FleetState:
        """Fly and walk for one step; the sum of service is left to the world. The key is consumed where users walk."""
        speed, invalid = velocity_shares(action)
        low, high = self._corners()
        positions = jnp.clip(state.positions + self.max_speed * self.step_seconds * speed, low, high)
        users, headings = state.users, state.headings
        if headings is not None:
            users, headings = walk(key, users, headings, self.side, self.user_speed * self.step_seconds)
        return state.replace(
            positions=positions, users=users, headings=headings, time=state.time + 1,
            invalid_actions=state.invalid_actions + invalid,
        )  # fmt: skip

    def serve(self, state: FleetState, online: Bool[Array, "uavs"] | None = None) -> Service:
        """Associate users with UAVs by SINR; UAVs not `online` (None: all are) serve nobody, yet interfere."""
        loss = path_loss(self.channel, state.positions, state.users, USER_HEIGHT, self.carrier_ghz, state.fading)
        ratio = signal_to_interference(loss, self.tx_power_dbm, self.noise_dbm)
        candidate = ratio >= 10.0 ** (self.min_sinr_db / 10.0)
        if online is not None:
            candidate = candidate & online[:, None]
        serving = associate(ratio, candidate, self.capacity)
        link = serving[None] == jnp.arange(self.num_uavs)[:, None]
        load = link.sum(axis=1, dtype=jnp.float32)
        own = jnp.where(link, ratio, 0.0)
        rate = shannon_rate(self.bandwidth_mhz, own).sum(axis=1) / jnp.maximum(load, 1.0)
        served = serving >= 0
        decibels = to_db(jnp.where(served, own.max(axis=0), 1.0))  # finite where there is no link
        quality = jnp.clip((decibels - self.min_sinr_db) / BEST_SINR_DB, 0.0, 1.0)
        return Service(serving=serving, quality=jnp.where(served, quality, 0.0), load=load, rate=rate)

    # --- what is seen ----------------------------------------------------------------------------------------------

    def timestep(
        self, state: FleetState, observation: Float[Array, "uavs D"], global_state: Float[Array, "D_global"],
        reward: Float[Array, ""], metrics: dict[str, Float[Array, ""]],
    ) -> TimeStep:  # fmt: skip
        """Show a state: all UAVs earn alike, and only the time limit ends an episode."""
        return TimeStep(
            observation=observation, global_state=global_state, action_mask=None,
            reward=jnp.broadcast_to(reward, (self.num_uavs,)), terminated=jnp.zeros((), bool),
            truncated=state.time >= self.episode_length, metrics=metrics,
        )  # fmt: skip

    def draw(
        self, state: FleetState, service: Service, stations: Float[Array, "stations 3"] | None = None,
        backhaul: Bool[Array, "uavs sites"] | None = None,
    ) -> Scene:  # fmt: skip
        """Return the area from above: each UAV in an ink of its own, with a line to every user it serves.

        Sites are the UAVs, then the ground stations; `backhaul` says between which there is a link.
        """
        flat = state.positions[:, :2]
        sites = flat if stations is None else jnp.concatenate([flat, stations[:, :2]])
        served = service.serving >= 0
        user_lines = jnp.concatenate([state.users, flat[service.serving]], axis=1)
        user_inks = jnp.where(served, distinct(service.serving), Ink.NOTHING)
        links = jnp.zeros((self.num_uavs, 0), bool) if backhaul is None else backhaul
        uav, site = np.divmod(np.arange(links.size), max(links.shape[1], 1))
        lines = jnp.concatenate([user_lines, jnp.concatenate([flat[uav], sites[site]], axis=1)])
        thickness = self.side * jnp.append(jnp.full(self.num_users, 0.002), jnp.full(links.size, 0.005))
        grounds = len(sites) - self.num_uavs
        radii = np.repeat([0.008, 0.02, 0.025], [self.num_users, self.num_uavs, grounds])
        inks = [
            jnp.where(served, user_inks, Ink.JOINT),
            distinct(jnp.arange(self.num_uavs)),
            jnp.full(grounds, Ink.GOAL),
        ]
        discs = jnp.concatenate([state.users, sites])
        margin = 0.03 * self.side
        return make_scene(
            (-margin, -margin, self.side + margin, self.side + margin),
            lines=jnp.concatenate([lines, thickness[:, None]], axis=1),
            line_inks=jnp.append(user_inks, jnp.where(links.ravel(), Ink.WALL, Ink.NOTHING)),
            discs=jnp.concatenate([discs, self.side * jnp.asarray(radii)[:, None]], axis=1),
            disc_inks=jnp.concatenate(inks), agents=flat,
        )  # fmt: skip

    @property
    def observation_size(self) -> int:
        return 5 + 3 * (self.num_uavs - 1) + (5 if self.user_speed > 0 else 3) * self.num_users

    @property
    def global_size(self) -> int:
        return 1 + 4 * self.num_uavs + (5 if self.user_speed > 0 else 3) * self.num_users

    def observe(self, state: FleetState, service: Service) -> Float[Array, "uavs D"]:
        """Return what each UAV sees, as the worlds' docstrings list it."""
        own = jnp.arange(self.num_uavs)
        others = (own[:, None] + jnp.arange(1, self.num_uavs)[None]) % self.num_uavs
        low, high = self._corners()
        between = (state.positions[others] - state.positions[:, None]) / (high - low)[None]
        away = (state.users[None] - state.positions[:, None, :2]) / self.side
        mine = jnp.where(service.serving[None] == own[:, None], 1.0, -1.0)
        status = jnp.where(service.serving[None] < 0, 0.0, mine)
        time = jnp.broadcast_to(self._time(state), (self.num_uavs, 1))
        parts = [self._places(state), service.load[:, None] / self.capacity, time, between, away, status]
        if state.headings is not None:
            parts.append(jnp.broadcast_to(_directions(state.headings)[None], (self.num_uavs, 2 * self.num_users)))
        return jnp.concatenate([part.reshape(self.num_uavs, -1) for part in parts], axis=1)

    def show_all(self, state: FleetState, service: Service) -> Float[Array, "D"]:
        """Return what a critic sees, as the worlds' docstrings list it."""
        users = 2.0 * state.users / self.side - 1.0
        served = (service.serving >= 0).astype(jnp.float32)
        parts = [self._time(state), self._places(state), service.load / self.capacity, users, served]
        if state.headings is not None:
            parts.append(_directions(state.headings))
        return jnp.concatenate([part.reshape(-1) for part in parts])

    def _corners(self) -> tuple[Float[Array, "1 3"], Float[Array, "1 3"]]:
        """Lowest and highest corner of the box UAVs may fly in."""
        high = jnp.array([[self.side, self.side, self.max_altitude]], jnp.float32)
        return jnp.array([[0.0, 0.0, self.min_altitude]], jnp.float32), high

    def _places(self, state: FleetState) -> Float[Array, "uavs 3"]:
        low, high = self._corners()
        return 2.0 * (state.positions - low) / (high - low) - 1.0

    def _time(self, state: FleetState) -> Float[Array, "1"]:
        return (state.time.astype(jnp.float32) / self.episode_length).reshape(1)


def velocity_shares(action: Float[Array, "uavs 3"]) -> tuple[Float[Array, "uavs 3"], Float[Array, ""]]:
    """Return velocities over the top speed, and how many components were no legal action.

    NaN counts as 0, everything is clipped to [-1, 1], and a vector longer than 1 is shortened to 1: the speed limit
    holds in every direction of space.
    """
    legal = jnp.abs(action) <= 1.0  # false for NaN
    clipped = jnp.clip(jnp.where(jnp.isnan(action), 0.0, action), -1.0, 1.0)
    length = jnp.sqrt(jnp.square(clipped).sum(axis=1, keepdims=True))
    return clipped / jnp.maximum(length, 1.0), (~legal).sum(dtype=jnp.float32)


def _directions(headings: Float[Array, "users"]) -> Float[Array, "coordinates"]:
    return jnp.stack([jnp.cos(headings), jnp.sin(headings)], axis=1).reshape(-1)
