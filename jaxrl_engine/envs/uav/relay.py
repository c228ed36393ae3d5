"""`uav_relay`: flying base stations that serve users only while they hold a way to the ground, over one another."""

import dataclasses
import functools
import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxrl_engine.core.config import require
from jaxrl_engine.core.scene import Scene
from jaxrl_engine.core.types import EnvSpec, TimeStep
from jaxrl_engine.envs.uav.backhaul import Routes, find_routes, link_rate, pairwise_distance
from jaxrl_engine.envs.uav.fleet import Fleet, FleetState, Service

METRICS = (
    "coverage", "mean_coverage", "quality", "connectivity", "mean_hops", "throughput", "invalid_actions",
)  # fmt: skip
WEIGHTS = ("coverage_weight", "quality_weight", "connectivity_weight", "throughput_weight", "hop_weight")
STATION_HEIGHT = 25.0  # m


@dataclasses.dataclass(frozen=True)
class UavRelay(Fleet):
    """As `uav_coverage`, but a UAV serves users only while a route of radio links ties it to a ground station.

    State, action, users, radio: as `uav_coverage`.
    Backhaul: `num_stations` ground stations, 25 m high, stand evenly along the southern wall. UAVs within `link_range`
    of one another or of a station are linked, by free-space links of `backhaul_mhz` in a band of their own without
    interference (the noise density is that of the users' band). A UAV's route has the fewest hops possible, at most
    `max_hops`, and of those the widest narrowest link; relays hear and send in turns, so its rate is that link's
    capacity over the number of hops. A UAV without a route serves nobody, yet interferes. The range is short against
    the square: one hop reaches a third of it, the far wall needs three.
    Observation: that of `uav_coverage`, then 1 for a route (own, then the others in order of index after one's own),
    hops over `max_hops` likewise, and each station's place less one's own: east, north over `side`, height over
    `max_altitude`. Global state: that of `uav_coverage`, then routes and hops of all UAVs. All from -1 to 1.
    Reward: coverage_weight · share of users served + quality_weight · mean over all users of the link's quality (0
    unserved) + connectivity_weight · share of UAVs with a route + throughput_weight · min(1, throughput over
    `rate_goal` for every user) - hop_weight · mean over all UAVs of hops / max_hops (0 without a route).
    Throughput: each UAV carries the lesser of what its users take (Shannon, bandwidth shared equally) and its route's
    rate; the sum, in Mbit/s.
    Termination: never. Truncation: after `episode_length` steps.
    Randomisation: as `uav_coverage`; stations are fixed.
    Metrics: coverage, quality, connectivity, mean_hops (over UAVs with a route) and throughput at this step,
    mean_coverage and invalid_actions since the reset.
    """

    num_stations: int = 1
    link_range: float = 350.0  # m
    max_hops: int = 4
    backhaul_mhz: float = 5.0
    rate_goal: float = 2.0  # Mbit/s for every user
    coverage_weight: float = 0.4
    quality_weight: float = 0.2
    connectivity_weight: float = 0.2
    throughput_weight: float = 0.2
    hop_weight: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_stations", "max_hops"):
            require(getattr(self, name) >= 1, name, "a whole number >= 1", getattr(self, name))
        for name in ("link_range", "backhaul_mhz", "rate_goal"):
            require(getattr(self, name) > 0, name, "a number > 0", getattr(self, name))
        for name in WEIGHTS:
            require(getattr(self, name) >= 0, name, "a number >= 0", getattr(self, name))

    @functools.cached_property
    def spec(self) -> EnvSpec:
        observation = self.observation_size + 2 * self.num_uavs + 3 * self.num_stations
        return self.specify("uav_relay", observation, self.global_size + 2 * self.num_uavs, METRICS)

    def reset(self, key: Key[Array, ""], params: tuple[()]) -> tuple[FleetState, TimeStep]:
        """Start an episode. The key is consumed."""
        state = self.begin(key)
        routes = self.routes(state)
        service = self.serve(state, routes.hops > 0)
        zero = jnp.zeros(())
        return state, self._show(state, service, routes, zero, {name: zero for name in METRICS})

    def step(
        self, key: Key[Array, ""], state: FleetState, action: Float[Array, "uavs 3"], params: tuple[()]
    ) -> tuple[FleetState, TimeStep]:
        """Fly for one step, then route and serve. The key is consumed where users walk, else unused."""
        state = self.advance(key, state, action)
        routes = self.routes(state)
        online = routes.hops > 0
        service = self.serve(state, online)
        state = state.replace(served_share=state.served_share + service.coverage)
        hops = routes.hops.astype(jnp.float32)
        metrics = {
            "coverage": service.coverage,
            "mean_coverage": state.served_share / state.time.astype(jnp.float32),
            "quality": service.quality.mean(),
            "connectivity": online.mean(dtype=jnp.float32),
            "mean_hops": hops.sum() / jnp.maximum(online.sum(), 1).astype(jnp.float32),
            "throughput": jnp.minimum(service.rate, routes.rate).sum(),
            "invalid_actions": state.invalid_actions,
        }
        return state, self._show(state, service, routes, self._reward(metrics, hops), metrics)

    def scene(self, state: FleetState, params: tuple[()]) -> Scene:
        """Return the area from above, with every link of the backhaul that is in range."""
        stations = self.stations()
        sites = jnp.concatenate([state.positions, stations])
        linked = (pairwise_distance(state.positions, sites) <= self.link_range) & ~jnp.eye(
            self.num_uavs, len(sites), dtype=bool
        )
        return self.draw(state, self.serve(state, self.routes(state).hops > 0), stations, linked)

    def routes(self, state: FleetState) -> Routes:
        """Return every UAV's way to the ground."""
        stations = self.stations()
        air = pairwise_distance(state.positions, state.positions)
        apart = ~jnp.eye(self.num_uavs, dtype=bool)
        air_rate = jnp.where(apart, self._link_rate(air), 0.0)
        return find_routes(air_rate, self._link_rate(pairwise_distance(state.positions, stations)), self.max_hops)

    def stations(self) -> Float[Array, "stations 3"]:
        """Return where the ground stations stand, in metres."""
        east = self.side * (jnp.arange(self.num_stations) + 1.0) / (self.num_stations + 1)
        return jnp.stack([east, jnp.zeros_like(east), jnp.full_like(east, STATION_HEIGHT)], axis=1)

    def _link_rate(self, distance: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Capacity in Mbit/s, 0 out of range."""
        noise = self.noise_dbm + 10.0 * math.log10(self.backhaul_mhz / self.bandwidth_mhz)
        rate = link_rate(distance, self.carrier_ghz, self.backhaul_mhz, self.tx_power_dbm - noise)
        return jnp.where(distance <= self.link_range, rate, 0.0)

    def _reward(self, metrics: dict[str, Float[Array, ""]], hops: Float[Array, "uavs"]) -> Float[Array, ""]:
        goal = self.rate_goal * self.num_users
        return (
            self.coverage_weight * metrics["coverage"]
            + self.quality_weight * metrics["quality"]
            + self.connectivity_weight * metrics["connectivity"]
            + self.throughput_weight * jnp.minimum(metrics["throughput"] / goal, 1.0)
            - self.hop_weight * hops.mean() / self.max_hops
        )

    def _show(
        self, state: FleetState, service: Service, routes: Routes, reward: Float[Array, ""],
        metrics: dict[str, Float[Array, ""]],
    ) -> TimeStep:  # fmt: skip
        online, hops = (routes.hops > 0).astype(jnp.float32), routes.hops.astype(jnp.float32) / self.max_hops
        order = (jnp.arange(self.num_uavs)[:, None] + jnp.arange(self.num_uavs)[None]) % self.num_uavs
        scale = jnp.array([[[self.side, self.side, max(self.max_altitude, STATION_HEIGHT)]]], jnp.float32)
        away = (self.stations()[None] - state.positions[:, None]) / scale
        seen = [self.observe(state, service), online[order], hops[order], away.reshape(self.num_uavs, -1)]
        known = [self.show_all(state, service), online, hops]
        return self.timestep(state, jnp.concatenate(seen, axis=1), jnp.concatenate(known), reward, metrics)
