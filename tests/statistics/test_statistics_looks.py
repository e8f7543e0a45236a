"""Looking more than once: the bounds against published ones, and the error of all looks together by simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.statistics.looks import (
    Bound,
    any_time_bound,
    error_spent,
    group_sequential_bounds,
    look_level,
)
from dspy_cachectl.statistics.verdicts import Verdict
from tests.statistics.clusters import differences, of_clusters, settled_share
from tests.statistics.looking import Settled, settled
from tests.statistics.simulate import in_full

GROUP_SEQUENTIAL = (Bound.OBRIEN_FLEMING, Bound.POCOCK)


def looks_of(bound: Bound, n: int) -> list[int]:
    """Ten looks; every five questions from 20 on where any number of them may be had."""
    return list(range(20, n + 1, 5)) if bound is Bound.ANY_TIME else [n * look // 10 for look in range(1, 11)]


def run(bound: Bound, *, delta: float, apart: float, n: int, trials: int, size: float = 0.05) -> Settled:
    rng = np.random.default_rng([n, round(100 * delta), trials])
    looks = looks_of(bound, n)
    return settled(rng, delta=delta, apart=apart, n=n, trials=trials, looks=looks, bound=bound, size=size)


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        (Bound.OBRIEN_FLEMING, (4.8769, 3.3569, 2.6803, 2.2898, 2.0310)),
        (Bound.POCOCK, (2.4380, 2.4268, 2.4101, 2.3966, 2.3859)),
    ],
)
def test_the_bounds_are_the_published_ones(bound: Bound, expected: tuple[float, ...]) -> None:
    """Five equally spaced looks at 5%: Reboussin, DeMets, Kim & Lan, Controlled Clinical Trials 21 (2000) 190-207."""
    assert expected == pytest.approx(group_sequential_bounds([0.2, 0.4, 0.6, 0.8, 1.0], bound=bound), abs=2e-4)


@pytest.mark.parametrize("bound", GROUP_SEQUENTIAL)
@pytest.mark.parametrize("fractions", [(0.5, 1.0), (0.1, 0.35, 0.36), in_full((0.3, 0.31, 0.9, 1.0))])
def test_paths_that_are_normal_cross_as_often_as_is_spent(bound: Bound, fractions: tuple[float, ...]) -> None:
    """Unplanned looks: the chance to cross at any of them, by scipy's multivariate normal, is what is spent by then."""
    bounds = np.array(group_sequential_bounds(fractions, bound=bound))
    times = np.array(fractions)
    together = np.sqrt(np.minimum.outer(times, times) / np.maximum.outer(times, times))
    inside = stats.multivariate_normal(cov=together, allow_singular=True, abseps=1e-7, releps=1e-7).cdf(
        bounds, lower_limit=-bounds
    )
    assert error_spent(fractions[-1], bound=bound) == pytest.approx(1.0 - inside, abs=2e-5)


def test_all_error_is_spent_at_the_end_and_none_before_the_beginning() -> None:
    """The whole of 5% after the last question, and next to nothing after the first of a thousand."""
    assert [0.05, 0.05] == [pytest.approx(error_spent(1.0, bound=bound)) for bound in GROUP_SEQUENTIAL]
    assert error_spent(0.001) < 1e-12
    assert math.inf == group_sequential_bounds([0.001, 1.0])[0]
    assert look_level([1], 1000) < 1.0


def test_one_look_at_everything_is_the_fixed_size() -> None:
    """Who looks once, at the end, has given nothing up."""
    assert [0.95, 0.95] == [pytest.approx(look_level([300], 300, bound=bound)) for bound in GROUP_SEQUENTIAL]


def test_the_any_time_bound_is_the_formula_of_its_source() -> None:
    """Theorem 2.2 of arXiv 2103.06476, written out with rho."""
    alpha, n = 0.05, 250
    rho = math.sqrt((-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / 100)
    half = math.sqrt(2 * (n * rho**2 + 1) / (n**2 * rho**2) * math.log(math.sqrt(n * rho**2 + 1) / alpha))
    assert any_time_bound(n) == pytest.approx(half * math.sqrt(n))


@pytest.mark.parametrize("asked", [[], [0], [20, 20], [30, 20], [20, 301]])
def test_looks_that_cannot_be_are_refused(asked: list[int]) -> None:
    """Numbers of questions that do not rise, or exceed what was planned."""
    with pytest.raises(ConfigurationError):
        look_level(asked, 300)


@pytest.mark.parametrize("bound", list(Bound))
@pytest.mark.parametrize(("apart", "n"), [in_full(0.3, 300), in_full(0.1, 300), in_full(0.3, 1000), (0.6, 100)])
def test_all_looks_together_keep_the_error(bound: Bound, apart: float, n: int) -> None:
    """Equal programs: at most 5.5% get a verdict at any of the looks, in 10,000 trials."""
    assert run(bound, delta=0.0, apart=apart, n=n, trials=10_000).power <= 0.055


@pytest.mark.parametrize(
    ("sizes", "bound"),
    [
        ([4, 5, 23, 10, 2, 6, 4, 7, 2, 7, 7, 21, 8, 9, 2], Bound.OBRIEN_FLEMING),
        in_full([4, 5, 23, 10, 2, 6, 4, 7, 2, 7, 7, 21, 8, 9, 2], Bound.POCOCK),
        in_full([7, 4, 4, 1, 25, 15, 5, 11, 8, 4, 13, 5, 5, 3, 9], Bound.OBRIEN_FLEMING),
        in_full([6, 18, 16, 4, 5, 4, 9, 6, 11, 1, 21, 6, 10, 5, 4], Bound.OBRIEN_FLEMING),
        in_full([5] * 15, Bound.OBRIEN_FLEMING),
    ],
)
def test_all_looks_at_clusters_that_agree_keep_the_error(sizes: list[int], bound: Bound) -> None:
    """Computed exactly for clusters whose questions all go the same way, either way with probability 1/2: 5.5%."""
    # The other half of the ways is the same with the programs exchanged.
    ways = np.array([(1.0, *others) for others in itertools.product([-1.0, 1.0], repeat=len(sizes) - 1)])
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    values = ways[:, clusters]
    assert settled_share(values, np.broadcast_to(clusters, values.shape), bound) <= 0.055


@pytest.mark.exhaustive
@pytest.mark.parametrize("bound", GROUP_SEQUENTIAL)
@pytest.mark.parametrize(
    ("kind", "binary"),
    [
        ("equal", True),
        *itertools.product(["geometric", "lognormal"], [True, False]),
        ("ones and large", True),
    ],
)
@pytest.mark.parametrize("alike", [0.1, 0.7, 0.99])
@pytest.mark.parametrize("n", [50, 100, 300])
def test_all_looks_at_clusters_keep_the_error(bound: Bound, kind: str, binary: bool, alike: float, n: int) -> None:
    """Equal programs, clusters of about 5: at most 5.5% get a verdict at any of the looks, in 10,000 trials."""
    rng = np.random.default_rng([n, round(100 * alike), len(kind), binary])
    clusters = of_clusters(rng, kind, 10_000, n, 5)
    assert settled_share(differences(rng, clusters, alike, binary=binary), clusters, bound) <= 0.055


@pytest.mark.parametrize(("n", "error"), [(300, 0.248), in_full(1000, 0.343)])
def test_naive_looks_do_not(n: int, error: float) -> None:
    """What the bounds are for: with 95% at each look, after every ten questions, 25 and 34% of equal ones differ."""
    rng = np.random.default_rng(5)
    seen = rng.multinomial(10, [0.15, 0.15, 0.7], (4000, n // 10))[:, :, :2].cumsum(axis=1)
    both, fewer = seen.sum(axis=2), seen.min(axis=2)
    p_values = 2 * stats.binom.cdf(fewer, both, 0.5) - stats.binom.pmf(fewer, both, 0.5)
    assert float((p_values[:, 1:] < 0.05).any(axis=1).mean()) == pytest.approx(error, abs=0.01)


POWERS = [(0.10, 0.3, 300), (0.15, 0.35, 300), (0.20, 0.4, 300)]


@pytest.mark.parametrize(("row", "used"), [*zip(POWERS, (0.8, 0.6, 0.5), strict=True)])
def test_the_default_finds_what_a_fixed_size_finds_with_fewer_questions(
    row: tuple[float, float, int], used: float
) -> None:
    """Power within 3 points of one look at all 300, at 80, 60 and 50% of the questions at most."""
    found = run(Bound.OBRIEN_FLEMING, delta=row[0], apart=row[1], n=row[2], trials=4_000)
    assert found.power >= found.fixed_power - 0.03
    assert found.used <= used


@pytest.mark.parametrize(("row", "used"), [*zip(POWERS, (0.65, 0.45, 0.35), strict=True)])
def test_the_other_bound_stops_sooner(row: tuple[float, float, int], used: float) -> None:
    """At 65, 45 and 35% of 300 questions at most, for those who give up power."""
    assert run(Bound.POCOCK, delta=row[0], apart=row[1], n=row[2], trials=4_000).used <= used


@pytest.mark.parametrize(("delta", "apart", "used"), [in_full(0.1, 0.3, 0.3), in_full(0.2, 0.4, 0.1)])
def test_looks_at_any_time_win_where_the_difference_is_large(delta: float, apart: float, used: float) -> None:
    """With 1,000 questions to be had, 30% and 10% of them are asked."""
    assert run(Bound.ANY_TIME, delta=delta, apart=apart, n=1000, trials=1_000).used <= used


@pytest.mark.parametrize("bound", list(Bound))
@pytest.mark.parametrize(("apart", "n", "size"), [(0.3, 300, 0.1), in_full(0.1, 1000, 0.05), in_full(0.3, 1000, 0.05)])
def test_no_difference_is_rarely_said_of_one(bound: Bound, apart: float, n: int, size: float) -> None:
    """With a true difference of d, NO DIFFERENCE OF SIZE d is said in at most 5%, whichever look says it."""
    assert run(bound, delta=size, apart=apart, n=n, trials=10_000, size=size).share(Verdict.NO_DIFFERENCE) <= 0.05


@pytest.mark.parametrize("bound", GROUP_SEQUENTIAL)
def test_no_difference_is_found_before_the_end(bound: Bound) -> None:
    """Of two equal programs that differ on a tenth of 1,000 questions, most are found to be so, with 70% of them."""
    found = run(bound, delta=0.0, apart=0.1, n=1000, trials=2_000)
    assert found.share(Verdict.NO_DIFFERENCE) > 0.9
    assert found.used < 0.7
