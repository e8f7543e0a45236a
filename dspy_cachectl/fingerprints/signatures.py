"""What a signature asks for: its instructions, its fields, and how they are described."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import pydantic

from dspy_cachectl.fingerprints.canonical import without_addresses

_DESCRIBES = frozenset({"desc", "prefix"})


def is_signature(value: Any) -> bool:
    """Tell whether a value is a class of `dspy.Signature`."""
    dspy = sys.modules.get("dspy")
    return dspy is not None and isinstance(value, type) and issubclass(value, dspy.Signature)


def parts(name: str, signature: Any) -> Iterator[tuple[str, Any]]:
    """Yield what the signature of a predictor asks for, part by part.

    Args:
        name: What the predictor is called.
        signature: Its signature.
    """
    yield f"{name}.instructions", signature.instructions
    yield f"{name}.signature", [_field(field, field_name) for field_name, field in signature.fields.items()]
    extras = {field_name: field.json_schema_extra or {} for field_name, field in signature.fields.items()}
    yield f"{name}.descriptions", [[field, extra.get("desc"), extra.get("prefix")] for field, extra in extras.items()]


def _field(field: Any, name: str) -> list[Any]:
    extra = {key: value for key, value in (field.json_schema_extra or {}).items() if key not in _DESCRIBES}
    shown = [without_addresses(repr(part)) for part in (field.annotation, field.metadata, field.default)]
    return [name, *shown, _schema(field.annotation), extra]


def _schema(annotation: Any) -> Any:
    # Where there is none, the annotation's name is in the hash all the same.
    with contextlib.suppress(pydantic.errors.PydanticUserError, TypeError, ValueError, AttributeError, NameError):
        if not (isinstance(annotation, type) and annotation.__module__ == "builtins"):
            return pydantic.TypeAdapter(annotation).json_schema()
    return None
