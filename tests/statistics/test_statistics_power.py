"""Power, sample sizes, many comparisons and the luck of the best."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.statistics.paired import compare_paired
from dspy_cachectl.statistics.power import (
    detectable_multiple,
    difference_variance,
    holm,
    questions_needed,
    repeats_needed,
    sample_size,
    selection_bias,
)
from tests.statistics.simulate import CHECKED
from tests.statistics.tables import table_of


def test_the_multiple_is_2_80() -> None:
    """A difference must measure 2.80 standard errors to be found 80% of the time at the 5% level, if they are known."""
    assert detectable_multiple() == pytest.approx(2.80, abs=0.002)
    assert detectable_multiple(degrees=0) == math.inf


@pytest.mark.parametrize("degrees", [1.0, 1.5, 2.0, 5.0])
def test_the_level_of_an_early_look_has_a_detectable_difference(degrees: float) -> None:
    """Where t's quantile is in the millions, too: it rises with the level, and at 1,000 the two ways agree."""
    levels = [1.0 - 10.0**-power for power in range(2, 16)]
    found = [detectable_multiple(degrees=degrees, level=level) for level in levels]
    assert all(math.isfinite(one) for one in found)
    assert sorted(found) == found
    at = 2.0 * float(special.stdtr(degrees, 1_000.0)) - 1.0
    below, above = (detectable_multiple(degrees=degrees, level=1.0 - (1.0 - at) * by) for by in (1.0001, 0.9999))
    assert above / below == pytest.approx(1.0002 ** (1.0 / degrees), rel=1e-4)


@pytest.mark.parametrize("degrees", [1, 1.3, 2, 4, 9, 49, 199, 20_000])
@pytest.mark.parametrize(("level", "power"), [(0.95, 0.8), (0.9, 0.95)])
def test_the_multiple_has_the_power_of_t(degrees: int, level: float, power: float) -> None:
    """With few degrees of freedom, the noncentral t with that multiple is beyond its quantile that often."""
    multiple = detectable_multiple(degrees=degrees, level=level, power=power)
    quantile = stats.t.ppf(0.5 + level / 2, degrees)
    assert stats.nct.sf(quantile, degrees, multiple) == pytest.approx(power, abs=1e-11)


@pytest.mark.parametrize(
    ("difference", "variance", "level", "power"),
    [(0.05, 0.3, 0.95, 0.8), (-0.1, 2.0, 0.9, 0.95), (0.5, 0.3, 0.95, 0.8), (1.0, 0.2, 0.95, 0.8)],
)
def test_the_sample_size_is_statsmodels(difference: float, variance: float, level: float, power: float) -> None:
    """The number of questions is statsmodels' of a t test, rounded up: 12 and 5 of them too."""
    effect = abs(difference) / math.sqrt(variance)
    expected = TTestPower().solve_power(effect_size=effect, alpha=1 - level, power=power)
    assert sample_size(difference, variance=variance, level=level, power=power) == math.ceil(expected)


@pytest.mark.parametrize(("repeats", "expected"), [(1, 992), (4, 272)])
def test_repeats_save_questions(repeats: int, expected: int) -> None:
    """5 points at 80% with noisy draws and alike programs: 992 questions with one draw each, 272 with four."""
    variance = difference_variance(
        between=0.0095,
        within_baseline=0.1529,
        within_candidate=0.1529,
        repeats_baseline=repeats,
        repeats_candidate=repeats,
    )
    assert sample_size(0.05, variance=variance) == expected


def test_the_effect_and_the_size_undo_each_other() -> None:
    """The sample size for a minimal detectable effect is the sample that has it."""
    variance = difference_variance(
        between=0.01, within_baseline=0.15, within_candidate=0.16, repeats_baseline=3, repeats_candidate=5
    )
    assert variance == pytest.approx(0.01 + 0.05 + 0.032)
    effect = detectable_multiple(degrees=399) * math.sqrt(variance / 400)
    assert sample_size(effect * (1 + 1e-9), variance=variance) == 400


def test_what_is_needed_for_an_error() -> None:
    """Questions go with the square of the error, clusters need more of them; repeats stop at the limit."""
    assert questions_needed(100.0) == pytest.approx(100 * 2.8016**2, abs=3)
    assert questions_needed(10.0, per_degree=10.0) > questions_needed(10.0)
    assert repeats_needed(100, limit_error=0.01, within=0.2, target_error=0.02) == math.ceil(0.2 / (100 * 0.0003))
    assert repeats_needed(100, limit_error=0.02, within=0.2, target_error=0.02) is None


@pytest.mark.parametrize("ratio", [0.01, 2.6, 2.7, 2.8, 3.0, 60.0])
def test_a_plan_for_few_large_clusters_comes_back(ratio: float) -> None:
    """Twenty questions to a degree of freedom: so many questions as leave one at least, and no fewer will do."""
    n = questions_needed(ratio, per_degree=20.0)
    assert n >= 40
    for questions, enough in ((n, True), (n - 1, False)):
        degrees = questions / 20.0 - 1.0
        found = degrees >= 1.0 and stats.nct.sf(stats.t.ppf(0.975, degrees), degrees, (questions / ratio) ** 0.5) >= 0.8
        assert bool(found) is enough


def test_bad_plans_are_refused() -> None:
    """Differences of 0, negative variances and powers that are none are errors."""
    with pytest.raises(ConfigurationError, match="finite and not 0"):
        sample_size(0.0, variance=1.0)
    with pytest.raises(ConfigurationError, match="variance must be finite"):
        sample_size(0.1, variance=-1.0)
    with pytest.raises(ConfigurationError, match="power must lie between 0 and 1"):
        detectable_multiple(power=1.0)
    with pytest.raises(ConfigurationError, match="below the type I error"):
        detectable_multiple(power=0.01)


def test_holm_is_statsmodels() -> None:
    """The adjusted p-values are statsmodels', in the order given; no p-values give none."""
    rng = np.random.default_rng(18)
    for values in ([0.3], [0.039, 0.6, 0.001, 0.041, 0.27, 0.008], [0.0, 1.0, 0.01, 0.01], rng.random(30).tolist()):
        assert holm(values) == pytest.approx(tuple(multipletests(values, method="holm")[1]))
    assert holm([]) == ()


def test_holm_keeps_the_family_at_five_percent() -> None:
    """Eight true null hypotheses: a false win in 5% of the families."""
    families = np.random.default_rng(16).random((20_000, 8))
    smallest = families.min(1)
    for family in families[np.argsort(smallest)[[100, 900, 1100, 3000]]]:
        assert (min(holm(family.tolist())) < 0.05) is bool(8 * family.min() < 0.05)
    assert float(np.mean(8 * smallest < 0.05)) == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize("candidates", [2, 10, 100])
def test_the_best_of_many_looks_better_by_up_to_the_bound(candidates: int) -> None:
    """The best of M equal programs is above the truth by 48 to 100% of SE sqrt(2 ln M)."""
    best = np.random.default_rng(17).normal(0.7, 0.02, (20_000, candidates)).max(1).mean() - 0.7
    assert 0.47 * selection_bias(0.02, candidates) < best < selection_bias(0.02, candidates)
    assert selection_bias(0.02, 1) == 0.0


def test_five_looks_at_equal_programs_call_one_better_in_14_percent() -> None:
    """What docs/guides/evaluating.md says of adding questions and looking again; one look at the end keeps its 5%."""
    rng = np.random.default_rng(18)
    scores = (rng.random((2, 8000, 500)) < 0.6).astype(float)
    differences = scores[1] - scores[0]
    looks = [100, 200, 300, 400, 500]
    found = np.array([stats.ttest_1samp(differences[:, :n], 0.0, axis=1).pvalue < 0.05 for n in looks])

    assert float(found.any(0).mean()) == pytest.approx(0.14, abs=0.012)
    assert float(found[-1].mean()) == pytest.approx(0.05, abs=0.01)
    for trial in range(CHECKED):
        tables = [table_of(scores[which, trial, : looks[-1], None].tolist()) for which in (0, 1)]
        shipped = compare_paired(*tables)
        assert (shipped.p_value < 0.05) == found[-1, trial] or abs(shipped.p_value - 0.05) < 0.01
