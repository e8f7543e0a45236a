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
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `as` says that a name is public, where `__all__` is computed
    from dspy_cachectl._version import __version__ as __version__
    from dspy_cachectl.accounting.ledger import Stats as Stats
    from dspy_cachectl.awaited.evaluating import aevaluate as aevaluate
    from dspy_cachectl.batches.batch import Batch as Batch
    from dspy_cachectl.budget import Budget as Budget
    from dspy_cachectl.calls.cache import ManagedCache as ManagedCache
    from dspy_cachectl.calls.installation import install as install, uninstall as uninstall
    from dspy_cachectl.calls.lm import LM as LM, Embedder as Embedder
    from dspy_cachectl.config import configure as configure
    from dspy_cachectl.context.phases import PhaseRun as PhaseRun
    from dspy_cachectl.context.process import stats as stats
    from dspy_cachectl.context.ruling import current_phase as current_phase, last_phase as last_phase
    from dspy_cachectl.demo.local_model import local_model as local_model
    from dspy_cachectl.errors import (
        BatchError as BatchError,
        BatchPendingError as BatchPendingError,
        BudgetExceededError as BudgetExceededError,
        CachectlError as CachectlError,
        CacheMissError as CacheMissError,
        ConfigurationError as ConfigurationError,
        CorruptEntryError as CorruptEntryError,
        DriftError as DriftError,
        EncryptedError as EncryptedError,
        FormatVersionError as FormatVersionError,
        MissingExtraError as MissingExtraError,
        ReplayIncompleteError as ReplayIncompleteError,
        StoreError as StoreError,
        StoreUnavailableError as StoreUnavailableError,
        ToolMissError as ToolMissError,
    )
    from dspy_cachectl.estimating.asking import estimate as estimate
    from dspy_cachectl.estimating.estimate import Estimate as Estimate
    from dspy_cachectl.evaluation.last import last_report as last_report
    from dspy_cachectl.evaluation.pools.candidates import workers as workers
    from dspy_cachectl.evaluation.running import evaluate as evaluate
    from dspy_cachectl.judging.check import JudgeCheck as JudgeCheck
    from dspy_cachectl.judging.checking import check_judge as check_judge
    from dspy_cachectl.phases.auto import AutoPhase as AutoPhase
    from dspy_cachectl.phases.decoration import carry as carry
    from dspy_cachectl.phases.phase import phase as phase
    from dspy_cachectl.policy import Policy as Policy
    from dspy_cachectl.replay.cassettes import Cassette as Cassette, cassette as cassette
    from dspy_cachectl.reports.apart.corpus import CorpusMetric as CorpusMetric
    from dspy_cachectl.reports.apart.labels import Corrected as Corrected
    from dspy_cachectl.reports.comparison import Comparison as Comparison
    from dspy_cachectl.reports.ranking import Ranking as Ranking
    from dspy_cachectl.reports.report import EvalReport as EvalReport
    from dspy_cachectl.reports.several import compare as compare
    from dspy_cachectl.settling.race import Race as Race
    from dspy_cachectl.settling.racing import race as race
    from dspy_cachectl.settling.result import Settled as Settled
    from dspy_cachectl.settling.two import settle as settle
    from dspy_cachectl.tools.wrapping import wrap as wrap
    from dspy_cachectl.tracking import find_mlflow_run as find_mlflow_run, protect_mlflow as protect_mlflow
    from dspy_cachectl.tracking.callbacks import mlflow_callbacks as mlflow_callbacks
    from dspy_cachectl.tracking.log import log_to_mlflow as log_to_mlflow

_HOMES = {
    "__version__": "_version",
    "AutoPhase": "phases.auto",
    "Batch": "batches.batch",
    "BatchError": "errors",
    "BatchPendingError": "errors",
    "Budget": "budget",
    "BudgetExceededError": "errors",
    "CacheMissError": "errors",
    "CachectlError": "errors",
    "Cassette": "replay.cassettes",
    "Comparison": "reports.comparison",
    "ConfigurationError": "errors",
    "CorpusMetric": "reports.apart.corpus",
    "Corrected": "reports.apart.labels",
    "CorruptEntryError": "errors",
    "DriftError": "errors",
    "Embedder": "calls.lm",
    "Estimate": "estimating.estimate",
    "EvalReport": "reports.report",
    "EncryptedError": "errors",
    "FormatVersionError": "errors",
    "JudgeCheck": "judging.check",
    "LM": "calls.lm",
    "ManagedCache": "calls.cache",
    "MissingExtraError": "errors",
    "PhaseRun": "context.phases",
    "Policy": "policy",
    "Race": "settling.race",
    "Ranking": "reports.ranking",
    "ReplayIncompleteError": "errors",
    "Settled": "settling.result",
    "Stats": "accounting.ledger",
    "StoreError": "errors",
    "StoreUnavailableError": "errors",
    "ToolMissError": "errors",
    "aevaluate": "awaited.evaluating",
    "carry": "phases.decoration",
    "cassette": "replay.cassettes",
    "check_judge": "judging.checking",
    "compare": "reports.several",
    "configure": "config",
    "current_phase": "context.ruling",
    "estimate": "estimating.asking",
    "evaluate": "evaluation.running",
    "find_mlflow_run": "tracking",
    "install": "calls.installation",
    "last_phase": "context.ruling",
    "last_report": "evaluation.last",
    "local_model": "demo.local_model",
    "log_to_mlflow": "tracking.log",
    "mlflow_callbacks": "tracking.callbacks",
    "phase": "phases.phase",
    "protect_mlflow": "tracking",
    "race": "settling.racing",
    "settle": "settling.two",
    "stats": "context.process",
    "uninstall": "calls.installation",
    "workers": "evaluation.pools.candidates",
    "wrap": "tools.wrapping",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        # Python suggests a name that is near.
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    _load_as_saved()
    return value


def _load_as_saved() -> None:
    """Let programs that DSPy loads have the LMs that they were saved with, once there is a DSPy."""
    if "dspy" in sys.modules and hasattr(sys.modules["dspy"], "LM"):
        importlib.import_module(f"{__name__}.calls.loading")


class _AtArrivalOfDSPy:
    """Does so as soon as DSPy is imported, whoever imports it: a program may be loaded next, and nothing of ours named.

    It finds nothing by itself, and goes as soon as DSPy is there.
    """

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "dspy":
            return None
        finders = [finder for finder in sys.meta_path if finder is not self]
        found = next((spec for finder in finders if (spec := finder.find_spec(name, path, target)) is not None), None)
        if found is not None and found.loader is not None:
            loader: Any = found.loader
            execute = loader.exec_module

            def exec_module(module: Any) -> None:
                execute(module)
                sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
                _load_as_saved()

            loader.exec_module = exec_module
        return found


def __dir__() -> list[str]:
    return sorted(__all__)


_load_as_saved()
if "dspy" not in sys.modules:
    sys.meta_path.insert(0, _AtArrivalOfDSPy())
