"""Cassettes: answers in a file, to be replayed in tests and elsewhere without a provider.

`cassette` and `Cassette` are for people, `plugin` for pytest. It knows `phases` and what lies below.

Names are loaded when they are used: pytest imports the plugin in here at each start, and that must not load DSPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspy_cachectl.replay.cassettes import Cassette, cassette

__all__ = ["Cassette", "cassette"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dspy_cachectl.replay import cassettes

    return getattr(cassettes, name)
