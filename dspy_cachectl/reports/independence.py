"""Whether the answers behind a report are draws of their own: what is known of that, and what cannot be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dspy_cachectl.entries.draw_tokens import KNOWN, PERHAPS, Draws
from dspy_cachectl.reports.texts import plural
from dspy_cachectl.statistics.repeats import DistinctDraws, distinct_draws

NONE_SEEN = "no LM call was seen to answer"
"""What is said where nothing is known of what answered."""

_SEEDS_NAMED = 5


@dataclass(frozen=True)
class Doubts:
    """What stands in the way of counting the draws of a report.

    Attributes:
        told_apart: Tells the LM's answers apart.
        draws: Of every answer that was asked for the tokens of the LM's answers behind it.
        rows: Likewise per question, of those that are told apart.
        unseen: How many answers of the program came from calls that nobody saw.
        seen: Whether a call of the program was seen at all, or one that strayed.
        lost: How many repeats are no draws, since they failed before there was one.
        seeds: The seeds that the LM was asked with.
        varies: Whether the LM was asked in a way that lets it answer one question in several ways.
    """

    told_apart: Draws
    draws: Sequence[str]
    rows: Sequence[Sequence[str]]
    unseen: int = 0
    seen: bool = True
    lost: int = 0
    seeds: Sequence[Any] = ()
    varies: bool = True

    def counted(self, outputs: Sequence[Sequence[str]]) -> DistinctDraws:
        """Return how many draws are distinct, as far as that is known.

        Args:
            outputs: Per question what each of its distinct draws said.
        """
        told = [self.told_apart.all_told(draw) for row in self.rows for draw in row if draw]
        return distinct_draws(
            len(self.draws),
            outputs,
            lost=self.lost,
            elsewhere=len(told) - len(set(told)),
            known=self.known(KNOWN),
            doubts=list(self.sentences()),
            notes=list(self.notes()),
        )

    def sentences(self) -> Iterator[str]:
        """Yield why it cannot be known how many draws are distinct."""
        asked, unseen = len(self.draws), self.unseen
        if unseen and not self.seen:
            yield f"{NONE_SEEN[0].upper()}{NONE_SEEN[1:]}: how many draws are distinct is not known."
        elif unseen:
            yield (
                f"Which draws {unseen} of {asked} answers rest on is not known, nor whether they are distinct: "
                "calls were made out of sight, as in a bare thread pool, or not at all."
            )
        if self.seeds and any(len(row) > 1 for row in self.rows):
            more = f" and {len(self.seeds) - _SEEDS_NAMED:,} more" if len(self.seeds) > _SEEDS_NAMED else ""
            named = ", ".join(map(str, self.seeds[:_SEEDS_NAMED])) + more
            yield (
                f"The LM was asked with the seed {named}: where the provider honours it, the repeats of a question are "
                "one draw, so how many are distinct is not known."
            )
        is_doubtful = self.told_apart.is_doubtful
        doubtful = sum(any(map(is_doubtful, _tokens(draw))) for draw in self.draws) if self.told_apart.may_doubt else 0
        if doubtful:
            yield (
                f"Whether {doubtful} of {asked} answers are draws of their own is not known: another says the same, "
                "and the provider's ids do not tell them apart."
            )

    def notes(self) -> Iterator[str]:
        """Yield what is known, and what is not, of answers that say the same, or that were there before."""
        known, perhaps, asked = self.known(KNOWN), self.known(PERHAPS), len(self.draws)
        if self.varies and self._all_alike() and not any(self.sentences()):
            yield (
                "That the repeats are draws of their own is what the provider's ids say; word for word they are the "
                "same, at a temperature that lets them differ. Either the model is that sure, or something on the way "
                "to it caches, and gives new ids."
            )
        if known:
            yield (
                f"{known} of {plural(asked, 'answer')} {'is' if known == 1 else 'are'} not fresh: something on the way "
                "to the model caches, and gave what it had given to other draws before."
            )
        if perhaps:
            yield (
                f"Whether {perhaps} of {plural(asked, 'answer')} {'is' if perhaps == 1 else 'are'} fresh is not known: "
                "other draws said the same before, and the provider's ids do not tell them apart."
            )

    def known(self, how: str) -> int:
        """Return how many answers rest on one that was known before, for sure or perhaps."""
        if self.told_apart.are_all_fresh:
            return 0
        return sum(any(self.told_apart.known(token) == how for token in _tokens(draw)) for draw in self.draws)

    def _all_alike(self) -> bool:
        said = [[self._said(draw) for draw in row] for row in self.rows if len(row) > 1]
        return bool(said) and all("" not in row and len(set(row)) == 1 for row in said)

    def _said(self, draw: str) -> str:
        contents = [self.told_apart.content(token) for token in _tokens(draw)]
        return "+".join(sorted(contents)) if all(contents) else ""


def _tokens(draw: str) -> list[str]:
    return draw.split("+") if draw else []
