"""A source whose collectors do what the parameters say, also in a process of its own."""

import os
import signal
import time

import jax
import numpy as np

from jaxrl_engine.core.types import Chunk, TrainState
from jaxrl_engine.envs.vector import Episodes
from jaxrl_engine.modes.actor_learner.collector import Collected

WORKS, RAISES, HANGS, DIES = range(4)
ZERO = np.zeros((), np.int32)


def parameters(version, *, params=()):
    return TrainState(
        params=params, optimizer=None, statistics=(), hyper=(), policy_version=np.array(version, np.int32),
        skipped_updates=ZERO, skipped_in_a_row=ZERO,
    )  # fmt: skip


def rollout(content):
    """One step of one environment whose reward says which it is."""
    no = np.zeros((1, 1), bool)
    number = np.full((1, 1, 1), content, np.float32)
    chunk = Chunk(
        observation=np.zeros((1, 2, 1, 1)), cut_observation=np.zeros((1, 1, 1)), packed_mask=None, action=number,
        log_prob=number, reward=number, terminated=no, truncated=no, valid=~no, discounted_return=None,
        policy_version=np.zeros(1, np.int32),
    )  # fmt: skip
    ended = Episodes(
        ended=no, episode_return=np.zeros((1, 1), np.float32), episode_length=np.zeros((1, 1), np.int32), metrics={}
    )
    return Collected(chunks=chunk, episodes=ended)


class TroubledCollector:
    def __init__(self, actor):
        self.state, self.actor = None, actor

    def collect(self, behaviour, key):
        todo = int(behaviour.policy_version)
        if todo == RAISES:
            raise OSError("the game is gone")
        if todo == HANGS:
            time.sleep(1e6)
        if todo == DIES:
            os.kill(os.getpid(), signal.SIGKILL)
        return rollout(self.actor)

    def close(self):
        pass


class Troubled:
    def __init__(self, seconds_to_begin=0.0):
        self.seconds_to_begin = seconds_to_begin

    def example(self, behaviour):
        return jax.eval_shape(lambda: rollout(0).chunks)

    def compile(self, behaviour):
        pass

    def begin(self, key, actor=0):
        time.sleep(self.seconds_to_begin)
        return TroubledCollector(actor)
