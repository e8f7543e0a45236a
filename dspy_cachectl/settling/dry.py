"""What is done with several programs in the place of asking them, in a dry run."""

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
            with opened({**options, "program": program, "name": f"{name}, at most"}) as (task, kept):
                asked = task.only(random_order(task, options["seed"])[:most], range(task.repeats))
                found = state.instead_of_evaluating(asked, kept, None)
    return found
