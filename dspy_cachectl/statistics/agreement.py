"""Whether several who judge the same agree: Krippendorff's alpha and Cohen's kappa."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.statistics.bootstrap import FEWEST_RESAMPLES
from dspy_cachectl.statistics.quantiles import check_level, needed, two_sided_quantile, two_sided_t
from dspy_cachectl.statistics.variance import standard_error_of

KINDS = ("nominal", "interval")
"""How values differ: they are the same or not, or by the square of their distance."""

_BATCH = 2_000_000
"""How many numbers are drawn at once, whatever the number of units."""
Units = Sequence[Sequence[float]]
"""For each thing that is judged the values it was given, in any order, as many as there are."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """A coefficient of agreement: 1 where all agree, 0 where they agree as often as by chance.

    Attributes:
        value: The coefficient; NaN where all values are one, so that chance explains all there is.
        low: Where its interval begins; NaN where there is none.
        high: Where it ends.
        level: The nominal coverage of the interval.
        units: How many things were judged at least twice.
        method: How it was computed, in words.
    """

    value: float
    low: float
    high: float
    level: float
    units: int
    method: str


def krippendorff_alpha(
    units: Units,
    *,
    kind: str = "nominal",
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Agreement:
    """Krippendorff's alpha, 1 - D_o / D_e, with a bootstrap interval over the units, or over their clusters.

    D_o is the mean difference of two values of one unit, D_e that of any two values. Values may be missing: what was
    judged once counts nowhere. Source: Krippendorff, "Computing Krippendorff's alpha-reliability" (2011), sections C
    and D.

    Args:
        units: The values of each unit.
        kind: `"nominal"` or `"interval"`.
        clusters: The cluster of each unit; None where they are independent.
        level: The nominal coverage of the interval.
        seed: The seed of the resamples.

    Raises:
        ConfigurationError: No unit has two values, or the kind is not known.
        MissingExtraError: numpy is not installed.
    """
    check_level(level)
    if kind not in KINDS:
        raise ConfigurationError(f"kind is one of {', '.join(map(repr, KINDS))}, not {kind!r}")
    groups = range(len(units)) if clusters is None else clusters
    paired = [(list(map(float, unit)), group) for unit, group in zip(units, groups, strict=True) if len(unit) > 1]
    if not paired:
        raise ConfigurationError("agreement is between two at least: nothing was judged twice")
    np: Any = needed("numpy", "an interval of Krippendorff's alpha")
    values = sorted({value for unit, _ in paired for value in unit})
    drawn: dict[Hashable, Any] = {}
    for unit, group in paired:
        drawn[group] = drawn.get(group, 0.0) + np.array(_sums(unit, kind, values))
    sums, count = np.array(list(drawn.values())), len(drawn)
    value = float(_alpha(np, sums.sum(axis=0)[None, :], kind)[0])
    rng, chances, rows = np.random.default_rng(seed), [1 / count] * count, max(1, _BATCH // count)
    sizes = [min(rows, FEWEST_RESAMPLES - done) for done in range(0, FEWEST_RESAMPLES, rows)]
    found = _alpha(np, np.vstack([rng.multinomial(count, chances, size) @ sums for size in sizes]), kind)
    found = found[np.isfinite(found)] if count > 1 else found[:0]
    tails = [(1.0 - level) / 2.0, (1.0 + level) / 2.0]
    low, high = map(float, np.quantile(found, tails)) if found.size and math.isfinite(value) else (math.nan, math.nan)
    by = "answer" if clusters is None else "cluster"
    method = f"Krippendorff's alpha, {kind}, bootstrap by {by}, {FEWEST_RESAMPLES:,} resamples, seed {seed}"
    return Agreement(value, low, high, level, len(paired), method)


def _sums(unit: Sequence[float], kind: str, values: Sequence[float]) -> list[float]:
    """Return what alpha is made of, for one unit: it is added up over units."""
    count, counts = len(unit), Counter(unit)
    if kind == "nominal":
        differing = count * count - sum(number * number for number in counts.values())
        return [differing / (count - 1), count, *(counts[value] for value in values)]
    middle = math.fsum(values) / len(values)  # near 0, so that no digits are lost
    moved = [value - middle for value in unit]
    total, squares = math.fsum(moved), math.fsum(one * one for one in moved)
    return [2.0 * (count * squares - total * total) / (count - 1), count, total, squares]


def _alpha(np: Any, sums: Any, kind: str) -> Any:
    """Return alpha for rows of sums."""
    observed, n = sums[:, 0], sums[:, 1]
    expected = n * n - (sums[:, 2:] ** 2).sum(axis=1) if kind == "nominal" else 2.0 * (n * sums[:, 3] - sums[:, 2] ** 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 1e-12 * n * n, 1.0 - (n - 1.0) * observed / expected, np.nan)


def cohen_kappa(
    pairs: Sequence[tuple[float, float]], *, clusters: Sequence[Hashable] | None = None, level: float = 0.95
) -> Agreement:
    """Cohen's kappa of two who judge, (p_o - p_e) / (1 - p_e), with the interval of its large-sample variance.

    Each pair (a, b) changes kappa by ([a = b] - p_o - (1 - kappa) (p_.a + p_b. - 2 p_e)) / (1 - p_e), whose variance it
    is; of clusters the sums count. Sources: Cohen, Educational and Psychological Measurement 20 (1960) 37-46; Fleiss,
    Cohen & Everitt, Psychological Bulletin 72 (1969) 323-327, for the variance.

    Args:
        pairs: What each of the two says of each thing that is judged.
        clusters: The cluster of each of these; None where they are independent.
        level: The nominal coverage of the interval.

    Raises:
        ConfigurationError: There is no pair.
    """
    check_level(level)
    if not pairs:
        raise ConfigurationError("agreement is between two at least: nothing was judged by both")
    n = len(pairs)
    rows, columns = (Counter(pair[side] for pair in pairs) for side in (0, 1))
    observed = sum(one == other for one, other in pairs) / n
    chance = math.fsum(count / n * columns[value] / n for value, count in rows.items())
    if chance >= 1.0:
        return Agreement(math.nan, math.nan, math.nan, level, n, "Cohen's kappa")
    kappa = (observed - chance) / (1.0 - chance)
    changes = [
        ((one == other) - observed - (1.0 - kappa) * ((columns[one] + rows[other]) / n - 2.0 * chance)) / (1.0 - chance)
        for one, other in pairs
    ]
    if clusters is None:
        half = two_sided_quantile(level) * math.sqrt(math.fsum(change**2 for change in changes)) / n
    else:
        error = standard_error_of(changes, clusters)
        half = two_sided_t(level, error.degrees) * error.value if error.degrees else math.nan
    low, high = (math.nan, math.nan) if math.isnan(half) else (kappa - half, min(1.0, kappa + half))
    return Agreement(kappa, low, high, level, n, "Cohen's kappa")
