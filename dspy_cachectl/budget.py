"""What a budget allows: a value that people write, checked before anything is spent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, cast

from dspy_cachectl.errors import ConfigurationError

AMOUNTS = ("cost", "requests", "tokens")
"""What is counted."""
KINDS = (*AMOUNTS, "seconds")
"""What a budget can limit."""
_PER = 1_000_000


@dataclass(frozen=True)
class Budget:
    """How much may be spent: no call is made that would go beyond. What is stored is served all the same.

    Args:
        cost: US dollars.
        requests: Requests that reach a provider, those that fail and those that are sent once more among them.
        tokens: Tokens read and written, by the providers' own counts.
        seconds: For how long requests are sent, from the opening on; those in the air may end.
        roles: Budgets of LMs of a role, beside the one of all: `{"judge": Budget(cost=1)}`.
        name: What it is called where it is to go on: all that is spent under the name counts, in whatever process and
            phase, as far as the store is shared. None: it begins and ends with its phase.
        prices: What models cost whose price is not known, by the pattern of their name: US dollars for a million tokens
            read, and for a million written. They count in the budget and nowhere else.
        strict: Whether a call is refused that cannot be counted for certain: of an LM that runs its own `forward`, or,
            where `cost` is limited, of a model without a price. Otherwise it is named, and counted as far as can be.

    Raises:
        ConfigurationError: If it limits nothing, or a limit cannot be one.
    """

    cost: float | None = None
    requests: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    roles: Mapping[str, Budget] = field(default_factory=dict)
    name: str | None = None
    prices: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    strict: bool = False

    def __post_init__(self) -> None:
        for kind in KINDS:
            _check_limit(kind, getattr(self, kind))
        roles, name = cast("Any", self.roles), cast("Any", self.name)
        if not isinstance(roles, Mapping) or not all(isinstance(one, Budget) for one in roles.values()):
            raise ConfigurationError(f'roles are budgets by role, as {{"judge": Budget(cost=1)}}, not {self.roles!r}')
        if any(one.roles or one.name or one.seconds for one in self.roles.values()):
            raise ConfigurationError(
                "the budget of a role limits cost, requests and tokens, and has no name of its own"
            )
        if not (self.limits or self.roles):
            raise ConfigurationError(f"a budget limits something: Budget(cost=4.00), or one of {', '.join(KINDS[1:])}")
        if name is not None and not (isinstance(name, str) and name.strip() and name.isprintable()):
            raise ConfigurationError(f"the name of a budget is a printable text that is not empty, not {self.name!r}")
        _check_prices(self.prices)

    @classmethod
    def read(cls, text: str) -> Budget:
        """Return the budget that a setting says, such as `"cost=4, requests=10_000, name=nightly"`.

        Raises:
            ConfigurationError: If it says none.
        """
        said: dict[str, Any] = {}
        for part in text.split(","):
            name, _, value = (one.strip() for one in part.partition("="))
            if name not in {*KINDS, "name"} or name in said:
                raise ConfigurationError(_FORM)
            said[name] = value if name == "name" else _number(name, value)
        return cls(**said)

    @property
    def limits(self) -> dict[str, float]:
        """What it limits, by kind."""
        return {kind: float(limit) for kind in KINDS if (limit := getattr(self, kind)) is not None}

    def price_of(self, model: str) -> tuple[float, float] | None:
        """Return what is given of a model's price: US dollars for a token read, and for one written; or None."""
        for pattern, (read, written) in self.prices.items():
            if fnmatchcase(model, pattern):
                return read / _PER, written / _PER
        return None


_FORM = f'write what is limited, of {", ".join(KINDS)}, and maybe a name: "cost=4.00, requests=10_000, name=nightly"'


def _number(kind: str, text: str) -> float:
    try:
        return int(text) if kind in {"requests", "tokens"} else float(text)
    except ValueError:
        raise ConfigurationError(_FORM) from None


def _check_limit(kind: str, limit: Any) -> None:
    if limit is None:
        return
    is_number = isinstance(limit, (int, float)) and not isinstance(limit, bool) and math.isfinite(limit)
    if not is_number or limit < 0:
        raise ConfigurationError(f"{kind} of a budget is a number that is not negative, not {limit!r}")
    if kind in {"requests", "tokens"} and limit != int(limit):
        raise ConfigurationError(f"{kind} of a budget is a whole number, not {limit!r}")


def _check_prices(prices: Any) -> None:
    try:
        pairs = [tuple(map(float, pair)) for pair in prices.values()]
        is_sound = all(len(pair) == 2 and min(pair) >= 0 for pair in pairs)
    except (AttributeError, TypeError, ValueError):
        is_sound = False
    if not is_sound:
        raise ConfigurationError(
            'prices are US dollars for a million tokens read and written, by model, as {"local*": (0.15, 0.60)}, '
            f"not {prices!r}"
        )


def checked_budget(budget: Any) -> Budget | None:
    """Return what was given as a budget.

    Raises:
        ConfigurationError: If it is none.
    """
    if budget is None or isinstance(budget, Budget):
        return budget
    raise ConfigurationError(f"a budget is a Budget, as Budget(cost=4.00) or Budget(requests=1000), not {budget!r}")
