"""How many answers of a program an optimizer asks for at most, where its budget tells."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import dspy

_MINIBATCH, _FULL_EVERY = 35, 5
"""How many questions MIPROv2 scores a candidate on, and after how many trials one on all."""
_AUTO = {"light": (6, 100), "medium": (12, 300), "heavy": (18, 1000)}
"""How many candidates there are, and on how many questions at most they are scored."""


def most_answers(optimizer: Any, program: Any, questions: int) -> int | None:
    """Return how many answers an optimizer asks a program for at most; None where nothing tells.

    Args:
        optimizer: The optimizer.
        program: What it compiles.
        questions: How many questions it is given to train and to validate on.
    """
    for kind in type(optimizer).__mro__:
        count = _COUNTS.get(kind.__name__) if kind.__module__.startswith("dspy.") else None
        if count is not None:
            try:
                return math.ceil(count(optimizer, max(len(program.predictors()), 1), questions))
            except (AttributeError, KeyError, TypeError):  # another release of DSPy names its budget otherwise
                return None
    return None


def _gepa(one: Any, predictors: int, questions: int) -> float:
    if one.max_metric_calls is not None:
        # A step that was begun is finished.
        return float(one.max_metric_calls + 2 * questions)
    if one.max_full_evals is not None:
        return float(one.max_full_evals * 2 * questions + 2 * questions)
    most = one.auto_budget(num_preds=predictors, num_candidates=_AUTO[one.auto][0], valset_size=questions)
    return float(most + 2 * questions)


def _mipro(one: Any, predictors: int, questions: int) -> float:
    candidates, most = _AUTO[one.auto] if one.auto is not None else (one.num_candidates, questions)
    scored = min(questions, most)
    trials = max(2 * 2 * predictors * math.log2(max(candidates, 2)), 1.5 * candidates)
    full = trials // _FULL_EVERY + 2
    return trials * min(scored, _MINIBATCH) + full * scored + candidates * questions


def _bootstrap(one: Any, _: int, questions: int) -> float:
    return float(one.max_rounds * questions)


def _random_search(one: Any, _: int, questions: int) -> float:
    return float((one.num_candidate_sets + 3) * questions * (1 + one.max_rounds))


def _simba(one: Any, _: int, questions: int) -> float:
    return float(one.max_steps * one.bsize * one.num_candidates * 2 + (one.max_steps + 1) * questions)


def _copro(one: Any, predictors: int, questions: int) -> float:
    return float((one.depth + 1) * one.breadth * questions * predictors)


_COUNTS: dict[str, Callable[[Any, int, int], float]] = {
    "GEPA": _gepa,
    "MIPROv2": _mipro,
    "BootstrapFewShotWithRandomSearch": _random_search,
    "BootstrapFewShot": _bootstrap,
    "SIMBA": _simba,
    "COPRO": _copro,
}


def is_optimizer(value: Any) -> bool:
    """Tell whether something compiles programs."""
    return isinstance(value, dspy.teleprompt.Teleprompter)
