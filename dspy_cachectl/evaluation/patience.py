"""How long a question is waited for."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent import futures
from typing import TypeVar

T = TypeVar("T")


def within(timeout: float | None, run: Callable[[], T]) -> T:
    """Run a function in this context, and return what it returns.

    Args:
        timeout: Seconds to wait for it; None: as long as it takes.
        run: The function. It goes on in a thread of its own where it is given up, and holds up no exit.

    Raises:
        TimeoutError: It was given up.
        BaseException: Whatever it raises.
    """
    if timeout is None:
        return run()
    future: futures.Future[T] = futures.Future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            future.set_result(context.run(run))
        except BaseException as error:  # noqa: BLE001 - it is raised where the function is waited for
            future.set_exception(error)

    threading.Thread(target=work, name="dspy-cachectl-question", daemon=True).start()
    done, _ = futures.wait([future], timeout=timeout)
    if not done:
        raise TimeoutError(f"it was not answered within {timeout:g} s")
    return future.result()
