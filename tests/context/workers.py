"""A program for pools of processes: what workers import, and what a test runs as a script of its own.

Run as `python -m tests.context.workers KIND HOW RUN_ID`; it prints JSON.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Any

import dspy

import dspy_cachectl as cachectl
from tests.calls.support import examples

WORKERS = 4


def pool(kind: str, workers: int = WORKERS) -> Executor:
    """A pool of processes, started in one of the three ways."""
    if kind == "loky":
        from joblib.externals.loky import ProcessPoolExecutor as LokyExecutor

        executor: Executor = LokyExecutor(workers)
        return executor
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context(kind))


class Answer(dspy.Signature):
    """Answer."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class ThreeCalls(dspy.Module):  # type: ignore[misc]
    """Asks the same three times; the last answer is its own."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict(Answer)

    def forward(self, question: str) -> Any:
        """Ask."""
        for _ in range(2):
            self.ask(question=question)
        return self.ask(question=question)


class Judge:
    """A metric with an LM of its own."""

    def __init__(self, lm: Any) -> None:
        self.lm = lm

    def __call__(self, example: Any, prediction: Any, trace: Any = None) -> float:
        """Score by what the judge says."""
        said = self.lm(f"Is {prediction.answer} right for {example.question}?")[0]
        return float(len(said) % 2)


def make_lm(name: str = "openai/test-model", **options: Any) -> Any:
    """An LM on the endpoint."""
    return cachectl.LM(name, api_base=os.environ["ENDPOINT_URL"], api_key="sk-x", **options)


def evaluated(run_id: str, questions: int, repeats: int) -> Any:
    """The report of a whole evaluation, made here."""
    program = ThreeCalls()
    program.set_lm(make_lm())
    judge = Judge(make_lm("openai/judge", role="judge"))
    options = {"run_id": run_id, "repeats": repeats, "num_threads": 4, "display_progress": False}
    return cachectl.evaluate(program, examples(questions), judge, predictions=False, **options)


def said(report: Any) -> dict[str, Any]:
    """What of a report must be the same wherever it is made."""
    how = report.as_dict()
    return {
        "score": report.score,
        "interval": [report.interval.low, report.interval.high],
        "models": how["provenance"]["models"],
    }


def ask(lm: Any) -> str:
    """One answer."""
    return str(lm("hello")[0])


def ask_program(lm: Any) -> str:
    """One answer of a program."""
    program = ThreeCalls()
    program.set_lm(lm)
    return str(program(question="Q?").answer)


def ask_swallowing(lm: Any) -> str:
    """One answer, whatever happens."""
    try:
        return ask(lm)
    except Exception as error:  # noqa: BLE001 - as programs do
        return f"{type(error).__name__}: {error}"


ASKS: dict[str, Callable[[Any], str]] = {"lm": ask, "program": ask_program, "swallowing": ask_swallowing}


def by_hand(kind: str, how: str, run_id: str) -> dict[str, Any]:
    """What workers draw in a phase: carried or as they are, in a pool that is older than the phase or not."""
    what, carried, age = how.split("-")
    policy = {"replay": cachectl.Policy.REPLAY, "reuse": cachectl.Policy.REUSE}.get(run_id)
    executor = pool(kind)
    if age == "older":
        list(executor.map(len, [""] * WORKERS * 4))
    try:
        with cachectl.phase("eval", policy, run_id=None if policy else run_id) as run:
            executor = executor if age == "older" else pool(kind)
            function = cachectl.carry(ASKS[what]) if carried == "carried" else ASKS[what]
            answers = list(executor.map(function, [make_lm()] * 10))
            if carried == "carried":
                answers += [ASKS[what](make_lm()) for _ in range(2)]
        error = None
    except cachectl.ReplayIncompleteError as incomplete:
        error = str(incomplete)
    executor.shutdown()
    counted = {name: count for name, count in run.stats.as_dict().items() if count and isinstance(count, int)}
    return {"answers": sorted(answers), "stats": counted, "error": error}


def main(arguments: list[str]) -> None:
    """Run what is asked for."""
    kind, how, run_id = arguments
    if how.startswith("evaluate"):
        size = [int(number) for number in how.split("-")[1:]]
        if kind == "threads":
            found = said(evaluated(run_id, *size))
        else:
            with pool(kind, 1) as executor:
                found = said(executor.submit(evaluated, run_id, *size).result())
    else:
        found = by_hand(kind, how, run_id)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
