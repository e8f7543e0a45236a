"""The paired comparison: agreement with scipy and statsmodels, the verdict, and what is said beside it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import optimize, stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.statistics.intervals import Interval
from dspy_cachectl.statistics.paired import compare_paired, mid_p_mcnemar, tango_interval
from dspy_cachectl.statistics.verdicts import PairedComparison, Verdict, verdict_of
from tests.statistics.tables import table_of

eighths = st.integers(0, 8).map(lambda number: number / 8)
two_programs = st.lists(
    st.tuples(st.lists(eighths, min_size=1, max_size=3), st.lists(eighths, min_size=1, max_size=3)),
    min_size=2,
    max_size=25,
)


def binary(wins: int, losses: int, ties: int) -> PairedComparison:
    """The comparison of 0/1 scores, one draw each, with that outcome."""
    before = [0] * wins + [1] * losses + [1] * ties
    after = [1] * wins + [0] * losses + [1] * ties
    return compare_paired(table_of(before), table_of(after))


def test_the_paired_t_is_scipys() -> None:
    """Difference, p-value, interval and correlation are scipy's of the questions' means."""
    rng = np.random.default_rng(1)
    base = rng.normal(size=(120, 1))
    before, after = base + rng.normal(size=(120, 3)), base + 0.3 + rng.normal(size=(120, 2))
    found = compare_paired(table_of(before.tolist()), table_of(after.tolist()))
    expected = stats.ttest_rel(after.mean(1), before.mean(1))
    bounds = expected.confidence_interval()
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-8)
    assert (found.interval.low, found.interval.high) == pytest.approx((bounds.low, bounds.high), rel=1e-8)
    assert found.correlation == pytest.approx(stats.pearsonr(before.mean(1), after.mean(1)).statistic)
    assert found.difference == pytest.approx(after.mean() - before.mean())
    assert (found.test, found.n) == ("paired t", 120)


def test_the_error_is_smaller_than_the_unpaired_one_by_the_correlation() -> None:
    """SE_d^2 = SE_A^2 + SE_B^2 - 2 rho SE_A SE_B, with the unpaired error beside it."""
    rng = np.random.default_rng(2)
    base = rng.normal(size=100)
    before, after = base + 0.5 * rng.normal(size=100), base + 0.5 * rng.normal(size=100)
    found = compare_paired(table_of(before.tolist()), table_of(after.tolist()))
    a, b = stats.sem(before), stats.sem(after)
    assert found.unpaired_error == pytest.approx(math.hypot(a, b))
    assert found.correlation is not None
    assert found.error.value**2 == pytest.approx(a**2 + b**2 - 2 * found.correlation * a * b)


def test_the_clustered_comparison_is_statsmodels() -> None:
    """With clusters: statsmodels' clustered t test of the differences."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(22), 6)
    before = rng.normal(size=132)
    after = before + rng.normal(0.2 + rng.normal(size=22)[groups], 0.5)
    fit = OLS(after - before, np.ones(132)).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    tables = [table_of(scores.tolist(), clusters=groups.tolist()) for scores in (before, after)]
    found = compare_paired(*tables)
    assert found.test == "cluster-robust paired t"
    assert found.p_value == pytest.approx(float(fit.pvalues[0]), rel=1e-8)
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(fit.conf_int()[0]), rel=1e-8)
    assert found.error.clusters == 22


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (5, 0), (7, 7), (12, 3), (3, 12), (40, 60)])
def test_mid_p_is_half_way_to_the_exact_test(wins: int, losses: int) -> None:
    """Mid-p is statsmodels' exact McNemar p-value less the probability of the outcome itself, at most 1."""
    exact = mcnemar([[5, wins], [losses, 5]], exact=True).pvalue
    outcome = stats.binom.pmf(min(wins, losses), wins + losses, 0.5)
    expected = 1.0 if wins == losses else exact - outcome
    assert mid_p_mcnemar(wins, losses) == pytest.approx(expected)


def test_tangos_interval_is_where_the_score_test_accepts() -> None:
    """At both ends the score statistic, with the share of losses found by maximising the likelihood, is z."""
    wins, losses, n = 21, 9, 80

    def statistic(difference: float) -> float:
        def unlikelihood(share: float) -> float:
            same = 1 - 2 * share - difference
            return -float(
                wins * math.log(share + difference) + losses * math.log(share) + (n - wins - losses) * math.log(same)
            )

        bounds = (max(0.0, -difference) + 1e-12, (1 - difference) / 2 - 1e-12)
        share = optimize.minimize_scalar(unlikelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
        spread = n * (2 * share + difference * (1 - difference))
        return (wins - losses - n * difference) / math.sqrt(spread)

    interval = tango_interval(wins, losses, n)
    z = stats.norm.ppf(0.975)
    assert statistic(interval.low) == pytest.approx(z, abs=1e-4)
    assert statistic(interval.high) == pytest.approx(-z, abs=1e-4)
    uncorrected = math.sqrt(mcnemar([[0, wins], [losses, 0]], exact=False, correction=False).statistic)
    assert abs(statistic(0.0)) == pytest.approx(uncorrected, abs=1e-4)


def test_tangos_interval_has_a_width_without_wins_and_losses() -> None:
    """No wins and no losses: z^2/(n + z^2) to both sides, not 0; all wins: up to 1."""
    bound = stats.norm.ppf(0.975) ** 2 / (50 + stats.norm.ppf(0.975) ** 2)
    interval = tango_interval(0, 0, 50)
    assert (interval.low, interval.high) == pytest.approx((-bound, bound))
    assert tango_interval(50, 0, 50).high == 1.0
    assert tango_interval(0, 50, 50).low == -1.0


def test_binary_scores_with_one_draw_get_mcnemar() -> None:
    """0/1 scores, one draw each: mid-p McNemar and Tango's interval, with wins, ties and losses."""
    found = binary(30, 10, 160)
    assert (found.test, found.interval.method) == ("mid-p McNemar", "Tango")
    assert (found.wins, found.ties, found.losses) == (30, 160, 10)
    assert found.p_value == mid_p_mcnemar(30, 10)
    assert found.difference == pytest.approx(0.1)
    assert found.verdict is Verdict.BETTER


def test_the_other_way_round_is_worse() -> None:
    """Baseline and candidate exchanged: WORSE."""
    assert binary(10, 30, 160).verdict is Verdict.WORSE


def test_enough_questions_without_a_difference_show_none() -> None:
    """Few wins and losses among many questions: no difference of the size asked for, with the size in the text."""
    found = binary(6, 5, 989)
    assert found.verdict is Verdict.NO_DIFFERENCE
    assert found.verdict_text == "NO DIFFERENCE OF SIZE 0.05"
    assert found.needed is None


def test_too_few_questions_are_inconclusive_and_say_how_many_would_do() -> None:
    """Not significant is not "no difference": the number of questions that would find the difference is given."""
    found = binary(9, 8, 83)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.needed is not None
    assert found.needed.questions is not None
    assert found.needed.questions == pytest.approx(100 * (found.minimal_detectable_effect / 0.05) ** 2, rel=0.02)
    least, most = found.needed.questions_range or (0, 0)
    assert least < 0.7 * found.needed.questions < 1.4 * found.needed.questions < most
    assert f"{least:,} to {most:,} questions instead of 100" in found.needed.sentence
    assert "Looking again after each addition" in found.needed.sentence
    assert found.needed.repeats is None
    assert "two draws per question would tell" in found.needed.sentence


def test_two_runs_that_agree_on_everything_prove_nothing_by_themselves() -> None:
    """A spread of 0 on few questions is no proof of no difference, for one draw and for several."""
    one = compare_paired(table_of([1, 0] * 10), table_of([1, 0] * 10))
    several = compare_paired(table_of([[1, 0, 0.5]] * 20), table_of([[1, 0, 0.5]] * 20))
    for found in (one, several):
        assert (found.difference, found.p_value, found.error.value) == (0.0, 1.0, 0.0)
        assert found.interval.width > 0.1
        assert found.verdict is Verdict.INCONCLUSIVE
        assert found.needed is not None
        assert found.needed.questions is not None
        assert found.minimal_detectable_effect > 0.1
        assert found.needed.questions > 80


def test_a_few_questions_whose_spread_is_known_by_luck_ask_for_a_hundred() -> None:
    """Three questions that differ by .03 are no sample: what no question showed could be anything."""
    found = compare_paired(table_of([0.5, 0.5, 0.5]), table_of([0.47, 0.5, 0.53]))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.needed is not None
    assert found.needed.questions == 100


def test_repeats_are_advised_where_they_would_settle_it() -> None:
    """Equal programs with noisy draws: repeats bring the error down to what is needed, and that many are named."""
    rng = np.random.default_rng(4)
    scores = (rng.random((2, 200, 2)) < 0.5).astype(float)
    found = compare_paired(table_of(scores[0].tolist()), table_of(scores[1].tolist()))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.needed is not None
    assert found.needed.repeats is not None
    assert found.within_baseline is not None
    assert found.within_candidate is not None
    assert found.between is not None
    total = found.within_baseline + found.within_candidate
    for repeats, reached in ((found.needed.repeats, True), (found.needed.repeats - 1, False)):
        assert ((found.between + total / repeats) / 200 <= found.needed.target_error**2 + 1e-12) is reached


def test_no_number_of_repeats_helps_where_the_questions_differ() -> None:
    """Programs that are good at different questions: only more questions settle it."""
    before = [[1, 1, 1, 1]] * 20 + [[0, 0, 0, 0]] * 20 + [[1, 0, 1, 0]] * 2
    after = [[0, 0, 0, 0]] * 20 + [[1, 1, 1, 1]] * 20 + [[1, 1, 1, 0]] * 2
    found = compare_paired(table_of(before), table_of(after))
    assert found.needed is not None
    assert found.needed.repeats is None
    assert "no number of repeats would" in found.needed.sentence


def test_a_comparison_large_enough_that_sees_something_between_asks_for_more() -> None:
    """Able to see d, and both 0 and d still possible: it asks for what the difference seen needs."""
    rng = np.random.default_rng(5)
    noise = rng.normal(size=400)
    noise = (noise - noise.mean()) / noise.std(ddof=1) * 0.3
    base = rng.normal(size=400)
    found = compare_paired(table_of(base.tolist()), table_of((base + noise + 0.025).tolist()), smallest_difference=0.05)
    assert found.minimal_detectable_effect < 0.05
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.needed is not None
    assert found.needed.questions == pytest.approx(4 * 400 * (found.minimal_detectable_effect / 0.05) ** 2, rel=0.01)


@pytest.mark.parametrize(
    ("low", "high", "p_value", "unseen", "verdict"),
    [
        (0.01, 0.09, 0.02, 0.0, Verdict.BETTER),
        (-0.09, -0.01, 0.02, 0.0, Verdict.WORSE),
        (0.001, 0.09, 0.06, 0.0, Verdict.INCONCLUSIVE),
        (0.001, 0.04, 0.06, 0.0, Verdict.NO_DIFFERENCE),
        (-0.03, 0.03, 1.0, 0.05, Verdict.NO_DIFFERENCE),
        (-0.03, 0.03, 1.0, 0.051, Verdict.INCONCLUSIVE),
        (-0.005, 0.065, 0.1, 0.0, Verdict.INCONCLUSIVE),
        (-0.05, 0.02, 0.4, 0.0, Verdict.INCONCLUSIVE),
        (-math.inf, math.inf, 1.0, math.inf, Verdict.INCONCLUSIVE),
    ],
)
def test_the_verdict(low: float, high: float, p_value: float, unseen: float, verdict: Verdict) -> None:
    """A win needs interval and p-value, no difference of .05 an interval within it and questions to have shown it."""
    interval = Interval(low=low, high=high, level=0.95, method="any", units=100)
    assert verdict_of(interval, p_value, 0.05, unseen=unseen) is verdict
    doubtful = replace(interval, caveats=("few decide",), doubtful=True)
    assert verdict_of(doubtful, p_value, 0.05, unseen=unseen) is Verdict.INCONCLUSIVE
    few = verdict_of(replace(interval, caveats=("few questions",)), p_value, 0.05, unseen=unseen)
    assert few is (Verdict.INCONCLUSIVE if verdict is Verdict.NO_DIFFERENCE else verdict)


@pytest.mark.parametrize(("low", "high"), [(0.0, 100.0), (-1.0, 1.0), (0.0, 5.0)])
@pytest.mark.parametrize("repeats", [1, 2])
def test_a_comparison_of_passes_is_the_same_on_any_scale(low: float, high: float, repeats: int) -> None:
    """0 and 100, or -1 and 1: the numbers of 0 and 1 stretched, the same p-value, verdict and questions needed."""
    scores = (np.random.default_rng(repeats).random((2, 120, repeats)) < 0.8).astype(float)
    plain = compare_paired(*(table_of(one.tolist()) for one in scores))
    found = compare_paired(*(table_of((low + (high - low) * one).tolist()) for one in scores))
    size = high - low
    assert (found.verdict, found.p_value) == (plain.verdict, pytest.approx(plain.p_value))
    assert found.smallest_difference == pytest.approx(0.05 * size)
    assert (found.interval.low, found.interval.high) == pytest.approx(
        (size * plain.interval.low, size * plain.interval.high)
    )
    assert found.minimal_detectable_range == pytest.approx(tuple(size * end for end in plain.minimal_detectable_range))
    assert found.needed is not None
    assert plain.needed is not None
    assert found.needed.questions_range == plain.needed.questions_range


def test_two_wins_and_ties_are_no_proof_of_no_difference() -> None:
    """Two wins and 98 ties with two equal draws each are what one draw says: inconclusive about a size of .05."""
    before, after = [[0, 0]] * 2 + [[1, 1]] * 98, [[1, 1]] * 100
    found = compare_paired(table_of(before), table_of(after))
    once = compare_paired(table_of([0] * 2 + [1] * 98), table_of([1] * 100))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert (found.interval, found.p_value) == (once.interval, once.p_value)


@pytest.mark.parametrize(("n", "few"), [(10, True), (40, True), (150, False)])
def test_what_no_question_showed_is_allowed_for(n: int, few: bool) -> None:
    """Differences of a thousandth say nothing of rare ones of 1: so many questions as rule those out are needed."""
    before = np.random.default_rng(n).uniform(0.1, 0.9, n)
    found = compare_paired(table_of(before.tolist()), table_of((before + np.resize([-0.001, 0.001], n)).tolist()))
    assert found.unseen == pytest.approx(-math.log(0.05) / n)
    assert found.verdict is (Verdict.INCONCLUSIVE if few else Verdict.NO_DIFFERENCE)


def test_questions_that_do_not_pair_are_listed() -> None:
    """Only common questions are compared, by id and not by position, and the others are named."""
    a = table_of([1, 0, 1, 1], questions=["a", "b", "c", "d"])
    b = table_of([0, 1, 1, 0], questions=["e", "c", "b", "a"])
    found = compare_paired(a, b)
    assert (found.n, found.only_baseline, found.only_candidate) == (3, ("d",), ("e",))
    assert (found.wins, found.ties, found.losses) == (1, 1, 1)
    assert (found.baseline_mean, found.candidate_mean) == pytest.approx((2 / 3, 2 / 3))


def test_nothing_in_common_is_an_error() -> None:
    """Two evaluations on different questions cannot be compared."""
    with pytest.raises(ConfigurationError, match="none of the 1 questions"):
        compare_paired(table_of([1], questions=["a"]), table_of([1], questions=["b"]))


def test_clusters_may_be_given_once_and_must_not_contradict() -> None:
    """One table's clusters hold for both; two different clusters of a question are an error."""
    scores = [0.0, 0.5, 1.0, 0.25]
    clustered, plain = table_of(scores, clusters=list("xxyy")), table_of(scores[::-1])
    assert compare_paired(clustered, plain).error.clusters == 2
    assert compare_paired(plain, clustered).error.clusters == 2
    with pytest.raises(ConfigurationError, match="cluster 'x' of the baseline and in 'z'"):
        compare_paired(clustered, table_of(scores, clusters=list("zzyy")))


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_one_question_decides_nothing(scale: float) -> None:
    """A single pair is inconclusive, whatever it scored."""
    found = compare_paired(table_of([[0.0, scale]]), table_of([[scale, scale]]))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.error.value == found.minimal_detectable_effect == math.inf
    assert found.needed is not None
    assert found.needed.questions is None
    assert "cannot tell what would settle it" in found.needed.sentence


def test_the_same_difference_on_every_question_needs_enough_of_them() -> None:
    """Every question better by the same amount: a sign test, and a verdict as soon as the scale allows it."""
    for n, verdict in ((3, Verdict.INCONCLUSIVE), (60, Verdict.BETTER)):
        found = compare_paired(table_of([[0.25, 0.25]] * n), table_of([[0.75, 0.75]] * n))
        assert (found.test, found.p_value) == ("sign", 0.5**n)
        assert found.verdict is verdict


def test_a_difference_in_the_last_bit_is_a_tie() -> None:
    """Means that are equal but for rounding are neither a win nor a difference."""
    found = compare_paired(table_of([[0.0, 0.0, 0.3]] * 3), table_of([[0.0, 0.2]] * 3))
    assert (found.wins, found.ties, found.losses, found.difference) == (0, 3, 0, 0.0)


def test_few_differing_questions_are_flagged() -> None:
    """A t test on a handful of differing questions carries a caveat."""
    for few, said in ((4, "differ on 4 questions only"), (1, "differ on 1 question only")):
        before, after = [[0.5, 0.5]] * 200, [[0.5, 1.0]] * few + [[0.5, 0.5]] * (200 - few)
        found = compare_paired(table_of(before), table_of(after))
        assert any(said in caveat for caveat in found.interval.caveats)


@pytest.mark.parametrize("size", [0.0, -0.1, math.nan, math.inf, "0.1", True])
def test_the_smallest_difference_must_be_one(size: Any) -> None:
    """No difference of size 0 can be shown, nor one that is no number."""
    with pytest.raises(ConfigurationError, match="smallest_difference must be above 0"):
        compare_paired(table_of([0, 1]), table_of([1, 1]), smallest_difference=size)


@given(two_programs)
def test_exchanging_the_programs_exchanges_everything(scores: list[tuple[list[float], list[float]]]) -> None:
    """B against A is A against B turned round: the same p-value, the mirrored interval, the opposite verdict."""
    a, b = table_of([row[0] for row in scores]), table_of([row[1] for row in scores])
    forth, back = compare_paired(a, b), compare_paired(b, a)
    assert forth.difference == pytest.approx(-back.difference, abs=1e-12)
    assert forth.p_value == pytest.approx(back.p_value, abs=1e-9)
    assert (forth.wins, forth.ties, forth.losses) == (back.losses, back.ties, back.wins)
    assert (forth.interval.low, forth.interval.high) == pytest.approx(
        (-back.interval.high, -back.interval.low), abs=1e-9
    )
    opposite = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}
    assert forth.verdict is opposite.get(back.verdict, back.verdict)


@given(two_programs)
def test_numbers_keep_their_bounds(scores: list[tuple[list[float], list[float]]]) -> None:
    """p in [0, 1], correlation in [-1, 1], the difference in its interval, and needed only when inconclusive."""
    found = compare_paired(table_of([row[0] for row in scores]), table_of([row[1] for row in scores]))
    assert 0.0 <= found.p_value <= 1.0
    assert found.correlation is None or -1.0 <= found.correlation <= 1.0
    assert found.interval.low - 1e-9 <= found.difference <= found.interval.high + 1e-9
    assert found.wins + found.ties + found.losses == found.n
    assert (found.needed is not None) is (found.verdict is Verdict.INCONCLUSIVE)
    if found.needed is not None and found.needed.questions is not None:
        assert found.needed.questions > found.n


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.sampled_from([0.8, 0.95, 0.99]))
def test_tangos_interval_holds_the_difference_and_mirrors(wins: int, losses: int, ties: int, level: float) -> None:
    """The interval contains (wins - losses)/n, stays in [-1, 1], and turns round with wins and losses."""
    n = wins + losses + ties + 1
    interval, mirrored = tango_interval(wins, losses, n, level=level), tango_interval(losses, wins, n, level=level)
    assert -1.0 <= interval.low <= (wins - losses) / n <= interval.high <= 1.0
    assert (interval.low, interval.high) == pytest.approx((-mirrored.high, -mirrored.low), abs=1e-8)


def test_the_scale_is_that_of_all_scores_together() -> None:
    """Zeros alone lie on the scale of 0 to 1 and on any other: beside scores of -8 to 0 nothing reaches 1."""
    found = compare_paired(table_of([-8.0, -8.0, 0.0, -8.0]), table_of([0.0] * 4))
    assert found.smallest_difference == pytest.approx(0.4)
    assert found.test == "mid-p McNemar"
