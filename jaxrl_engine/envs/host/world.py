"""A simulator as a `HostVectorEnv`: legal actions only, one global state, copies of everything."""

import contextlib
import functools
import logging
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from jaxrl_engine.core.checks import require
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.core.types import EnvSpec
from jaxrl_engine.envs.host.pictures import told
from jaxrl_engine.envs.host.protocol import HostStep, HostWorldError
from jaxrl_engine.envs.host.simulator import Arrays, Simulator
from jaxrl_engine.envs.team import INVALID, action_bounds, identified_space, joined_space

LAST_SEED = 2**31 - 1

log = logging.getLogger(__name__)


class HostWorld:
    """The `HostVectorEnv` of a simulator.

    The metric `invalid_actions` counts, over the episode, the actions that had to be changed: NaN becomes 0, what is
    out of range the nearest in it, a fraction of a choice the choice below.
    """

    def __init__(self, env_id: str, simulator: Simulator) -> None:
        facts = simulator.facts
        seen = facts.observation
        self.simulator = simulator
        self.num_envs = simulator.num_envs
        self.spec = EnvSpec(
            name=env_id, num_agents=facts.num_agents, action=facts.action, time_limit=facts.time_limit,
            observation=identified_space(seen, facts.num_agents) if facts.agent_ids else seen,
            global_state=joined_space(seen, facts.num_agents),
            metric_names=(INVALID, *facts.metric_names), masks_actions=bool(facts.choices), remark=facts.remark,
        )  # fmt: skip
        self._low, self._high = action_bounds(facts.action)
        if facts.choices:
            self._low, self._high = np.zeros(facts.num_agents, np.int32), np.asarray(facts.choices, np.int32) - 1
        self._invalid = np.zeros(self.num_envs, np.float32)  # [b] since the episode began
        self._state = "new"
        self._draws = True

    def reset(self, seed: int) -> HostStep:
        """Start every environment, the `i`-th seeded with `seed + i`. Runs that shall differ are `num_envs` apart.

        Raises:
            ValueError: the seed is negative or too large.
            HostWorldError: the world failed.
        """
        require(0 <= seed <= LAST_SEED - self.num_envs, "seed", f"from 0 to {LAST_SEED - self.num_envs}", seed)
        with self._named():
            shown = self.simulator.reset(seed)
        self._state = "running"
        self._invalid[:] = 0.0
        none, agents = np.zeros(self.num_envs, bool), self.spec.num_agents
        shown = {
            "observation": shown["observation"], "reward": np.zeros((self.num_envs, agents), np.float32),
            "terminated": none, "truncated": none, "final": shown["observation"][:0],
            "metrics": np.zeros((self.num_envs, len(self.spec.metric_names) - 1), np.float32),
        }  # fmt: skip
        return self._shown(shown)

    def step(self, actions: Shaped[np.ndarray, "b A ..."]) -> HostStep:
        """Advance every environment by its row of `actions [b, A, *action.shape]`.

        Raises:
            ValueError: the actions' shape is wrong, or nothing was reset.
            HostWorldError: the world failed.
        """
        require(self._state != "new", "step", "called after reset", "before")
        shape = (self.num_envs, self.spec.num_agents, *self.spec.action.shape)
        require(actions.shape == shape, "actions' shape", str(shape), actions.shape)
        actions, changed = legal(actions, self._low, self._high)
        self._invalid += changed.sum(axis=1)
        with self._named():
            shown = self.simulator.step(actions)
        step = self._shown(shown)
        self._invalid[step.done] = 0.0
        return step

    def pictures(self, count: int) -> UInt8[np.ndarray, "n height width 3"] | None:
        """Return RGB pictures of the first `min(count, num_envs)` environments, at most 160 pixels high.

        None before the first reset, and for ever once the world has none or raised; why is told once.

        Raises:
            ValueError: none are asked for.
            HostWorldError: a worker process died or hung; after it the world is only to be closed.
        """
        require(count >= 1, "count", "a whole number >= 1", count)
        if not self._draws or self._state != "running":
            return None
        try:
            return self.simulator.pictures(min(count, self.num_envs))
        except HostWorldError:
            self._state = "failed"
            raise
        except Exception as error:
            self._draws = False
            _tell_once(f"{self.spec.name}: no pictures of it: {told(error)}")
            return None

    def close(self) -> None:
        """End what runs; a second call does nothing."""
        if self._state != "closed":
            self._state = "closed"
            self.simulator.close()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Let every failure of the world be one kind of error; after it the world is only to be closed."""
        if self._state in ("closed", "failed"):
            raise HostWorldError(f"{self.spec.name} is {self._state}: make a new one")
        try:
            yield
        except BaseException as error:
            self._state = "failed"
            if isinstance(error, HostWorldError | UserError) or not isinstance(error, Exception):
                raise
            raise HostWorldError(f"{self.spec.name} failed: {type(error).__name__}: {error}") from error

    def _shown(self, shown: Arrays) -> HostStep:
        views = shown["observation"]
        final = views.copy()
        final[shown["terminated"] | shown["truncated"]] = shown["final"]
        columns = [self._invalid, *shown["metrics"].T]
        metrics = dict(zip(self.spec.metric_names, columns, strict=True))
        return HostStep(
            observation=self._identified(views), global_state=joined(views), action_mask=self._mask(),
            reward=np.array(shown["reward"], np.float32), terminated=np.array(shown["terminated"]),
            truncated=np.array(shown["truncated"]), final_observation=self._identified(final),
            metrics={name: np.array(column, np.float32) for name, column in metrics.items()},
            final_global_state=joined(final),
        )  # fmt: skip

    def _identified(self, views: Shaped[np.ndarray, "b A ..."]) -> Shaped[np.ndarray, "b A ..."]:
        """Return a copy of the views, with the agents' indices where the world wants them."""
        return identified(views) if self.simulator.facts.agent_ids else views.copy()

    def _mask(self) -> Bool[np.ndarray, "b A n"] | None:
        """Return which choices each agent has at all."""
        if not self.spec.masks_actions:
            return None
        own = np.arange(self._high.max() + 1) <= self._high[:, None]
        return np.repeat(own[None], self.num_envs, axis=0)


@functools.cache
def _tell_once(text: str) -> None:
    """Say it once, however many actors have such a world."""
    log.warning(text)


def legal(
    actions: Shaped[np.ndarray, "b A ..."], low: Shaped[np.ndarray, "..."], high: Shaped[np.ndarray, "..."]
) -> tuple[Shaped[np.ndarray, "b A ..."], Float[np.ndarray, "b A"]]:
    """Return the nearest legal actions (0 for NaN) in the bounds' type, and 1 for each agent whose action was not."""
    asked = np.asarray(actions, low.dtype) if np.issubdtype(low.dtype, np.floating) else np.asarray(actions)
    nearest = np.clip(np.nan_to_num(asked), low, high).astype(low.dtype)
    changed = (nearest != asked).reshape(*asked.shape[:2], -1).any(axis=2)  # NaN differs from everything
    return nearest, changed.astype(np.float32)


def identified(views: Shaped[np.ndarray, "b A ..."]) -> Shaped[np.ndarray, "b A ..."]:
    """Extend the last axis by a one-hot vector of the agent's index, as `envs.team.identified` does."""
    batch, agents, *shape = views.shape
    ids = np.eye(agents, dtype=views.dtype).reshape(1, agents, *[1] * (len(shape) - 1), agents)
    return np.concatenate([views, np.broadcast_to(ids, (batch, agents, *shape[:-1], agents))], axis=-1)


def joined(views: Shaped[np.ndarray, "b A ..."]) -> Shaped[np.ndarray, "b ..."]:
    """Make one state of what all agents see, as `envs.team.joined` does, in memory of its own."""
    if views.ndim != 5:
        return views.reshape(len(views), -1).copy()
    images = np.moveaxis(views, 1, -2)  # [b, height, width, A, channels]
    return np.array(images, order="C").reshape(*images.shape[:3], -1)
