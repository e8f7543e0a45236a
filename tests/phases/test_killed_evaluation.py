"""An evaluation that was killed is resumed without paying twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.calls.support import MakeLM, assert_counted, evaluate, examples, gold, qa
from tests.endpoint import Endpoint

ROOT = Path(__file__).resolve().parents[2]
THREADS = 8
KILLED = """
import os, sys, dspy
import dspy_cachectl as cachectl
from tests.calls.support import evaluate, examples, qa

dspy.configure(lm=cachectl.LM("openai/test-model", api_base=sys.argv[1], api_key="sk-test", temperature=1.0))
with cachectl.phase(sys.argv[2], **({"run_id": "baseline"} if sys.argv[2] == "eval" else {})):
    evaluate(qa(), examples(*map(int, sys.argv[3:])), threads=8)
"""


def kill_half_way(endpoint: Endpoint, *arguments: str, after: int) -> None:
    """Run an evaluation in a process of its own and kill it when so many requests have arrived."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, endpoint.url, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert endpoint.wait_for(after)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("phase", ["eval", pytest.param("compile", marks=pytest.mark.exhaustive)])
def test_only_calls_in_the_air_are_made_again(endpoint: Endpoint, lm: MakeLM, phase: str) -> None:
    """What had been answered and stored is served; at most the calls in the air are paid twice."""
    questions, copies = (30, 5) if phase == "eval" else (150, 1)
    endpoint.configure(gold=gold(questions), accuracy=0.6, delay=0.03)
    kill_half_way(endpoint, phase, str(questions), str(copies), after=75)
    endpoint.configure(delay=0.0)

    dspy.configure(lm=lm(temperature=1.0))
    run_id = {"run_id": "baseline"} if phase == "eval" else {}
    with cachectl.phase(phase, **run_id) as run:
        score = evaluate(qa(), examples(questions, copies), threads=THREADS)

    served = run.stats.resumed + run.stats.reused
    arrived = endpoint.requests - run.stats.fresh
    assert 75 <= arrived < 150
    assert_counted(run.stats, **{"resumed" if run_id else "reused": served}, fresh=150 - served, failed_reads=0)
    assert arrived - THREADS <= served <= arrived
    assert endpoint.requests <= 150 + THREADS

    with cachectl.phase(phase, **run_id) as run:
        assert evaluate(qa(), examples(questions, copies), threads=THREADS) == score
    assert run.stats.requests == 0
