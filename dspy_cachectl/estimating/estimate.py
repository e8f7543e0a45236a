"""What an evaluation would cost, as a value, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from dspy_cachectl.reports.texts import duration, money, plural
from dspy_cachectl.showing.sheets import Cell, Sheet, Tone, facts, notes, sheet

UNKNOWN = "unknown"
BATCH_SHARE = 0.5
"""What an answer costs that is sent with a batch, as a share of its price."""


class Range(NamedTuple):
    """Between what something mostly is: in more than nine of ten runs.

    Attributes:
        low: The lower end.
        high: The upper end.
    """

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """What an evaluation would ask, and what that would probably cost. Nobody was asked for it.

    Attributes:
        name: What is evaluated.
        questions: How many questions.
        repeats: How many answers to each.
        stored: How many answers are there: kept, or of stored calls alone.
        served: How many calls of the others are stored.
        saved: What was paid for the stored calls of the others, in US dollars.
        judged: How many calls the judges of the metric would be asked for.
        requests: How many requests would be sent; None where nothing tells it. Likewise the next four.
        tokens: How many tokens would be read and written.
        cached_tokens: How many of them the provider has in its own cache, and sells for less.
        cost: US dollars.
        seconds: How long it would take.
        basis: What the ranges rest on, in words.
        notes: What is to be known before they are used.
    """

    name: str
    questions: int
    repeats: int
    stored: int
    served: int = 0
    saved: float = 0.0
    judged: int = 0
    requests: Range | None = None
    tokens: Range | None = None
    cached_tokens: Range | None = None
    cost: Range | None = None
    seconds: Range | None = None
    basis: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def total(cls, name: str, estimates: Sequence[Estimate]) -> Estimate:
        """Return several as one: their ends added, which is wider than it need be."""
        amounts = ("requests", "tokens", "cached_tokens", "cost", "seconds")
        questions, stored = sum(one.answers for one in estimates), sum(one.stored for one in estimates)
        return cls(
            name=name,
            questions=questions,
            repeats=1,
            stored=stored,
            served=sum(one.served for one in estimates),
            saved=sum(one.saved for one in estimates),
            judged=sum(one.judged for one in estimates),
            basis=f"{plural(len(estimates), 'estimate')} together",
            **{amount: _added([getattr(one, amount) for one in estimates]) for amount in amounts},  # type: ignore[arg-type]
        )

    @property
    def answers(self) -> int:
        """How many answers are wanted."""
        return self.questions * self.repeats

    @property
    def missing(self) -> int:
        """How many of them would ask."""
        return self.answers - self.stored

    @property
    def batch_cost(self) -> Range | None:
        """US dollars where the calls are sent as batches, which providers sell at half the price."""
        return None if self.cost is None else Range(self.cost.low * BATCH_SHARE, self.cost.high * BATCH_SHARE)

    @property
    def is_known(self) -> bool:
        """Whether anything tells what is missing."""
        return self.requests is not None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "answers": self.answers, "missing": self.missing, "batch_cost": self.batch_cost}

    def sheet(self) -> Sheet:
        """Return what is shown of it."""
        what = f"{plural(self.missing, 'answer')} of {self.answers:,} would be asked for"
        if not self.missing:
            what = f"all of {self.answers:,} answers are stored" + (", and would be judged" if self.judged else "")
        price = "a cost that is unknown" if self.cost is None else money_between(self.cost)
        headline = f"{what}, for {price}" if self.missing or self.judged else what
        return sheet(
            f"Estimate for {self.name}",
            Cell(headline, Tone.PLAIN if self.is_known else Tone.UNSURE),
            facts("", self._rows()),
            notes("Before it is used", self.notes),
        )

    def __repr__(self) -> str:
        return f"<Estimate {self.name}: {self.sheet().headline.text}>"

    def __str__(self) -> str:
        from dspy_cachectl.showing.render import as_text

        return as_text(self.sheet())

    def _repr_html_(self) -> str:
        from dspy_cachectl.showing.render import as_html  # it takes a moment to load

        return as_html(self.sheet())

    def _rows(self) -> Iterator[tuple[str, str]]:
        yield "asked", f"{plural(self.questions, 'question')}, {plural(self.repeats, 'repeat')}"
        stored = plural(self.stored, "answer")
        if self.served:
            paid = f", which cost {money(self.saved)}" if self.saved == self.saved else ""
            stored += f", and {plural(self.served, 'call')} of the others{paid}"
        yield "stored", stored
        if self.judged:
            yield "judged", f"by {plural(self.judged, 'call')}"
        if not (self.missing or self.judged):
            return
        yield "requests", _amount(self.requests)
        cached = self.cached_tokens
        from_cache = f", {_amount(cached)} of them from the provider's cache" if cached and cached.high >= 1 else ""
        yield "tokens", _amount(self.tokens) + from_cache
        yield "cost", money_between(self.cost)
        if self.cost is not None and self.cost.high > 0:
            yield "as batches", f"{money_between(self.batch_cost)}, within a day, where the provider sells batches"
        yield "time", UNKNOWN if self.seconds is None else _between(*map(duration, self.seconds))
        yield "by", self.basis


def _added(ranges: Sequence[Range | None]) -> Range | None:
    known = [one for one in ranges if one is not None]
    return Range(*map(sum, zip(*known, strict=True))) if len(known) == len(ranges) else None


def _amount(said: Range | None) -> str:
    return UNKNOWN if said is None else _between(f"{round(said.low):,}", f"{round(said.high):,}")


def money_between(said: Range | None) -> str:
    """Return an amount of money between two ends."""
    return UNKNOWN if said is None else _between(money(said.low), money(said.high))


def _between(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"
