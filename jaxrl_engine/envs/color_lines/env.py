"""`color_lines`: one ball a turn, lines of five vanish, three more balls appear after every turn without a line."""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int8, Key, UInt8

from jaxrl_engine.core.config import require
from jaxrl_engine.core.scene import Ink, Scene, distinct, make_scene
from jaxrl_engine.core.spaces import ActionSpace, Box, Discrete, MultiDiscrete
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import EnvSpec, Leaf, TimeStep
from jaxrl_engine.envs.color_lines.mask import areas, is_legal, legal_moves, marginals
from jaxrl_engine.envs.color_lines.rules import (
    CELLS,
    COLOURS,
    EMPTY,
    FREEZES,
    SCORINGS,
    SIDE,
    SPAWNS,
    Chance,
    Freeze,
    Scoring,
    Turn,
    colours_of,
    draw,
    find_lines,
    play,
    points,
    promise,
    start_board,
)
from jaxrl_engine.envs.single_agent import first_timestep, single_agent_spec, single_agent_timestep

MOVE_REWARD = 0.1  # for a legal move that completes nothing
ILLEGAL_REWARD = -10.0
LINE_BONUS = 0.5  # of the points, in the shaped reward
METRICS = ("score", "lines", "illegal_moves", "empty_cells")


class ColorLinesState(Struct):
    """`areas` follows from `board`: kept because the next step asks for it again (see `mask.areas`)."""

    board: Int8[Leaf, "*batch 9 9"]  # a colour from 0 to 6, or EMPTY
    areas: UInt8[Leaf, "*batch 9 9"]  # the number of each empty cell's connected area
    upcoming: Int8[Leaf, "*batch 3"]  # colours of the next balls to appear
    score: Int[Leaf, "*batch"]  # points since the reset
    lines: Int[Leaf, "*batch"]  # lines completed since the reset
    illegal_moves: Int[Leaf, "*batch"]  # since the reset
    time: Int[Leaf, "*batch"]  # steps since the reset, illegal ones included


@dataclasses.dataclass(frozen=True)
class ColorLines:
    """One ball a turn, lines of five vanish, three more balls appear after every turn without a line.

    The fields are what `env_params` may set.

    State: a board of 9×9 cells, each empty or with a ball of one of 7 colours, and the colours of the 3 upcoming balls.

    Observation: `[9, 9, 14]` uint8. Planes 0-6: 1 where a ball of that colour lies. Planes 7-13: how many of the
    upcoming balls have that colour (0-3), the same in all cells; their order means nothing.

    Action: the cell a ball is taken from and the empty cell it goes to, row · 9 + column each. `actions="flat"`:
    from · 81 + to, one of 6,561, and the mask allows exactly the legal moves. `actions="factored"`: the pair
    (from, to) as two choices of 81; its mask allows balls that can move and cells that some ball can move to, so a
    pair may still be illegal (`mask.legal_moves` says which; its row `from` is the mask for `to`). A move is legal if a
    path of empty cells, side by side, leads from the ball to its goal. Illegal moves, numbers out of range included,
    change nothing but the time and are counted.

    Turn: the ball moves. All lines on the board, five or more of one colour in a row, in a column or along a diagonal,
    score and vanish, and nothing else happens. Without a line the upcoming balls appear on uniform distinct empty
    cells and the next three are drawn; a line they complete waits for the next turn, whose lines it joins.
    `freeze="fixed"`: fewer than three empty cells are filled by as many balls, and balls also appear on a board that
    was cleared altogether. `freeze="original"`: where fewer than three cells are empty, or all are, none appears. A
    board with one or two empty cells then stays as it is and pays for every move until the time is up; on an empty
    one there is no move at all.

    Score: `scoring="code"`: 2 per ball, that is 10, 12, 14, 16, 18 points for a line of 5, 6, 7, 8, 9. `"readme"`: 10
    and 4 for each ball beyond five, 10, 14, 18, 22, 26. A ball in two lines counts in both.

    Reward: `reward="raw"`: the turn's points; 0.1 for a legal move without a line, -10 for an illegal one.
    `reward="shaped"`: for legal moves in addition half the points, and the change of Φ = 0.1 · (runs of two) + 0.5 ·
    (runs of three) + 2 · (runs of four), appearing balls included.

    Termination: no cell is empty. Truncation: after `time_limit` steps (`freeze="original"`: at the first legal move
    from there on, so that illegal moves never end an episode).

    Randomisation: a start has 24 balls of uniform colours on uniform cells, and uniform upcoming colours.

    Metrics: `score`, `lines` completed and `illegal_moves` since the reset, `empty_cells` now.

    Source: the game "Color Lines" (1992) as an earlier PyTorch system played it, whose code pays `"code"` and whose
    documentation promises `"readme"`.
    """

    scoring: Scoring = "code"
    freeze: Freeze = "fixed"
    reward: Literal["raw", "shaped"] = "raw"
    actions: Literal["flat", "factored"] = "flat"
    time_limit: int = 1000  # steps

    def __post_init__(self) -> None:
        require(self.scoring in SCORINGS, "scoring", "code or readme", self.scoring)
        require(self.freeze in FREEZES, "freeze", "fixed or original", self.freeze)
        require(self.reward in ("raw", "shaped"), "reward", "raw or shaped", self.reward)
        require(self.actions in ("flat", "factored"), "actions", "flat or factored", self.actions)
        require(self.time_limit >= 1, "time_limit", "a whole number >= 1", self.time_limit)

    @functools.cached_property
    def spec(self) -> EnvSpec:
        action: ActionSpace = Discrete(CELLS * CELLS) if self.actions == "flat" else MultiDiscrete((CELLS, CELLS))
        high = ((1.0,) * COLOURS + (float(SPAWNS),) * COLOURS) * CELLS
        planes = Box(shape=(SIDE, SIDE, 2 * COLOURS), low=(0.0,) * len(high), high=high, dtype="uint8")
        bare = single_agent_spec("color_lines", planes, action, self.time_limit, METRICS)
        return dataclasses.replace(bare, masks_actions=True)

    def default_params(self) -> tuple[()]:
        """Return nothing: the rules are fixed when the world is made."""
        return ()

    def reset(self, key: Key[Array, ""], params: tuple[()]) -> tuple[ColorLinesState, TimeStep]:
        """Start with 24 balls. The key is consumed."""
        key_board, key_upcoming = jax.random.split(key)
        upcoming = colours_of(jax.random.uniform(key_upcoming, (SPAWNS,)))
        state = self.state_of(start_board(key_board), upcoming)
        first = first_timestep(self._observe(state), METRICS)
        return state, first.replace(action_mask=self._mask(state))

    def state_of(self, board: Int8[Array, "9 9"], upcoming: Int8[Array, "3"]) -> ColorLinesState:
        """Return the state of an episode that starts with this board."""
        zero = jnp.zeros((), jnp.int32)
        return ColorLinesState(
            board=board, areas=areas(board), upcoming=upcoming, score=zero, lines=zero, illegal_moves=zero, time=zero
        )

    def step(
        self, key: Key[Array, ""], state: ColorLinesState, action: Int[Array, "1 *choices"], params: tuple[()]
    ) -> tuple[ColorLinesState, TimeStep]:
        """Make one move. The key is consumed."""
        return self.step_with(draw(key), state, action)

    def step_with(
        self, chance: Chance, state: ColorLinesState, action: Int[Array, "1 *choices"]
    ) -> tuple[ColorLinesState, TimeStep]:
        """Make one move, its random numbers given."""
        origin, target = self._cells(action[0])
        legal = is_legal(state.areas, origin, target)
        turn = play(state.board, state.upcoming, origin, target, chance, self.freeze)
        gain = jnp.where(legal, points(turn.lines, self.scoring), 0)
        board = jnp.where(legal, turn.board, state.board)
        five, six = turn.lines.windows[3], turn.lines.windows[4]
        next_state = ColorLinesState(
            board=board, areas=areas(board), upcoming=jnp.where(legal, turn.upcoming, state.upcoming),
            score=state.score + gain, lines=state.lines + jnp.where(legal, five - six, 0),
            illegal_moves=state.illegal_moves + ~legal, time=state.time + 1,
        )  # fmt: skip
        empty_cells = (board == EMPTY).sum()
        late = next_state.time >= self.time_limit
        truncated = late if self.freeze == "fixed" else late & legal
        metrics = {
            "score": next_state.score, "lines": next_state.lines, "illegal_moves": next_state.illegal_moves,
            "empty_cells": empty_cells,
        }  # fmt: skip
        timestep = single_agent_timestep(
            self._observe(next_state), self._reward(legal, gain, state, turn), empty_cells == 0, truncated,
            {name: value.astype(jnp.float32) for name, value in metrics.items()},
        )  # fmt: skip
        return next_state, timestep.replace(action_mask=self._mask(next_state))

    def scene(self, state: ColorLinesState, params: tuple[()]) -> Scene:
        """Return the board, and in a row above it the colours that come next."""
        rows, columns = np.divmod(np.arange(CELLS), SIDE)
        balls = jnp.append(state.board.ravel(), state.upcoming)
        x = np.append(columns + 0.5, SIDE / 2 + np.arange(SPAWNS) - (SPAWNS - 1) / 2)
        y = np.append(SIDE - rows - 0.5, np.full(SPAWNS, SIDE + 0.5))
        radii = np.append(np.full(CELLS, 0.4), np.full(SPAWNS, 0.25))
        squares = Ink.FAINT * (np.add.outer(np.arange(SIDE), np.arange(SIDE)) % 2)
        cells = np.concatenate([np.zeros((1, SIDE), int), squares])
        return make_scene(
            (0.0, 0.0, float(SIDE), SIDE + 1.0), cells=cells, discs=np.stack([x, y, radii], axis=1),
            disc_inks=jnp.where(balls == EMPTY, Ink.NOTHING, distinct(balls)),
        )  # fmt: skip

    def _cells(self, action: Int[Array, "*choices"]) -> tuple[Int[Array, ""], Int[Array, ""]]:
        """Return the cells a move leads from and to, off the board where the action is out of range."""
        if self.actions == "factored":
            return action[0], action[1]
        return action // CELLS, action % CELLS

    def _reward(
        self, legal: Bool[Array, ""], gain: Int[Array, ""], state: ColorLinesState, turn: Turn
    ) -> Float[Array, ""]:
        paid = jnp.where(gain > 0, gain.astype(jnp.float32), MOVE_REWARD)
        if self.reward == "shaped":
            change = promise(find_lines(turn.board)) - promise(find_lines(state.board))
            paid = paid + LINE_BONUS * gain.astype(jnp.float32) + change
        return jnp.where(legal, paid, ILLEGAL_REWARD)

    def _observe(self, state: ColorLinesState) -> UInt8[Array, "9 9 14"]:
        colours = jnp.arange(COLOURS, dtype=jnp.int8)
        lying = (state.board[..., None] == colours[None, None]).astype(jnp.uint8)
        coming = (state.upcoming[:, None] == colours[None]).sum(axis=0, dtype=jnp.uint8)
        return jnp.concatenate([lying, jnp.broadcast_to(coming, lying.shape)], axis=-1)

    def _mask(self, state: ColorLinesState) -> Bool[Array, "1 n"]:
        legal = legal_moves(state.areas)
        return (legal.reshape(-1) if self.actions == "flat" else marginals(legal))[None]
