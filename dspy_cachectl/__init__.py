"""The cache control plane for DSPy: one phase says what the cache does, every call inside it obeys.

```python
import dspy, dspy_cachectl as cachectl

dspy.configure(lm=cachectl.LM("openai/gpt-4o-mini"))

with cachectl.phase("compile"):  # served from the cache, stored in it
    compiled = dspy.MIPROv2(metric=metric).compile(program, trainset=train)

with cachectl.phase("eval") as run:  # every answer drawn afresh, and resumable as run.run_id
    score = dspy.Evaluate(devset=dev, metric=metric, num_threads=8)(compiled)
```

Names are loaded when they are used: importing this package loads neither DSPy nor LiteLLM nor MLflow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dspy_cachectl._version import __version__

if TYPE_CHECKING:
    from dspy_cachectl.accounting.ledger import Stats
    from dspy_cachectl.calls.cache import ManagedCache
    from dspy_cachectl.calls.installation import install, uninstall
    from dspy_cachectl.calls.lm import LM, wrap
    from dspy_cachectl.config import configure
    from dspy_cachectl.context.phases import PhaseRun
    from dspy_cachectl.context.process import stats
    from dspy_cachectl.context.ruling import current_phase, last_phase
    from dspy_cachectl.errors import (
        CachectlError,
        CacheMissError,
        ConfigurationError,
        CorruptEntryError,
        FormatVersionError,
        MissingExtraError,
        ReplayIncompleteError,
        StoreError,
        StoreUnavailableError,
    )
    from dspy_cachectl.evaluation import evaluate
    from dspy_cachectl.phases.auto import AutoPhase
    from dspy_cachectl.phases.decoration import carry
    from dspy_cachectl.phases.phase import phase
    from dspy_cachectl.policy import Policy
    from dspy_cachectl.replay import Cassette, cassette
    from dspy_cachectl.reports.comparison import Comparison, compare
    from dspy_cachectl.reports.report import EvalReport
    from dspy_cachectl.tracking import log_to_mlflow
    from dspy_cachectl.tracking.callbacks import mlflow_callbacks

_HOMES = {
    "AutoPhase": "phases.auto",
    "CacheMissError": "errors",
    "CachectlError": "errors",
    "Cassette": "replay",
    "Comparison": "reports.comparison",
    "ConfigurationError": "errors",
    "CorruptEntryError": "errors",
    "EvalReport": "reports.report",
    "FormatVersionError": "errors",
    "LM": "calls.lm",
    "ManagedCache": "calls.cache",
    "MissingExtraError": "errors",
    "PhaseRun": "context.phases",
    "Policy": "policy",
    "ReplayIncompleteError": "errors",
    "Stats": "accounting.ledger",
    "StoreError": "errors",
    "StoreUnavailableError": "errors",
    "carry": "phases.decoration",
    "cassette": "replay",
    "compare": "reports.comparison",
    "configure": "config",
    "current_phase": "context.ruling",
    "evaluate": "evaluation",
    "install": "calls.installation",
    "last_phase": "context.ruling",
    "log_to_mlflow": "tracking",
    "mlflow_callbacks": "tracking.callbacks",
    "phase": "phases.phase",
    "protect_mlflow": "tracking",
    "stats": "context.process",
    "uninstall": "calls.installation",
    "wrap": "calls.lm",
}

__all__ = [
    "LM",
    "AutoPhase",
    "CacheMissError",
    "CachectlError",
    "Cassette",
    "Comparison",
    "ConfigurationError",
    "CorruptEntryError",
    "EvalReport",
    "FormatVersionError",
    "ManagedCache",
    "MissingExtraError",
    "PhaseRun",
    "Policy",
    "ReplayIncompleteError",
    "Stats",
    "StoreError",
    "StoreUnavailableError",
    "__version__",
    "carry",
    "cassette",
    "compare",
    "configure",
    "current_phase",
    "evaluate",
    "install",
    "last_phase",
    "log_to_mlflow",
    "mlflow_callbacks",
    "phase",
    "protect_mlflow",
    "stats",
    "uninstall",
    "wrap",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
