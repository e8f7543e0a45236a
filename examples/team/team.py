"""A team's day: one compiles, another evaluates on workers, CI replays; all share what has been paid for."""

from __future__ import annotations

import argparse
import multiprocessing
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import dspy_cachectl as cachectl  # before DSPy: it loads nothing, and neither is slower for it

# isort: split
import dspy
from tickets import Triage, messages, right

RUN = "release-1"
"""The draws that the team's number is made of, whoever asks for them."""
REPEATS = 3


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("compile", "evaluate", "ci"))
    parser.add_argument("--model", default="openai/gpt-4o-mini", metavar="NAME")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="of evaluate, processes of this machine")
    parser.add_argument(
        "--kept", default=False, metavar="PLACE", help="where predictions are, such as s3://bucket/evals"
    )
    parser.add_argument("--shared", type=Path, default=Path("outputs/team"), metavar="FOLDER", help="what is handed on")
    options = parser.parse_args()
    dspy.configure(lm=cachectl.LM(options.model))
    options.shared.mkdir(parents=True, exist_ok=True)
    {"compile": compiled, "evaluate": evaluated, "ci": replayed}[options.what](options)


def compiled(options: Any) -> None:
    """Ana compiles, on two threads; what the optimizer asks is everybody's from now on."""
    optimizer = dspy.BootstrapFewShotWithRandomSearch(metric=right, num_candidate_programs=2, num_threads=2)
    with cachectl.phase("compile") as phase:
        best = optimizer.compile(dspy.Predict(Triage), trainset=messages(learned=True))
    best.save(options.shared / "program.json")
    paid("Ana", phase.stats)


def evaluated(options: Any) -> None:
    """Ben evaluates what she has handed on, on workers, and hands on a report."""

    def pool() -> Executor:
        return ProcessPoolExecutor(options.workers, mp_context=multiprocessing.get_context("spawn"))

    report = cachectl.evaluate(
        program(options),
        messages(learned=False),
        right,
        repeats=REPEATS,
        run_id=RUN,
        executor=pool,
        predictions=options.kept,
    )
    report.save(options.shared / "report.json")
    print(report)
    paid("Ben", cachectl.last_phase().stats)


def replayed(options: Any) -> None:
    """CI makes the number anew out of the same draws, and would fail where one of them had to be bought."""
    before = cachectl.EvalReport.load(options.shared / "report.json")
    replay = cachectl.Policy.REPLAY.with_overrides(temperature=before.provenance.temperature_lent)
    with cachectl.phase("ci", replay, run_id=RUN) as phase:
        report = cachectl.evaluate(
            program(options), messages(learned=False), right, repeats=REPEATS, predictions=options.kept
        )
    paid("CI", phase.stats)
    assert report.score == before.score, f"the score was {before.score}, and is {report.score}"
    print(f"the score is {report.score:g}, as Ben has reported")


def program(options: Any) -> dspy.Module:
    """Return what Ana has compiled."""
    found = dspy.Predict(Triage)
    found.load(options.shared / "program.json")
    return found


def paid(who: str, stats: cachectl.Stats) -> None:
    """Print who paid for what."""
    print(f"{who}: {stats.calls} calls, {stats.requests} paid for, {stats.served} served")


if __name__ == "__main__":
    main()
