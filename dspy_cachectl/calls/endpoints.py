"""Where a plain LM's model is served: what DSPy leaves out of what it asks its cache.

DSPy's key of a typed request, and that of an LM with an engine of one's own, is the same whatever the address. Two
servers with one model name are two models, so the endpoint is added to what `ManagedCache` is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dspy
from dspy.clients.execution import PreparedCall

from dspy_cachectl.calls import adapter
from dspy_cachectl.calls.cache import ManagedCache
from dspy_cachectl.fingerprints.endpoints import endpoint_of

_ORIGINALS: list[Callable[..., Any]] = []


def name_endpoints() -> None:
    """Add the endpoint to what DSPy asks the managed cache. Does nothing where it is added."""
    if not _ORIGINALS:
        _ORIGINALS.append(PreparedCall.key)
        PreparedCall.key = _key


def forget_endpoints() -> None:
    """Give DSPy its function back."""
    while _ORIGINALS:
        PreparedCall.key = _ORIGINALS.pop()


def _key(call: Any, lm: Any, asynchronous: bool) -> dict[str, Any]:
    key: dict[str, Any] = _ORIGINALS[0](call, lm, asynchronous)
    if not isinstance(vars(dspy).get("cache"), ManagedCache):
        return key
    options = {**lm.kwargs, **call.kwargs}
    return {"model": lm.model, **key, adapter.ENDPOINT: endpoint_of(lm.model, options, lm._engine_spec)}  # noqa: SLF001
