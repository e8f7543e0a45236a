"""Pages of made-up content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dspy_cachectl.page.content import (
    Answer,
    Asked,
    Asking,
    Block,
    Difference,
    Mishaps,
    Page,
    ScoreRow,
    Texts,
    line,
)
from dspy_cachectl.page.document import document

Write = Callable[[str], str]


def report_page(*scores: list[float | None], write: Write = str) -> Page:
    """The page of a report; each text on it goes through `write` first. A score of None is an answer that failed."""
    return _page([list(scores)], write)


def comparison_page(before: list[list[float | None]], after: list[list[float | None]], write: Write = str) -> Page:
    """The page of a comparison of these scores, question by question."""
    changes = [_mean(new) - _mean(old) for old, new in zip(before, after, strict=True)]
    differences = [
        Difference(
            write("instructions of 'answer'"),
            [
                (write("Answer "), "both"),
                (write("briefly"), "first"),
                (write("at length"), "second"),
                ("9 words", "cut"),
            ],
        )
    ]
    return _page([before, after], write, changes=changes, differences=differences, programs="They differ in one thing.")


def written(page: Page, folder: Path) -> Path:
    """Write a page to a file."""
    path = folder / "page.html"
    path.write_bytes(document(page))
    return path


def _mean(scores: list[float | None]) -> float:
    return sum(score or 0.0 for score in scores) / len(scores)


def _page(
    sides: list[list[list[float | None]]], write: Write, *, changes: list[float] | None = None, **more: Any
) -> Page:
    texts = Texts(10**9)
    names = [line(write(name)) for name in ("before", "after")[-len(sides) :]]

    def answer(question: int, repeat: int, score: float | None) -> Answer:
        failed = texts.number(write("it raised KeyError")) if score is None else None
        asked = Asked(
            prompt=texts.named([("system", write("Answer the question.")), ("user", write(f"prompt {question}"))]),
            answer=texts.named([("text", write(f"completion {question}/{repeat}"))]),
        )
        return Answer(
            score=score or 0.0,
            failed=failed,
            facts=[("tokens", "120"), ("draw", line(write("ab12")))],
            cost=0.01 * question,
            seconds=10.0 - question,
            prediction=texts.named([(write("city"), write(f"prediction {question}/{repeat}"))]),
            feedback=texts.number(write(f"feedback {question}/{repeat}")),
            calls=[asked],
            troubles=[(line(write("answer")), "2 answers not parsed")] if question == 1 else [],
        )

    questions = [
        Asking(
            id=f"q{at}",
            preview=line(write(f"question {at}")),
            cluster=None,
            inputs=texts.named([("question", write(f"the whole question {at}"))]),
            expected=texts.named([("answer", write(f"expected {at}"))]),
            answers=[[answer(at, repeat, score) for repeat, score in enumerate(side[at])] for side in sides],
            means=[_mean(side[at]) for side in sides],
            change=None if changes is None else changes[at],
            slices=[line(write("odd" if at % 2 else "even"))],
        )
        for at in range(len(sides[0]))
    ]
    rows = [
        ScoreRow(name, len(side), 0.5, 0.4, 0.6, "0.50 ± 0.05", "0.40 to 0.60")
        for name, side in zip(names, sides, strict=True)
    ]
    return Page(
        title=line(write("Evaluation of a program")),
        headline=(line(write("score 0.50")), "plain"),
        foot=line(write("Made by a test.")),
        sides=names,
        scores=rows,
        scale=(0.0, 1.0),
        blocks=[
            Block("Caveats", [], [[("-", "plain"), (line(write("few questions")), "plain")]], "notes", is_aside=False),
            Block("Score", [], [[("score", "label"), (line(write("0.5")), "plain")]], "facts", is_aside=False),
            Block("Pairs", ["one", "other"], [[(line(write("x")), "good"), ("y", "plain")]], "table", is_aside=False),
            Block("Provenance", [], [[("run", "label"), (line(write("run-7")), "plain")]], "facts", is_aside=True),
        ],
        questions=questions,
        texts=texts.all,
        mishaps=[Mishaps(len(sides) - 1, line(write("answer")), "4 answers not parsed", 4, 1)],
        difference=ScoreRow("difference", 3, 0.1, -0.1, None, "+0.1", "-0.1 to ∞") if changes else None,
        price_unit="US$" if changes else "",
        prices=[ScoreRow(name, 3, 0.002, 0.001, None, "0.002 ± 0.001", "0.001 to ∞") for name in names]
        if changes
        else [],
        **more,
    )
