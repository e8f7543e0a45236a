"""Comparisons that are looked at while they grow, made up by the thousand: two programs scored 0 or 1, one draw each.

`settled` is a run of `compare_paired` with the level of each look, for all trials at a time; some of its looks are
compared with the real one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dspy_cachectl.statistics.looks import Bound, look_level
from dspy_cachectl.statistics.paired import compare_paired
from dspy_cachectl.statistics.verdicts import Verdict
from tests.statistics.tables import table_of

Whole = NDArray[np.int_]
CODES = {Verdict.BETTER: 1, Verdict.WORSE: -1, Verdict.NO_DIFFERENCE: 2, Verdict.INCONCLUSIVE: 0}


@dataclass(frozen=True)
class Settled:
    """What became of the trials: how each ended, by `CODES`, after how many questions, and what the last look saw."""

    ended: Whole
    asked: Whole
    fixed: Whole
    n: int

    def share(self, verdict: Verdict) -> float:
        return float(np.mean(self.ended == CODES[verdict]))

    @property
    def used(self) -> float:
        return float(self.asked.mean()) / self.n

    @property
    def power(self) -> float:
        """How often a difference is found that is there, or is not."""
        return float(np.mean(np.abs(self.ended) == 1))

    @property
    def fixed_power(self) -> float:
        """The same of one look at all questions."""
        return float(np.mean(np.abs(self.fixed) == 1))


def settled(
    rng: np.random.Generator,
    *,
    delta: float,
    apart: float,
    n: int,
    trials: int,
    looks: list[int],
    bound: Bound,
    size: float = 0.05,
) -> Settled:
    """Compare two programs that differ on a share `apart` of the questions, of which one passes `delta` more."""
    rates = [(apart + delta) / 2, (apart - delta) / 2, 1 - apart]
    steps = np.diff([0, *looks])
    seen = np.stack([rng.multinomial(step, rates, trials)[:, :2] for step in steps], axis=1).cumsum(axis=1)
    ended, asked = np.zeros(trials, dtype=int), np.full(trials, n)
    for place, now in enumerate(looks):
        level = look_level(looks[: place + 1], n, bound=bound)
        found = verdicts(seen[:, place, 0], seen[:, place, 1], now, level, size)
        new = (ended == 0) & (found != 0)
        ended[new], asked[new] = found[new], now
    return Settled(ended, asked, verdicts(seen[:, -1, 0], seen[:, -1, 1], n, 0.95, size), n)


def verdicts(wins: Whole, losses: Whole, n: int, level: float, size: float) -> Whole:
    """The verdicts, by `CODES`: mid-p McNemar and Tango's interval, which leaves out what its score test rejects."""
    fewer, both = np.minimum(wins, losses), wins + losses
    p_values = np.minimum(1.0, 2 * stats.binom.cdf(fewer, both, 0.5) - stats.binom.pmf(fewer, both, 0.5))
    z = stats.norm.isf((1 - level) / 2)
    leaves_out = {d: np.abs(_score(wins, losses, n, d)) > z for d in (-size, 0.0, size)}
    sign = np.sign(wins - losses)
    found = np.where(leaves_out[-size] & leaves_out[size] & (np.abs(wins - losses) < n * size), 2, 0)
    found = np.where(leaves_out[0.0] & (p_values < 1 - level), sign, found)
    for trial in np.unique(found, return_index=True)[1].tolist():
        _check(int(wins[trial]), int(losses[trial]), n, level, size, int(found[trial]))
    return np.asarray(found)


def _score(wins: Whole, losses: Whole, n: int, d: float) -> Any:
    """Tango's statistic: how many standard errors the difference is from d (Statistics in Medicine 17 (1998) 893)."""
    linear = -(wins + losses) + (2 * n - wins + losses) * d
    share = (np.sqrt(linear**2 + 8 * n * losses * d * (1 - d)) - linear) / (4 * n)
    variance = n * (2 * share + d * (1 - d))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num((wins - losses - n * d) / np.sqrt(variance))


def _check(wins: int, losses: int, n: int, level: float, size: float, expected: int) -> None:
    ties = [1] * (n - wins - losses)
    table = table_of([0] * wins + [1] * losses + ties), table_of([1] * wins + [0] * losses + ties)
    found = compare_paired(*table, smallest_difference=size, level=level)
    assert expected == CODES[found.verdict], (wins, losses, n, level, found)
