"""What goes wrong around the calls of a predictor without failing them: a value that is counted, kept and shown."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from dspy_cachectl.boundary.secrets import scrub


class Mishap(str, Enum):
    """What can go wrong. Each is named as the field that counts it."""

    UNPARSED = "unparsed"
    FALL_BACK = "fall_backs"
    JSON_MODE = "json_modes"
    TRUNCATED = "truncated"
    RETRY = "retries"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What went wrong around the calls of one predictor. Built without secrets.

    Attributes:
        predictor: Its name in the program.
        unparsed: Answers that the adapter could not parse.
        fall_backs: Calls that an adapter made since it could not parse the answer before, as `ChatAdapter` does by
            `JSONAdapter`.
        json_modes: Calls for which `JSONAdapter` could not make a schema of the outputs, and asked for any JSON.
        truncated: Answers that were cut at the token limit, whether they were bought or served.
        retries: Requests that DSPy sent once more, since the provider had failed (`num_retries`).
    """

    predictor: str
    unparsed: int = 0
    fall_backs: int = 0
    json_modes: int = 0
    truncated: int = 0
    retries: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "predictor", scrub(self.predictor))
