"""Worlds for the machinery of host worlds: a counter that can fail in every way, and an emulator that draws its clock.

As a module it is a family: `simulate(name, num_envs, **values)`. It is imported by worker processes: no JAX here.
"""

import os
import signal
import sys
import time

import gymnasium
import numpy as np

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.core.spaces import Box, Discrete
from jaxrl_engine.envs.host.retro_host import RetroSimulator
from jaxrl_engine.envs.host.simulator import Facts, stepped

PERIOD = 5  # steps of an episode


class Counter:
    """Copy `i` shows (seed + i, steps of the episode, process id); an action that equals the trouble's number does it.

    Episodes last five steps. They terminate where the seed is even, and are truncated where it is odd. Copy `i` is
    drawn in one colour, (seed + i, steps, 2 × steps), 2 by 3 + seed pixels, the seed being that of the process's
    first copy; `trouble` 5 drops the pencil, 4 falls asleep over the drawing, 3 dies of it.
    """

    def __init__(self, num_envs, trouble=-1):
        self.num_envs = num_envs
        self.trouble = trouble
        self.facts = Facts(
            num_agents=1, observation=Box.uniform((3,), -1.0, np.inf), action=Discrete(11), metric_names=("steps",)
        )
        self.views = np.zeros((num_envs, 1, 3), np.float32)  # always the same memory

    def reset(self, seed):
        self.views[:, 0, 0] = seed + np.arange(self.num_envs)
        self.views[:, 0, 1] = 0
        self.views[:, 0, 2] = os.getpid()
        return {"observation": self.views}

    def step(self, actions):
        for action in actions[:, 0]:
            self._do(int(action))
        self.views[:, 0, 1] += 1
        done = self.views[:, 0, 1] == PERIOD
        final, metrics = self.views[done].copy(), self.views[:, 0, 1:2].copy()
        self.views[done, :, 1] = 0
        even = self.views[:, 0, 0] % 2 == 0
        return stepped(self.views, actions.astype(np.float32), (done & even, done & ~even), final, metrics)

    def pictures(self, count):
        if self.trouble == 5:
            raise RuntimeError("the pencil broke\nin two")
        if self.trouble == 4:
            time.sleep(1e6)
        if self.trouble == 3:
            os._exit(6)
        seeds, steps = np.uint8(self.views[:count, 0, :2].T)
        colours = np.stack([seeds, steps, 2 * steps], axis=-1)
        return np.broadcast_to(colours[:, None, None], (count, 2, 3 + int(seeds[0]), 3)).copy()

    def _do(self, action):
        if action != self.trouble:
            return
        if action == 7:
            time.sleep(1e6)
        if action == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        if action == 9:
            raise RuntimeError("the cartridge fell out")
        if action == 10:
            sys.stdout.close()
            os._exit(3)

    def close(self):
        if self.trouble == 6:
            time.sleep(1e6)


class Emulator(gymnasium.Env):
    """168 × 168 pixels, the grey of each 2 × 2 block of the left half being the frame's number; ends at frame `last`.

    On odd frames the right half, else as bright as 40, is dark: a sprite that flickers.
    """

    buttons = ("B", None, "SELECT", "START", "UP", "DOWN", "LEFT", "RIGHT", "A")

    def __init__(self, last=10**9):
        self.last = last
        self.frame = 0
        self.pressed = []

    def reset(self, *, seed=None, options=None):
        self.frame = 0
        return self._picture(), {}

    def step(self, action):
        self.frame += 1
        self.pressed.append([name for name, down in zip(self.buttons, action, strict=True) if down])
        return self._picture(), float(self.frame), self.frame >= self.last, False, {"score": 10.0 * self.frame}

    def _picture(self):
        picture = np.full((168, 168, 3), self.frame, np.uint8)
        picture[:, 84:] = 40 * (self.frame % 2 == 0)
        return picture


def simulate(name, num_envs, **values):
    """Make the world `name`, or fail in the way it says."""
    if name == "hangs":
        time.sleep(1e6)
    if name == "dies":
        os._exit(4)
    if name == "missing":
        raise UserError("env: there is no cartridge")
    if name == "refuses":
        raise ValueError("trouble must be small")
    if name == "retro":
        return RetroSimulator(Emulator(**values.pop("emulator", {})), ["score"], values)
    return Counter(num_envs, **values)


class Stubborn(gymnasium.Env):
    """A world of gymnasium's that shows the same array again and again; an episode is three steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Discrete(3, start=5)

    def __init__(self, kind="box", first=0):
        self.view = np.zeros(2)
        self.first = first
        if kind == "graph":
            self.observation_space = gymnasium.spaces.Graph(self.observation_space, None)
        if kind == "text":
            self.action_space = gymnasium.spaces.Text(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.view[:] = self.first, -1
        return self.view, {}

    def step(self, action):
        self.view += 1, 0
        self.view[1] = action
        return self.view, 0.5, False, self.view[0] == self.first + 3, {}


class Painter(gymnasium.Env):
    """Draws at every reset and step if it has a render mode; `mood` says what else it does with one."""

    metadata = {"render_modes": ["human", "rgb_array"]}  # noqa: RUF012 as gymnasium has it
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, mood="", render_mode=None):
        if render_mode and mood == "refuses":
            raise ImportError("no paint")
        if mood == "falls over":
            raise ValueError("it fell over")
        self.render_mode, self.mood, self.drawings = render_mode, mood, 0
        self.made_with = render_mode

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return self._view(), {}

    def step(self, action):
        self.steps += 1
        return self._view(), 1.0, False, False, {}

    def _view(self):
        if self.render_mode is not None:
            self.render()
        return np.float32([self.steps, self.drawings])

    def render(self):
        self.drawings += 1
        if self.mood == "raises" and self.steps == 2:
            raise RuntimeError("the pencil broke")
        if self.mood == "grey":
            return np.zeros((5, 7), np.uint8)
        if self.mood == "none" or self.render_mode is None:
            return None
        return np.uint8(np.arange(321)[:, None, None] % 256 + np.zeros((1, 7, 3)) + [self.steps, 0, 0])


class Secretive(Painter):
    """Nobody can take its render mode away."""

    def __init__(self, render_mode=None):
        self._mode, self.mood, self.drawings = render_mode, "", 0

    @property
    def render_mode(self):
        return self._mode


gymnasium.register("Stubborn-v0", entry_point="fake_host_worlds:Stubborn")
gymnasium.register("Painter-v0", entry_point="fake_host_worlds:Painter")
gymnasium.register("Own-v0", entry_point="fake_host_worlds:Painter", kwargs={"render_mode": "rgb_array"})
gymnasium.register("Secretive-v0", entry_point="fake_host_worlds:Secretive")
