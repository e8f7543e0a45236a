"""What kind of thing something is that code reaches, and what an object is made of, read without pickling."""

from __future__ import annotations

import collections
import contextlib
import copyreg
import datetime as dt
import enum
import functools
import itertools
import logging
import random
import re
import sys
import types
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any, cast

from dspy_cachectl.boundary.secrets import is_known_credential, is_secret_name
from dspy_cachectl.entries.values import loaded_classes
from dspy_cachectl.fingerprints.canonical import type_name
from dspy_cachectl.fingerprints.source_text import is_own

_WRAPPERS = (types.FunctionType, type(functools.cache(len)), classmethod, staticmethod)
"""What wraps a function and is nothing besides it."""
_BOUND = (types.BuiltinFunctionType, types.MethodWrapperType)
_CONSTANTS = (str, bytes, int, float, bool, complex, type(None), enum.Enum, re.Pattern, PurePath, dt.date, dt.timedelta)
_HEAD = object.__basicsize__
_POINTER = tuple.__itemsize__
_RUNS = frozenset(
    {"_thread", "threading", "_threading_local", "concurrent", "asyncio", "queue", "_queue", "_asyncio", "ssl"}
)
"""Python's modules of what runs code, of what that waits for, and of how it is connected."""
_TELLS_NOTHING = (logging.Logger, logging.Handler, weakref.ReferenceType, itertools.count)
"""What decides nothing: itself a count, or what is told."""
_NOTHING_TO_READ = object()
HIDDEN = object()
"""What stands for something that cannot be read."""
_BUILT_IN: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (dict, lambda value: dict(dict.items(value))),
    (collections.deque, list),
    (list, lambda value: list(list.__iter__(value))),
    (tuple, lambda value: tuple(tuple.__iter__(value))),
    (set, lambda value: set(set.__iter__(value))),
    (frozenset, lambda value: frozenset(frozenset.__iter__(value))),
    (bool, bool),
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (complex, lambda value: complex(value.real, value.imag)),
    (bytes, lambda value: bytes(bytes.__iter__(value))),
    (bytearray, lambda value: bytes(bytearray.__iter__(value))),
    (memoryview, lambda value: [value.format, list(value.shape or ()), value.tobytes()]),
    (types.MappingProxyType, dict),
)


_BESIDES: tuple[tuple[type, str], ...] = ((collections.deque, "maxlen"), (collections.defaultdict, "default_factory"))
"""What containers of Python's hold besides their items."""


def is_code(value: Any) -> bool:
    """Tell whether something is a function or a class by itself, or what wraps a function."""
    return isinstance(value, (*_WRAPPERS, type)) or (isinstance(value, _BOUND) and owner_of(value) is None)


def owner_of(value: Any) -> Any:
    """Return the object of which something is a method written in C, or None."""
    owner = getattr(value, "__self__", None) if isinstance(value, _BOUND) else None
    return None if isinstance(owner, (types.ModuleType, type)) else owner


def wrapped(value: Any) -> types.FunctionType | None:
    """Return the function that something wraps, or None."""
    inner = getattr(value, "__wrapped__", None) if isinstance(value, _WRAPPERS) else None
    return inner if isinstance(inner, types.FunctionType) else None


def named(value: Any) -> Any:
    """Return what has the name of some code: what a `partial` calls, or the class of an object."""
    value = value.func if isinstance(value, functools.partial) else value
    is_named = isinstance(getattr(value, "__qualname__", None), str) and hasattr(value, "__module__")
    return value if is_named else type(value)


def name_of(value: Any) -> str:
    """Return the full name of code: of the function, of what a `partial` calls, or of an object's class."""
    return type_name(named(value))


def is_dspys(value: Any) -> bool:
    """Tell whether something is a module or an LM of DSPy's."""
    dspy = sys.modules.get("dspy")
    return dspy is not None and not isinstance(value, type) and isinstance(value, (dspy.Module, dspy.BaseLM))


def is_retrieve(value: Any) -> bool:
    """Tell whether something asks the retriever that DSPy is set to."""
    dspy = sys.modules.get("dspy")
    return dspy is not None and isinstance(value, dspy.Retrieve)


def is_constant(value: Any) -> bool:
    """Tell whether something is a value that cannot change."""
    if isinstance(value, (tuple, frozenset)):
        return all(is_constant(item) for item in value)
    return isinstance(value, _CONSTANTS)


def is_plain(value: Any) -> bool:
    """Tell whether something is a value, or a container of values."""
    if isinstance(value, Mapping):
        return all(is_constant(key) and is_plain(item) for key, item in value.items())
    if isinstance(value, (list, set, tuple)):
        return all(is_plain(item) for item in value)
    return is_constant(value)


def is_users(value: Any) -> bool:
    """Tell whether something is an object of a class of the user's, or was made to hold what the user puts there."""
    return isinstance(value, types.SimpleNamespace) or any(map(is_own, type(value).__mro__))


def says_who_asks(name: str, held: Any) -> bool:
    """Tell whether something only says who asks: a known credential, or an object that holds some."""
    return is_known_credential(name) or (is_secret_name(name) and not is_plain(held))


def read(value: Any) -> tuple[dict[str, Any], Any]:
    """Return the attributes of an object and its content; the latter is `HIDDEN` where the object lets none be read."""
    try:
        return attributes_of(value), content_of(value)
    except Exception:  # noqa: BLE001 - it is somebody's code that is asked
        return {}, HIDDEN


def attributes_of(value: Any) -> dict[str, Any]:
    """Return the attributes of an object, those in slots too; not what a `cached_property` has found."""
    held = dict(getattr(value, "__dict__", {}))
    held.update((name, getattr(value, name)) for base, name in _BESIDES if isinstance(value, base))
    if isinstance(value, collections.OrderedDict):
        held["the order of its keys"] = list(value)
    for kind in type(value).__mro__:
        for name in _slots(kind):
            with contextlib.suppress(AttributeError):
                held[name] = getattr(value, name)
        for name in [name for name, item in list(vars(kind).items()) if isinstance(item, functools.cached_property)]:
            held.pop(name, None)
    return held


def _slots(kind: type) -> Iterator[str]:
    slots = kind.__dict__.get("__slots__", ())
    for slot in (slots,) if isinstance(slots, str) else slots:
        if slot not in {"__dict__", "__weakref__"}:
            is_private = slot.startswith("__") and not slot.endswith("__")
            yield f"_{kind.__name__.lstrip('_')}{slot}" if is_private else slot


def content_of(value: Any) -> Any:
    """Return what an object holds besides its attributes, as plain values; `HIDDEN` where that cannot be read."""
    if isinstance(value, enum.Enum):
        return [value.name, value.value]
    if isinstance(value, random.Random):
        return HIDDEN  # where it stands in its row changes with each number that it gives
    readers = dict(_BUILT_IN)
    for base in type(value).__mro__:
        if base in readers:
            return readers[base](value)
        if base in loaded_classes("numpy", "ndarray"):
            return value.view(base)
        if _reduces(base) and not issubclass(base, dict):
            return _reduced(base, value)
    return _of_c(value) if _keeps_more(type(value)) else None


def _of_c(value: Any) -> Any:
    if callable(value) and isinstance(getattr(value, "__name__", None), str):
        return [str(getattr(value, "__module__", "")), value.__name__]  # a function that is written in C
    return list(value.items()) if isinstance(value, Mapping) else HIDDEN


def _reduces(base: type) -> bool:
    is_its_own = "__reduce__" in vars(base) or "__reduce_ex__" in vars(base)
    return is_its_own and base is not object and is_pythons(base)


def decides_nothing(value: Any) -> bool:
    """Tell whether something is a lock, a thread, a logger or the like, or a count."""
    module: Any = type(value).__module__
    if is_own(type(value)):
        return False
    runs = isinstance(module, str) and module.partition(".")[0] in _RUNS and "_local" not in type(value).__name__
    return (runs and type(value).__name__ != "local") or isinstance(value, _TELLS_NOTHING)


def is_pythons(kind: type) -> bool:
    """Tell whether a class comes with Python."""
    module: Any = getattr(kind, "__module__", None)
    return isinstance(module, str) and module.partition(".")[0] in sys.stdlib_module_names and module != "__main__"


def _reduced(base: type, value: Any) -> Any:
    """Return the parts by which a class of Python's would pickle an object, as they are."""
    try:
        whole: Any = cast("Any", base).__reduce_ex__(value, 2)
    except Exception:  # noqa: BLE001 - whatever it says, it cannot be read
        return HIDDEN
    if isinstance(whole, str):
        return whole
    made, arguments, state, items, pairs = (*whole, None, None, None)[:5]
    # What it is besides is in its attributes.
    is_attributes = isinstance(state, (dict, types.NoneType)) or (isinstance(state, tuple) and len(state) == 2)
    name = getattr(made, "__qualname__", "")
    return [name, list(arguments), None if is_attributes else state, list(items or ()), list(pairs or ())]


def _keeps_more(kind: type) -> bool:
    """Tell whether objects of a class hold what is no attribute: as Python does before it copies one."""
    if kind.__itemsize__:
        return True
    own = sum(_POINTER for offset in (kind.__dictoffset__, kind.__weakrefoffset__) if offset > 0)
    names: Any = copyreg._slotnames(kind)  # type: ignore[attr-defined]  # noqa: SLF001 - what `object.__reduce_ex__` asks
    return kind.__basicsize__ > _HEAD + own + _POINTER * len(names)
