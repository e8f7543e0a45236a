"""What the calls of one predictor came to, of one answer: a value that is kept and shown."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from dspy_cachectl.boundary.secrets import scrub

_NUMBERS = (int, float)


@dataclass(frozen=True, slots=True)
class Spent:
    """What the calls of one predictor came to, whoever paid for them. Built without secrets.

    Attributes:
        predictor: Its name in the program.
        tokens: Tokens in and out.
        seconds: Seconds of the provider.
        cost: US dollars; None where a price is not known.
    """

    predictor: str
    tokens: int = 0
    seconds: float = 0.0
    cost: float | None = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "predictor", scrub(self.predictor))

    @property
    def is_sound(self) -> bool:
        """Whether each part is of the kind that is written."""
        said: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        numbers = (said["seconds"], 0.0 if said["cost"] is None else said["cost"])
        is_counted = isinstance(said["predictor"], str) and isinstance(said["tokens"], int)
        return is_counted and said["tokens"] in range(2**31) and all(isinstance(one, _NUMBERS) for one in numbers)
