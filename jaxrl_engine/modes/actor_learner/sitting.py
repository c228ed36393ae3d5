"""One actor's worlds sit for their portraits, between two steps and for a share of the actor's time only."""

import time

import numpy as np

from jaxrl_engine.envs.host.protocol import HostVectorEnv, HostWorldError
from jaxrl_engine.envs.vector import Episodes
from jaxrl_engine.live.easel import Easel

MOST = 0.1
"""The share of an actor's time that pictures may take: some worlds draw more slowly than they step."""


class Sitting:
    """What the easel is to be given of one actor's worlds, and when."""

    def __init__(self, easel: Easel, actor: int, world: HostVectorEnv) -> None:
        self._easel, self._actor, self._world = easel, actor, world
        self._count = min(easel.share(actor), world.num_envs)
        self._ended = np.zeros(world.num_envs, bool)  # an episode, since the last pictures
        self._returns = np.zeros(world.num_envs, np.float32)
        self._steps = np.zeros(world.num_envs, np.int32)
        self._next = 0.0

    def after(self, episodes: Episodes) -> None:
        """Take note of a step `[b]`, and leave pictures where they are due.

        Of an environment whose episode ended since the last ones, return and length are those of that episode.

        Raises:
            HostWorldError: the world died or hung while it drew; those in its place are asked for no pictures.
        """
        done = np.asarray(episodes.ended)
        told = done | ~self._ended
        self._returns[told] = np.asarray(episodes.episode_return)[told]
        self._steps[told] = np.asarray(episodes.episode_length)[told]
        self._ended |= done
        begun = time.monotonic()
        if begun < self._next or not self._easel.due(self._actor):
            return
        self._sit()
        now = time.monotonic()
        self._next = now + (now - begun) * (1.0 / MOST - 1.0)

    def _sit(self) -> None:
        try:
            pictures = self._world.pictures(self._count)
        except HostWorldError:
            self._easel.dismiss(self._actor)
            raise
        if pictures is None:
            self._easel.dismiss(self._actor)
            return
        facts = (each[: self._count].copy() for each in (self._returns, self._steps, self._ended))
        self._easel.put(self._actor, pictures, *facts)
        self._ended[:] = False
