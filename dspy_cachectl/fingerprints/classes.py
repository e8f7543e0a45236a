"""What a class is: what a signature asks for, and of any class its methods, its values and the types of its fields."""

from __future__ import annotations

import contextlib
import functools
import sys
import types
import typing
from collections.abc import Iterator
from enum import Enum
from typing import Any

import pydantic

from dspy_cachectl.fingerprints.canonical import without_addresses
from dspy_cachectl.fingerprints.changes import names_used
from dspy_cachectl.fingerprints.kinds import is_users
from dspy_cachectl.fingerprints.source_text import functions_of, is_own

_DESCRIBES = frozenset({"desc", "prefix"})
_MADE_BY_PYTHON = frozenset({"_abc_impl", "__annotate__", "__annotate_func__", "__class_getitem__", "__signature__"})
_DESCRIPTORS = (types.MemberDescriptorType, types.GetSetDescriptorType)
_METHODS = (classmethod, staticmethod, property, functools.partialmethod)


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
    kinds = [kind for field in signature.fields.values() for kind in own_classes_in(field.annotation)]
    if kinds:
        yield f"{name}.types", list(dict.fromkeys(kinds))
    yield f"{name}.descriptions", [[field, extra.get("desc"), extra.get("prefix")] for field, extra in extras.items()]


def own_classes_in(annotation: Any) -> Iterator[type]:
    """Yield the user's classes that an annotation names: their validators decide, and how they are written."""
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        if is_own(annotation):
            yield annotation
        return
    for part in typing.get_args(annotation):
        yield from own_classes_in(part)


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


def members_of(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield what a class defines, by name: of what holds functions these; not what Python itself puts there."""
    for name, item in list(vars(kind).items()):
        if not _is_pythons(kind, name, item):
            yield name, _inside(item)


def names_of_class(kind: type) -> frozenset[str]:
    """Return the names that the methods of a class use."""
    codes = [function.__code__ for function in functions_of(kind)]
    return frozenset().union(*(names_used(code) for code in codes))


def types_in(kind: type) -> Iterator[type]:
    """Yield the user's classes that are the types of a class's fields."""
    found: dict[type, None] = {}
    for annotation in vars(kind).get("__annotations__", {}).values():
        found.update(dict.fromkeys(own_classes_in(annotation)))
    for field in getattr(kind, "model_fields", None) or {} if "__pydantic_fields__" in dir(kind) else {}:
        with contextlib.suppress(AttributeError, KeyError):
            found.update(dict.fromkeys(own_classes_in(kind.model_fields[field].annotation)))  # type: ignore[attr-defined]
    yield from (one for one in found if one is not kind)


def _inside(item: Any) -> Any:
    if isinstance(item, property):
        return [item.fget, item.fset, item.fdel]
    if isinstance(item, functools.partialmethod):
        return [item.func, list(item.args), item.keywords]
    return item.func if isinstance(item, functools.cached_property) else getattr(item, "__func__", item)


def _is_pythons(kind: type, name: str, item: Any) -> bool:
    if name in _MADE_BY_PYTHON or isinstance(item, _DESCRIPTORS) or name.startswith("__pydantic_"):
        return True
    if issubclass(kind, Enum) and name.startswith("_") and name.endswith("_"):
        return not isinstance(item, types.FunctionType)
    if not (name.startswith("__") and name.endswith("__")):
        return False
    code = getattr(item, "__code__", None)
    is_generated = "__dataclass_fields__" in vars(kind) and code is not None and code.co_filename == "<string>"
    return is_generated or not (callable(item) or isinstance(item, _METHODS) or is_users(item))
