"""What the repeats of a question say: can it be done, is it done every time, and were they repeats at all?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.statistics.scores import ScoreTable


@dataclass(frozen=True, slots=True, kw_only=True)
class DistinctDraws:
    """How many of the repeats were draws of their own.

    Attributes:
        asked: The number of repeats of all questions together.
        distinct: The number of distinct draws among them; None where that cannot be known.
        effective: K_eff, the harmonic mean over questions of the number of distinct draws; 1 where every
            repeat of every question gave the same output; NaN where the number of distinct draws is not known.
        said: What of this needs saying, in sentences; none where every repeat is a draw of its own.
        known: How many were known before they were asked for, as draws of another run: they are not fresh.
    """

    asked: int
    distinct: int | None
    effective: float
    said: tuple[str, ...]
    known: int = 0

    @property
    def sentence(self) -> str:
        """What of this needs saying; empty where every repeat is a draw of its own."""
        return " ".join(self.said)


def distinct_draws(
    asked: int,
    outputs: Sequence[Sequence[Hashable]],
    *,
    lost: int = 0,
    elsewhere: int = 0,
    known: int = 0,
    doubts: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> DistinctDraws:
    """Count the draws that are draws of their own, and see whether they all say the same.

    Distinct draws may still say the same, and at temperature 0 they do: if all outputs of all questions are equal, the
    repeats say nothing that one of them does not, and K_eff is 1.

    Args:
        asked: The number of repeats of all questions together.
        outputs: Per question what each of its distinct draws said, or a hash of it, shape (n, K_i).
        lost: How many repeats are no draws, since they failed before there was one.
        elsewhere: How many of these are draws of another question as well.
        known: How many were known before they were asked for.
        doubts: Why it cannot be known how many are distinct, in sentences; empty where it can.
        notes: What else there is to say of them, in sentences.

    Returns:
        The counts, with K_eff for use in place of K.
    """
    rows = [row for row in outputs if row]
    found = sum(map(len, rows))
    effective = len(rows) / math.fsum(1.0 / len(row) for row in rows) if rows else 0.0
    sentences = [*doubts, *notes]
    replays = asked - lost - found
    if replays:
        sentences.append(f"{replays} of {asked} repeats are replays of a draw that is already counted.")
    if elsewhere:
        sentences.append(f"{elsewhere} of {asked} repeats are draws of another question as well.")
    if doubts:
        effective = math.nan
    elif found > len(rows) and all(len(set(row)) == 1 for row in rows):
        effective = 1.0
        sentences.append("All draws of every question gave the same output: K_eff = 1, and repeats add nothing.")
    return DistinctDraws(
        asked=asked,
        distinct=None if doubts else found - elsewhere,
        effective=effective,
        said=tuple(sentences),
        known=known,
    )


def pass_at_k(table: ScoreTable, k: int) -> float:
    """The probability that at least one of k draws passes: 1 - C(K-c, k) / C(K, k), the mean over questions.

    Unbiased for c passes among K draws. Source: Chen et al., arXiv 2107.03374, section 2.1.

    Args:
        table: The scores, n questions with K_i draws.
        k: How many draws one may try, at least 1.

    Returns:
        A probability; NaN where a question has fewer than k draws, or it is not known what score passes.

    Raises:
        ConfigurationError: `k` is below 1.
    """
    return _over_questions(table, k, lambda draws, passes: 1.0 - _share(draws - passes, draws, k))


def pass_hat_k(table: ScoreTable, k: int) -> float:
    """pass^k, the probability that all of k draws pass: C(c, k) / C(K, k), the mean over questions.

    Unbiased for c passes among K draws. Source: Yao et al., tau-bench, arXiv 2406.12045.

    Args:
        table: The scores, n questions with K_i draws.
        k: How many draws must all pass, at least 1.

    Returns:
        A probability; NaN where a question has fewer than k draws, or it is not known what score passes.

    Raises:
        ConfigurationError: `k` is below 1.
    """
    return _over_questions(table, k, lambda draws, passes: _share(passes, draws, k))


def flip_rate(table: ScoreTable) -> float:
    """The probability that two draws of one question differ in score: 0 where repeats always agree.

    The share of unequal pairs of draws, the mean over questions; unbiased. For scores of 0 and 1 it is twice
    the variance within questions. Source: Simpson, Nature 163 (1949), one minus his index.

    Args:
        table: The scores, n questions.

    Returns:
        A probability, over the questions with two or more draws; NaN where there are none.
    """
    rates = []
    for scores in _repeated(table):
        pairs = math.comb(len(scores), 2)
        rates.append(1.0 - sum(math.comb(count, 2) for count in Counter(scores).values()) / pairs)
    return math.fsum(rates) / len(rates) if rates else math.nan


def consistency(table: ScoreTable) -> float:
    """The share of questions all of whose draws scored the same.

    A definition, not an estimate: it falls as draws are added, so compare it at equal numbers of them;
    `flip_rate` does not.

    Args:
        table: The scores, n questions.

    Returns:
        A share, of the questions with two or more draws; NaN where there are none.
    """
    rows = _repeated(table)
    return sum(len(set(scores)) == 1 for scores in rows) / len(rows) if rows else math.nan


def _repeated(table: ScoreTable) -> list[tuple[float, ...]]:
    return [scores for scores in table.scores if len(scores) > 1]


def _over_questions(table: ScoreTable, k: int, rate: Callable[[int, int], float]) -> float:
    if k < 1:
        raise ConfigurationError(f"k must be at least 1, not {k!r}")
    passing = table.score_range[1]
    if any(len(scores) < k for scores in table.scores) or not (passing == 1.0 or table.is_binary):
        return math.nan
    rates = [rate(len(scores), sum([score >= passing for score in scores])) for scores in table.scores]
    return math.fsum(rates) / table.n


def _share(chosen_from: int, draws: int, k: int) -> float:
    return math.comb(chosen_from, k) / math.comb(draws, k)
