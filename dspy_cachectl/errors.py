"""The errors of this package.

```
CachectlError
├── ConfigurationError        a setting, a phase or an argument that cannot be used
├── MissingExtraError         an optional package is not installed
├── CacheMissError            a replay had no stored answer for a call
│   └── ToolMissError             it had no stored result of a tool
├── BatchError                a batch was refused or cancelled, or the provider does not say how far it is
│   └── BatchPendingError         a batch is on its way, and is not waited for
├── DriftError                a model changed behind its name, and the phase refuses to mix
├── ReplayIncompleteError     a replay phase ended, and calls in it had missed
├── BudgetExceededError       a call was not made, since the budget does not allow it
└── StoreError                a store failed
    ├── StoreUnavailableError     it could not be opened, read or written
    ├── CorruptEntryError         an entry is damaged, or not one of ours
    └── FormatVersionError        an entry was written by a newer version
        └── EncryptedError            what is stored is encrypted, and its key is not given
```

None of them derives from `ValueError`, from an adapter error or from an LM error that DSPy retries: DSPy
would retry it, fall back to another adapter, or turn it into an observation of an agent.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from dspy_cachectl.escapes import harmless_lines


class CachectlError(Exception):
    """Base class of every error that this package raises on purpose.

    Its text may quote anybody, and is shown by Python's own traces too: nothing in it steers a terminal.
    """

    def __str__(self) -> str:
        return harmless_lines(super().__str__())


class ConfigurationError(CachectlError):
    """A setting, a phase or an argument that cannot be used; the message says what to write instead."""


class MissingExtraError(CachectlError):
    """An optional package is needed and not installed.

    Attributes:
        extra: The extra of `dspy-cachectl` that brings it.
    """

    def __init__(self, feature: str, *, extra: str, detail: str = "") -> None:
        self.extra = extra
        message = f"{feature} needs an optional package: pip install 'dspy-cachectl[{extra}]'"
        super().__init__(f"{message}\n{detail}" if detail else message)


class CacheMissError(CachectlError):
    """A replay had no stored answer for a call, and replays never call.

    Attributes:
        key: The cache key of the call, or None where no key could be made.
        model: The model that was asked for.
        phase: The name of the phase.
        nearest: The key of the nearest stored entry, or None.
        differences: What differs between the call and that entry, one line each.
        reason: Why there was no answer.
        cassette: The cassette that was replayed, or None for a store.
        explanation: All of that as text, without advice.
    """

    _missing = "answer for a call to"

    def __init__(
        self,
        reason: str,
        *,
        key: str | None,
        model: str,
        phase: str,
        cassette: str | None = None,
        nearest: str | None = None,
        differences: Sequence[str] = (),
    ) -> None:
        self.reason = reason
        self.key = key
        self.model = model
        self.phase = phase
        self.cassette = cassette
        self.nearest = nearest
        self.differences = tuple(differences)
        where = f"the replay phase {phase!r}" if cassette is None else f"the cassette {cassette} (phase {phase!r})"
        lines = [f"no stored {self._missing} {model!r} in {where}: {reason}"]
        if key is not None:
            lines.append(f"  key: {key}")
        if nearest is not None:
            lines.append(f"  nearest stored entry: {nearest}; what differs:")
            lines.extend(f"    - {line}" for line in self.differences)
        self.explanation = "\n".join(lines)
        advice = (
            "  Record the answer first by running the program under a policy that stores (for example REUSE)."
            if cassette is None
            else '  Record what is missing in the mode "new", or everything anew in the mode "all".'
        )
        super().__init__(f"{self.explanation}\n{advice}")

    def __reduce__(self) -> tuple[object, ...]:
        """Survive a trip between processes: the message is rebuilt from the facts."""
        names = ("key", "model", "phase", "cassette", "nearest", "differences")
        return functools.partial(type(self), self.reason, **{name: getattr(self, name) for name in names}), ()


class ToolMissError(CacheMissError):
    """A replay had no stored result of a tool, and replays call no tool that was wrapped.

    Attributes:
        model: The tool's name.
    """

    _missing = "result of the tool"


class ReplayIncompleteError(CachectlError):
    """A replay phase ended, and some of its calls had found no stored answer.

    DSPy turns an exception of a call into a score of 0.0 (`Evaluate`) or an observation (`ReAct`), so a miss
    is raised once more where the user is looking: at the end of the phase.

    Attributes:
        phase: The name of the phase.
        count: How many calls missed.
        misses: The first of those misses.
    """

    def __init__(self, phase: str, count: int, misses: Sequence[CacheMissError]) -> None:
        self.phase = phase
        self.count = count
        self.misses = tuple(misses)
        calls = "call" if count == 1 else "calls"
        lines = [f"{count} {calls} in the replay phase {phase!r} had no stored answer; no result of it can be trusted."]
        lines.extend(str(miss) for miss in self.misses)
        if count > len(self.misses):
            lines.append(f"... and {count - len(self.misses)} more")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:
        """Survive a trip between processes."""
        return (ReplayIncompleteError, (self.phase, self.count, self.misses))


class BatchError(CachectlError):
    """A batch was refused or cancelled, or the provider does not say how far it is. What was answered is not lost."""


class BatchPendingError(BatchError):
    """A batch is on its way, and the evaluation does not wait: run again later, it goes on with what was answered.

    Attributes:
        batches: The provider's ids of the batches.
        lines: How many answers are awaited.
        run_id: The run whose draws these are, or None.
    """

    def __init__(self, batches: Sequence[str], lines: int, run_id: str | None) -> None:
        self.batches = tuple(batches)
        self.lines = lines
        self.run_id = run_id
        one = len(self.batches) == 1
        super().__init__(
            f"{lines:,} answers are awaited in {'a batch' if one else f'{len(self.batches)} batches'} "
            f"({', '.join(self.batches)}), which {'takes' if one else 'take'} up to a day, and this evaluation does "
            "not wait. Run the same evaluation again later: it goes on with them"
            + ("" if run_id is None else f". Elsewhere, or with predictions=False, name its run: run_id={run_id!r}")
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Survive a trip between processes."""
        return (BatchPendingError, (self.batches, self.lines, self.run_id))


class BudgetExceededError(CachectlError):
    """A call was not made, since a budget does not allow it. What is stored serves on.

    It is raised at the call, and once more at the end of the phase that has the budget, since DSPy turns what a call
    raises into a score of 0.0 (`Evaluate`) or an observation (`ReAct`).

    Attributes:
        budget: Whose budget it is, as people would say it: `"phase 'compile'"`.
        limits: What it allows: `cost` in US dollars, `requests`, `tokens`, `seconds`.
        spent: What was spent of each, as far as it is known; calls in the air may add to it.
        over: By how much of each it was exceeded, by calls that were in the air.
        refused: How many calls were not made.
        best: The best program of an optimizer that was scored before, as a whole; None where there is none.
        score: Its score in percent, as `dspy.Evaluate` tells it; None where there is none.
        report: The `EvalReport` of what was answered, where an evaluation was cut short; or None.
    """

    best: Any = None
    score: float | None = None
    report: Any = None

    def __init__(
        self,
        message: str,
        *,
        budget: str = "",
        limits: Mapping[str, float] | None = None,
        spent: Mapping[str, float] | None = None,
        refused: int = 1,
    ) -> None:
        self.message, self.budget, self.refused = message, budget, refused
        self.limits, self.spent = dict(limits or {}), dict(spent or {})
        super().__init__(message)

    @property
    def over(self) -> dict[str, float]:
        """By how much of each it was exceeded."""
        found = {kind: self.spent.get(kind, 0.0) - limit for kind, limit in self.limits.items()}
        return {kind: over for kind, over in found.items() if over > 0}

    def __reduce__(self) -> tuple[object, ...]:
        """Survive a trip between processes, without the program."""
        names = ("budget", "limits", "spent", "refused")
        return functools.partial(BudgetExceededError, self.message, **{name: getattr(self, name) for name in names}), ()


class DriftError(CachectlError):
    """A model answers as another one than at first, or in another state, in a phase that refuses to mix the two.

    The answer that shows it reaches its caller and is kept. What would be bought after it is not asked for.

    Attributes:
        model: The model that was asked for.
        phase: The name of the phase.
        before: By which name it answered first, and with which `system_fingerprint`.
        after: The same of the answer that differs.
    """

    def __init__(self, model: str, phase: str, before: str, after: str) -> None:
        self.model = model
        self.phase = phase
        self.before = before
        self.after = after
        super().__init__(
            f"{model!r} changed behind its name in the phase {phase!r}, which refuses to mix: {before} answered first, "
            f"and {after} now. Nothing more is asked for; what was bought is kept. Draw anew in a run of its own, or "
            'mix them with on_drift="note"'
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Survive a trip between processes."""
        return (DriftError, (self.model, self.phase, self.before, self.after))


class StoreError(CachectlError):
    """A store failed. Stores raise this family and nothing else; the cause is kept."""


class StoreUnavailableError(StoreError):
    """A store could not be opened, read or written."""


class CorruptEntryError(StoreError):
    """An entry is damaged, or is not one that this package wrote."""


class FormatVersionError(StoreError):
    """An entry was written by a newer version of this package. It is neither read nor overwritten."""


class EncryptedError(FormatVersionError):
    """What is stored is encrypted, and its key is not given. It is neither read nor overwritten, as what is newer."""
