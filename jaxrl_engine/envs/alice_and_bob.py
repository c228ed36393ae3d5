"""`alice_and_bob`: two agents who see little open two diamonds, one standing on a button while the other collects.

A sparse-reward team task: a random team succeeds in one episode out of four thousand, and nothing is paid before.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Int, Key, Shaped, UInt8

from jaxrl_engine.core.config import require
from jaxrl_engine.core.scene import Ink, Scene, distinct, make_scene
from jaxrl_engine.core.spaces import Box, Discrete
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import EnvSpec, Leaf, TimeStep

RIGHT, LEFT, UP, DOWN, STAY = range(5)
EMPTY, WALL, FIRST_AGENT = range(3)  # cell codes; agents, then buttons, then diamonds count on from the third
MAX_GRID_SIZE = 64
MAX_AGENTS = 64  # with the largest grid full of pairs, the highest cell code is 189: it fits a byte


class AliceAndBobState(Struct):
    """Where everybody is, what is collected; the drawn grid follows from it."""

    position: Int[Leaf, "*batch A 2"]  # row, column
    collected: Bool[Leaf, "*batch pairs"]
    invalid_actions: Int[Leaf, "*batch"]  # since the reset, all agents together
    time: Int[Leaf, "*batch"]  # steps since the reset


@dataclasses.dataclass(frozen=True)
class AliceAndBob:
    """Two agents who see little open two diamonds, one standing on a button while the other collects.

    The fields are what `env_params` may set; the defaults are the published task.

    State: a `grid_size` × `grid_size` array of cells (row, column), from (0, 0) at the top left, with a border of
        walls and a free interior. Buttons stand in row 1, evenly spaced from the right corner to the left one (rounded
        to the right); a single one stands in the right corner. Each diamond is its button's reflection in the grid's
        centre: the published buttons are at (1, 8) and (1, 1), their diamonds at (8, 1) and (8, 8).
    Randomisation: agents start on distinct interior cells, uniform over all such choices, buttons and diamonds
        included. Nothing else is random.
    Action: 0 column + 1, 1 column - 1, 2 row - 1, 3 row + 1, 4 stay. Walls block; agents do not, and may share a cell.
        Every action is always allowed. Anything else, NaN included, is `stay` and counted in `invalid_actions`.
    Rule: after all have moved, diamond i is collected, for good, if an agent stands on it and an agent stands on button
        i in the same step.
    Cell codes: 0 empty, 1 wall, 2 … the agents, then the buttons, then the diamonds not yet collected (by default Alice
        2, Bob 3, buttons 4 and 5, diamonds 6 and 7). An agent hides what it stands on; of several agents in one cell
        the last shows, to all of them.
    Observation, uint8 `[11]`: the 3 × 3 cell codes around the agent, row by row, then its own row and column.
    Global state, uint8 `[grid_size²]`: all cell codes, row by row.
    Reward: 1 to every agent at the step that collects the last diamond, else 0.
    Termination: all diamonds are collected. Truncation: `episode_length` steps without that.
    Metrics: `success`; `diamond_<i>` for each, 1 once it is collected; `invalid_actions` of the episode so far.

    Source: Yang et al. 2023, "Hierarchical Multi-Agent Skill Discovery" (NeurIPS), Fig. 4 and supplementary code, with
    two differences. There the grid is drawn move by move, so that an agent who leaves a shared cell wipes the other one
    from it until that one moves; here the drawing always shows where everybody is. And the time limit, terminal there,
    truncates.
    """

    grid_size: int = 10  # cells along a side, walls included
    num_pairs: int = 2  # of a button and a diamond
    num_agents: int = 2
    episode_length: int = 100  # steps

    def __post_init__(self) -> None:
        self._check("grid_size", 4, MAX_GRID_SIZE)
        self._check("num_pairs", 1, self._inside)
        self._check("num_agents", 2, min(MAX_AGENTS, self._inside**2))
        self._check("episode_length", 1, 1_000_000)

    @functools.cached_property
    def spec(self) -> EnvSpec:
        side, codes = self.grid_size, float(self._first_codes[-1] + self.num_pairs - 1)
        observation = Box(
            shape=(11,), low=(0.0,) * 9 + (1.0,) * 2, high=(codes,) * 9 + (side - 2.0,) * 2, dtype="uint8"
        )
        diamonds = tuple(f"diamond_{pair}" for pair in range(self.num_pairs))
        return EnvSpec(
            name="alice_and_bob", num_agents=self.num_agents, observation=observation, action=Discrete(5),
            global_state=Box.uniform((side**2,), 0.0, codes, "uint8"), time_limit=self.episode_length,
            metric_names=("success", *diamonds, "invalid_actions"),
        )  # fmt: skip

    def default_params(self) -> tuple[()]:
        """Return nothing: the grid is fixed when the world is made."""
        return ()

    def reset(self, key: Key[Array, ""], params: tuple[()]) -> tuple[AliceAndBobState, TimeStep]:
        """Put the agents on distinct interior cells. The key is consumed."""
        start = jax.random.choice(key, self._inside**2, (self.num_agents,), replace=False)
        state = AliceAndBobState(
            position=(1 + jnp.stack(jnp.divmod(start, self._inside), axis=-1)).astype(jnp.int8),
            collected=jnp.zeros(self.num_pairs, bool),
            invalid_actions=jnp.zeros((), jnp.int32), time=jnp.zeros((), jnp.int32),
        )  # fmt: skip
        return state, self._timestep(state, jnp.zeros((), bool))

    def step(
        self, key: Key[Array, ""], state: AliceAndBobState, action: Shaped[Array, "A"], params: tuple[()]
    ) -> tuple[AliceAndBobState, TimeStep]:
        """Move all agents at once. `key` is left unused: chance acts only at the reset."""
        right, left, up, down, stay = (action == move for move in (RIGHT, LEFT, UP, DOWN, STAY))
        move = jnp.stack([down.astype(jnp.int8) - up, right.astype(jnp.int8) - left], axis=-1)
        position = jnp.clip(state.position + move, 1, self._inside)
        here = self._cell(position)
        pressed, reached = ((here[:, None] == cells[None]).any(axis=0) for cells in (self._buttons, self._diamonds))
        collected = state.collected | (pressed & reached)
        next_state = AliceAndBobState(
            position=position, collected=collected, time=state.time + 1,
            invalid_actions=state.invalid_actions + (~(right | left | up | down | stay)).sum(dtype=jnp.int32),
        )  # fmt: skip
        return next_state, self._timestep(next_state, collected.all() & ~state.collected.all())

    def scene(self, state: AliceAndBobState, params: tuple[()]) -> Scene:
        """Return the grid: buttons are cells, green while pressed and joined to their diamonds; agents are large discs.

        A collected diamond is gone.
        """
        side = self.grid_size
        pressed = (self._cell(state.position)[:, None] == self._buttons[None]).any(axis=0)
        cells = jnp.where(self._canvas == WALL, Ink.WALL, Ink.NOTHING)
        cells = cells.at[self._buttons].set(jnp.where(pressed, Ink.REACHED, Ink.GOAL))

        def middle(row: ArrayLike, column: ArrayLike) -> Array:
            return jnp.stack([jnp.asarray(column) + 0.5, side - jnp.asarray(row) - 0.5], axis=-1)

        agents = middle(state.position[:, 0], state.position[:, 1])
        buttons, diamonds = (middle(*np.divmod(where, side)) for where in (self._buttons, self._diamonds))
        joins = jnp.concatenate([buttons, diamonds, jnp.full((self.num_pairs, 1), 0.06)], axis=1)
        discs = jnp.concatenate([diamonds, agents])
        radii = jnp.append(jnp.full(self.num_pairs, 0.22), jnp.full(self.num_agents, 0.36))
        diamond_inks = jnp.where(state.collected, Ink.NOTHING, Ink.GOAL)
        return make_scene(
            (0.0, 0.0, float(side), float(side)), cells=cells.reshape(side, side),
            lines=joins, line_inks=jnp.where(state.collected, Ink.NOTHING, Ink.FAINT),
            discs=jnp.concatenate([discs, radii[:, None]], axis=1),
            disc_inks=jnp.append(diamond_inks, distinct(jnp.arange(self.num_agents))), agents=agents,
        )  # fmt: skip

    def _timestep(self, state: AliceAndBobState, won: Bool[Array, ""]) -> TimeStep:
        """Show the state; `won` says whether the step that led here collected the last diamond."""
        grid = self._draw(state)
        side = self.grid_size
        window = np.add.outer((-side, 0, side), (-1, 0, 1)).ravel()  # steps through the flattened grid
        around = self._cell(state.position)[:, None] + window[None]  # the border of walls keeps it inside
        shown = grid.at[around].get(mode="promise_in_bounds")
        success = state.collected.all()
        metrics = {f"diamond_{pair}": state.collected[pair] for pair in range(self.num_pairs)}
        metrics |= {"success": success, "invalid_actions": state.invalid_actions}
        return TimeStep(
            observation=jnp.concatenate([shown, state.position.astype(jnp.uint8)], axis=-1),
            global_state=grid, action_mask=None,
            reward=jnp.full(self.num_agents, won, jnp.float32),
            terminated=success, truncated=(state.time >= self.episode_length) & ~success,
            metrics={name: value.astype(jnp.float32) for name, value in metrics.items()},
        )  # fmt: skip

    def _draw(self, state: AliceAndBobState) -> UInt8[Array, "cells"]:
        """Return the code that each cell shows, row by row."""
        agent, button, diamond = self._first_codes
        size = self.grid_size**2
        uncollected = jnp.where(state.collected, EMPTY, jnp.arange(diamond, diamond + self.num_pairs))
        diamonds = _highest(uncollected, jnp.asarray(self._diamonds), size)
        agents = _highest(jnp.arange(agent, button), self._cell(state.position), size)
        return jnp.where(agents != EMPTY, agents, jnp.maximum(self._canvas, diamonds))

    def _cell(self, position: Int[Array, "A 2"]) -> Int[Array, "A"]:
        """Return where in the flattened grid each agent stands."""
        return position[:, 0].astype(jnp.int16) * self.grid_size + position[:, 1]

    @property
    def _inside(self) -> int:
        """Free cells along a side; also the last free row and column."""
        return self.grid_size - 2

    @property
    def _first_codes(self) -> tuple[int, int, int]:
        """The codes of the first agent, button and diamond."""
        return FIRST_AGENT, FIRST_AGENT + self.num_agents, FIRST_AGENT + self.num_agents + self.num_pairs

    @functools.cached_property
    def _buttons(self) -> Int[np.ndarray, "pairs"]:
        """Their cells in the flattened grid."""
        from_the_right = np.arange(self.num_pairs) * (self._inside - 1) // max(self.num_pairs - 1, 1)
        return (self.grid_size + self._inside - from_the_right).astype(np.int16)

    @functools.cached_property
    def _diamonds(self) -> Int[np.ndarray, "pairs"]:
        """Their cells in the flattened grid: read backwards, it is its own reflection in the centre."""
        return self.grid_size**2 - 1 - self._buttons

    @functools.cached_property
    def _canvas(self) -> UInt8[np.ndarray, "cells"]:
        """What is always there: walls and buttons."""
        _, button, diamond = self._first_codes
        grid = np.pad(np.full((self._inside, self._inside), EMPTY, np.uint8), 1, constant_values=WALL)
        grid.ravel()[self._buttons] = np.arange(button, diamond)
        return grid.ravel()

    def _check(self, field: str, low: int, high: int) -> None:
        value = getattr(self, field)
        require(type(value) is int and low <= value <= high, field, f"a whole number from {low} to {high}", value)


def _highest(codes: Int[Array, "things"], places: Int[Array, "things"], size: int) -> UInt8[Array, "cells"]:
    """Return the highest code of the things in each of `size` cells, 0 where there is none."""
    there = places[:, None] == jnp.arange(size, dtype=places.dtype)[None]
    return jnp.where(there, codes.astype(jnp.uint8)[:, None], jnp.uint8(EMPTY)).max(axis=0)
