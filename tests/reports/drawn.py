"""Random tables of scores, and the reports that are made of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.reports import oracle
from tests.reports.made_up import report

SCALES: dict[str, list[float]] = {
    "passed or failed": [0.0, 1.0],
    "percent": [0.0, 100.0],
    "signs": [-1.0, 1.0],
    "eighths": [i / 8 for i in range(9)],
    "ten points": [float(i) for i in range(11)],
    "negative": [-7.5, -2.0, -0.25, 3.0],
    "all equal": [4.0],
}


class Drawn:
    """A random table: unequal repeats, failures, replays, ties, and clusters of unequal size or none."""

    def __init__(self, rng: np.random.Generator, scale: list[float], names: list[str], groups: Any, *, repeats: int):
        self.names, self.groups = names, groups
        weights = rng.dirichlet(np.ones(len(scale)))
        failing, most = rng.choice([0.0, 0.2]), rng.choice([1, repeats])
        self.rows: list[list[Any]] = []
        self.draws: list[list[str]] = []
        for name in names:
            count = int(rng.integers(1, most + 1))
            row = [None if rng.random() < failing else float(rng.choice(scale, p=weights)) for _ in range(count)]
            ids = [f"{id(self)}/{name}/{k}" for k in range(count)]
            if count > 1 and rng.random() < 0.2:  # the last is a replay of the first
                row[-1], ids[-1] = row[0], ids[0]
            self.rows.append(row)
            self.draws.append(ids)

    def report(self, name: str, level: float) -> Any:
        groups = None if self.groups is None else [self.groups[one] for one in self.names]
        return report(
            self.rows,
            name=name,
            clusters=groups,
            draws=self.draws,
            outputs=self.draws,
            questions=self.names,
            level=level,
        )

    @property
    def distinct(self) -> oracle.Rows:
        """The scores of the draws, each draw once, failures as 0."""
        return {
            name: [
                0.0 if score is None else score for score in dict(reversed(list(zip(ids, row, strict=True)))).values()
            ]
            for name, row, ids in zip(self.names, self.rows, self.draws, strict=True)
        }


def drawn(rng: np.random.Generator, scale: list[float]) -> tuple[list[Drawn], float]:
    """Three tables of questions most of which all have, and a level."""
    n = int(rng.choice([1, 2, 3, 8, 25, 130], p=[0.05, 0.1, 0.15, 0.3, 0.3, 0.1]))
    names = [f"q{i}" for i in range(n + 2)]
    groups = None
    if rng.random() < 0.5:
        count = int(rng.choice([1, 2, 5, n + 2]))
        groups = dict(zip(names, (f"c{i}" for i in rng.zipf(1.7, n + 2) % count), strict=True))
    parts = [names[:-2], names[: n - 1] + names[-2:] if n > 1 else names[:-1], rng.permutation(names).tolist()]
    repeats = int(rng.choice([1, 4]))
    return [Drawn(rng, scale, part, groups, repeats=repeats) for part in parts], float(rng.choice([0.8, 0.95, 0.99]))
