"""`evaluate()` with folders that are none, with a clock that is set, and in a phase that is open."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.errors import ConfigurationError
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import program, questions, run

__all__ = ["program"]


@pytest.mark.parametrize("where", ["a\0b", "~nobody-of-that-name/x", "a" * 300, "file.txt", "memory://"])
def test_what_is_no_folder_is_refused_before_anything_is_paid(
    program: dspy.Module, endpoint: Endpoint, tmp_path: Path, where: str
) -> None:
    """A place where no prediction can be kept is an error that names it, and no request is made."""
    (tmp_path / "file.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="folder"):
        run(program, questions(2), predictions=where)
    assert endpoint.requests == 0


def test_an_empty_folder_is_none(program: dspy.Module, endpoint: Endpoint, tmp_path: Path) -> None:
    """An empty text is the usual folder, and not the working directory."""
    run(program, questions(2), predictions="")
    assert len(list((tmp_path / "outputs/cache/predictions").glob("*.json"))) == 1
    assert list(tmp_path.glob("*.json")) == []


def test_a_clock_that_is_set_meanwhile_changes_no_duration(
    program: dspy.Module, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock goes back an hour while an evaluation runs: it took seconds, and so did what `dspy.Evaluate` ran."""
    real = time.time

    def set_back(example: dspy.Example, prediction: Any, trace: Any = None) -> float:
        monkeypatch.setattr(time, "time", lambda: real() - 3600)
        return 1.0

    with cachectl.phase("eval") as phase:
        report = run(program, questions(2), metric=set_back)
    assert 0 < report.provenance.seconds < 600
    (evaluation,) = phase.evaluations
    assert 0 < evaluation.seconds < 600


def test_an_open_phase_counts_what_was_evaluated_in_it(program: dspy.Module, endpoint: Endpoint) -> None:
    """Its stats say what the provider got meanwhile: of evaluations, of another run too, of loaded ones, and beside."""

    def evaluating(question: str) -> dspy.Prediction:
        return dspy.Prediction(answer=str(run(program, questions(1, first=50), predictions=False).score))

    with cachectl.phase("eval") as opened:
        first = run(program, questions(5))
        assert (5, 5, 5) == (endpoint.requests, opened.stats.requests, opened.stats.calls)
        again = run(program, questions(5))
        assert (5, 5) == (opened.stats.requests, opened.stats.loaded)
        run(program, questions(5), run_id="other", predictions=False)
        program(question="beside ?")
        run(evaluating, questions(1), predictions=False)
    assert endpoint.requests == opened.stats.requests == cachectl.stats().requests == 5 + 5 + 1 + 1
    assert {"eval"} == {row.phase for row in opened.stats.by}
    assert (5, 0) == (first.provenance.counters["requests"], again.provenance.counters["requests"])
