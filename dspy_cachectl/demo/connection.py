"""How a process of the demo reaches the model: LM and adapter from a few plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dspy

from dspy_cachectl.calls.lm import LM
from dspy_cachectl.demo.completion import CompletionAdapter

ENDPOINT = "demo"
LABEL_TOKENS = 8
THREADS = 4


@dataclass(frozen=True, slots=True)
class Connection:
    """What a process needs to know to ask the model; plain values, so that it can be handed to a child.

    Attributes:
        url: The base address of the relay.
        model: The model's name at the server behind it.
        api_key: The server's key; any text, where it wants none.
        completes: Whether it is a model that completes text, as the local one, or one that follows instructions.
        threads: How many questions to ask at once.
    """

    url: str
    model: str
    api_key: str
    completes: bool
    threads: int = THREADS

    def lm(self) -> LM:
        """Return an LM that obeys phases."""
        # The relay's port changes from run to run; the name tells whose answers these are.
        return LM(endpoint=ENDPOINT, **self._options())

    def plain_lm(self) -> dspy.LM:
        """Return DSPy's own LM, at the temperature that a fresh phase lends."""
        return dspy.LM(**{**self._options(), "temperature": 1.0})

    def adapter(self) -> dspy.Adapter:
        """Return the adapter that suits the model."""
        return CompletionAdapter() if self.completes else dspy.ChatAdapter()

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"model": f"openai/{self.model}", "api_base": self.url, "api_key": self.api_key}
        if self.completes:
            # The server's own default temperature is not 0.
            options |= {"temperature": 0.0, "max_tokens": LABEL_TOKENS, "stop": "\n"}
        return options
