"""Console games as host worlds: `retro:<Game>`, by stable-retro (extra `retro`), one emulator in each process.

Written against stable-retro 1.0. Airstriker-Genesis comes with its ROM; other games need yours, imported with
`python -m stable_retro.import FOLDER`. A game may be named without the `-v0` that stable-retro adds.

- Preprocessing as usual (Mnih et al. 2015): `frame_skip` 4 frames an action, the greater of the last two (consoles
  flicker), grey by ITU-R 601, 84 × 84 by area, the last 4 observations stacked as channels, the oldest first. A new
  episode fills the stack with its first frame.
- An emulator knows no chance: an episode begins with 0 to `noop_max` frames in which nothing is pressed.
- Actions: the pad in nine directions (none, up, down, left, right, up-left, up-right, down-left, down-right) times
  nothing or one of `buttons`, written as "B,A" or, pressed together, "A+B"; action = direction + 9 × (0 or the place in
  that list, from 1). START is none of them: it would pause the game.
- Reward and end are those of the game's `scenario`; `max_episode_steps` truncates. The metric `score` is the game's
  variable of that name, where it has one.
"""

import importlib
import importlib.util
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from PIL import Image

from jaxrl_engine.core.checks import require
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.core.spaces import Box, Discrete
from jaxrl_engine.envs.host.pictures import reduced
from jaxrl_engine.envs.host.simulator import Arrays, Facts, stepped

ONE_PER_PROCESS = True
DIRECTIONS = (
    (), ("UP",), ("DOWN",), ("LEFT",), ("RIGHT",),
    ("UP", "LEFT"), ("UP", "RIGHT"), ("DOWN", "LEFT"), ("DOWN", "RIGHT"),
)  # fmt: skip
DEFAULTS: dict[str, Any] = {
    "frame_skip": 4, "stack": 4, "size": 84, "noop_max": 30, "max_episode_steps": 4500, "buttons": "B,A",
    "state": "", "scenario": "",
}  # fmt: skip


class RetroSimulator:
    """One emulator (an `Env` of gymnasium's with `MultiBinary` actions and a list of its `buttons`)."""

    num_envs = 1

    def __init__(self, emulator: Any, variables: list[str], values: dict[str, Any]) -> None:
        """Make its actions out of the `buttons` it has; `variables` are those of the game.

        Raises:
            ValueError: a value is out of range, or there is no such button.
        """
        self.emulator = emulator
        self.values = _checked({**DEFAULTS, **values})
        self.presses = presses(emulator.buttons, self.values["buttons"])
        self._random = np.random.default_rng(0)
        self._steps = 0
        shape = (self.values["size"], self.values["size"], self.values["stack"])
        self._stack = np.zeros(shape, np.uint8)
        self._screen = np.zeros((1, 1, 3), np.uint8)
        self.facts = Facts(
            num_agents=1, observation=Box.uniform(shape, 0.0, 255.0, "uint8"), action=Discrete(len(self.presses)),
            time_limit=self.values["max_episode_steps"], metric_names=("score",) if "score" in variables else (),
        )  # fmt: skip

    def reset(self, seed: int) -> Arrays:
        """Start an episode; this and all that follow draw from `seed`."""
        self._random = np.random.default_rng(seed)
        return {"observation": self._begin()}

    def step(self, actions: Shaped[np.ndarray, "1 1"]) -> Arrays:
        """Press what the action says for `frame_skip` frames."""
        pressed = self.presses[int(actions[0, 0])]
        frames: list[np.ndarray] = []
        reward, terminated, truncated, info = 0.0, False, False, {}
        for _ in range(self.values["frame_skip"]):
            frame, gain, terminated, truncated, info = self.emulator.step(pressed)
            frames = [*frames[-1:], np.array(frame)]
            reward += float(gain)
            if terminated or truncated:
                break
        self._steps += 1
        truncated = truncated or (self._steps >= self.values["max_episode_steps"] and not terminated)
        self._screen = np.maximum(frames[0], frames[-1])
        self._stack = np.concatenate([self._stack[..., 1:], self._seen(self._screen)], axis=-1)
        views = self._stack[None, None]
        final = views.copy() if terminated or truncated else views[:0]
        if terminated or truncated:
            views = self._begin()
        metrics = np.array([[float(info.get(name, 0.0)) for name in self.facts.metric_names]], np.float32)
        return stepped(views, np.array([[reward]]), (np.array([terminated]), np.array([truncated])), final, metrics)

    def pictures(self, count: int) -> UInt8[np.ndarray, "1 height width 3"]:
        """Return the screen in colour, the greater of the last two frames."""
        return reduced(self._screen)[None]

    def close(self) -> None:
        """Free the emulator."""
        self.emulator.close()

    def _begin(self) -> UInt8[np.ndarray, "1 1 size size stack"]:
        frame, _ = self.emulator.reset()
        for _ in range(int(self._random.integers(self.values["noop_max"] + 1))):
            frame = self.emulator.step(self.presses[0])[0]
        self._steps = 0
        self._screen = np.array(frame)
        self._stack = np.repeat(self._seen(self._screen), self.values["stack"], axis=-1)
        return self._stack[None, None]

    def _seen(self, frame: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "size size 1"]:
        size = (self.values["size"],) * 2
        return np.asarray(Image.fromarray(frame).convert("L").resize(size, Image.Resampling.BOX))[..., None]


def presses(pad: Sequence[str | None], wanted: str) -> Bool[np.ndarray, "actions buttons"]:
    """Return which of the buttons of a `pad` each action holds down.

    Raises:
        ValueError: there is no such button.
    """
    held = [(), *(tuple(press.strip() for press in choice.split("+")) for choice in wanted.split(",") if choice)]
    there = {button for button in pad if button}
    for button in {button for choice in held for button in choice}:
        require(button in there, "buttons", f"some of {', '.join(sorted(there))}", button)
    return np.array([[button in (*way, *choice) for button in pad] for choice, way in product(held, DIRECTIONS)])


def available() -> list[str]:
    """Return the games stable-retro knows, with a ROM here or not; none without stable-retro."""
    return _retro("").data.list_games() if importlib.util.find_spec("stable_retro") else []


def parameters(name: str) -> dict[str, Any]:
    """Return the parameters of a game and their defaults.

    Raises:
        LookupError: there is no such game.
        UserError: stable-retro is not installed, or the game's ROM is missing.
    """
    _game(name)
    return DEFAULTS


def simulate(name: str, num_envs: int, **values: Any) -> RetroSimulator:
    """Start the emulator of a game in this process, which can hold one.

    Raises:
        LookupError: there is no such game.
        UserError: stable-retro is not installed, or the game's ROM is missing.
        ValueError: a value is out of range.
    """
    require(num_envs == 1, "num_envs", "1 in each process", num_envs)
    game = _game(name)
    retro = _retro(name)
    state, scenario = values.get("state") or retro.State.DEFAULT, values.get("scenario") or None
    try:
        emulator = retro.make(game, state, scenario=scenario, render_mode="rgb_array")
    except (FileNotFoundError, AssertionError, TypeError) as error:  # TypeError: the path of what is not there
        states = ", ".join(retro.data.list_states(game))
        asked = f"state {values.get('state', '')!r} with scenario {values.get('scenario', '')!r}"
        raise UserError(f"env: retro:{name} has no {asked}; its states are {states}") from error
    return RetroSimulator(emulator, list(emulator.data.lookup_all()), values)


def _retro(name: str) -> Any:
    if importlib.util.find_spec("stable_retro") is None:
        raise UserError(f'env: retro:{name} needs stable-retro: pip install "jaxrl-engine[retro]"')
    return importlib.import_module("stable_retro")


def _game(name: str) -> str:
    """Return stable-retro's own name of a game, with the version it adds."""
    data = _retro(name).data
    known = set(data.list_games())
    found = next((game for game in (name, f"{name}-v0") if game in known), None)
    if found is None:
        raise LookupError(name)
    try:
        data.get_romfile_path(found)
    except FileNotFoundError as error:
        hint = "python -m stable_retro.import FOLDER imports yours"
        raise UserError(f"env: retro:{name}: the ROM of {found} is not here; {hint}") from error
    return found


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    for field in ("frame_skip", "stack", "size", "max_episode_steps"):
        require(values[field] >= 1, field, "a whole number >= 1", values[field])
    require(values["noop_max"] >= 0, "noop_max", "a whole number >= 0", values["noop_max"])
    return values
