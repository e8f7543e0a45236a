"""A question that takes long is asked once, whoever starts it again; or given up, where a time is set."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.utils import parallelizer

import dspy_cachectl as cachectl
from dspy_cachectl.errors import ConfigurationError
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import exact, program, questions, run
from tests.limits import PATIENCE

__all__ = ["program"]


def _in_parallel(program: Any, devset: list[dspy.Example]) -> None:
    with cachectl.phase("eval"):
        dspy.Parallel(num_threads=4, disable_progress_bar=True)([(program, example) for example in devset])


def _report(program: Any, devset: list[dspy.Example]) -> None:
    run(program, devset, num_threads=4)


def _evaluate(program: Any, devset: list[dspy.Example]) -> None:
    with cachectl.phase("eval"):
        dspy.Evaluate(devset=devset, metric=exact, num_threads=4)(program)


def _evaluated_within(block: Callable[[], Any]) -> Callable[[Any, list[dspy.Example]], None]:
    def ask(program: Any, devset: list[dspy.Example]) -> None:
        with block():
            dspy.Evaluate(devset=devset, metric=exact, num_threads=4)(program)

    return ask


@pytest.fixture
def restarted(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """DSPy starts a question again after a second; set when it did."""
    again, submitted = threading.Event(), itertools.count(1)
    cachectl.install()
    pool_of = parallelizer.ThreadPoolExecutor

    def counting(*args: Any, **options: Any) -> Any:
        pool = pool_of(*args, **options)
        submit = pool.submit

        def counted(*args: Any, **options: Any) -> Any:
            if next(submitted) > 4:
                again.set()
            return submit(*args, **options)

        pool.submit = counted
        return pool

    start = parallelizer.ParallelExecutor.__init__

    def quick(self: Any, *args: Any, **options: Any) -> None:
        start(self, *args, **{**options, "timeout": 1})

    with monkeypatch.context() as patched:
        patched.setattr(parallelizer, "ThreadPoolExecutor", counting)
        patched.setattr(parallelizer.ParallelExecutor, "__init__", quick)
        yield again


@pytest.mark.parametrize(
    "ask",
    [
        *(_report, _evaluate, _in_parallel),
        _evaluated_within(lambda: cachectl.cassette("tape.jsonl", mode="record")),
        *[
            pytest.param(_evaluated_within(block), marks=pytest.mark.exhaustive)
            for block in (
                lambda: cachectl.phase("again", cachectl.Policy.REFRESH),
                lambda: cachectl.phase("off", cachectl.Policy.OFF),
                lambda: cachectl.phase("compile"),
            )
        ],
    ],
)
def test_a_question_that_is_started_again_is_asked_once(
    program: dspy.Module,
    endpoint: Endpoint,
    restarted: threading.Event,
    ask: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One answer is held back until DSPy has started its question again: four questions cost four requests."""
    monkeypatch.chdir(tmp_path)
    endpoint.hold("question 2")

    def release() -> None:
        restarted.wait(PATIENCE)
        endpoint.release()

    releasing = threading.Thread(target=release)
    releasing.start()
    ask(program, questions(4))
    releasing.join()
    assert restarted.is_set()
    assert endpoint.requests == 4
    assert set(endpoint.counts().values()) == {1}


def test_a_question_is_given_up_after_its_time(program: dspy.Module, endpoint: Endpoint) -> None:
    """It counts as failed, is not asked again meanwhile, and its late answer is there for the next evaluation."""
    endpoint.hold("question 2")
    report = run(program, questions(4), timeout=1.0, num_threads=4)
    assert (report.failures, endpoint.requests) == (1, 4)
    said = " ".join(str(report).split())
    assert "not answered within 1 s" in said
    assert (1, 3) == (report.provenance.unfinished, report.distinct.distinct)
    assert "1 answer is still being made, though nobody waits any more" in said
    endpoint.release()
    with pytest.raises(ConfigurationError, match="timeout is a number of seconds"):
        run(program, questions(4), timeout=0)


@pytest.mark.parametrize("max_age", [-1, "7d", True, float("nan")])
def test_an_age_that_is_none_is_refused(program: dspy.Module, endpoint: Endpoint, max_age: Any) -> None:
    """It says so before anything is paid for."""
    with pytest.raises(ConfigurationError, match="max_age is a number of seconds that is not negative"):
        run(program, questions(4), max_age=max_age)
    assert endpoint.requests == 0
