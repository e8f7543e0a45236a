"""What a program tells its LMs, as people read it: to see in which words two programs differ."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dspy_cachectl.boundary.secrets import scrub_surely, without
from dspy_cachectl.entries.draws import UncacheableError
from dspy_cachectl.fingerprints.canonical import UnstableError
from dspy_cachectl.fingerprints.endpoints import endpoint_of_lm
from dspy_cachectl.fingerprints.models import generation_config
from dspy_cachectl.fingerprints.modules import lms_of, sub_modules

_LONGEST = 100_000
"""How much of each text is kept, in characters: a demo may hold a picture."""


def program_text(program: Any, lm: Any, lent_to: Callable[[Any], float | None] = lambda _: None) -> dict[str, str]:
    """Return what a program tells its LMs and how it asks them, each part by its name. No secret is in it.

    Args:
        program: A `dspy.Module`, or any callable, of which nothing can be told.
        lm: The LM that DSPy is set to, where the program may ask it; else None.
        lent_to: Tells the temperature that an LM is asked with in place of its own; None for its own.
    """
    parts = {name: text for name, text in (*_of_predictors(program), *_of_lms(program, lm, lent_to)) if text}
    return {scrub_surely(name): scrub_surely(text[:_LONGEST]) for name, text in parts.items()}


def _of_predictors(program: Any) -> Iterator[tuple[str, str]]:
    import dspy

    if isinstance(program, dspy.Module):
        for name, predictor in sub_modules(program, dspy.Predict):
            yield from _of_predictor(name.removeprefix("self.").removeprefix("self"), predictor)


def _of_lms(program: Any, lm: Any, lent_to: Callable[[Any], float | None]) -> Iterator[tuple[str, str]]:
    own = {name: _of_lm(one, lent_to(one)) for name, one in lms_of(program)}
    if lm is None and len({*own.values()}) == 1:
        yield "the LM", next(iter(own.values()))  # one for all, as where it is the one that DSPy is set to
        return
    if lm is not None:
        yield "the LM", _of_lm(lm, lent_to(lm))
    yield from ((f"the LM of '{name}'", text) for name, text in own.items())


def _of_predictor(name: str, predictor: Any) -> Iterator[tuple[str, str]]:
    whose = f"'{name}'" if name else "the program"
    signature = predictor.signature
    yield f"instructions of {whose}", signature.instructions
    yield f"fields of {whose}", "\n".join(_field(*item) for item in signature.fields.items())
    yield f"demos of {whose}", "\n\n".join(map(_lines, predictor.demos))
    yield f"configuration of {whose}", _lines(without(dict(predictor.config)))


def _field(name: str, field: Any) -> str:
    extra = field.json_schema_extra or {}
    kind = getattr(field.annotation, "__name__", str(field.annotation))
    return f"{extra.get('__dspy_field_type', 'field')} {name}: {kind}, {extra.get('desc', '')}"


def _of_lm(lm: Any, temperature: float | None) -> str:
    asked = {"model": getattr(lm, "model", type(lm).__name__), "endpoint": endpoint_of_lm(lm)}
    options = {}
    with contextlib.suppress(UnstableError, UncacheableError):  # one that cannot be told from others is not shown
        options = generation_config(lm, temperature)
    return _lines({name: value for name, value in {**asked, **options}.items() if value is not None})


def _lines(fields: Any) -> str:
    held: Mapping[str, Any] = dict(fields.items())
    return "\n".join(f"{name}: {_text(value)}" for name, value in held.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
