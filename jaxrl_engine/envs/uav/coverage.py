"""`uav_coverage`: base stations that fly to where the users are."""

import dataclasses
import functools

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxrl_engine.core.config import require
from jaxrl_engine.core.scene import Scene
from jaxrl_engine.core.types import EnvSpec, TimeStep
from jaxrl_engine.envs.uav.fleet import Fleet, FleetState, Service

METRICS = ("coverage", "mean_coverage", "quality", "throughput", "invalid_actions")


@dataclasses.dataclass(frozen=True)
class UavCoverage(Fleet):
    """UAVs carry base stations over a square and serve the users on the ground; every UAV is an agent, all earn alike.

    State: UAV positions (m), user positions (m; headings where `user_speed` > 0), where `fading` the quantiles of
    every link's line of sight and shadowing, time.
    Action: per UAV a velocity over `max_speed`, [-1, 1]³ (east, north, up); a vector longer than 1 is shortened to 1,
    NaN is 0, and what was NaN or beyond ±1 is counted. Positions stop at the walls of the box `side`² ×
    [`min_altitude`, `max_altitude`].
    Users: placed at the reset; at `user_speed` > 0 they walk with headings that turn by 0.3 rad per step (normal) and
    are mirrored at the walls.
    Radio: `channel` is free_space (Friis), urban (128.1 + 37.6 log10 d/km), suburban (120 + 35 log10 d/km) or 3gpp
    (TR 36.777, UMa-AV, with line-of-sight probability: mean loss, or drawn where `fading`); users are 1.5 m high. All
    UAVs send at once in one band, so every other UAV interferes. Links of at least `min_sinr_db` are candidates; the
    strongest SINR is granted first, to at most `capacity` users per UAV and one UAV per user (`association.py`).
    Observation, all numbers from -1 to 1: own position over the box (3), load over capacity, time over episode; the
    other UAVs' places less one's own over the box, in order of index after one's own (3 each); all users' likewise
    over the square (2 each); whom each user is served by (1: me, 0: nobody, -1: another); where users walk their
    headings (cosine, sine). Quantiles of links are never seen.
    Global state, likewise: time over episode, UAV positions (3 each), loads, user positions (2 each), 1 for every user
    that is served, headings.
    Reward: coverage_weight · share of users served + quality_weight · mean over all users of the link's quality
    - height_weight · mean altitude over the box. A link's quality goes from 0 at the least SINR to 1 at 30 dB above,
    and is 0 unserved: serving one more never lowers the reward.
    Termination: never. Truncation: after `episode_length` steps.
    Randomisation: UAVs uniform in the box, users by `placement`, links' quantiles.
    Metrics: coverage and quality at this step, mean_coverage since the reset, throughput in Mbit/s (Shannon, a UAV's
    bandwidth shared equally by its users), invalid_actions since the reset.
    """

    coverage_weight: float = 0.7
    quality_weight: float = 0.3
    height_weight: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("coverage_weight", "quality_weight", "height_weight"):
            require(getattr(self, name) >= 0, name, "a number >= 0", getattr(self, name))

    @functools.cached_property
    def spec(self) -> EnvSpec:
        return self.specify("uav_coverage", self.observation_size, self.global_size, METRICS)

    def reset(self, key: Key[Array, ""], params: tuple[()]) -> tuple[FleetState, TimeStep]:
        """Start an episode. The key is consumed."""
        state = self.begin(key)
        zero = jnp.zeros(())
        return state, self._show(state, self.serve(state), zero, {name: zero for name in METRICS})

    def step(
        self, key: Key[Array, ""], state: FleetState, action: Float[Array, "uavs 3"], params: tuple[()]
    ) -> tuple[FleetState, TimeStep]:
        """Fly for one step, then serve from where the UAVs are. The key is consumed where users walk, else unused."""
        state = self.advance(key, state, action)
        service = self.serve(state)
        coverage, quality = service.coverage, service.quality.mean()
        state = state.replace(served_share=state.served_share + coverage)
        height = (state.positions[:, 2].mean() - self.min_altitude) / (self.max_altitude - self.min_altitude)
        reward = self.coverage_weight * coverage + self.quality_weight * quality - self.height_weight * height
        metrics = {
            "coverage": coverage,
            "mean_coverage": state.served_share / state.time.astype(jnp.float32),
            "quality": quality,
            "throughput": service.rate.sum(),
            "invalid_actions": state.invalid_actions,
        }
        return state, self._show(state, service, reward, metrics)

    def scene(self, state: FleetState, params: tuple[()]) -> Scene:
        """Return the area from above."""
        return self.draw(state, self.serve(state))

    def _show(
        self, state: FleetState, service: Service, reward: Float[Array, ""], metrics: dict[str, Float[Array, ""]]
    ) -> TimeStep:
        return self.timestep(state, self.observe(state, service), self.show_all(state, service), reward, metrics)
