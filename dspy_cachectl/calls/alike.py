"""Calls that differ in nothing but their messages: where they go, and what is hashed for them, is found out once.

A program asks many questions in one way. What decides how it asks is its options, the LM, and what the environment and
LiteLLM's settings say at that moment; all of it as bytes names the way, and what has no such name is found out anew.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dspy_cachectl.entries import draws
from dspy_cachectl.fingerprints.endpoints import surroundings
from dspy_cachectl.fingerprints.engines import is_litellms_own

_MOST, _LONGEST = 512, 32_768
_STABLE = 2
"""The version of marshal's format in which equal values are equal bytes; in later ones they may share parts or not."""


class Alike(NamedTuple):
    """What such calls have in common.

    Attributes:
        endpoint: Where they go.
        around: What is hashed for them, around their messages.
        held: What their name has by its place in memory.
    """

    endpoint: str | None
    around: draws.Around
    held: tuple[Any, ...]


class Name(NamedTuple):
    """What names all that decides how a call is made but its messages.

    Attributes:
        text: The name.
        held: What is in it by its place in memory.
    """

    text: bytes
    held: tuple[Any, ...]


_KNOWN: dict[bytes, Alike] = {}


def name_of(lm: Any, options: dict[str, Any], endpoint: str | None, version: str | None) -> Name | None:
    """Return what names how a call of an LM is made; None where there are objects in it, which may change.

    Args:
        lm: The LM.
        options: Its options with those of the call. The rollout id, which is no part of what is asked, is taken out.
        endpoint: The user's name for where it is served, or None.
        version: The user's name for a version of the model, or None.
    """
    engine = getattr(lm, "_engine_spec", None)
    is_ordinary = isinstance(engine, str) and "messages" not in options and not getattr(lm, "_providers", ())
    if not is_ordinary or getattr(lm, "use_developer_role", False):
        return None
    options.pop("rollout_id", None)
    form = options.get("response_format")
    held: tuple[Any, ...] = ()
    if isinstance(form, type):
        held = form, vars(form).get("__pydantic_core_schema__")  # another one after `model_rebuild()`
        options = {**options, "response_format": None}
    said = options, *map(id, held), lm.model, lm.model_type, engine, endpoint, version
    try:
        text = marshal.dumps((said, surroundings(lm.model, options)), _STABLE)
    except ValueError:
        return None
    return Name(text, held) if len(text) <= _LONGEST else None


def known(name: Name) -> Alike | None:
    """Return what is known of calls of this name, or None."""
    return _KNOWN.get(name.text)


def know(name: Name, request: Mapping[str, Any], endpoint: str | None, version: str | None) -> None:
    """Keep in mind how a call was made.

    Args:
        name: Its name.
        request: What it asked, cleaned.
        endpoint: Where it went.
        version: The user's name for a version of the model, or None.
    """
    if len(_KNOWN) >= _MOST:
        _KNOWN.clear()
    around = draws.Around.option("messages", request, endpoint=endpoint, version=version)
    _KNOWN[name.text] = Alike(endpoint, around, name.held)


class Sending:
    """Tells whether LiteLLM sends a call of an LM, and whether that rests on its messages.

    Args:
        lm: The LM.
        options: Its options with those of the call.
        ask: Asks DSPy.

    Attributes:
        was_asked: Whether DSPy was, which may say something else for other messages.
    """

    def __init__(self, lm: Any, options: Mapping[str, Any], ask: Callable[[], bool]) -> None:
        self._lm, self._options, self._ask = lm, options, ask
        self.was_asked = False

    def __call__(self) -> bool:
        """Tell whether LiteLLM sends it."""
        if is_litellms_own(self._lm, self._options):
            return True
        self.was_asked = True
        return self._ask()
