"""Looking at a store and taking care of it: what the commands do, without how they print.

Import from its modules; as an attribute each of them is loaded at its first use. It knows the wings below but
`evaluation`. Nothing here imports dspy, litellm or mlflow: a command has to answer at once.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `as` says that a name is public
    from dspy_cachectl.manage import (
        configuration as configuration,
        diagnosis as diagnosis,
        dspy_cache as dspy_cache,
        entries as entries,
        exchange as exchange,
        explanation as explanation,
        kept_reports as kept_reports,
        listed_runs as listed_runs,
        ranking as ranking,
        rekeying as rekeying,
        removal as removal,
        repair as repair,
        snapshots as snapshots,
        store_usage as store_usage,
        tables as tables,
        verification as verification,
    )


def __getattr__(name: str) -> ModuleType:
    module = f"{__name__}.{name}"
    if find_spec(module) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(module)
