"""The page of a report, or of a comparison: which of what is known is on it, and in which words."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspy_cachectl._version import __version__
from dspy_cachectl.boundary.secrets import scrub_surely
from dspy_cachectl.boundary.shown import harmless_lines, logger_for
from dspy_cachectl.boundary.writing import write_output
from dspy_cachectl.entries.differences import word_diff
from dspy_cachectl.errors import StoreError
from dspy_cachectl.page.content import (
    Answer,
    Asked,
    Asking,
    Block,
    Difference,
    Mishaps,
    Page,
    Said,
    ScoreRow,
    Texts,
    line,
)
from dspy_cachectl.page.document import document
from dspy_cachectl.reports import troubles
from dspy_cachectl.reports.apart.measures import prices
from dspy_cachectl.reports.describe import report_sheet
from dspy_cachectl.reports.kept_texts import Kept, Readable, calls_behind, kept_rows, stores_in_use
from dspy_cachectl.reports.texts import as_json, duration, ends_text, finite, money, plural, score_text, when
from dspy_cachectl.showing.sheets import Cell, Part, Sheet
from dspy_cachectl.statistics.scores import range_of
from dspy_cachectl.stores.reader import FolderReader

if TYPE_CHECKING:
    from dspy_cachectl.predictions.rows import PredictionRow
    from dspy_cachectl.reports.measurement import Measurement, Provenance
    from dspy_cachectl.reports.results import DrawResult, QuestionResult
    from dspy_cachectl.statistics.intervals import Interval

logger = logger_for(__name__)

MOST_TEXT = 64_000_000
"""How many characters of texts are on a page: with more of them a browser has no joy."""


class Paged(ABC):
    """A value that has a page of its own: one file that a browser shows without a network."""

    @abstractmethod
    def page(self, stores: Sequence[Readable] | None = None, *, most: int = MOST_TEXT) -> Page:
        """Return what is on its page (see `to_html`).

        Args:
            stores: Where to look for what the LM was told and said; None for the stores in use.
            most: How many characters of texts are on it.
        """

    def to_html(self, path: str | os.PathLike[str], *, store: str | os.PathLike[str] | None = None) -> Path:
        """Write a page that a browser opens without a network: scores, every answer, and what it is made of.

        It shows the kept predictions, where they are kept, and what the LM was told and said, where its entries are in
        the store. It loads, sends and runs nothing but itself.

        Args:
            path: The file.
            store: The folder of the store to look into; None for the one in use.

        Raises:
            ConfigurationError: If it is a file that this package works with.
            StoreUnavailableError: If the file cannot be written.
        """
        target = Path(path)
        page = self.page(None if store is None else [FolderReader(Path(store))])
        write_output(target, document(page), what="the page")
        return target


def page_of(
    sheet: Sheet,
    reports: Sequence[Measurement],
    stores: Sequence[Readable] | None,
    *,
    most: int,
    scores: Sequence[Measurement] = (),
    difference: ScoreRow | None = None,
    changes: Mapping[str, float] | None = None,
) -> Page:
    """Return the page of a report, or of two that are compared.

    Args:
        sheet: What is said of it.
        reports: The report; of a comparison both, the baseline first.
        stores: Where to look for what the LM was told and said; None for the stores in use.
        most: How many characters of texts are on it.
        scores: Whose scores are shown, where these are more.
        difference: The difference of two.
        changes: By how much each question was won or lost that was; None where nothing is compared.
    """
    texts, made = Texts(most), max(report.provenance.created for report in reports)
    blocks = [*_blocks(sheet.parts)]
    for report in reports if len(reports) > 1 else ():
        blocks += _blocks(report_sheet(report).parts, of=report.name)
    questions = _Askings(reports, stores, texts).all(changes)
    left_out = f" {plural(texts.left_out, 'text')} did not fit on it." if texts.left_out else ""
    return Page(
        title=line(sheet.title),
        headline=_said(sheet.headline),
        foot=f"Made by dspy-cachectl {__version__}, of what was evaluated until {when(made)}.{left_out}",
        sides=[line(report.name) for report in reports],
        scores=[
            score_row(report.name, report.n, report.score, report.interval, report.standard_error)
            for report in scores or reports
        ],
        scale=range_of(draw.score for report in reports for draw in report.draws),
        blocks=blocks,
        questions=questions,
        texts=texts.all,
        mishaps=[
            Mishaps(side, line(one.predictor), troubles.said_of(one.kind, one.count), one.count, one.questions)
            for side, report in enumerate(reports)
            for one in report.troubles
        ],
        difference=difference,
        **({**_programs(*reports), **_prices(reports)} if len(reports) > 1 else {}),
    )


def _prices(reports: Sequence[Measurement]) -> dict[str, Any]:
    """Return what an answer of each report cost, where that is known of all."""
    found = None if reports[0].is_measure else prices(reports)
    if found is None:
        return {}
    unit, costs = found
    rows = [score_row(one.name, one.n, one.score, one.interval, one.standard_error) for one in costs]
    return {"price_unit": unit, "prices": rows}


def _programs(before: Measurement, after: Measurement) -> dict[str, Any]:
    """Return in what two programs differ, and what is to be said of that."""
    old, new = before.provenance, after.provenance
    if not (old.program_text and new.program_text):
        return {"differences": [], "programs": "What both told the LM is not known: one was no module of DSPy's."}
    names = list(dict.fromkeys([*old.program_text, *new.program_text]))
    texts = {name: (old.program_text.get(name, ""), new.program_text.get(name, "")) for name in names}
    found = [
        Difference(line(name), [(harmless_lines(scrub_surely(span.text)), span.of) for span in word_diff(*both)])
        for name, both in texts.items()
        if both[0] != both[1]
    ]
    return {"differences": found, "programs": _in_words(old, new, len(found))}


def _in_words(old: Provenance, new: Provenance, count: int) -> str:
    if count:
        return f"In {plural(count, 'part')} of what they tell the LM and of how they ask it, word by word:"
    if old.program == new.program:
        return "They are the same program, and ask with the same options."
    return "They tell the LM the same and ask with the same options; their code, or what it holds, differs."


def score_row(name: str, n: int, score: float, interval: Interval, error: float, *, sign: bool = False) -> ScoreRow:
    """Return a score as a row of the page; with signs if that is asked for."""
    text, ends = score_text(score, error, sign=sign), ends_text(interval, error, sign=sign)
    return ScoreRow(line(name), n, score, finite(interval.low), finite(interval.high), text, ends)


def _blocks(parts: Iterable[Part], *, of: str = "") -> Iterator[Block]:
    """Yield the parts of a sheet but for the troubles, which the page shows in its own way.

    Args:
        parts: The parts.
        of: Whose they are, where those of several stand on the page: then they are all folded away.
    """
    for part in parts:
        if part.title == troubles.TITLE:
            continue
        kind = "table" if part.header else "notes" if part.rows[0][0] == Cell("-") else "facts"
        yield Block(
            title=line(f"{part.title} of {of}") if of else part.title,
            header=list(part.header),
            rows=[[_said(cell) for cell in row] for row in part.rows],
            kind=kind,
            is_aside=part.is_aside or bool(of),
        )


def _said(cell: Cell) -> Said:
    return line(cell.text), cell.tone.value


class _Askings:
    """The questions of both sides, and what is kept of them."""

    def __init__(self, reports: Sequence[Measurement], stores: Sequence[Readable] | None, texts: Texts) -> None:
        self._texts = texts
        self._kept = [_kept(report) for report in reports]
        tokens = {token for report in reports for token in report.draw_tokens}
        self._calls = calls_behind(tokens, stores_in_use() if stores is None else stores)
        self._of: list[dict[str, QuestionResult]] = [
            {question.question: question for question in report.questions} for report in reports
        ]
        self._means = [dict(zip(report.table.names, report.table.means, strict=True)) for report in reports]

    def all(self, changes: Mapping[str, float] | None) -> list[Asking]:
        """Return the questions, each once, in the order of the first side that has it."""
        asked = {name: question for of in reversed(self._of) for name, question in of.items()}
        names = dict.fromkeys(name for of in self._of for name in of)
        return [self._asking(asked[name], changes) for name in names]

    def _asking(self, question: QuestionResult, changes: Mapping[str, float] | None) -> Asking:
        name = question.question
        rows = [row for kept in self._kept if (row := kept.get((name, 0))) is not None]
        is_paired = changes is not None and all(name in of for of in self._of)
        return Asking(
            id=name,
            preview=line(question.preview),
            cluster=None if question.cluster is None else line(question.cluster),
            inputs=self._fields(rows[0].inputs) if rows else [],
            expected=self._fields(rows[0].reference) if rows else [],
            answers=[
                [self._answer(kept.get((name, repeat)), draw) for repeat, draw in enumerate(of[name].draws)]
                if name in of
                else None
                for kept, of in zip(self._kept, self._of, strict=True)
            ],
            means=[means.get(name) for means in self._means],
            slices=list(map(line, question.slices)),
            change=changes.get(name, 0.0) if changes is not None and is_paired else None,
        )

    def _answer(self, row: PredictionRow | None, draw: DrawResult) -> Answer:
        if row is not None and "+".join(sorted(map(str, row.draws))) != draw.draw:
            row = None  # it was drawn anew since
        tokens = [token for token in draw.draw.split("+") if token in self._calls]
        return Answer(
            score=draw.score,
            failed=None if draw.failed is None else self._texts.number(draw.failed),
            facts=list(_facts(draw)),
            cost=draw.cost or 0.0,
            seconds=draw.seconds,
            prediction=[] if row is None else self._prediction(row),
            feedback=None if draw.feedback is None else self._texts.number(draw.feedback),
            calls=[
                Asked(*(self._texts.named([(part.title, part.text) for part in parts]) for parts in self._calls[token]))
                for token in tokens
            ],
            troubles=[
                (line(one.predictor), troubles.said_of(kind, count))
                for one in draw.troubles
                for kind, count in troubles.counts_of(one)
            ],
        )

    def _prediction(self, row: PredictionRow) -> list[tuple[str, int]]:
        if row.output is not None:
            return self._fields(row.output.fields)
        return [] if row.error is None else [(line(row.error.kind), self._texts.number(row.error.message))]

    def _fields(self, fields: Mapping[str, Any]) -> list[tuple[str, int]]:
        return self._texts.named([(str(name), _text(value)) for name, value in fields.items()])


def _kept(report: Measurement) -> Kept:
    if report.path is None:
        return {}
    try:
        return kept_rows(report.path)
    except StoreError as error:
        logger.warning("the page of %r is made without its predictions: %s", report.name, error)
        return {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(as_json(value), ensure_ascii=False, indent=1)


def _facts(draw: DrawResult) -> Iterator[tuple[str, str]]:
    for one in draw.others:
        said = "; ".join(filter(None, (f"{one.score:g}", one.failed, one.feedback)))
        yield f"by {line(one.metric)}", line(said)
    yield "tokens", f"{draw.tokens:,}"
    yield "cost", money(draw.cost)
    yield "of the provider", f"{duration(draw.seconds)}, {plural(draw.requests, 'request')} bought for it"
    yield "drawn", when(draw.oldest) + ("" if draw.newest == draw.oldest else f" to {when(draw.newest)}")
    yield "prediction", "loaded from those that were kept" if draw.loaded else "computed in this evaluation"
    if draw.strayed:
        yield "out of sight", "LM calls were made out of sight meanwhile: it may rest on others than are shown here"
    yield "draw", line(draw.draw) or "not known"
    yield "output", draw.output or "none"
