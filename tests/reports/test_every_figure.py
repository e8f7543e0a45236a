"""Every figure of a report and of a comparison is that of an independent oracle, over random tables of scores."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from dspy_cachectl.reports.several import compare
from tests.reports import oracle
from tests.reports.drawn import SCALES, drawn
from tests.statistics.simulate import in_full

multipletests = pytest.importorskip("statsmodels.stats.multitest").multipletests
TEXTS = {"caveats", "advice"}
SAID = {"baseline", "candidate", "verdict", "needed", "shared_draws", "warnings", "slices", "metrics"}


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
    for _ in range(20 if seed else 4):
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
                "leaked": 0,
                "score_without_leaks": found["score"],
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
    for _ in range(12 if seed else 1):
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
        # A spread of 0 promises nothing: then it is by the intervals.
        reach = max(max(one.interval.high - one.score, one.score - one.interval.low) for one in made.reports)
        error = max(one.standard_error for one in made.reports) or reach / stats.norm.ppf(0.5 + level / 2)
        assert same(error * math.sqrt(2 * math.log(3)), made.selection_bias, size)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("seed", [0, *(in_full(seed) for seed in range(1, 30))])
def test_what_repeats_say_is_what_counting_finds(scale: str, seed: int) -> None:
    """pass@k, pass^k, flip rate and consistency, by going through every choice of draws."""
    rng = np.random.default_rng([seed, len(scale), 1])
    for _ in range(20 if seed else 4):
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
