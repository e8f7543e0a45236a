"""Counting: how often each thing happened to a call, and what was paid, per phase, role and model.

Pure bookkeeping; nothing here decides anything.
"""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from dspy_cachectl.accounting.together import Together
from dspy_cachectl.boundary.forks import free_after_fork
from dspy_cachectl.boundary.shown import harmless
from dspy_cachectl.showing.sheets import Cell, Part, Share, Shares, Sheet, Tone, sheet
from dspy_cachectl.stores.base import OTHERS

SERVED = frozenset({"resumed", "reused", "coalesced", "collapsed", "replayed", "loaded"})
"""The outcomes of calls that cost nothing."""


class Row(NamedTuple):
    """What a tally is kept for."""

    phase: str
    role: str | None
    model: str


@dataclass(init=False)
class Tally:
    """What happened to some calls. It holds the counters that counted; the others are 0, without taking room or time.

    Each call that ended is counted in exactly one of fresh, repeated, bought_twice, resumed, reused, coalesced,
    collapsed, refreshed, replayed, loaded, uncacheable, missed and failed.

    Attributes:
        calls: Calls of the program to an LM or an embedder.
        requests: Responses bought from the provider. DSPy's own retries of failed attempts are not among them.
        fresh: Calls answered by the provider, under a policy that would have read.
        repeated: Calls answered by the provider with what another draw, in this process or in the store, had from it
            before: something on the way to it caches by itself.
        bought_twice: Calls answered by the provider while an equal one, in another process or thread, was: they are
            given what that one has stored.
        resumed: Calls served from this run's own stored draws.
        reused: Calls served from the store, outside a run.
        coalesced: Calls that joined an identical call in flight.
        refreshed: Calls answered by the provider because the policy does not read.
        replayed: Calls served in a replay phase.
        loaded: Calls that were not made, since `evaluate()` had kept what the program made of their answers.
        uncacheable: Calls that no cache could serve or store: caching off, or a request without a key.
        missed: Calls in a replay phase that had no stored answer, or no stored result of a tool.
        failed: Calls that ended in an error.
        expired: Stored answers that were passed over because they were too old.
        truncated: Bought answers that were cut at the token limit (stored all the same).
        unstored: Bought answers that are not kept: empty, stopped by a content filter, or with a secret in them.
        failed_reads: Reads of a store that failed.
        failed_writes: Writes to a store that failed, answers that have no stored form, and leases that were lost.
        temperatures_lent: Calls that were sent with a temperature lent by the phase.
        by_other_models: Calls that another model answered than was asked, as the provider says.
        drifted: Calls whose answer, bought or served, is of another version of the model, or state of its servers
            (`system_fingerprint`), than the first of the phase.
        not_distinct: Draws, bought or resumed, whose answer was another draw's already.
        collapsed: Calls of a plain `dspy.LM` in a fresh phase that were served an equal call's draw.
        stray: Calls from outside, while this fresh or replay phase was open elsewhere.
        late: Calls that arrived after the phase had ended.
        evicted: Stored answers that were removed to make room for others.
        tool_calls_made: Calls of wrapped tools that the tool answered. No call of a tool is among the calls above.
        tool_calls_served: Calls of wrapped tools that were given what was kept.
        tool_calls_failed: Those of the ones made that raised an error.
        unpriced: Those of the requests whose price is not known; an embedding has none.
        prompt_tokens_spent: Tokens read by the provider, paid for.
        completion_tokens_spent: Tokens written by the provider, paid for.
        prompt_tokens_saved: Tokens that serving from the store did not pay again.
        completion_tokens_saved: The same, written.
        cached_tokens_spent: Those of the tokens read that the provider had in its own cache.
        cache_creation_tokens_spent: Those of them that it wrote to its cache.
        reasoning_tokens_spent: Those of the tokens written that were its reasoning.
        cached_tokens_saved: The first of these, for answers served from the store; likewise the next two.
        cache_creation_tokens_saved: See there.
        reasoning_tokens_saved: See there.
        cost_spent: US dollars paid.
        cost_saved: US dollars that serving from the store did not pay again.
        seconds_spent: Seconds that the provider took.
        seconds_saved: Seconds that it had taken for the answers served from the store.
    """

    calls: int = 0
    requests: int = 0
    fresh: int = 0
    repeated: int = 0
    bought_twice: int = 0
    resumed: int = 0
    reused: int = 0
    coalesced: int = 0
    refreshed: int = 0
    replayed: int = 0
    loaded: int = 0
    uncacheable: int = 0
    missed: int = 0
    failed: int = 0
    expired: int = 0
    truncated: int = 0
    unstored: int = 0
    failed_reads: int = 0
    failed_writes: int = 0
    temperatures_lent: int = 0
    by_other_models: int = 0
    drifted: int = 0
    not_distinct: int = 0
    collapsed: int = 0
    stray: int = 0
    late: int = 0
    evicted: int = 0
    tool_calls_made: int = 0
    tool_calls_served: int = 0
    tool_calls_failed: int = 0
    unpriced: int = 0
    prompt_tokens_spent: int = 0
    completion_tokens_spent: int = 0
    prompt_tokens_saved: int = 0
    completion_tokens_saved: int = 0
    cached_tokens_spent: int = 0
    cache_creation_tokens_spent: int = 0
    reasoning_tokens_spent: int = 0
    cached_tokens_saved: int = 0
    cache_creation_tokens_saved: int = 0
    reasoning_tokens_saved: int = 0
    cost_spent: float = 0.0
    cost_saved: float = 0.0
    seconds_spent: float = 0.0
    seconds_saved: float = 0.0

    def __init__(self, **counters: Any) -> None:
        if counters:
            if not counters.keys() <= _COUNTERS:
                raise TypeError(f"a tally does not count {', '.join(sorted(counters.keys() - _COUNTERS))}")
            self.__dict__.update(counters)

    def add(self, *others: Tally) -> None:
        """Add other tallies to this one."""
        mine = self.__dict__
        for other in others:
            for name, amount in other.__dict__.items():
                if name != "by":  # whose tallies are in the totals already
                    mine[name] = mine[name] + amount if name in mine else amount

    def add_all(self, amounts: Mapping[str, Any]) -> None:
        """Add amounts to counters; what is no counter is left out."""
        mine = self.__dict__
        for name, amount in amounts.items():
            if amount and name in _COUNTERS:
                mine[name] = mine.get(name, 0) + amount

    @property
    def served(self) -> int:
        """Calls that cost nothing."""
        return self.resumed + self.reused + self.coalesced + self.collapsed + self.replayed + self.loaded

    @property
    def draws(self) -> int:
        """Distinct draws: those bought and those resumed, without the ones the provider had given before."""
        return self.fresh + self.repeated + self.bought_twice + self.resumed - self.not_distinct

    @property
    def tokens_spent(self) -> int:
        """Tokens paid for, read and written."""
        return self.prompt_tokens_spent + self.completion_tokens_spent

    @property
    def tokens_saved(self) -> int:
        """Tokens not paid again, read and written."""
        return self.prompt_tokens_saved + self.completion_tokens_saved

    def as_dict(self) -> dict[str, Any]:
        """Return every counter, and the totals derived from them."""
        counters = {name: getattr(self, name) for name in FIELDS}
        return {**counters, "served": self.served, "tokens_spent": self.tokens_spent, "tokens_saved": self.tokens_saved}


FIELDS = tuple(item.name for item in fields(Tally))
_COUNTERS = frozenset(FIELDS)


def tally_of(counters: Mapping[str, Any]) -> Tally:
    """Return what a store says of one label; counters of a newer version are left out."""
    return Tally(**{name: counters[name] for name in FIELDS if name in counters})


NOTABLE = (
    "fresh",
    "repeated",
    "bought_twice",
    "resumed",
    "reused",
    "coalesced",
    "refreshed",
    "replayed",
    "loaded",
    "uncacheable",
    "collapsed",
    "missed",
    "failed",
    "expired",
    "truncated",
    "unstored",
    "failed_reads",
    "failed_writes",
    "temperatures_lent",
    "by_other_models",
    "drifted",
    "not_distinct",
    "stray",
    "late",
    "evicted",
    "tool_calls_made",
    "tool_calls_served",
    "tool_calls_failed",
    "unpriced",
)
"""What is said of calls to people, where there were any, in this order."""

_BOUGHT = frozenset({"fresh", "repeated", "bought_twice", "refreshed", "uncacheable"})
_TROUBLES = frozenset({"missed", "failed"})
_COLUMNS = ("phase", "role", "model", "calls", "requests", "what became of them", "spent", "saved")

_ONE = {
    "calls": "call",
    "requests": "request",
    "failed_reads": "failed read",
    "failed_writes": "failed write",
    "temperatures_lent": "temperature lent",
    "tool_calls_made": "tool call made",
    "tool_calls_served": "tool call served",
    "tool_calls_failed": "tool call failed",
}
"""The counters that are called otherwise where there was one."""


def in_words(name: str, count: int) -> str:
    """Write how much a counter counted, such as `1 call` or `2 failed reads`."""
    return f"{count:,} {_ONE[name] if count == 1 and name in _ONE else name.replace('_', ' ')}"


@dataclass(repr=False)
class Stats(Tally):
    """What happened, in all and row by row: a snapshot that no longer changes.

    Attributes:
        by: The tallies per phase, role and model, in the order in which they first occurred.
    """

    by: dict[Row, Tally] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Iterable[tuple[Row, Tally]]) -> Stats:
        """Sum rows up."""
        stats = cls()
        for row, tally in rows:
            stats.by.setdefault(row, Tally()).add(tally)
            stats.add(tally)
        return stats

    def as_dict(self) -> dict[str, Any]:
        """Return totals as plain data, and under `"by"` one dictionary for each phase, role and model."""
        rows = [{**row._asdict(), **tally.as_dict()} for row, tally in self.by.items()]
        return {**super().as_dict(), "by": rows}

    def __repr__(self) -> str:
        return f"<Stats: {self._line(self)}>"

    def __str__(self) -> str:
        lines = [self._line(self)]
        if len(self.by) > 1:
            for row, tally in self.by.items():
                name = " · ".join(part for part in (row.phase, row.role, row.model) if part)
                lines.append(harmless(f"  {name}: {self._line(tally)}"))
        return "\n".join(map(_wrapped, lines))

    def sheet(self, title: str, *parts: Part) -> Sheet:
        """Return what is shown of it: what became of the calls, and what that cost, row by row; then other parts."""
        rows = [_cells(row, tally) for row, tally in self.by.items()]
        told = [place for place in range(len(_COLUMNS)) if any(row[place].text for row in rows)]
        table = tuple(tuple(row[place] for place in told) for row in rows)
        return sheet(
            title,
            Cell(f"{in_words('calls', self.calls)}, {in_words('requests', self.requests)}"),
            Part("Calls", table, header=tuple(_COLUMNS[place] for place in told)),
            *parts,
            picture=Shares(tuple(_shares(self))) if self.calls else None,
        )

    def _repr_html_(self) -> str:
        from dspy_cachectl.showing.render import as_html  # it takes a moment to load

        return as_html(self.sheet("Calls to LMs and embedders"))

    @staticmethod
    def _line(tally: Tally) -> str:
        is_tools = not tally.calls and (tally.tool_calls_made or tally.tool_calls_served)
        parts = [] if is_tools else [f"{in_words('calls', tally.calls)}, {in_words('requests', tally.requests)}"]
        parts += [in_words(name, getattr(tally, name)) for name in NOTABLE if getattr(tally, name)]
        for what, spent, saved, unit in (
            ("tokens", tally.tokens_spent, tally.tokens_saved, "{:,}"),
            ("cached by the provider", tally.cached_tokens_spent, tally.cached_tokens_saved, "{:,}"),
            (
                "written to the provider's cache",
                tally.cache_creation_tokens_spent,
                tally.cache_creation_tokens_saved,
                "{:,}",
            ),
            ("reasoning", tally.reasoning_tokens_spent, tally.reasoning_tokens_saved, "{:,}"),
            ("cost", tally.cost_spent, tally.cost_saved, "${:.4g}"),
            ("provider time", tally.seconds_spent, tally.seconds_saved, "{:.1f} s"),
        ):
            if spent or saved:
                parts.append(f"{what} {unit.format(spent)} spent, {unit.format(saved)} saved")
        return "; ".join(parts)


def _wrapped(line: str) -> str:
    """Return a line as it fits into a terminal of 80 columns; names and numbers stay whole."""
    return textwrap.fill(line, 80, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def _shares(tally: Tally) -> Iterator[Share]:
    """Yield what became of calls: bought, served, or nothing good."""
    for name in NOTABLE:
        tone = Tone.GOOD if name in SERVED else Tone.BAD if name in _TROUBLES else Tone.PLAIN
        if name in SERVED | _BOUGHT | _TROUBLES and getattr(tally, name):
            yield Share(name.replace("_", " "), getattr(tally, name), tone)


def _cells(row: Row, tally: Tally) -> tuple[Cell, ...]:
    became = ", ".join(in_words(name, getattr(tally, name)) for name in NOTABLE if getattr(tally, name))
    money = [
        f"{tokens:,} tokens, ${cost:.4g}" if cost else f"{tokens:,} tokens"
        for tokens, cost in ((tally.tokens_spent, tally.cost_spent), (tally.tokens_saved, tally.cost_saved))
    ]
    counts = (f"{tally.calls:,}", f"{tally.requests:,}")
    return tuple(map(Cell, (row.phase, row.role or "", row.model, *counts, became, *money)))


_MOST_ROWS = 1000

TOGETHER = Together(Tally)
"""The calls that are counted a few at a time."""


class Ledger:
    """Adds up what happened. Thread-safe. What comes after a thousand phases, roles and models is counted together.

    Attributes:
        also: Called with all that is added; None for nobody.
    """

    def __init__(self) -> None:
        self._lock = free_after_fork(threading.Lock())
        self._rows: dict[Row, Tally] = {}
        self.also: Callable[[Row, Tally], None] | None = None

    def record(self, row: tuple[str, str | None, str], tally: Tally) -> None:
        """Add what happened to the row, which has the fields of a `Row`."""
        with self._lock:
            kept = self._rows.get(row)  # type: ignore[call-overload] # a tuple of these is equal to it
            if kept is None:
                its = Row(*row) if len(self._rows) < _MOST_ROWS else Row(OTHERS, None, OTHERS)
                kept = self._rows.setdefault(its, Tally())
            kept.add(tally)
        if self.also is not None:
            self.also(Row(*row), tally)

    def snapshot(self) -> Stats:
        """Return what was counted so far."""
        TOGETHER.add_up()
        with self._lock:
            return Stats.of(self._rows.items())

    def clear(self) -> None:
        """Begin anew."""
        TOGETHER.add_up()
        with self._lock:
            self._rows = {}
