"""The simulations that the comparison rests on: how often it sees what is not there, and what is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from dspy_cachectl.statistics.intervals import Interval
from dspy_cachectl.statistics.paired import compare_paired, is_even_among, mid_p_mcnemar, tango_interval
from dspy_cachectl.statistics.power import difference_variance, sample_size
from dspy_cachectl.statistics.verdicts import Verdict, verdict_of
from tests.statistics.clusters import SETTLED, compared
from tests.statistics.simulate import UNEQUAL, Floats, fresh, in_full
from tests.statistics.tables import table_of

TRIALS = 4000


class Binary:
    """Comparisons of programs scored 0 or 1 with one draw each, by their numbers of wins and losses.

    With difficulties drawn independently for every question, the numbers of wins and losses are multinomial, and
    the comparison depends on nothing else. The most frequent outcomes are compared with `compare_paired`.
    """

    def __init__(self, rng: np.random.Generator, before: Floats, after: Floats, n: int, trials: int = TRIALS) -> None:
        self.n = n
        rates = [float(np.mean(after * (1 - before))), float(np.mean(before * (1 - after)))]
        drawn = rng.multinomial(n, [*rates, 1 - sum(rates)], trials)[:, :2].tolist()
        self.outcomes = Counter((wins, losses) for wins, losses in drawn)
        self.found = {outcome: self._compare(*outcome) for outcome in self.outcomes}
        for outcome, _ in self.outcomes.most_common(3):
            self._check(*outcome)

    def share(self, holds: Callable[[Verdict, float, Interval], bool]) -> float:
        """The share of trials for whose verdict, p-value and interval this holds."""
        return sum(count for outcome, count in self.outcomes.items() if holds(*self.found[outcome])) / sum(
            self.outcomes.values()
        )

    def _compare(self, wins: int, losses: int) -> tuple[Verdict, float, Interval]:
        interval, p_value = tango_interval(wins, losses, self.n), mid_p_mcnemar(wins, losses)
        return verdict_of(interval, p_value, 0.05), p_value, interval

    def _check(self, wins: int, losses: int) -> None:
        ties = [1] * (self.n - wins - losses)
        table = table_of([0] * wins + [1] * losses + ties), table_of([1] * wins + [0] * losses + ties)
        found = compare_paired(*table)
        assert (found.verdict, found.p_value, found.interval) == self.found[wins, losses]


def significant(a: Floats, b: Floats) -> NDArray[np.bool_]:
    """Where the paired t test of scores (trials, n, repeats) is significant, compared with `compare_paired` on some."""
    p_values = stats.ttest_rel(b.mean(2), a.mean(2), axis=1).pvalue
    for trial in range(8):
        found = compare_paired(table_of(a[trial].tolist()), table_of(b[trial].tolist()))
        assert found.p_value == pytest.approx(p_values[trial], rel=1e-6)
        assert (found.verdict in SETTLED) is bool(p_values[trial] < 0.05)
    return np.asarray(p_values < 0.05)


def difficulties(rng: np.random.Generator) -> Floats:
    """The passing rates of many questions, from 5 to 90%."""
    return 0.05 + 0.85 * rng.beta(2, 1.2, 400_000)


@pytest.mark.parametrize(
    ("delta", "least", "most"), [(0.0, 0.04, 0.055), in_full(0.05, 0.19, 0.26), (0.10, 0.62, 0.72)]
)
def test_mcnemar_keeps_its_type_i_error_and_its_power(delta: float, least: float, most: float) -> None:
    """n = 200, differences of 0, .05 and .10: about 5%, 22% and 67% get a verdict, which is that of the mid-p test."""
    rng = np.random.default_rng([7, round(100 * delta)])
    before = rng.beta(2, 1, 400_000) * (1 - delta)
    programs = Binary(rng, before, before + delta, 200, 10_000)
    assert least <= programs.share(lambda verdict, p, interval: verdict in SETTLED) <= most
    assert programs.share(lambda verdict, p, interval: (verdict in SETTLED) == (p < 0.05)) == 1.0
    assert 0.93 <= programs.share(lambda verdict, p, interval: delta in interval) <= 0.97


@pytest.mark.parametrize("n", [10, in_full(20), 50])
@pytest.mark.parametrize("passing", [0.5, in_full(0.75), 0.95])
def test_few_binary_questions_do_not_see_what_is_not_there(n: int, passing: float) -> None:
    """Equal programs on 10 to 50 questions, hard or almost always passed: at most 5.5% get a verdict."""
    rng = np.random.default_rng([n, round(100 * passing)])
    programs = Binary(rng, np.array([passing]), np.array([passing]), n)
    assert programs.share(lambda verdict, p, interval: verdict in SETTLED) <= 0.055
    assert programs.share(lambda verdict, p, interval: 0.0 in interval) >= 0.93


@pytest.mark.parametrize(("n", "repeats"), [(10, 3), in_full(20, 3), in_full(50, 5), (300, 2)])
def test_repeats_keep_the_type_i_error(n: int, repeats: int) -> None:
    """Equal programs with repeats: 3 to 6% get a verdict, on ten questions as on three hundred."""
    rng = np.random.default_rng([n, repeats])
    rates = rng.beta(2, 1, (TRIALS, n))
    assert 0.03 <= float(significant(fresh(rng, rates, repeats), fresh(rng, rates, repeats)).mean()) <= 0.06


def test_pairing_finds_much_more() -> None:
    """n = 300, K = 3, 5 points: pairing finds over 1.5 times what is found without, at a type I error of 5%."""
    rng = np.random.default_rng(12)
    difficulty = rng.beta(2, 1, (TRIALS, 300)) * 0.95
    for delta in (0.0, 0.05):
        a, b = fresh(rng, difficulty, 3), fresh(rng, difficulty + delta, 3)
        paired = float(significant(a, b).mean())
        unpaired = float(np.mean(stats.ttest_ind(b.mean(2), a.mean(2), axis=1).pvalue < 0.05))
        if delta:
            assert paired > 1.5 * unpaired
        else:
            assert paired == pytest.approx(0.05, abs=0.01)
            assert unpaired < 0.02


@pytest.mark.parametrize("groups", [np.repeat(np.arange(20), 10), *UNEQUAL])
@pytest.mark.parametrize("shared", [0.7, in_full(0.3), in_full(2.0)])
def test_the_clustered_comparison_keeps_its_type_i_error(groups: NDArray[np.int_], shared: float) -> None:
    """Differences that clusters of any sizes share: 5.5% get a verdict, and 3% the wrong end of an interval."""
    rng = np.random.default_rng(len(groups))
    found = rng.normal(scale=shared, size=(TRIALS, groups.max() + 1))[:, groups] + rng.normal(
        size=(TRIALS, len(groups))
    )
    p_values, _ = compared(found, groups)
    assert float(np.mean(p_values < 0.05)) <= 0.055
    # With a true difference of d, "no difference of size d" is said where the interval ends below it.
    assert float(np.mean((p_values < 0.05) & (found.mean(1) < 0.0))) <= 0.035


@pytest.mark.parametrize("times", [5, in_full(20)])
def test_a_question_asked_several_times_keeps_the_type_i_error(times: int) -> None:
    """Equal programs on 40 questions, each several times, decided by the question: 3 to 6%; otherwise far more."""
    rng = np.random.default_rng(times)
    groups = np.repeat(np.arange(40), times)
    before, after = (rng.random((2, TRIALS, 40)) < 0.6).astype(float)
    differences = (after - before)[:, groups]
    assert 0.03 <= float(np.mean(compared(differences, groups)[0] < 0.05)) <= 0.06
    assert float(np.mean(stats.ttest_1samp(differences, 0.0, axis=1).pvalue < 0.05)) > 0.3


@pytest.mark.parametrize("repeats", [1, in_full(4)])
def test_the_sample_size_gives_the_power_it_promises(repeats: int) -> None:
    """Planned for 80%, programs that differ by 5 points more or less are told apart four times in five."""
    rng = np.random.default_rng(repeats)
    before = difficulties(rng)
    after = np.clip(before + rng.normal(0.05, 0.09, before.shape), 0.0, 1.0)
    difference = float((after - before).mean())
    variance = difference_variance(
        between=float((after - before).var()),
        within_baseline=float((before * (1 - before)).mean()),
        within_candidate=float((after * (1 - after)).mean()),
        repeats_baseline=repeats,
        repeats_candidate=repeats,
    )
    n = sample_size(difference, variance=variance)
    if repeats == 1:
        programs = Binary(rng, before, after, n)
        power = programs.share(lambda verdict, p, interval: verdict is Verdict.BETTER)
    else:
        chosen = rng.integers(0, len(before), (TRIALS, n))
        power = float(significant(fresh(rng, before[chosen], repeats), fresh(rng, after[chosen], repeats)).mean())
    assert power == pytest.approx(0.80, abs=0.025)


def test_what_is_needed_settles_it() -> None:
    """The number of questions that inconclusive pilots ask for finds a difference of d four times in five."""
    rng = np.random.default_rng(14)
    before = difficulties(rng)
    pilots = []
    for _ in range(40):
        rates = rng.choice(before, 300)
        scores = fresh(rng, np.stack([rates, rates + 0.05]), 1)[..., 0].tolist()
        found = compare_paired(table_of(scores[0]), table_of(scores[1]))
        if found.needed is not None and found.needed.questions is not None:
            pilots.append(found.needed.questions)
    assert len(pilots) > 10
    programs = Binary(rng, before, before + 0.05, round(float(np.mean(pilots))))
    assert programs.share(lambda verdict, p, interval: verdict is Verdict.BETTER) == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize(("delta", "least", "most"), [(0.05, 0.0, 0.03), in_full(0.0, 0.75, 1.0)])
def test_no_difference_is_seldom_said_of_one(delta: float, least: float, most: float) -> None:
    """With a true difference of d, at most 3% are told that there is none of that size; without any, most are."""
    rng = np.random.default_rng(15)
    before = difficulties(rng)
    programs = Binary(rng, before, before + delta, 2000, 2000)
    assert least <= programs.share(lambda verdict, p, interval: verdict is Verdict.NO_DIFFERENCE) <= most


@pytest.mark.parametrize(
    ("n", "jump", "trials"),
    [(100, 1.0, 200), *(in_full(n, jump, 1000) for n in (10, 50, 100, 200) for jump in (1.0, 0.3))],
)
def test_no_difference_is_seldom_said_where_few_questions_decide(n: int, jump: float, trials: int) -> None:
    """Most questions differ by a thousandth and few by much, .05 on average: at most 5% are told of no difference."""
    rng = np.random.default_rng([n, round(10 * jump)])
    before = rng.uniform(0.3, 0.6, (trials, n))
    changes = rng.normal(0, 0.001, (trials, n)) + jump * (rng.random((trials, n)) < 0.05 / jump)
    scores = np.stack([before, before + changes], axis=1) / (1.0 + jump)
    size = 0.05 / (1.0 + jump)
    found = Counter(compare_paired(*map(table_of, pair), smallest_difference=size).verdict for pair in scores.tolist())
    assert found[Verdict.NO_DIFFERENCE] <= 0.05 * trials


@pytest.mark.parametrize("trials", [200, in_full(1000)])
def test_no_difference_is_said_of_repeats_that_agree_as_of_one(trials: int) -> None:
    """Two equal draws a question, 5 of 100 better: "no difference of .05" in at most 5%, as with one draw."""
    rng = np.random.default_rng(3)
    gained = (rng.random((trials, 100)) < 0.05).astype(float)
    zeros = table_of([[0.0, 0.0]] * 100)
    found = Counter(compare_paired(zeros, table_of([[one, one] for one in row])).verdict for row in gained.tolist())
    assert found[Verdict.NO_DIFFERENCE] <= 0.05 * trials


@pytest.mark.parametrize(("repeats", "trials"), [(2, 200), in_full(1, 1000), in_full(2, 1000)])
def test_ordinary_comparisons_carry_no_flag(repeats: int, trials: int) -> None:
    """200 questions that both pass in 30 to 90 of 100 cases: of 1,000 comparisons at most 20 carry a caveat."""
    rng = np.random.default_rng(repeats)
    rates = rng.uniform(0.3, 0.9, (trials, 1)) * np.ones((1, 200))
    a, b = fresh(rng, rates, repeats).tolist(), fresh(rng, rates, repeats).tolist()
    found = [compare_paired(table_of(before), table_of(after)) for before, after in zip(a, b, strict=True)]
    assert sum(bool(one.interval.caveats) for one in found) <= 0.02 * trials
    assert sum(one.verdict in SETTLED for one in found) <= 0.075 * trials


@pytest.mark.parametrize(("n", "clusters"), [(10, None), in_full(20, None), in_full(30, 5), in_full(40, 8)])
def test_the_detectable_difference_is_a_range_that_holds_the_true_one(n: int, clusters: int | None) -> None:
    """From ten questions or five clusters: in 92 of 100 trials the range holds the difference that is found in 80%."""
    rng = np.random.default_rng(n)
    groups = None if clusters is None else np.resize(np.arange(clusters), n)
    spread = rng.normal(size=(1000, n))
    if groups is not None:
        spread = spread + rng.normal(size=(1000, clusters))[:, groups]  # type: ignore[arg-type]
    true_error = float(spread.mean(1).std())
    zeros = table_of([0.0] * n, clusters=None if groups is None else groups.tolist())
    found = [compare_paired(zeros, table_of(row)) for row in spread.tolist()]
    truth = found[0].detectable_multiple * true_error
    held = [one.minimal_detectable_range[0] <= truth <= one.minimal_detectable_range[1] for one in found]
    assert float(np.mean(held)) >= 0.92


@pytest.mark.exhaustive
def test_a_family_denies_no_difference_that_is_there() -> None:
    """Five programs that are worse by just 0.05 than a sixth: that one is not is seldom said."""
    rng, n, trials, worse, pairs = np.random.default_rng(7), 800, 150, 5, 15
    alone = together = 0
    for _ in range(trials):
        difficulty = rng.uniform(0.1, 0.9, n)
        best = table_of((rng.random(n) < difficulty + 0.05).astype(float).tolist())
        others = [table_of((rng.random(n) < difficulty).astype(float).tolist()) for _ in range(worse)]
        found = [(compare_paired(best, other, smallest_difference=0.05), other) for other in others]
        even = [pair for pair in found if pair[0].verdict is Verdict.NO_DIFFERENCE]
        alone += bool(even)
        together += any(is_even_among(pairs, result, best, other) for result, other in even)
    assert alone / trials > 0.05
    assert together / trials <= 0.04
