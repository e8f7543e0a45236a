"""The same value, the same text: in another process, on another day, in another order of a set.

What goes into a hash must hold no memory address, no order that Python chose, and no value that only looks
equal. A value that has no such text is an `UnstableError` which says where in the value it was found.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import hashlib
import json
import pathlib
import re
import sys
import typing
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import pydantic

from dspy_cachectl.entries.values import loaded_classes
from dspy_cachectl.errors import CachectlError
from dspy_cachectl.fingerprints.source_text import is_own

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_DEEPEST = 100

Fallback = Callable[[Any, str], Any]
"""What to write for objects, and for values of a kind that is not known here: gets the value and where it is."""
Without = Callable[[Any], Any]
"""What is left of a container without what does not count in it."""


class UnstableError(CachectlError):
    """A value cannot be told from others of its kind by what it holds.

    Attributes:
        path: Where in the value it was found.
        kind: The class of what was found.
    """

    def __init__(self, path: str, kind: str, *, why: str = "has no stable form") -> None:
        self.path = path
        self.kind = kind
        super().__init__(f"{path or 'the value'} is a {kind}, which {why}")


def digest(value: Any, *, in_order: bool = False) -> str:
    """Hash a value by what it holds: 64 hexadecimal digits. Values and errors are those of `as_json`.

    Args:
        value: The value.
        in_order: Whether the order of the dictionaries within it counts, as it does where they are written out.
    """
    return hashlib.sha256(_dump(_Walk(None, None, in_order=in_order).walk(value, "", 0)).encode()).hexdigest()


def text(value: Any, *, path: str = "", fallback: Fallback | None = None, without: Without | None = None) -> str:
    """Return the canonical JSON of a value. Arguments and errors are those of `as_json`."""
    return _dump(as_json(value, path=path, fallback=fallback, without=without))


def as_json(value: Any, *, path: str = "", fallback: Fallback | None = None, without: Without | None = None) -> Any:
    """Return a value as JSON types that stand for it and for nothing else.

    Args:
        value: JSON types, tuples, sets, bytes, dates, enumerations, dataclasses, pydantic objects, arrays,
            `dspy.Example`s, classes, and collections of them.
        path: How a message names the value.
        fallback: What to write for other values, and for all objects that may hold more than a value, as those of
            the user's classes; without it other values are errors.
        without: What to leave of each dictionary, list, tuple or set.

    Raises:
        UnstableError: If the value holds something that cannot be told apart.
    """
    return _Walk(fallback, without).walk(value, path, 0)


def type_name(kind: Any) -> str:
    """Return the full name of a class or function."""
    return f"{kind.__module__}.{kind.__qualname__}"


def without_addresses(shown: str) -> str:
    """Return a `repr` without the memory addresses in it."""
    return _ADDRESS.sub("", shown)


# Not orjson: it refuses large integers and lone surrogates, and writes NaN as null.
_dump = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


class _Walk:
    """One walk over a value. Strictly private."""

    def __init__(self, fallback: Fallback | None, without: Without | None, *, in_order: bool = False) -> None:
        self._fallback, self._without, self._in_order = fallback, without, in_order

    def walk(self, value: Any, path: str, depth: int) -> Any:
        kind = type(value)
        if value is None or kind in {str, bool, int, float}:
            return value
        if depth > _DEEPEST:
            raise UnstableError(path, type_name(kind), why="is nested too deeply, or holds itself")
        if self._without is not None and (kind in _CONTAINERS or kind in loaded_classes("numpy", "ndarray")):
            value = self._without(value)
        if kind is dict or (self._fallback is None and isinstance(value, Mapping)):
            found = self._mapping(value, path, depth)
            return self._with_order(found, value) if self._in_order and depth else found
        if self._fallback is not None and not _is_value(value):
            return self._fallback(value, path)
        return self._other(value, path, depth)

    def _mapping(self, value: Mapping[Any, Any], path: str, depth: int) -> Any:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: self.walk(item, _joined(path, key), depth + 1) for key, item in value.items()}
        pairs = [
            [self.walk(key, f"{path} key", depth + 1), self.walk(item, _joined(path, str(key)), depth + 1)]
            for key, item in value.items()
        ]
        return {"$map": sorted(pairs, key=_dump)}

    def _fields(self, fields: dict[str, Any], path: str, depth: int) -> Any:
        """Return what stands for the fields of an object, whose order says nothing."""
        return self._mapping(fields if self._without is None else self._without(fields), path, depth)

    def _with_order(self, found: dict[str, Any], value: Mapping[Any, Any]) -> dict[str, Any]:
        """Return what stands for a mapping with the order of its keys, where that is not the sorted one."""
        names = [_dump(self.walk(key, "", 0)) for key in value]
        return found if names == sorted(names) else {"$ordered": found, "as": names}

    def _other(self, value: Any, path: str, depth: int) -> Any:
        kind = type(value)
        if isinstance(value, enum.Enum):
            return {"$enum": type_name(kind), "v": value.name}
        if isinstance(value, (set, frozenset)):
            return {"$set": sorted((self.walk(item, f"{path} item", depth + 1) for item in value), key=_dump)}
        if isinstance(value, (tuple, list)):
            items = [self.walk(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
            return items if kind is list else {"$tuple" if isinstance(value, tuple) else "$list": items}
        if isinstance(value, (str, int, float)):
            base = next(base for base in (str, int, float) if isinstance(value, base))
            return {"$of": type_name(kind), "v": base(value)}
        for kinds, write in _WRITTEN:
            if isinstance(value, kinds):
                return {f"${kind.__name__}": write(value)}
        if isinstance(value, type) and self._fallback is None:
            return _type(value)
        return self._object(value, path, depth)

    def _object(self, value: Any, path: str, depth: int) -> Any:
        kind = type(value)
        if typing.get_origin(value) is not None:
            kinds = [kind for kind in (typing.get_origin(value), *typing.get_args(value)) if is_own(kind)]
            told = {"of": [self._fallback(kind, path) for kind in kinds]} if self._fallback is not None else {}
            return {"$annotation": without_addresses(repr(value)), **told}
        is_model = isinstance(value, pydantic.BaseModel)
        if is_model or dataclasses.is_dataclass(kind):
            names = kind.model_fields if is_model else [field.name for field in dataclasses.fields(kind)]
            fields = {name: getattr(value, name) for name in names} | (getattr(value, "model_extra", None) or {})
            return {"$object": type_name(kind), "v": self._fields(fields, path, depth + 1)}
        if isinstance(value, loaded_classes("dspy", "Example")):
            return {"$example": self._fields(dict(value.items()), path, depth + 1)}
        if isinstance(value, loaded_classes("numpy", "ndarray", "generic")):
            if value.dtype.hasobject:
                return {"$array": self.walk(value.tolist(), path, depth + 1), "shape": list(value.shape)}
            data = hashlib.sha256(sys.modules["numpy"].ascontiguousarray(value).tobytes()).hexdigest()
            return {"$array": data, "dtype": value.dtype.str, "shape": list(value.shape)}
        if isinstance(value, loaded_classes("pandas", "DataFrame", "Series", "Index")):
            return _table(value, sys.modules["pandas"])
        if self._fallback is not None:
            return self._fallback(value, path)
        raise UnstableError(path, type_name(kind))


_WRITTEN: tuple[tuple[Any, Callable[[Any], str]], ...] = (
    ((dt.datetime, dt.date, dt.time), lambda value: value.isoformat()),
    (dt.timedelta, lambda value: f"{value.days} {value.seconds} {value.microseconds}"),
    ((decimal.Decimal, uuid.UUID, complex, range, slice), str),
    (pathlib.PurePath, lambda value: value.as_posix()),
    ((bytes, bytearray), lambda value: base64.b64encode(value).decode("ascii")),
    (re.Pattern, lambda value: f"{value.flags} {value.pattern!r}"),
)
"""Values that are told by a text, with what writes it."""
_TOLD = tuple(kind for kinds, _ in _WRITTEN for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))


_CONTAINERS = frozenset({dict, list, tuple, set, frozenset})


def _is_value(value: Any) -> bool:
    """Tell whether something is all told by what is written here for its kind."""
    kind = type(value)
    if kind in _CONTAINERS or typing.get_origin(value) is not None:
        return True
    if is_own(kind):
        return False
    known = (*_TOLD, *loaded_classes("dspy", "Example"), *loaded_classes("pandas", "DataFrame", "Series", "Index"))
    return isinstance(value, known) or kind in loaded_classes("numpy", "ndarray") or _is_number_of_numpy(value)


def _is_number_of_numpy(value: Any) -> bool:
    return isinstance(value, loaded_classes("numpy", "generic"))


def _table(value: Any, pandas: Any) -> Any:
    """Return what stands for a table of pandas: the hash of its cells, with what these are called."""
    try:
        cells = pandas.util.hash_pandas_object(value).to_numpy().tobytes()
    except TypeError:  # a cell that has no hash, such as a list
        cells = value.to_csv().encode("utf-8", "surrogatepass")
    named = [str(name) for name in getattr(value, "columns", [getattr(value, "name", None)])]
    kinds = [str(kind) for kind in getattr(value, "dtypes", [])] if value.ndim == 2 else [str(value.dtype)]
    return {"$table": hashlib.sha256(cells).hexdigest(), "columns": named, "dtypes": kinds}


def _type(value: type) -> Any:
    found = {"$type": type_name(value)}
    if issubclass(value, pydantic.BaseModel):
        with contextlib.suppress(pydantic.errors.PydanticUserError):  # it has fields that JSON has no words for
            return {**found, "schema": value.model_json_schema()}
    return found


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
