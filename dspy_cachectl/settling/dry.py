"""How each of several programs is evaluated, and what is done in the place of it in a dry run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspy_cachectl.context.process import state
from dspy_cachectl.evaluation.growing import random_order
from dspy_cachectl.evaluation.opening import opened


def dried(programs: Mapping[str, Any], options: Mapping[str, Any], most: int) -> Any:
    """Tell of each program what it is asked at most. Return what stands for the result; None where all are to be asked.

    Args:
        programs: The programs by name.
        options: The arguments of `evaluate`, but for the program and its name.
        most: How many questions each is asked at most, in their random order.
    """
    found = None
    for name, program in programs.items():
        if state.instead_of_evaluating is not None:
            with opened({**options_of(name, program, options), "name": f"{name}, at most"}) as (task, kept):
                asked = task.only(random_order(task, options["seed"])[:most], range(task.repeats))
                found = state.instead_of_evaluating(asked, kept, None)
    return found


def options_of(name: str, program: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `evaluate` for one of several programs, which has a run of its own."""
    run_id = options["run_id"] and f"{options['run_id']}-{name}"
    return {**options, "program": program, "name": name, "run_id": run_id}
