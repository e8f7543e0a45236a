"""What kind of thing something is that code reaches: code, a plain value, DSPy's, the user's."""

from __future__ import annotations

import datetime as dt
import enum
import functools
import re
import sys
import types
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from dspy_cachectl.boundary.secrets import is_known_credential, is_secret_name
from dspy_cachectl.fingerprints.canonical import type_name
from dspy_cachectl.fingerprints.source_text import is_own

_WRAPPERS = (types.FunctionType, type(functools.cache(len)), classmethod, staticmethod)
"""What wraps a function and is nothing besides it."""
_BOUND = (types.BuiltinFunctionType, types.MethodWrapperType)
_CONSTANTS = (str, bytes, int, float, bool, complex, type(None), enum.Enum, re.Pattern, PurePath, dt.date, dt.timedelta)


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
