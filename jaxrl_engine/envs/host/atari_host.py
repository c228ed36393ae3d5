"""Atari as a host world: `gymnasium:ALE/<Game>-v5`, by ale-py's own vector environment (extra `atari`; ROMs included).

Written against ale-py 0.12. The preprocessing is ale-py's, in threads of its own, with the usual numbers (Mnih et al.
2015; Machado et al. 2018, §5): 84 × 84 grey, the greater of the last two frames, frame skip 4, stack 4, up to 30 no-ops
and FIRE where a game needs it after a reset, sticky actions 0.25 as in every `v5` id. Frames are `[84, 84, 4]`, the
oldest first: channels last, as the convolutions want them.

- `clip_rewards` is off: returns are those of the game. The metrics do not depend on it: `game_score` is the sum of the
  game's own rewards over the whole game, `lives` those left.
- `episodic_life`: losing a life terminates, and the game goes on (ale-py's own option by that name restarts it). The
  next observation is then the final one; `game_score` counts on.
- An end by `max_frames`, and only that, is a truncation.
"""

import importlib
import importlib.util
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from jaxrl_engine.core.checks import require
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.core.spaces import Box, Discrete
from jaxrl_engine.envs.host.pictures import reduced, stacked
from jaxrl_engine.envs.host.simulator import Arrays, Facts, stepped

METRICS = ("game_score", "lives")
DEFAULTS: dict[str, Any] = {
    "frame_skip": 4, "stack": 4, "size": 84, "noop_max": 30, "sticky": 0.25, "episodic_life": False,
    "clip_rewards": False, "full_action_space": False, "max_frames": 108_000, "threads": 0,
}  # fmt: skip


class AtariSimulator:
    """ale-py's `AtariVectorEnv`, its frames with channels last and its lives told from its games."""

    def __init__(self, vector: Any, values: dict[str, Any]) -> None:
        self.vector = vector
        self.num_envs = vector.num_envs
        self._clip = values["clip_rewards"]
        self._skip = values["frame_skip"]
        self._score = np.zeros(self.num_envs, np.float32)
        self._frame = np.zeros(self.num_envs, np.int64)  # of the game
        size = values["size"]
        self._views = np.zeros((self.num_envs, 1, size, size, values["stack"]), np.uint8)
        self.facts = Facts(
            num_agents=1, observation=Box.uniform((size, size, values["stack"]), 0.0, 255.0, "uint8"),
            action=Discrete(int(vector.single_action_space.n)), metric_names=METRICS,
            time_limit=-(-values["max_frames"] // values["frame_skip"]),
        )  # fmt: skip

    def reset(self, seed: int) -> Arrays:
        """Start every copy; copy `i` is seeded with `seed + i`."""
        frames, info = self.vector.reset(seed=seed)
        self._score[:] = 0.0
        self._frame = np.array(info["episode_frame_number"], np.int64)
        self._views = channels_last(frames)
        return {"observation": self._views}

    def step(self, actions: Shaped[np.ndarray, "b 1"]) -> Arrays:
        """Advance every copy; ale-py starts a new game where one is over."""
        frames, reward, terminated, truncated, info = self.vector.step(np.ascontiguousarray(actions[:, 0], np.int32))
        frame = np.array(info["episode_frame_number"], np.int64)
        done = terminated | truncated
        over = done & (truncated | (frame != self._frame + self._skip))  # else it goes on: only a life was lost
        self._frame = frame
        self._score += reward
        metrics = np.stack([self._score, np.where(over & terminated, 0, info["lives"])], axis=1).astype(np.float32)
        self._score[over] = 0.0
        self._views = views = channels_last(frames)
        final = views.copy()
        if over.any():
            final[over] = channels_last(info["final_obs"])[over]
        reward = np.sign(reward) if self._clip else reward
        return stepped(views, reward[:, None], (terminated, truncated), final[done], metrics)

    def pictures(self, count: int) -> UInt8[np.ndarray, "n height width 3"]:
        """Return the newest frame of each as the policy sees it: ale-py's vector environment has no other screen."""
        return stacked([reduced(np.repeat(view[0, ..., -1:], 3, axis=-1)) for view in self._views[:count]])

    def close(self) -> None:
        """Close every copy."""
        self.vector.close()


def channels_last(frames: UInt8[np.ndarray, "b stack size size"]) -> UInt8[np.ndarray, "b 1 size size stack"]:
    """Move the stack of frames to the end, in memory of its own, and give it an agent axis."""
    return np.ascontiguousarray(np.moveaxis(frames, 1, -1))[:, None]


def parameters(name: str) -> dict[str, Any]:
    """Return the parameters of the preprocessing and their defaults.

    Raises:
        LookupError: there is no such game.
        UserError: ale-py is not installed.
    """
    _game(name)
    return DEFAULTS


def simulate(name: str, num_envs: int, **values: Any) -> AtariSimulator:
    """Make `num_envs` copies of a game.

    Raises:
        LookupError: there is no such game.
        UserError: ale-py is not installed, or the game's ROM is missing.
        ValueError: a value is out of range.
    """
    game = _game(name)
    values = {**DEFAULTS, **values}
    for field in ("frame_skip", "stack", "size", "max_frames"):
        require(values[field] >= 1, field, "a whole number >= 1", values[field])
    for field in ("noop_max", "threads"):
        require(values[field] >= 0, field, "a whole number >= 0", values[field])
    require(0.0 <= values["sticky"] <= 1.0, "sticky", "a probability", values["sticky"])
    ale_py = importlib.import_module("ale_py")
    try:
        vector = ale_py.AtariVectorEnv(
            game, num_envs, autoreset_mode="SameStep", reward_clipping=False, img_height=values["size"],
            img_width=values["size"], stack_num=values["stack"], frameskip=values["frame_skip"],
            noop_max=values["noop_max"], repeat_action_probability=values["sticky"], num_threads=values["threads"],
            full_action_space=values["full_action_space"], max_num_frames_per_episode=values["max_frames"],
            life_loss_info=values["episodic_life"],
        )  # fmt: skip
    except (AssertionError, FileNotFoundError) as error:
        raise UserError(f"env: gymnasium:{name}: the ROM of {game} is not in ale-py's folder of ROMs") from error
    return AtariSimulator(vector, values)


def _game(name: str) -> str:
    """Return ale-py's own name of a game."""
    if importlib.util.find_spec("ale_py") is None:
        raise UserError(f'env: gymnasium:{name} needs ale-py: pip install "jaxrl-engine[atari]"')
    importlib.import_module("ale_py")  # registers its games
    registry = importlib.import_module("gymnasium").registry
    if name not in registry:
        raise LookupError(name)
    return str(registry[name].kwargs["game"])
