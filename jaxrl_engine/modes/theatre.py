"""Worlds played for the wall alone, with nothing trained: saved policies, and a demonstration of eight worlds."""

import functools
import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.core.types import TrainState
from jaxrl_engine.envs.protocol import Pictured
from jaxrl_engine.envs.registry import make_env
from jaxrl_engine.live.clip import FRAMES_PER_SECOND, Clip, Label, screen
from jaxrl_engine.live.curves import chart, line
from jaxrl_engine.live.wall import Wall
from jaxrl_engine.modes.players import Greedy, Uniform
from jaxrl_engine.modes.policy import SavedPolicy
from jaxrl_engine.modes.screens import Casting, Screens, Stage, same_worlds

CLIP_FRAMES = 5
CLIP_SECONDS = CLIP_FRAMES / FRAMES_PER_SECOND
DEMO: Sequence[tuple[str, str, Mapping[str, Any]]] = (
    ("arm of 2 links", "reacher", {"num_links": 2}),
    ("arm of 5 links", "reacher", {"num_links": 5}),
    ("arm of 8 links", "reacher", {"num_links": 8}),
    ("arm among walls", "reacher-zigzag", {}),
    ("Alice and Bob", "alice_and_bob", {}),
    ("Color Lines", "color_lines", {}),
    ("base stations in the air", "uav_coverage", {}),
    ("relays in the air", "uav_relay", {}),
)
"""What each screen of the demonstration says, and its world."""


class Act:
    """Screens, who plays in them, and what they are called."""

    def __init__(self, screens: Screens, train_state: TrainState, labels: Sequence[str], seed: int) -> None:
        self.labels = [Label(label) for label in labels]
        self._train_state, self._frames = train_state, np.int32(CLIP_FRAMES)
        self._casting = Casting(repertoire=None, cells=jnp.arange(len(labels), dtype=jnp.int32))
        begin = jax.jit(screens.begin).lower(jax.random.key(seed), self._casting).compile()
        self._stage: Stage = begin(jax.random.key(seed), self._casting)
        play = jax.jit(screens.play).lower(train_state, self._stage, self._casting, self._frames)
        self._play: Any = play.compile()

    def clip(self) -> Clip:
        """Play on."""
        self._stage, clip = self._play(self._train_state, self._stage, self._casting, self._frames)
        fetched: Clip = jax.device_get(clip)
        return jax.tree.map(lambda leaf: leaf[:CLIP_FRAMES], fetched)


def policy_act(policy: SavedPolicy, count: int, seed: int) -> Act:
    """A saved policy, greedy, in `count` of its worlds."""
    built = policy.built
    screens = same_worlds(Greedy(built.algorithm), built.env, built.env_params, count)
    return Act(screens, policy.train_state, [f"world {world + 1}" for world in range(count)], seed)


def demo_act(label: str, env_id: str, params: Mapping[str, Any], seed: int) -> Act:
    """One world with random actions."""
    env, env_params = make_env(env_id, params)
    player = Uniform(env.spec.action)
    nobody = player.init(jax.random.key(0), ())
    return Act(same_worlds(player, env, env_params, 1), nobody, [label], seed)


def perform(wall: Wall, makers: Sequence[Callable[[], Act]], stopped: Callable[[], bool]) -> None:
    """Play until `stopped`, in real time, and only while somebody watches; an act joins when it is compiled."""
    numbers, begun, told = itertools.count(), time.monotonic(), _Told()
    pool = ThreadPoolExecutor(max_workers=2)
    try:
        waiting = [pool.submit(make) for make in makers]
        while not stopped():
            acts = [task.result() for task in waiting if task.done()]
            if acts and wall.watched:
                clips = [(act, act.clip()) for act in acts]
                _show(wall, clips, next(numbers))
                told.count(clips)
                wall.head(state="running", env_steps=told.steps)
                wall.put("charts", told.message)
            time.sleep(CLIP_SECONDS - (time.monotonic() - begun) % CLIP_SECONDS)
    finally:
        pool.shutdown(cancel_futures=True)  # whoever leaves does not wait for worlds that nobody will see


def _show(wall: Wall, clips: Sequence[tuple[Act, Clip]], number: int) -> None:
    def make() -> dict[str, Any]:
        screens = [screen(clip, world, label) for act, clip in clips for world, label in enumerate(act.labels)]
        return {"seq": number, "fps": FRAMES_PER_SECOND, "screens": screens}

    wall.put("screens", make)


class _Told:
    """Return and length of every episode that has ended, world by world."""

    def __init__(self) -> None:
        self.steps = 0
        self._episodes: dict[str, list[tuple[int, float, float]]] = {}  # step, return, length
        self._lock = threading.Lock()

    def count(self, clips: Sequence[tuple[Act, Clip]]) -> None:
        """Take in what was just played."""
        self.steps += sum(clip.step.size for _, clip in clips)
        with self._lock:
            for act, clip in clips:
                for frame, world in np.argwhere(clip.ended):
                    episode = float(clip.episode_return[frame, world]), float(clip.step[frame, world])
                    self._episodes.setdefault(act.labels[world].text, []).append((self.steps, *episode))

    def message(self) -> dict[str, Any]:
        """Return the two charts."""
        with self._lock:
            known = {label: tuple(zip(*episodes, strict=True)) for label, episodes in self._episodes.items()}
        titles = ("Return of each episode", "Length of each episode")
        return {
            "charts": [
                chart(title, [line(label, columns[0], columns[number]) for label, columns in known.items()])
                for number, title in enumerate(titles, start=1)
            ]
        }


def show_demo(host: str, port: int, seed: int) -> None:
    """Serve the demonstration until it is interrupted.

    Raises:
        UserError: the host is no address of this machine, or no port is free.
    """
    note = "Nothing is trained here: every world takes actions drawn at random."
    with Wall(title="eight worlds", mode="demo", algo="random actions", note=note, screens=len(DEMO)) as wall:
        print(*wall.serve(host, port), sep="\n", flush=True)
        perform(wall, [functools.partial(demo_act, *each, seed) for each in DEMO], lambda: False)


def show_policy(policy: SavedPolicy, count: int, host: str, port: int, seed: int) -> None:
    """Serve a saved policy at play until it is interrupted.

    Raises:
        UserError: its world cannot be drawn, the host is no address of this machine, or no port is free.
    """
    config = policy.built.config
    if not isinstance(policy.built.env, Pictured):
        raise UserError(f"{config.env} cannot be drawn")
    note = f"The policy after {policy.env_steps:,} steps, greedy."
    with Wall(title=config.env, mode="play", algo=config.algo, note=note, screens=count) as wall:
        print(*wall.serve(host, port), sep="\n", flush=True)
        perform(wall, [functools.partial(policy_act, policy, count, seed)], lambda: False)
