"""An evaluation that is cut short: what is there is reported and kept, without noise, and the next one goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.calls.support import MakeLM, exact, examples, gold, qa
from tests.endpoint import Endpoint
from tests.limits import PATIENCE
from tests.processes import ROOT

QUESTIONS, ANSWERED, THREADS = 24, 10, 4
NOISE = ("closed database", "Traceback", "Error for", "ProgrammingError", "cannot schedule", "ERROR")
EVALUATE = """
import os, signal, sys, threading, dspy
import dspy_cachectl as cachectl
from tests.calls.support import exact, examples, qa

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes from what it runs in the background
dspy.configure(lm=cachectl.LM("openai/test-model", api_base=sys.argv[1], api_key="sk-test", temperature=1.0))
try:
    report = cachectl.evaluate(
        qa(), examples(24), exact, num_threads=int(sys.argv[2]), display_progress=sys.argv[3] == "bar",
        predictions=sys.argv[4] == "keep",
    )
except KeyboardInterrupt as error:
    report = cachectl.last_report()
    assert report is error.report and report.provenance.missing
    print(report.n, report.provenance.missing, report.score, len(str(report)) > 100, flush=True)
    if sys.argv[5:]:
        raise
else:
    print(report.n, report.provenance.missing, report.score, report is cachectl.last_report())
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def start(endpoint: Endpoint, threads: int, shown: str = "quiet", kept: str = "keep", *more: str) -> Any:
    return subprocess.Popen(
        [sys.executable, "-c", EVALUATE, endpoint.url, str(threads), shown, kept, *more],
        # No store outlives it: what the next process need not ask for is in the library of predictions.
        env={**os.environ, "PYTHONPATH": str(ROOT), "DSPY_CACHECTL_STORE": "memory://"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals are another thing there")
@pytest.mark.parametrize(
    ("threads", "shown", "kept"),
    [
        (THREADS, "quiet", "keep"),
        pytest.param(1, "bar", "keep", marks=pytest.mark.exhaustive),
        pytest.param(THREADS, "bar", "off", marks=pytest.mark.exhaustive),
        pytest.param(1, "quiet", "off", marks=pytest.mark.exhaustive),
    ],
)
def test_control_c(endpoint: Endpoint, threads: int, shown: str, kept: str) -> None:
    """Ctrl-C leaves a report of what is answered, without noise; what is in the air is kept, and nothing paid twice."""
    endpoint.configure(gold=gold(QUESTIONS), accuracy=1.0, delay=0.3)
    process = start(endpoint, threads, shown, kept)
    assert endpoint.wait_for(ANSWERED + threads)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=PATIENCE)
    assert 0 == process.returncode, errors
    answered, missing, score, is_shown = output.split()
    assert (QUESTIONS, "1.0", "True") == (int(answered) + int(missing), score, is_shown)
    assert ANSWERED - threads <= int(answered) < QUESTIONS
    assert [] == [noise for noise in NOISE if noise in errors], errors
    assert "cachectl.last_report() is the report" in errors
    bought = endpoint.requests
    # Only with one thread is the call in the air that of the thread that Ctrl-C ends.
    lost = 1 if threads == 1 else 0
    if kept == "keep":
        endpoint.configure(delay=0.0)
        process = start(endpoint, threads, shown, kept)
        output, errors = process.communicate(timeout=PATIENCE)
        assert (0, f"{QUESTIONS} 0 1.0 True") == (process.returncode, output.strip()), errors
        assert QUESTIONS + lost >= endpoint.requests >= bought


@pytest.mark.skipif(sys.platform == "win32", reason="signals are another thing there")
@pytest.mark.exhaustive
def test_a_second_control_c(endpoint: Endpoint) -> None:
    """Whoever does not wait for what is in the air loses that at most, and the next run goes on."""
    endpoint.configure(gold=gold(QUESTIONS), accuracy=1.0, delay=0.3)
    process = start(endpoint, THREADS, "quiet", "keep", "raise")
    assert endpoint.wait_for(ANSWERED + THREADS)
    process.send_signal(signal.SIGINT)
    line = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert int(line.split()[0]) >= ANSWERED - THREADS
    assert process.returncode != 0
    assert "closed database" not in errors
    endpoint.configure(delay=0.0)
    output, errors = start(endpoint, THREADS).communicate(timeout=PATIENCE)
    assert f"{QUESTIONS} 0 1.0 True" == output.strip(), errors
    assert QUESTIONS + THREADS >= endpoint.requests


def failing(after: int, error: BaseException) -> Any:
    """A program that answers so many questions, and ends with each of the others."""

    class Failing(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.answer = qa()

        def forward(self, question: str) -> Any:
            if int(question[-4:-1]) >= after:
                raise error
            return self.answer(question=question)

    return Failing()


def evaluate(program: Any, metric: Any = exact, **options: Any) -> Any:
    return cachectl.evaluate(program, examples(QUESTIONS), metric, display_progress=False, **options)


@pytest.mark.parametrize("threads", [1, THREADS])
@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_what_the_program_raises(endpoint: Endpoint, lm: MakeLM, threads: int, error: BaseException) -> None:
    """Where that ends the evaluation, what is raised carries the report, and no question is asked any more."""
    endpoint.configure(gold=gold(QUESTIONS), accuracy=1.0)
    dspy.configure(lm=lm(temperature=1.0))
    with pytest.raises((Exception, SystemExit, KeyboardInterrupt)) as raised:
        evaluate(failing(ANSWERED, error), num_threads=threads, max_errors=2)
    report = cachectl.last_report()
    assert report is not None
    assert report is getattr(raised.value, "report", None)
    right = [draw for one in report.questions for draw in one.draws if draw.failed is None]
    assert ANSWERED - threads <= len(right) <= ANSWERED
    assert {1.0} == {draw.score for draw in right}
    assert QUESTIONS == report.provenance.missing + len(report.draws)
    # What was in the air is kept, too.
    assert len(right) <= sum(1 for row in report.rows() if row.error is None) <= ANSWERED
    assert ANSWERED >= endpoint.requests


def test_what_the_metric_raises(endpoint: Endpoint, lm: MakeLM) -> None:
    """A metric that ends the program keeps the answers; the next one only scores them."""
    endpoint.configure(gold=gold(QUESTIONS), accuracy=1.0)
    dspy.configure(lm=lm(temperature=1.0))
    scored = []

    def metric(example: Any, prediction: Any, trace: Any = None) -> float:
        scored.append(1)
        if len(scored) > ANSWERED:
            raise SystemExit(2)
        return exact(example, prediction)

    with pytest.raises(SystemExit):
        evaluate(qa(), metric, num_threads=1)
    report = cachectl.last_report()
    assert report is not None
    assert (ANSWERED, QUESTIONS - ANSWERED) == (report.n, report.provenance.missing)
    assert "cut short" in str(report)
    assert ANSWERED + 1 == endpoint.requests
    whole = evaluate(qa(), num_threads=1)
    assert (QUESTIONS, 0, 1.0) == (whole.n, whole.provenance.missing, whole.score)
    assert whole is cachectl.last_report()
    assert QUESTIONS == endpoint.requests


def test_before_the_first_answer(endpoint: Endpoint, lm: MakeLM) -> None:
    """There is no report of nothing, and the one before is not taken for it."""
    dspy.configure(lm=lm(temperature=1.0))
    evaluate(qa())
    with pytest.raises(KeyboardInterrupt) as raised:
        evaluate(failing(0, KeyboardInterrupt()), num_threads=1)
    assert None is cachectl.last_report()
    assert not hasattr(raised.value, "report")


def test_saved_and_compared(endpoint: Endpoint, lm: MakeLM, tmp_path: Path) -> None:
    """A partial report can be saved and read, and compared with a whole one by the questions that both have."""
    dspy.configure(lm=lm(temperature=1.0))
    whole = evaluate(qa())
    with pytest.raises(KeyboardInterrupt) as raised:
        evaluate(failing(ANSWERED, KeyboardInterrupt()), num_threads=1)
    report = raised.value.report  # type: ignore[attr-defined]
    loaded = cachectl.EvalReport.load(report.save(tmp_path / "report.json"))
    assert (ANSWERED, QUESTIONS - ANSWERED) == (loaded.n, loaded.provenance.missing)
    assert ANSWERED == whole.compare(report).result.n
