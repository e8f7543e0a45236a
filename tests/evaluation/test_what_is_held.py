"""A program that evaluates for as long as it runs: of an evaluation that has ended nothing is held but its report."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.calls.support import MakeLM, examples, gold, qa
from tests.endpoint import Endpoint


@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("is_module", [True, False])
def test_nothing_of_earlier_evaluations_is_held(
    endpoint: Endpoint, lm: MakeLM, is_kept: bool, is_module: bool, tmp_path: Path
) -> None:
    """DSPy's trace holds what ran for the next 10,000 calls; not the evaluation's data set, metric and answers too."""
    endpoint.configure(gold=gold(6), accuracy=1.0)
    dspy.configure(lm=lm(temperature=1.0))
    program = qa()

    def evaluated() -> weakref.ref[Any]:
        def metric(example: Any, prediction: Any, trace: Any = None) -> float:
            return 1.0

        asked = program if is_module else lambda question: program(question=question)
        kept = tmp_path if is_kept else False
        report = cachectl.evaluate(asked, examples(6), metric, predictions=kept, display_progress=False)
        assert report.n == 6
        return weakref.ref(metric)

    first, _ = evaluated(), evaluated()
    gc.collect()
    assert first() is None


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_few_files_stay_open(endpoint: Endpoint, lm: MakeLM, tmp_path: Path) -> None:
    """However many libraries of predictions a process has used: a few, and not a lock in each of them."""
    endpoint.configure(gold=gold(2), accuracy=1.0)
    dspy.configure(lm=lm(temperature=1.0))
    for number in range(30):
        cachectl.evaluate(qa(), examples(2), lambda *_: 1.0, predictions=tmp_path / str(number), display_progress=False)
    opened = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    mine = sorted(str(path.relative_to(tmp_path)) for path in opened if path.is_relative_to(tmp_path))
    assert len(mine) <= 16, mine
