"""The demo: compile from the cache, evaluate afresh, on a real model.

`run` is what `dspy-cachectl demo` calls; nothing else is for other wings. It uses the whole package as a user would,
and a model server of its own. Importing this package loads nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspy_cachectl.demo.pipeline import run

__all__ = ["run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dspy_cachectl.demo.environment import prepare_environment

    # Before dspy, which may load litellm.
    prepare_environment()
    from dspy_cachectl.demo import pipeline

    return pipeline.run
