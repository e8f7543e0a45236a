"""Every figure of a report and of a comparison is that of an independent oracle, over random tables of scores."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from dspy_cachectl.reports.comparison import compare
from tests.reports import oracle
from tests.reports.made_up import report
from tests.statistics.simulate import in_full

SCALES: dict[str, list[float]] = {
    "passed or failed": [0.0, 1.0],
    "percent": [0.0, 100.0],
    "signs": [-1.0, 1.0],
    "eighths": [i / 8 for i in range(9)],
    "ten points": [float(i) for i in range(11)],
    "negative": [-7.5, -2.0, -0.25, 3.0],
    "all equal": [4.0],
}
TEXTS = {"caveats", "advice"}
SAID = {"baseline", "candidate", "verdict", "needed", "shared_draws", "warnings"}


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


def same(expected: Any, found: Any, scale: float = 1.0) -> bool:
    """Whether two figures are one to 1e-9; what is infinite has no JSON and is None."""
    if expected is None or isinstance(expected, str):
        return bool(expected == found)
    if isinstance(expected, (tuple, list)):
        return len(expected) == len(found) and all(same(*pair, scale) for pair in zip(expected, found, strict=True))
    if found is None:
        return math.isinf(expected)
    return bool(found == pytest.approx(expected, rel=1e-9, abs=1e-9 * scale))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("seed", [0, *(in_full(seed) for seed in range(1, 30))])
def test_every_figure_of_a_report_is_the_oracles(scale: str, seed: int) -> None:
    """Of `summary()`, to 1e-9; a figure that the oracle does not know fails."""
    rng = np.random.default_rng([seed, len(scale)])
    size = max(map(abs, SCALES[scale]))
    for _ in range(20 if seed else 6):
        tables, level = drawn(rng, SCALES[scale])
        for one in tables:
            found = one.report("one", level).summary()
            table, scores = one.distinct, [score for row in one.rows for score in row]
            groups = None if one.groups is None else [one.groups[name] for name in one.names]
            expected = oracle.summary(table, groups, level)
            kept = [
                [score for score in dict(reversed(list(zip(ids, row, strict=True)))).values() if score is not None]
                for row, ids in zip(one.rows, one.draws, strict=True)
            ]
            answered = [np.mean(row) for row in kept if row]
            interval = found.pop("interval")
            assert {"low", "high", "level", "method"} == set(interval)
            assert interval["method"].startswith(expected.pop("method"))
            expected |= {
                "n": len(table),
                "repeats": max(map(len, one.rows)),
                "distinct_draws": sum(map(len, table.values())),
                "known_draws": 0,
                "failures": scores.count(None),
                "score_without_failures": float(np.mean(answered)) if answered else None,
            }
            found |= {"low": interval["low"], "high": interval["high"]}
            assert set(expected) | TEXTS == set(found), "a figure without an oracle"
            wrong = {key: (expected[key], found[key]) for key in expected if not same(expected[key], found[key], size)}
            assert not wrong, (one.rows, groups, level)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("seed", [0, *(in_full(seed) for seed in range(1, 30))])
def test_every_figure_of_a_comparison_is_the_oracles(scale: str, seed: int) -> None:
    """Of `as_dict()` and of several comparisons together, to 1e-9; a figure that the oracle does not know fails."""
    rng = np.random.default_rng([seed, len(scale), 1])
    size = max(map(abs, SCALES[scale]))
    for _ in range(12 if seed else 3):
        tables, level = drawn(rng, SCALES[scale])
        reports = {name: one.report(name, level) for name, one in zip("xyz", tables, strict=True)}
        for i, j in ((0, 1), (1, 2)):
            found = reports["xyz"[i]].compare(reports["xyz"[j]]).as_dict()
            expected = oracle.comparison(tables[i].distinct, tables[j].distinct, tables[i].groups, level)
            interval = found.pop("interval")
            assert {"low", "high", "level", "method", "units", "caveats", "doubtful"} == set(interval)
            assert (level, expected["error"]["units"]) == (interval["level"], interval["units"])
            found["interval"] = (interval["low"], interval["high"])
            assert set(expected) | SAID == set(found), "a figure without an oracle"
            for key, value in expected.pop("error").items():
                assert same(value, found["error"][key], size), (key, value, found["error"][key])
            wrong = {
                key: (expected[key], found[key]) for key in expected if not same(expected[key], found[key], size**2)
            }
            assert not wrong, (tables[i].rows, tables[j].rows, tables[i].groups, level)
        made = compare(reports)
        adjusted = multipletests([pair.p_value for pair in made.pairs], method="holm")[1]
        assert same(tuple(adjusted), tuple(pair.adjusted_p_value for pair in made.pairs))
        common = set.intersection(*(set(one.distinct) for one in tables))
        for name, one in zip("xyz", tables, strict=True):
            mean = float(np.mean([np.mean(one.distinct[question]) for question in common]))
            assert same(mean, made.common_scores[name], size)
        error = max(one.standard_error for one in made.reports)
        assert same(error * math.sqrt(2 * math.log(3)), made.selection_bias, size)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("seed", [0, *(in_full(seed) for seed in range(1, 30))])
def test_what_repeats_say_is_what_counting_finds(scale: str, seed: int) -> None:
    """pass@k, pass^k, flip rate and consistency, by going through every choice of draws."""
    rng = np.random.default_rng([seed, len(scale), 1])
    for _ in range(20 if seed else 6):
        tables, level = drawn(rng, SCALES[scale])
        for one in tables:
            found, rows = one.report("one", level), list(one.distinct.values())
            low, high = oracle.ends_of(one.distinct)
            tells = oracle.is_passed_or_failed(np.concatenate(rows), (low, high)) or high == 1.0
            for k in (1, 2, 3):
                knows = tells and all(len(row) >= k for row in rows)
                chosen = [list(itertools.combinations(row, k)) for row in rows] if knows else []
                any_passes, all_pass = (
                    [np.mean([passes(score == high for score in draws) for draws in of_one]) for of_one in chosen]
                    for passes in (any, all)
                )
                assert same_rate(any_passes, found.pass_at_k(k)), (one.rows, k)
                assert same_rate(all_pass, found.pass_hat_k(k)), (one.rows, k)
            pairs = [list(itertools.combinations(row, 2)) for row in rows if len(row) > 1]
            assert same_rate([np.mean([a != b for a, b in of_one]) for of_one in pairs], found.flip_rate)
            assert same_rate([len(set(row)) == 1 for row in rows if len(row) > 1], found.consistency)


def same_rate(rates: list[Any], found: float) -> bool:
    """Whether a rate is the mean of those of the questions; NaN where there are none."""
    return math.isnan(found) if not rates else bool(found == pytest.approx(float(np.mean(rates)), abs=1e-9))
