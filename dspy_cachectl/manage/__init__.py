"""Looking at a store and taking care of it: what the commands do, without how they print.

Import from its modules; as an attribute each of them is loaded at its first use. It knows the wings below but
`evaluation`. Nothing here imports dspy, litellm or mlflow: a command has to answer at once.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dspy_cachectl.manage import (
        configuration,
        diagnosis,
        dspy_cache,
        entries,
        entry_text,
        exchange,
        explanation,
        listed_runs,
        removal,
        repair,
        snapshots,
        store_usage,
        tables,
        verification,
    )

__all__ = [
    "configuration",
    "diagnosis",
    "dspy_cache",
    "entries",
    "entry_text",
    "exchange",
    "explanation",
    "listed_runs",
    "removal",
    "repair",
    "snapshots",
    "store_usage",
    "tables",
    "verification",
]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
