"""A repertoire in plain Python and NumPy, candidate after candidate: what `jaxrl_engine.qd.repertoire` must hold."""

import math

import numpy as np


class Repertoire:
    """Elites in a dictionary from cell to a record. `edges` are the bins' edges of every axis, increasing."""

    def __init__(self, edges):
        self.edges, self.elites = edges, {}
        self.not_finite = self.out_of_range = self.inserted = self.improved = self.rejected = 0

    def cell(self, descriptor):
        """The cell's number, or None where there is none; the upper edge belongs to the last bin."""
        number = 0
        for value, edges in zip(descriptor, self.edges, strict=True):
            if not edges[0] <= value <= edges[-1]:
                return None
            place = min(np.searchsorted(edges, value, side="right") - 1, len(edges) - 2)
            number = number * (len(edges) - 1) + int(place)
        return number

    def insert(self, genotypes, fitness, descriptors, versions, generation):
        """All candidates at once: what each of them is after it, 0 rejected, 1 improved, 2 new cell."""
        before, holders = dict(self.elites), {}
        for i, value in enumerate(fitness):
            if not (math.isfinite(value) and all(map(math.isfinite, descriptors[i]))):
                self.not_finite += 1
                continue
            cell = self.cell(descriptors[i])
            if cell is None:
                self.out_of_range += 1
                continue
            self.rejected += 1
            if cell not in self.elites or value > self.elites[cell]["fitness"]:
                holders[cell] = i
                self.elites[cell] = {
                    "genotype": genotypes[i], "fitness": value, "archived": value, "descriptors": descriptors[i],
                    "policy_version": versions[i], "born": generation, "evaluations": 1,
                }  # fmt: skip
        status = [0] * len(fitness)
        for cell, i in holders.items():
            status[i] = 1 if cell in before else 2
        self.inserted += status.count(2)
        self.improved += status.count(1)
        self.rejected -= len(holders)
        return status
