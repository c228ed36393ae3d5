"""A sum tree as nobody would write it twice: plain NumPy arrays in float64, every rule spelled out entry by entry."""

import numpy as np

LOW, HIGH = np.float32(1e-12), np.float32(1e12)


class ReferenceTree:
    def __init__(self, capacity):
        self.priorities = np.zeros(capacity, np.float32)
        self.generations = np.zeros(capacity, np.int64)
        self.maximum = np.float32(1.0)
        self.stale = self.sanitised = 0

    def put(self, indices, priorities):
        for index in indices:
            if 0 <= index < len(self.priorities):
                self.generations[index] += 1
        self.set(indices, priorities)

    def set(self, indices, priorities, generations=None):
        known = self.maximum
        for position, (index, priority) in enumerate(zip(indices, np.float32(priorities), strict=True)):
            if not 0 <= index < len(self.priorities):
                continue
            if generations is not None and generations[position] != self.generations[index]:
                self.stale += 1
                continue
            if not np.isfinite(priority) or priority < 0:
                self.sanitised += 1
                priority = known
            if priority > 0:
                priority = min(max(priority, LOW), HIGH)
            self.priorities[index] = priority
            self.maximum = max(self.maximum, priority)

    def retire(self, gone):
        self.priorities[gone] = 0.0
        self.generations[gone] += 1

    @property
    def total(self):
        return self.priorities.astype(np.float64).sum()
