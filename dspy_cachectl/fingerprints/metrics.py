"""Which metric gave a score."""

from __future__ import annotations

from typing import Any

from dspy_cachectl.fingerprints import canonical, sources


def metric_name(metric: Any) -> str:
    """Return the full name of a metric: of the function, of what a `partial` calls, or of its class."""
    named = getattr(metric, "func", metric)
    named = named if hasattr(named, "__qualname__") else type(named)
    return canonical.type_name(named)


def metric_fingerprint(metric: Any) -> str:
    """Hash what a metric does: its name, its source, what it closes over, its defaults and its helpers.

    Args:
        metric: A function, method, lambda, `functools.partial`, or object with `__call__`.

    Returns:
        64 hexadecimal digits, the same in every process.
    """
    return canonical.digest([metric_name(metric), sources.function_source(metric, containers=True)])
