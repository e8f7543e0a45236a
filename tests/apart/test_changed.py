"""The questions that changed sides: what both were told and answered, and the command that shows it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.cli.commands import command
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import MakeLM, exact, program, questions, run

__all__ = ["program"]


@pytest.fixture
def compared(program: dspy.Module, lm: MakeLM, endpoint: Endpoint) -> cachectl.Comparison:
    """A program and one that thinks first, whose answers are others."""
    before = run(program, questions(6), repeats=2, name="before")
    endpoint.configure(answers={"question 1": ["no", "no"], "question": ["yes", "yes"]})
    after = run(dspy.ChainOfThought("question -> answer"), questions(6), repeats=2, name="after")
    return before.compare(after)


def test_a_question_that_changed_has_a_command_that_shows_it(
    compared: cachectl.Comparison, endpoint: Endpoint, tmp_path: Path
) -> None:
    """It prints what both were told and answered, asks nothing, and finds the question by how its name begins."""
    asked = endpoint.requests
    changed = compared.changed()
    assert 6 == len(changed) == compared.result.wins + compared.result.losses
    lost = changed[0]
    assert lost.command is not None
    name, *arguments = shlex.split(lost.command)
    assert "dspy-cachectl" == name
    done = command(*arguments, store=tmp_path / "store")
    assert (0, "") == (done.returncode, done.stderr)
    assert "question 1 ?" in done.stdout
    for said in ("repeat 1: score 1", "repeat 2: score 0", "told as system", "reasoning", "answer: no"):
        assert said in done.stdout
    assert "expected answer" in done.stdout
    # The same prompt is not said again.
    assert 1 == done.stdout.count("Your input fields are:\n1. `question` (str):\nYour output fields are:\n1. `answer`")
    assert asked == endpoint.requests


def test_the_trace_is_that_of_the_page(compared: cachectl.Comparison) -> None:
    """The same in Python; what is no question, or of several, is said."""
    name = compared.changed()[0].question
    trace = compared.trace(name[:12])
    assert "question 1 ?" in trace
    assert "question 2 ?" not in trace
    with pytest.raises(cachectl.ConfigurationError, match="none of the questions of both begins with 'zzz'"):
        compared.trace("zzz")
    with pytest.raises(cachectl.ConfigurationError, match="6 questions of both begin with ''"):
        compared.trace("")


def test_all_that_changed_are_listed(compared: cachectl.Comparison, tmp_path: Path) -> None:
    """With what identifies each, the biggest loss first; of saved reports, too."""
    one, other = (report.save(tmp_path / f"{report.name}.json") for report in compared.reports)  # type: ignore[attr-defined]
    done = command("changed", str(one), str(other), COLUMNS="80")
    lines = done.stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    rows = [line for line in lines if "lost" in line or "won" in line]
    assert [change.question for change in compared.changed()] == [row.split()[0] for row in rows]
    assert "lost" in rows[0]
    found = json.loads(command("changed", str(one), str(other), "--json").stdout)
    assert [change.difference for change in compared.changed()] == [row["difference"] for row in found]
    done = command("changed", str(one), str(one))
    assert "No question changed sides." == done.stdout.strip()


def test_where_nothing_is_kept_there_is_no_command(program: dspy.Module, endpoint: Endpoint) -> None:
    """The trace says what there is: the LM's words from the store."""
    before = run(program, questions(3), predictions=False, name="before")
    endpoint.configure(answers={"question": ["maybe"]})
    after = run(program, questions(3), exact, predictions=False, name="after")
    changed = before.compare(after).changed()
    assert changed
    assert [None] * len(changed) == [one.command for one in changed]
    assert "maybe" in before.compare(after).trace(changed[0].question)
