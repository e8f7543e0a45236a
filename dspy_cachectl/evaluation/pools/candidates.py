"""Candidates of an optimizer, evaluated on the workers of a pool: DSPy's own evaluation, a part of the questions each.

DSPy lets nobody in between, so in the block what its executor runs is looked at: where it is the evaluation of a
candidate, its questions go to the workers.
"""

from __future__ import annotations

import contextvars
import functools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import cloudpickle
import dspy
from dspy.utils.parallelizer import ParallelExecutor

from dspy_cachectl.accounting.ledger import Row, Tally
from dspy_cachectl.context import evaluations
from dspy_cachectl.context.phases import PhaseContext
from dspy_cachectl.context.process import state
from dspy_cachectl.context.ruling import phase_around, phase_here
from dspy_cachectl.evaluation.pools.sending import packed, settings_to_send, unpacked
from dspy_cachectl.evaluation.pools.workers import Workers, outcomes, parts_for
from dspy_cachectl.evaluation.pools.working import Home, as_bytes
from dspy_cachectl.phases.phase import phase

_OPTIMIZERS = frozenset({"dspy.teleprompt.random_search", "dspy.teleprompt.mipro_optimizer_v2"})
"""Those that want nothing of their candidates but scores; others look at what their programs did."""
_EVALUATION = "Evaluate.__call__.<locals>.process_item"

_POOL: contextvars.ContextVar[Workers | None] = contextvars.ContextVar("dspy_cachectl_workers", default=None)
_blocks = 0
_lock = threading.Lock()


@dataclass(frozen=True)
class _Candidate:
    """What all parts of a candidate's evaluation have in common.

    Attributes:
        program: The candidate.
        metric: The metric.
        phase: The phase to ask in.
        options: How DSPy's executor goes about it.
        settings: What DSPy is set to.
        home: Where it comes from.
    """

    program: Any
    metric: Callable[..., Any]
    phase: PhaseContext
    options: dict[str, Any]
    settings: dict[str, Any]
    home: Home


@contextmanager
def workers(executor: Any) -> Iterator[None]:
    """Let optimizers evaluate their candidates on the workers of a pool, in the block.

    These are `BootstrapFewShotWithRandomSearch` and `MIPROv2`; what they bootstrap and propose, and all that others do,
    is asked here. The requests and the result are those of one process. What is sent is what `evaluate(executor=)`
    sends, and so is what is refused.

    Args:
        executor: As for `evaluate`.

    Raises:
        ConfigurationError: If it is no pool, nor makes one.
    """
    pool = Workers(executor)
    token = _POOL.set(pool)
    _look(+1)
    try:
        yield
    finally:
        _look(-1)
        _POOL.reset(token)
        pool.close()


def _look(more: int) -> None:
    """Look at what DSPy's executor runs while a block is open, and not for longer."""
    global _blocks
    with _lock:
        before, _blocks = _blocks, _blocks + more
        if not before:
            ParallelExecutor.execute = _looking(ParallelExecutor.execute)
        elif not _blocks:
            ParallelExecutor.execute = ParallelExecutor.execute.__wrapped__


def _looking(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def execute(executor: Any, function: Any, data: Sequence[Any]) -> Any:
        pool = _POOL.get()
        if pool is None or getattr(function, "__qualname__", "") != _EVALUATION or not _is_of_optimizer():
            return original(executor, function, data)
        around = phase_around()
        if around is not None and around.numbers_draws:
            state.say_once(
                "workers:draws",
                f"phase {around.name!r} numbers its draws, which processes do not share: candidates are evaluated "
                "here. Compile in phase('compile')",
            )
            return original(executor, function, data)
        return _spread(
            executor, dict(zip(function.__code__.co_freevars, function.__closure__, strict=True)), data, pool
        )

    return execute


def _is_of_optimizer() -> bool:
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - an evaluation is not told whose it is
    while frame is not None and frame.f_globals.get("__name__") not in _OPTIMIZERS:
        frame = frame.f_back
    return frame is not None


def _spread(executor: Any, cells: dict[str, Any], data: Sequence[Any], pool: Workers) -> list[Any]:
    """Have the workers evaluate a candidate; return what DSPy's executor would."""
    names = ("num_threads", "max_errors", "provide_traceback", "compare_results", "timeout", "straggler_limit")
    candidate = _Candidate(
        program=cells["program"].cell_contents,
        metric=cells["metric"].cell_contents,
        phase=phase_around() or phase("compile").context,
        options={name: getattr(executor, name) for name in names},
        settings=settings_to_send(),
        home=Home.here(sends=not pool.are_threads),
    )
    of = parts_for(len(data), executor.num_threads)
    parts = [list(data[index::of]) for index in range(of)]
    sent: tuple[Any, list[Any]] = candidate, parts
    if not pool.are_threads:
        sent = packed(candidate), [packed(part) for part in parts]
    found: list[Any] = [None] * len(data)
    for index, (answers, counted, error) in outcomes(pool, judged, *sent):
        _count(counted)
        if error is not None:
            raise unpacked(error)
        found[index::of] = unpacked(answers) if isinstance(answers, bytes) else answers
    return found


def _count(rows: Sequence[dict[str, Any]]) -> None:
    run = phase_here().run
    for row in rows:
        tally = Tally()
        tally.add_all(row)
        for ledger in [*evaluations.ledgers(), *([] if run is None else [run.ledger])]:
            ledger.record(Row(row["phase"], row["role"], row["model"]), tally)


def judged(common: bytes | _Candidate, part: bytes | list[Any]) -> tuple[Any, list[dict[str, Any]], bytes | None]:
    """Evaluate a candidate on a part of the questions, as `dspy.Evaluate` does.

    Returns:
        The answers with their scores, as bytes where they go to another process; what was counted, row by row; and what
        ended it, or None.
    """
    answers: Any = ()
    rows: list[dict[str, Any]] = []
    try:
        candidate: _Candidate = unpacked(common) if isinstance(common, bytes) else common
        examples = unpacked(part) if isinstance(part, bytes) else part
        candidate.home.follow()
        asks = candidate.phase
        opened = phase(asks.name, asks.policy, roles=dict(asks.roles), bypass_proxy=asks.bypass_proxy)
        with dspy.context(**candidate.settings), opened as run:
            try:
                answers = _judged(candidate, examples)
            finally:
                rows = run.stats.as_dict()["by"]
        return cloudpickle.dumps(answers) if isinstance(common, bytes) else answers, rows, None
    except Exception as error:  # noqa: BLE001 - it is raised where the optimizer runs
        return (), rows, as_bytes(error)


def _judged(candidate: _Candidate, examples: Sequence[Any]) -> list[Any]:
    def process_item(example: Any) -> Any:
        prediction = candidate.program(**example.inputs())
        return prediction, candidate.metric(example, prediction)

    executor = ParallelExecutor(disable_progress_bar=True, **candidate.options)
    answers: list[Any] = executor.execute(process_item, examples)
    return answers
