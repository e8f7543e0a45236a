"""Is the candidate surely not worse than the baseline by more than a margin, surely worse, or can it not be told?"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from dspy_cachectl.boundary.shown import harmless
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.reports.comparison import Comparison, compare_two
from dspy_cachectl.reports.describe import MORE
from dspy_cachectl.reports.difference import difference_picture, difference_rows
from dspy_cachectl.reports.measurement import Measurement
from dspy_cachectl.reports.texts import ends_text, level_text, number, places, plural
from dspy_cachectl.showing.render import Shown
from dspy_cachectl.showing.sheets import Cell, Part, Sheet, Tone, facts, notes, sheet
from dspy_cachectl.showing.stand_in import passes_on
from dspy_cachectl.statistics.verdicts import Verdict

_CHANGED_SHOWN = 10
_MARKED = re.compile(r"[\\`*_{}\[\]()#+!|~@:]")


class Outcome(str, Enum):
    """What a gate says.

    Attributes:
        PASSED: The candidate is not worse by the margin, or it is better.
        FAILED: It is worse, and may be so by more than the margin.
        CANNOT_TELL: Neither is shown.
    """

    PASSED = "PASSED"
    FAILED = "FAILED"
    CANNOT_TELL = "CANNOT TELL"

    @property
    def exit_code(self) -> int:
        """0 for passed, 1 for failed, 2 where it cannot be told."""
        return list(Outcome).index(self)


_TONES = {Outcome.PASSED: Tone.GOOD, Outcome.FAILED: Tone.BAD, Outcome.CANNOT_TELL: Tone.UNSURE}


@dataclass(frozen=True)
class Gate(Shown):
    """What a gate found.

    Attributes:
        comparison: The candidate against the baseline, with the margin as the smallest difference that matters.
        margin: By how much the candidate may be worse, in units of the score.
        reasons: Why the two cannot be compared, in words; empty where they can.
    """

    comparison: Comparison
    margin: float
    reasons: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """What it says: see `gate`."""
        found, result = self.comparison, self.comparison.result
        if self.reasons:
            return Outcome.CANNOT_TELL
        within = found.interval.low > -self.margin and not found.interval.caveats and result.unseen <= self.margin
        if within or found.verdict is Verdict.BETTER:
            return Outcome.PASSED
        return Outcome.FAILED if found.verdict is Verdict.WORSE else Outcome.CANNOT_TELL

    @property
    def exit_code(self) -> int:
        """0 for passed, 1 for failed, 2 where it cannot be told."""
        return self.outcome.exit_code

    @property
    def sentence(self) -> str:
        """What it says, in one sentence."""
        found, result = self.comparison, self.comparison.result
        error = result.error.value
        said = {
            Outcome.PASSED: f"is not worse by {self.margin:g}",
            Outcome.FAILED: f"is worse, and not shown to be so by less than {self.margin:g}",
            Outcome.CANNOT_TELL: f"is neither shown to be worse nor to be within {self.margin:g}",
        }[self.outcome]
        ends = ends_text(found.interval, error, sign=True)
        difference = number(result.difference, places(error), sign=True)
        count = plural(result.n, "question")
        return f"{found.candidate} {said}: {difference}, {level_text(found.interval)} interval {ends}, {count}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "outcome": self.outcome.value,
            "exit_code": self.exit_code,
            "sentence": self.sentence,
            "margin": self.margin,
            "reasons": list(self.reasons),
            "comparison": self.comparison.as_dict(),
        }

    def as_markdown(self) -> str:
        """Return it as Markdown, for a pull request: what it says, the numbers, and the questions that were lost."""
        lines = [f"### {self.outcome.value}: {_plain(self.sentence)}", ""]
        for title, cells in self._tables():
            lines += [f"**{title}**", ""] if title else []
            lines += ["| " + " | ".join(map(_plain, row)) + " |" for row in cells[:1]]
            lines += ["|" + " --- |" * len(cells[0])]
            lines += ["| " + " | ".join(map(_plain, row)) + " |" for row in cells[1:]] + [""]
        lines += [f"- {_plain(said)}" for said in self._said()]
        return "\n".join(lines).rstrip() + "\n"

    def __repr__(self) -> str:
        return f"<Gate {self.outcome.value}: {self.sentence}>"

    def _tables(self) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
        yield "", [("", ""), *self._rows()]
        lost = self._lost()
        if lost:
            yield "Questions that were lost", [("question", "baseline", "candidate"), *lost]

    def _rows(self) -> Iterator[tuple[str, str]]:
        found = self.comparison
        names = (found.candidate, found.baseline)
        adjusted = (found.adjusted_p_value, found.compared_with)
        return difference_rows(found.result, found.reports, names=names, adjusted=adjusted)

    def _lost(self) -> list[tuple[str, ...]]:
        lost = [one for one in self.comparison.changed() if one.difference < 0][:_CHANGED_SHOWN]
        return [(one.preview, number(one.baseline, 2), number(one.candidate, 2)) for one in lost]

    def _said(self) -> tuple[str, ...]:
        found = self.comparison
        settling = found.settling() if self.outcome is Outcome.CANNOT_TELL and not self.reasons else ()
        commands = [one.command for one in found.changed()[:1] if one.difference < 0 and one.command is not None]
        lost = [f"What was told and answered where most was lost: {command}" for command in commands]
        return (*self.reasons, *settling, *self._worse_apart(), *found.warnings, *found.interval.caveats, *lost)

    def _worse_apart(self) -> Iterator[str]:
        """Yield by which metrics and in which slices it got worse, which the gate does not go by."""
        for what, parts in (("by the metric", self.comparison.metrics), ("in the slice", self.comparison.slices)):
            for name, one in parts.items():
                if one.verdict is Verdict.WORSE and one.candidate != self.comparison.candidate:
                    error = one.result.error.value
                    difference = number(one.difference, places(error), sign=True)
                    ends = ends_text(one.interval, error, sign=True)
                    yield f"It got worse {what} {name!r}: {difference}, {level_text(one.interval)} interval {ends}"

    def _sheet(self) -> Sheet:
        lost = tuple(tuple(map(Cell, row)) for row in self._lost())
        return self._shown(
            Part("Questions that were lost", lost, header=("question", "baseline", "candidate")),
            picture=difference_picture(
                self.comparison.result,
                names=(self.comparison.candidate, self.comparison.baseline),
                tone=_TONES[self.outcome],
            ),
        )

    def _brief(self) -> Sheet:
        return self._shown(more=MORE)

    def _shown(self, *parts: Part, **more: Any) -> Sheet:
        return sheet(
            f"Gate: {self.sentence}",
            Cell(self.outcome.value, _TONES[self.outcome]),
            facts("", self._rows()),
            *parts,
            notes("Notes", self._said()),
            **more,
        )


@passes_on
def gate(baseline: Measurement, candidate: Measurement, *, not_worse_by: float, level: float = 0.95) -> Gate:
    """Tell whether a candidate passes, given what it is measured against.

    It PASSED where the interval of the difference lies above minus the margin, or it is better; at a true difference of
    minus the margin that happens in at most half of one minus the level. It FAILED where it is worse. Otherwise, and
    where the two are not of the same questions and metric, it CANNOT be told.

    Args:
        baseline: What it is measured against.
        candidate: What is to pass.
        not_worse_by: The margin, above 0, in units of the score.
        level: The level of the interval.

    Raises:
        ConfigurationError: If the margin is not above 0, or no question is in both.
    """
    if not 0 < not_worse_by < math.inf:
        raise ConfigurationError(f"not_worse_by is a margin above 0 (say 0.02), and not {not_worse_by!r}")
    found = compare_two(baseline, candidate, smallest_difference=not_worse_by, level=level)
    return Gate(found, not_worse_by, tuple(_reasons(found, baseline, candidate)))


def _reasons(found: Comparison, baseline: Measurement, candidate: Measurement) -> Iterator[str]:
    if baseline.provenance.metric_hash != candidate.provenance.metric_hash:
        yield "the two were scored by different metrics: score one of them anew, or name the metric"
    missing = found.result.only_baseline
    if missing:
        yield f"the candidate has no answer to {plural(len(missing), 'question')} of the baseline: evaluate it on all"
    if found.shared_draws:
        yield f"the two share {plural(found.shared_draws, 'draw')}, which says nothing of their difference"


def _plain(text: str) -> str:
    """Return a text that Markdown, and the HTML in it, takes for nothing else."""
    escaped = html.escape(harmless(text), quote=False)
    return _MARKED.sub(lambda found: f"&#{ord(found[0])};" if found[0] in "@:" else f"\\{found[0]}", escaped)
