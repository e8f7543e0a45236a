"""What the cache does for a call: a frozen value, and a pure function from policy and call to decision.

Nothing here knows DSPy, a store or a thread. The rules are tested with tables.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any, ClassVar, Literal, NamedTuple

from dspy_cachectl.boundary.meant import question
from dspy_cachectl.errors import ConfigurationError


class Kind(str, Enum):
    """What a call asks for.

    Attributes:
        LM: A sampled answer of a language model, asked through an LM that this package governs.
        PLAIN_LM: The same, asked through a plain `dspy.LM`: only the cache sees it, so its calls have no ordinal.
        EMBEDDING: A vector. It does not vary, so there is nothing to draw afresh.
        FUNCTION: Any other function under DSPy's `request_cache`.
        TOOL: What a tool of an agent returns.
    """

    LM = "lm"
    PLAIN_LM = "plain-lm"
    EMBEDDING = "embedding"
    FUNCTION = "function"
    TOOL = "tool"


def _check_number(name: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ConfigurationError(f"{name} must be a number that is not negative, or None, not {value!r}")


def _scope(scope: Any) -> tuple[tuple[str, str], ...]:
    try:
        pairs = list(scope.items() if isinstance(scope, Mapping) else scope)
        items = [
            (str(key), value if isinstance(value, str) else json.dumps(value, sort_keys=True)) for key, value in pairs
        ]
    except (TypeError, ValueError):
        raise ConfigurationError(f"scope must be a mapping of names to plain data, not {scope!r}") from None
    return tuple(sorted(items))


@dataclass(frozen=True)
class Policy:
    """What the cache does in a phase.

    Attributes:
        reads: Whether a stored answer may be served.
        stores: Whether a bought answer is stored.
        on_miss: `"call"` asks the provider; `"raise"` raises `CacheMissError`, and again when the phase ends.
        fresh: Whether each call is a draw of this run: only this run's stored draws are served.
        temperature: The temperature lent to a fresh call that left it unset or 0. None never touches it.
        max_age: Seconds after which a stored answer is no longer served. None: never. Checked when read;
            never part of the key.
        scope: Extra key material, for answers that must be kept apart. Given as a mapping, kept as sorted
            pairs so that the policy stays hashable.
        on_drift: What becomes of a phase in which a model answers as another one than at first, or in another state of
            its servers (its `system_fingerprint`). `"note"` counts and says it; `"raise"` asks for nothing more that is
            not stored, and raises `DriftError` there and when the phase ends. What was bought reaches its caller.
    """

    reads: bool = True
    stores: bool = True
    on_miss: Literal["call", "raise"] = "call"
    fresh: bool = False
    temperature: float | None = None
    max_age: float | None = None
    scope: tuple[tuple[str, str], ...] = ()
    on_drift: Literal["note", "raise"] = "note"

    REUSE: ClassVar[Policy]
    FRESH: ClassVar[Policy]
    REFRESH: ClassVar[Policy]
    REPLAY: ClassVar[Policy]
    OFF: ClassVar[Policy]

    def __post_init__(self) -> None:
        if self.on_miss not in {"call", "raise"}:
            raise ConfigurationError(f"on_miss must be 'call' or 'raise', not {self.on_miss!r}")
        if self.on_drift not in {"note", "raise"}:
            raise ConfigurationError(f"on_drift must be 'note' or 'raise', not {self.on_drift!r}")
        for name in ("reads", "stores", "fresh"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name} must be True or False, not {getattr(self, name)!r}")
        _check_number("temperature", self.temperature)
        _check_number("max_age", self.max_age)
        object.__setattr__(self, "scope", _scope(self.scope))
        if self.on_miss == "raise" and not self.reads:
            raise ConfigurationError("a policy that raises on a miss has to read: set reads=True")
        if self.temperature is not None and not self.fresh and self.on_miss != "raise":
            raise ConfigurationError(
                "only a fresh policy lends a temperature; set fresh=True, or set the temperature on the LM"
            )

    @property
    def replays(self) -> bool:
        """Whether the provider is never asked."""
        return self.on_miss == "raise"

    @property
    def dry(self) -> Policy:
        """What serves what this one would serve, and raises where this one would ask."""
        if not self.reads:
            return Policy.REPLAY.with_overrides(scope={"dspy_cachectl": "nothing is stored for it"})
        return replace(self, stores=False, on_miss="raise")

    @property
    def name(self) -> str:
        """The preset's name, or `"CUSTOM"`."""
        return next((name for name, preset in PRESETS.items() if preset == self), "CUSTOM")

    def with_overrides(self, **overrides: Any) -> Policy:
        """Return this policy with some fields changed.

        Raises:
            ConfigurationError: If a name is not a field of a policy, or its value cannot be used.
        """
        known = {field.name for field in fields(self)}
        unknown = sorted(set(overrides) - known)
        if unknown:
            guess = question(unknown[0], known)
            raise ConfigurationError(
                f"unknown policy option {unknown[0]!r}{f': {guess} A' if guess else '; a'} policy has: "
                f"{', '.join(sorted(known))}"
            )
        return replace(self, **overrides)

    @classmethod
    def named(cls, name: str) -> Policy:
        """Return a preset by its name, in any case.

        Raises:
            ConfigurationError: If there is no such preset.
        """
        try:
            return PRESETS[name.upper()]
        except KeyError:
            guess = question(name, PRESETS)
            raise ConfigurationError(
                f"unknown policy {name!r}{f': {guess} The' if guess else '; the'} presets are: {', '.join(PRESETS)}"
            ) from None


PRESETS: Mapping[str, Policy] = {
    "REUSE": Policy(),
    "FRESH": Policy(fresh=True, temperature=1.0),
    "REFRESH": Policy(reads=False),
    "REPLAY": Policy(stores=False, on_miss="raise"),
    "OFF": Policy(reads=False, stores=False),
}
for _name, _preset in PRESETS.items():
    setattr(Policy, _name, _preset)


class Decision(NamedTuple):
    """What is done for one call.

    Attributes:
        reads: Look for a stored answer.
        stores: Store a bought one.
        raises: Raise `CacheMissError` instead of calling.
        from_run: The answer is a draw of the run: the run is part of what is looked up.
        lent_temperature: The temperature to send instead of the program's, or None.
        coalesces: Identical calls in the air at once may share one answer.
    """

    reads: bool
    stores: bool
    raises: bool
    from_run: bool
    lent_temperature: float | None
    coalesces: bool


def decide(
    policy: Policy,
    *,
    kind: Kind = Kind.LM,
    temperature: float | None = None,
    model: str = "",
    has_run: bool = False,
) -> Decision:
    """Decide what the cache does for one call.

    Sharing an answer with an identical call in flight is a kind of read, so a policy that does not read does
    not coalesce either.

    Args:
        policy: The policy of the phase and role.
        kind: What is asked for.
        temperature: The temperature the program asked for; None where it left it unset.
        model: The model's name.
        has_run: Whether the phase has a run whose draws can be served.

    Returns:
        The decision. A pure function of the arguments.
    """
    draws = policy.fresh or (policy.replays and has_run)
    from_run = draws and kind is not Kind.EMBEDDING
    lent = policy.temperature if from_run and kind is Kind.LM else None
    if lent is not None and (temperature not in {None, 0} or (lent != 1.0 and is_reasoning_model(model))):
        lent = None
    return Decision(
        reads=policy.reads,
        stores=policy.stores,
        raises=policy.replays,
        from_run=from_run,
        lent_temperature=lent,
        coalesces=policy.reads and not policy.replays,
    )


_REASONING_MODEL = re.compile(r"o[1345](?:-(?:mini|nano|pro))?(?:-\d{4}-\d{2}-\d{2})?|gpt-5(?:\.\d+)*(?!-chat)(?:-.*)?")


def is_reasoning_model(model: str) -> bool:
    """Tell whether a model accepts only the temperature 1.0 (OpenAI's reasoning families)."""
    return _REASONING_MODEL.fullmatch(model.rsplit("/", 1)[-1].lower()) is not None
