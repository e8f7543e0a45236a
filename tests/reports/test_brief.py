"""What `print()` shows of a result is one screen, and nothing that makes its number doubtful is missing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len

from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.reports.several import compare
from tests.reports.made_up import ASKED, report

SCREEN = (80, 24)
SCORES = {
    "zero-shot": [[int(at % 5 < 3), int(at % 7 < 4), int(at % 3 < 2)] for at in range(40)],
    "bootstrap": [[int(at % 5 < 4), int(at % 7 < 5), int(at % 3 < 2)] for at in range(40)],
    "miprov2-with-a-long-name-of-its-own": [[int(at % 8 > 0), 1, int(at % 3 < 2)] for at in range(40)],
}
OTHER = replace(ASKED, answered_by="openai/small", is_other=True)
EXTENDED = {"predictions": "extended", "cost": 0.002}


def reports(**changed: Any) -> dict[str, EvalReport]:
    return {name: report(scores, name=name, **changed) for name, scores in SCORES.items()}


def squeezed(text: str) -> str:
    return " ".join(text.split())


def shown(kind: str) -> Any:
    made = reports(**EXTENDED)
    one, other, _ = made.values()
    return {
        "a report": one,
        "one against a baseline": replace(other, baseline=one),
        "a comparison": one.compare(other),
        "three reports": compare(made),
    }[kind]


@pytest.mark.parametrize("kind", ["a report", "one against a baseline", "a comparison", "three reports"])
def test_it_is_one_screen(kind: str) -> None:
    """Of 80 columns and 24 lines; all of it is told on request, and no wider."""
    made = shown(kind)
    lines = str(made).splitlines()
    assert len(lines) <= SCREEN[1], str(made)
    assert [] == [line for line in [*lines, *made.details().splitlines()] if cell_len(line) > SCREEN[0]]
    assert "details()" in lines[-1]
    assert len(made.details()) > len(str(made))
    assert "details()" not in made.details()


def test_a_report_says_its_score_and_what_it_rests_on() -> None:
    """Score, interval, draws, who answered at which temperature, what it cost, and what would make it surer."""
    made = report(SCORES["zero-shot"], **EXTENDED)
    said = squeezed(str(made))
    for fact in (
        f"score {made.score:.3f} ±",
        "95% interval",
        "40, each 3 times: 120 distinct draws of 120",
        "openai/gpt-4o-mini @ lab, version 2025-01",
        "1, lent by the phase (13 calls)",
        "40 of 120 answers loaded",
        "the instruction of `answer` changed",
        "2 truncated",
        "9 requests, 12,345 tokens, $0.0123",
        made.variance.advice,
        *made.interval.caveats,
    ):
        assert squeezed(fact) in said, fact


def test_no_zero_is_told() -> None:
    """What did not happen, did not cost and was not saved has no line."""
    made = report(SCORES["zero-shot"], counters={"calls": 120}, predictions="computed", changes=())
    made = replace(
        made,
        questions=tuple(
            replace(one, draws=tuple(replace(draw, loaded=False) for draw in one.draws)) for one in made.questions
        ),
    )
    labels = {line.split("  ")[0] for line in str(made).splitlines()}
    assert not labels & {"failures", "spent", "saved", "predictions", "what changed", "judge", "clusters"}


@pytest.mark.parametrize(
    ("made", "doubts"),
    [
        (report([[1, None], [0, 1]]), ["1 of 4 answers, counted as 0", "1 answer failed: the metric raised KeyError"]),
        (report([[1, 1], [0, 0]], draws=[["a", "a"], ["b", "b"]]), ["2 of 4 repeats are replays"]),
        (report([1, 0], unsaved=3), ["3 predictions could not be kept"]),
        (report([1, 0], missing=7), ["cut short: 7 answers more were asked for"]),
        (report([1, 0], unfinished=1), ["1 answer is still being made"]),
        (report([1, 0], unseen=("the file rubric.md",)), ["may have changed: the file rubric.md"]),
        (report([1, 0], clusters=["a", "a"]), ["clusters", "one question, or one cluster, says nothing"]),
        (report([1, 0], models=[]), ["not known: no LM call was seen"]),
        (report([1, 0], models=[OTHER]), ["answered by another model than was asked"]),
        (report([1, 0], counters={"calls": 9, "failed_writes": 4}), ["4 draws could not be stored"]),
        (report([1, 0], judges=(replace(ASKED, model="openai/judge"),)), ["judge", "openai/judge @ lab"]),
    ],
)
def test_what_makes_a_score_doubtful_stays(made: EvalReport, doubts: list[str]) -> None:
    """Failures, replays, what was cut short, what cannot be seen, who answered instead: none waits to be asked for."""
    said = squeezed(str(made))
    assert [] == [doubt for doubt in doubts if doubt not in said], str(made)


def test_a_comparison_says_its_verdict_and_its_warnings() -> None:
    """Difference, interval, p-value, pairs, who answered; what would settle it; every warning and caveat."""
    old = report([1, 0, 1, 0], name="old", metric_hash="other", cost=0.1)
    made = old.compare(report([1, 1, 0, 1], name="new", model="openai/other"))
    said = squeezed(str(made))
    assert made.result.needed is not None
    for fact in (
        "new against old INCONCLUSIVE",
        "difference +0.25 ±",
        "95% interval",
        "p-value",
        "4 pairs: 2 won, 1 tied, 1 lost",
        "temperature 1, lent by the phase",
        made.result.needed.sentence,
        *made.warnings,
        *made.interval.caveats,
    ):
        assert squeezed(fact) in said, fact


def test_several_say_who_is_best_and_what_is_open() -> None:
    """Each report with its score, each pair with its verdict, and how many questions would settle what is open."""
    made = compare(reports())
    said = squeezed(str(made))
    for one in made.reports:
        assert f"{one.score:.3f} ±" in said
    for pair in made.pairs:
        assert pair.verdict_text in said
        for line in pair.settling_briefly():
            assert squeezed(f"{pair.title}: {line}") in said
    assert "may look too good" in said
    assert all(caveat in said for pair in made.pairs for caveat in pair.interval.caveats)


def test_representations_are_short() -> None:
    """In a debugger or a notebook: a line for each, whatever it holds."""
    made = reports()
    one, other, _ = made.values()
    pair = one.compare(other)
    found = [one, pair, pair.result, compare(made), one.provenance, one.questions[0], one.table, one.comparison]
    assert [] == [repr(value) for value in found if len(repr(value)) > 200 or "\n" in repr(value)]
    assert repr(pair).startswith("<Comparison 'bootstrap' against 'zero-shot': ")
    assert "p=" in repr(pair)


def test_reasons_that_begin_alike_are_one_caveat() -> None:
    """What tells them apart is not shown, so that the same line would stand there for each."""
    made = report([1, None, None, None])
    reasons = iter([f"the metric raised KeyError: {'x' * 80}{number}" for number in range(3)])
    failed = [[replace(draw, failed=draw.failed and next(reasons)) for draw in one.draws] for one in made.questions]
    questions = [replace(one, draws=tuple(draws)) for one, draws in zip(made.questions, failed, strict=True)]
    text = squeezed(str(replace(made, questions=tuple(questions))))
    assert (1, True) == (text.count(" failed: the metric raised"), "3 answers failed: the metric raised" in text)
