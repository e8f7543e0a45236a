"""What is evaluated in parts: a program of three calls, two of them equal, and questions that come twice.

Run as `python -m tests.shards.asking INDEX OF FILE [RUN]`, it is one task of a job array.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import dspy

import dspy_cachectl as cachectl
from tests.context.workers import Judge, ThreeCalls

RUN = "shared"
CALLS = 4
"""Calls of an answer: three of the program, one of the judge."""


def devset(count: int) -> list[dspy.Example]:
    """Questions of which one in five comes twice, the second time with another label."""
    one = [
        dspy.Example(question=f"question {number} ?", answer="yes").with_inputs("question") for number in range(count)
    ]
    for number in range(4, count, 5):
        one[number] = one[number - 1].copy(answer="no")
    return one


def make_lm(name: str = "openai/test-model", **options: Any) -> Any:
    """An LM on the endpoint, which wants no key."""
    return cachectl.LM(name, api_base=os.environ["ENDPOINT_URL"], api_key="none", **options)


def asked() -> tuple[Any, Any]:
    """The program and its metric."""
    program = ThreeCalls()
    program.set_lm(make_lm())
    return program, Judge(make_lm("openai/judge", role="judge"))


def evaluated(count: int = 20, repeats: int = 3, **options: Any) -> Any:
    """The report of an evaluation."""
    given = {"run_id": RUN, "predictions": False, "display_progress": False, "num_threads": 4}
    program, judge = asked()
    return cachectl.evaluate(program, devset(count), judge, repeats=repeats, **{**given, **options})


def said(report: Any) -> dict[str, Any]:
    """What of a report must be the same, however it was made: all but the clock."""
    found = report.as_dict()
    for name in ("seconds", "created"):
        del found["provenance"][name]
    made = found["provenance"]["counters"]
    for row in (made, *made["by"]):
        row.update({name: round(value, 6) for name, value in row.items() if isinstance(value, float)})
    made["by"].sort(key=lambda row: (row["phase"], row["model"]))
    return found


if __name__ == "__main__":
    index, of, file, *run = sys.argv[1:]
    evaluated(shard=(int(index), int(of)), run_id=run[0] if run else RUN).save(file)
