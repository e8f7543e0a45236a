"""`aevaluate()`: `evaluate()` for whoever awaits it, and for programs that are awaited."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable, Iterable
from concurrent import futures
from typing import TYPE_CHECKING, Any, overload

import dspy

from dspy_cachectl.config.checks import shown
from dspy_cachectl.context.homes import WORKS_FOR, home_here
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.evaluation.arguments import is_whole
from dspy_cachectl.evaluation.awaiting import AWAITING, Awaiting
from dspy_cachectl.evaluation.running import evaluate
from dspy_cachectl.evaluation.scoring import Metrics

if TYPE_CHECKING:
    from typing import Unpack

    from dspy_cachectl.evaluation.models import Models, Options
    from dspy_cachectl.reports.ranking import Ranking
    from dspy_cachectl.reports.report import EvalReport

_REFUSED = {
    "num_threads": "write concurrency, which is how many questions are in the air at once",
    "executor": "a pool's workers have loops of their own: await asyncio.to_thread(cachectl.evaluate, ...)",
}


@overload
async def aevaluate(
    program: Any,
    devset: Iterable[dspy.Example],
    metric: Metrics,
    *,
    lms: Models,
    concurrency: int | None = None,
    **options: Unpack[Options],
) -> Ranking: ...


@overload
async def aevaluate(
    program: Any,
    devset: Iterable[dspy.Example],
    metric: Metrics,
    *,
    lms: None = None,
    concurrency: int | None = None,
    **options: Unpack[Options],
) -> EvalReport: ...


async def aevaluate(
    program: Any,
    devset: Iterable[dspy.Example],
    metric: Metrics,
    *,
    concurrency: int | None = None,
    **options: Any,
) -> EvalReport | Ranking:
    """Evaluate as `evaluate` does, and report what it does, while the event loop goes on.

    A program that has `aforward` is awaited, also where it has `forward`, and so is a metric that returns a coroutine:
    on the loop that runs here, so that what belongs to it can be used, such as a session of MCP or of a database.
    What is not awaited runs in threads.

    Cancelled, it begins no question, waits for those in the air, whose answers are kept, and raises. Cancelled once
    more, it ends those, too.

    Args:
        program: As for `evaluate`; likewise the next two.
        devset: The questions.
        metric: Scores an answer.
        concurrency: How many questions are in the air at once, at most. None: as DSPy's setting `num_threads` says.
        **options: Further arguments of `evaluate`, but for `num_threads` and `executor`.

    Returns:
        The report; with `lms` the reports of all, ranked.

    Raises:
        ConfigurationError: If an argument cannot be used; the message says which and what to do.
        asyncio.CancelledError: It was cancelled. What was answered until then is kept, and its report is the
            exception's `report`, and that of `last_report()`.
        Exception: As from `evaluate`.
    """
    for name, instead in _REFUSED.items():
        if options.get(name) is not None:
            raise ConfigurationError(f"aevaluate() has no argument {name!r}: {instead}")
    if concurrency is not None and not is_whole(concurrency, 1):
        raise ConfigurationError(f"concurrency is a whole number above 0, or None, not {shown(concurrency)}")
    awaiting = Awaiting(asyncio.get_running_loop())
    evaluating = functools.partial(evaluate, program, devset, metric, num_threads=concurrency, **options)
    made = asyncio.wrap_future(_in_thread(awaiting, evaluating))
    try:
        return await asyncio.shield(made)
    except asyncio.CancelledError as error:
        if not made.done():
            await _ended(awaiting, made, error)
        raise


def _in_thread(awaiting: Awaiting, evaluating: Callable[[], Any]) -> futures.Future[Any]:
    """Evaluate in a thread of its own, in this context."""
    future: futures.Future[Any] = futures.Future()
    context = contextvars.copy_context()
    context.run(AWAITING.set, awaiting)
    context.run(WORKS_FOR.set, home_here())

    def work() -> None:
        future.set_running_or_notify_cancel()  # so that nobody cancels it before its end
        try:
            found = context.run(evaluating)
        except BaseException as error:  # noqa: BLE001 - it is raised where the evaluation is awaited
            future.set_exception(error)
        else:
            future.set_result(found)

    threading.Thread(target=work, name="dspy-cachectl-evaluation").start()
    return future


async def _ended(awaiting: Awaiting, made: asyncio.Future[Any], error: BaseException) -> None:
    """Begin no question any more, wait for those in the air, and let what has ended it carry the report."""
    awaiting.is_ending = True
    try:
        await asyncio.wait([made])
    except asyncio.CancelledError:
        awaiting.leave()
        made.cancel()  # nobody asks what comes of it, and the loop may be closed by then
        raise
    end = made.exception()
    error.report = getattr(end, "report", None) if end is not None else made.result()  # type: ignore[attr-defined]
