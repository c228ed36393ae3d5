"""Alice and Bob in plain NumPy, written from the published rules, and the exact chances of a random team.

Yang et al. 2023, "Hierarchical Multi-Agent Skill Discovery" (NeurIPS), Fig. 4 and supplementary code; the grid is
redrawn from scratch after every step. One episode, one agent, one cell at a time: slow on purpose.
"""

from fractions import Fraction
from math import floor

import numpy as np

STEPS = {0: (0, 1), 1: (0, -1), 2: (-1, 0), 3: (1, 0), 4: (0, 0)}  # action: (rows, columns)


def layout(grid_size, num_pairs):
    """Return the cells of buttons and diamonds, pair by pair, read off a grid with numbers in it."""
    width = grid_size - 2
    numbered = np.zeros((grid_size, grid_size), int)
    for pair in range(num_pairs):
        from_the_right = floor(Fraction(pair * (width - 1), num_pairs - 1)) if num_pairs > 1 else 0
        numbered[1, grid_size - 2 - from_the_right] = pair + 1
    opposite = np.rot90(numbered, 2)
    cells = [[tuple(map(int, np.argwhere(side == pair + 1)[0])) for pair in range(num_pairs)]
             for side in (numbered, opposite)]  # fmt: skip
    return cells[0], cells[1]


class Episode:
    """One episode, from the cells `(row, column)` the agents start on."""

    def __init__(self, start, grid_size=10, num_pairs=2, episode_length=100):
        self.size, self.limit = grid_size, episode_length
        self.buttons, self.diamonds = layout(grid_size, num_pairs)
        self.agents = [(int(row), int(column)) for row, column in start]
        self.collected = [False] * num_pairs
        self.steps = self.mistakes = 0

    def step(self, actions):
        """Move everybody; return the reward of each agent, terminated, truncated."""
        for agent, action in enumerate(actions):
            if action not in STEPS:
                self.mistakes += 1
                continue
            row, column = self.agents[agent]
            row, column = row + STEPS[int(action)][0], column + STEPS[int(action)][1]
            if 0 < row < self.size - 1 and 0 < column < self.size - 1:
                self.agents[agent] = (row, column)
        before = all(self.collected)
        for pair, (button, diamond) in enumerate(zip(self.buttons, self.diamonds, strict=True)):
            if button in self.agents and diamond in self.agents:
                self.collected[pair] = True
        self.steps += 1
        won = all(self.collected)
        reward = 1.0 if won and not before else 0.0
        return [reward] * len(self.agents), won, self.steps >= self.limit and not won

    def grid(self):
        """Return the cell codes `[rows, columns]`: later things are drawn over earlier ones."""
        grid = np.ones((self.size, self.size), int)
        grid[1:-1, 1:-1] = 0
        pairs, code = len(self.buttons), 2 + len(self.agents)
        for pair in range(pairs):
            grid[self.buttons[pair]] = code + pair
            if not self.collected[pair]:
                grid[self.diamonds[pair]] = code + pairs + pair
        for agent, cell in enumerate(self.agents):
            grid[cell] = 2 + agent
        return grid

    def observe(self, agent):
        """Return the 3 × 3 codes around an agent and its row and column."""
        row, column = self.agents[agent]
        return [*self.grid()[row - 1 : row + 2, column - 1 : column + 2].ravel(), row, column]


def random_team(grid_size=10, num_pairs=2, episode_length=100):
    """Return the chance of each set of collected diamonds after a random episode of two agents: `[2] * num_pairs`.

    Exact: the joint distribution over both agents' cells and the collected set is carried from step to step. The two
    move independently, so one step is M' X M with M the transition matrix of one agent.
    """
    width = grid_size - 2
    cells = [(row, column) for row in range(1, width + 1) for column in range(1, width + 1)]
    number = {cell: index for index, cell in enumerate(cells)}
    move = np.zeros((len(cells), len(cells)))
    for row, column in cells:
        for rows, columns in STEPS.values():
            target = number.get((row + rows, column + columns), number[row, column])
            move[number[row, column], target] += 1 / len(STEPS)
    opens = np.zeros((num_pairs, len(cells), len(cells)), bool)
    for pair, (button, diamond) in enumerate(zip(*layout(grid_size, num_pairs), strict=True)):
        opens[pair, number[button], number[diamond]] = opens[pair, number[diamond], number[button]] = True
    sets = list(np.ndindex(*[2] * num_pairs))
    chance = {collected: np.zeros_like(move) for collected in sets}
    apart = ~np.eye(len(cells), dtype=bool)
    chance[sets[0]] = apart / apart.sum()
    for _ in range(episode_length):
        after = {collected: np.zeros_like(move) for collected in sets}
        for collected, here in chance.items():
            there = move.T @ here @ move
            for gained in sets:
                exactly = np.all([opens[pair] == bool(gained[pair]) for pair in range(num_pairs)], axis=0)
                after[tuple(np.maximum(collected, gained))] += there * exactly
        chance = after
    return np.array([chance[collected].sum() for collected in sets]).reshape([2] * num_pairs)
