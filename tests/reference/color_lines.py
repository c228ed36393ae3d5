"""Color Lines in plain Python, written from the rules: breadth-first search, runs walked cell by cell, no JAX.

What is random is given: `places` and `colours` are uniform numbers in [0, 1). Of the n empty cells left, in reading
order, the number u takes the one at place ⌊n u⌋; of the seven colours ⌊7 u⌋.
"""

from collections import deque

import numpy as np

SIDE, COLOURS, EMPTY = 9, 7, -1
ILLEGAL, QUIET = -10.0, 0.1
PROMISES = {2: 0.1, 3: 0.5, 4: 2.0}


def on_board(row, column):
    return 0 <= row < SIDE and 0 <= column < SIDE


def neighbours(row, column):
    around = ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
    return [cell for cell in around if on_board(*cell)]


def reachable(board, row, column):
    """All empty cells that a path of empty cells leads to from the cell (itself not among them, unless empty)."""
    found, queue = set(), deque([(row, column)])
    while queue:
        for cell in neighbours(*queue.popleft()):
            if board[cell] == EMPTY and cell not in found:
                found.add(cell)
                queue.append(cell)
    return found


def legal_moves(board):
    """The pairs [from, to] a search from every single ball finds."""
    legal = np.zeros((SIDE * SIDE, SIDE * SIDE), bool)
    for row, column in zip(*np.nonzero(board != EMPTY), strict=True):
        for to in reachable(board, int(row), int(column)):
            legal[row * SIDE + column, to[0] * SIDE + to[1]] = True
    return legal


def runs(board):
    """Every maximal run of two or more cells of one colour, as a list of cells, in four directions."""
    found = []
    for row in range(SIDE):
        for column in range(SIDE):
            colour = board[row, column]
            if colour == EMPTY:
                continue
            for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
                before = (row - down, column - right)
                if on_board(*before) and board[before] == colour:
                    continue
                cells, cell = [], (row, column)
                while on_board(*cell) and board[cell] == colour:
                    cells.append(cell)
                    cell = (cell[0] + down, cell[1] + right)
                if len(cells) >= 2:
                    found.append(cells)
    return found


def promise(board):
    return sum(PROMISES.get(len(run), 0.0) for run in runs(board))


class Game:
    """One episode; `step` returns the reward, and whether the game is over or its time is up."""

    def __init__(self, board, upcoming, scoring="code", freeze="fixed", shaped=False, time_limit=1000):
        self.board, self.upcoming = np.array(board, int), [int(colour) for colour in upcoming]
        self.scoring, self.freeze, self.shaped, self.time_limit = scoring, freeze, shaped, time_limit
        self.score = self.lines = self.illegal_moves = self.time = 0

    def step(self, origin, target, places, colours):
        self.time += 1
        late = self.time >= self.time_limit
        if not self.is_legal(origin, target):
            self.illegal_moves += 1
            return ILLEGAL, False, late and self.freeze == "fixed"
        before = promise(self.board) if self.shaped else 0.0
        self.move(divmod(origin, SIDE), divmod(target, SIDE))
        gain = self.clear()
        nothing_left = self.freeze == "fixed" and (self.board == EMPTY).all()
        if gain == 0 or nothing_left:
            self.spawn(places)
            self.upcoming = [int(np.float32(number) * np.float32(COLOURS)) for number in colours]
        reward = float(gain) if gain else QUIET
        if self.shaped:
            reward += 0.5 * gain + promise(self.board) - before
        return reward, bool((self.board != EMPTY).all()), late

    def is_legal(self, origin, target):
        cells = range(SIDE * SIDE)
        if origin not in cells or target not in cells or self.board[divmod(origin, SIDE)] == EMPTY:
            return False
        return divmod(target, SIDE) in reachable(self.board, *divmod(origin, SIDE))

    def move(self, origin, target):
        self.board[target] = self.board[origin]
        self.board[origin] = EMPTY

    def clear(self):
        gain, complete = 0, [run for run in runs(self.board) if len(run) >= 5]
        for run in complete:
            gain += 2 * len(run) if self.scoring == "code" else 10 + 4 * (len(run) - 5)
        for run in complete:
            for cell in run:
                self.board[cell] = EMPTY
        self.score += gain
        self.lines += len(complete)
        return gain

    def spawn(self, places):
        free = [divmod(cell, SIDE) for cell in range(SIDE * SIDE) if self.board[divmod(cell, SIDE)] == EMPTY]
        if self.freeze == "original" and len(free) < 3:
            return
        for colour, number in zip(self.upcoming, places, strict=True):
            if free:
                cell = free.pop(int(np.float32(number) * np.float32(len(free))))
                self.board[cell] = colour
