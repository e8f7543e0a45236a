"""Calls that differ in nothing but their messages: where they go, and what is hashed for them, is found out once.

A program asks many questions in one way. What decides how it asks is its options, the LM, and what the environment and
LiteLLM's settings say at that moment; all of it as bytes names the way, and what has no such name is found out anew.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from dspy_cachectl.entries import draws
from dspy_cachectl.fingerprints.endpoints import surroundings
from dspy_cachectl.fingerprints.engines import is_litellms_own
from dspy_cachectl.policy import Kind

TEXTS = "batch_inputs"
"""Under which name the texts stand in what an embedder asks."""

_MOST, _LONGEST = 512, 32_768
_STABLE = 2
"""The version of marshal's format in which equal values are equal bytes; in later ones they may share parts or not."""


@dataclass(eq=False)
class Alike:
    """What such calls have in common.

    Attributes:
        endpoint: Where they go.
        around: What is hashed for them, around their messages, or the texts that are embedded.
        held: What their name has by its place in memory.
        made_by: The class of the LM for which DSPy has made such a call, and raised nothing; None where it has not.
    """

    endpoint: str | None
    around: draws.Around
    held: tuple[Any, ...]
    made_by: type | None = None


class Name(NamedTuple):
    """What names all that decides how a call is made but its messages.

    Attributes:
        text: The name.
        held: What is in it by its place in memory.
    """

    text: bytes
    held: tuple[Any, ...]


_KNOWN: dict[bytes, Alike] = {}


def name_of(lm: Any, kwargs: Any, kind: Kind, version: str | None, endpoint: str | None) -> Name | None:
    """Return what names how a call of an LM is made; None where there are objects in it, which may change.

    Args:
        lm: The LM.
        kwargs: The options of the call.
        kind: What it asks for.
        version: The user's name for a version of the model, or None.
        endpoint: The user's name for where it is served, or None.
    """
    own: Any = lm.kwargs
    if "messages" in own:
        return None
    try:
        of_lm = kind is Kind.LM, lm.model_type, lm._engine_spec, lm._providers, lm.use_developer_role  # noqa: SLF001
    except AttributeError:
        return None  # it is none of DSPy's
    provider = kwargs.get("custom_llm_provider", own.get("custom_llm_provider"))
    how: Any = (*of_lm, lm.model, endpoint, version, *surroundings(lm.model, provider))
    try:
        return Name(marshal.dumps((how, own, kwargs), _STABLE), ())
    except ValueError:
        form = kwargs.get("response_format", own.get("response_format"))
    if not isinstance(form, type):
        return None
    held = form, vars(form).get("__pydantic_core_schema__")  # another one after `model_rebuild()`
    nothing = {"response_format": None}
    try:
        return Name(marshal.dumps((how, {**own, **nothing}, {**kwargs, **nothing}, *map(id, held)), _STABLE), held)
    except ValueError:
        return None


def name_of_embedding(asked: Mapping[str, Any], version: str | None) -> Name | None:
    """Return likewise what names how an embedder asks for the vectors of texts.

    Args:
        asked: What it asks, with its options.
        version: The user's name for a version of the model, or None.
    """
    model = asked.get("model")
    # LiteLLM sends `metadata` or not, by a setting of its own.
    if not isinstance(model, str) or TEXTS not in asked or "metadata" in asked:
        return None
    options = {**asked, "model": str(model), TEXTS: None}
    how = Kind.EMBEDDING.value, version, *surroundings(options["model"], asked.get("custom_llm_provider"))
    try:
        return Name(marshal.dumps((how, options), _STABLE), ())
    except ValueError:
        return None


def known(name: Name) -> Alike | None:
    """Return what is known of calls of this name, or None."""
    return _KNOWN.get(name.text)


def know(
    name: Name, request: Mapping[str, Any], endpoint: str | None, version: str | None, *, but: str = "messages"
) -> None:
    """Keep in mind how a call was made.

    Args:
        name: Its name.
        request: What it asked, cleaned.
        endpoint: Where it went.
        version: The user's name for a version of the model, or None.
        but: In what such calls differ.
    """
    if len(name.text) > _LONGEST:
        return
    if len(_KNOWN) >= _MOST:
        _KNOWN.clear()
    around = draws.Around.option(but, request, endpoint=endpoint, version=version)
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
