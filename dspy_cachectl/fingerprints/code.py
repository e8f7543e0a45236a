"""What code does, as a hash: functions, classes, objects, DSPy's modules and LMs, and all that they reach.

One walk serves programs, metrics, judges and embedding functions. A method that calls a helper changes when the helper
does, so functions, classes and constants that the code names are followed through its globals as long as they are the
user's own. Installed packages are not followed.
"""

from __future__ import annotations

import builtins
import contextlib
import datetime as dt
import enum
import functools
import hashlib
import itertools
import logging
import re
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from dspy_cachectl.boundary.secrets import is_known_credential, is_secret_name, without_known
from dspy_cachectl.entries import draws
from dspy_cachectl.fingerprints import canonical, signatures
from dspy_cachectl.fingerprints.canonical import UnstableError, type_name
from dspy_cachectl.fingerprints.content import checkpoint_of
from dspy_cachectl.fingerprints.endpoints import endpoint_of_lm
from dspy_cachectl.fingerprints.source_text import (
    functions_of,
    is_own,
    is_own_module,
    names_in,
    source_of,
    stored_names,
    text_of_function,
)

_FOLLOW_AT_MOST = 500
_DEEPEST = 5
_MOST_LOOKED_AT = 1000
"""How deep into containers, and at how many of their items, is looked for LMs."""
_CODE = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial, type)
_CONSTANTS = (str, bytes, int, float, bool, complex, type(None), enum.Enum, re.Pattern, PurePath, dt.date, dt.timedelta)

_NOT_THE_PROGRAM = frozenset({"history", "callbacks", "lm", "_compiled"})
"""Attributes of modules that are their past, or are looked at apart."""
_NOT_OF_A_PREDICTOR = _NOT_THE_PROGRAM | {"traces", "train", "stage", "demos", "config", "signature"}


def code_fingerprint(value: Any, *, containers: bool = False, exact: bool = False) -> str:
    """Hash what code does, or what an object is; the same in every process.

    Args:
        value: A function, method, lambda, `functools.partial`, class, or any object.
        containers: Whether lists and dictionaries that a function closes over count too. Programs that keep a tally
            in one would otherwise change while they run.
        exact: Whether everything that it depends on has to be told apart; otherwise what cannot be is left out.

    Returns:
        64 hexadecimal digits.

    Raises:
        UnstableError: If it has to be exact, and rests on something that cannot be told from others of its kind.
    """
    return Walk(exact=exact).digest(value, containers=containers)


def metric_fingerprint(metric: Any) -> str:
    """Hash what a metric does: its name, its source, what it closes over, its defaults, helpers and judges."""
    return code_fingerprint(metric, containers=True)


class Walk:
    """One walk over code and objects. What was met is not looked at again, so that it ends.

    Args:
        exact: See `code_fingerprint`.
    """

    def __init__(self, *, exact: bool = False) -> None:
        self._exact = exact
        # With the things themselves, so that no other one gets the id of one that was met.
        self._met: dict[int, tuple[Any, str]] = {}

    def digest(self, value: Any, *, containers: bool = False) -> str:
        """Hash one thing."""
        if id(value) not in self._met:
            name = name_of(value)
            if len(self._met) > _FOLLOW_AT_MOST:
                if self._exact:
                    raise UnstableError("", name, why="reaches too much to be told from others")
                return name
            self._met[id(value)] = value, f"under way: {name}"
            text = "\x1e".join(self._parts(value, containers=containers))
            self._met[id(value)] = value, hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return self._met[id(value)][1]

    def text(self, value: Any, path: str = "") -> str:
        """Return the canonical JSON of a value; what is not plain in it stands there as its hash."""
        return canonical.text(without_known(value), path=path, fallback=lambda held, _: {"$is": self.digest(held)})

    def text_of_part(self, value: Any, path: str) -> str:
        """Return likewise a part of a program, whose modules and LMs are only named: they are looked at apart."""
        return canonical.text(
            without_known(value),
            path=path,
            fallback=lambda held, _: type_name(type(held)) if _is_dspys(held) else {"$is": self.digest(held)},
        )

    def _parts(self, value: Any, *, containers: bool) -> Iterator[str]:
        if isinstance(value, functools.partial):
            yield self.text(["partial", list(value.args), value.keywords])
            yield self.digest(value.func, containers=containers)
        elif isinstance(value, types.MethodType):
            yield self.digest(value.__func__, containers=containers)
            yield self.digest(value.__self__)
        elif isinstance(value, types.FunctionType):
            yield from self._function(value, containers=containers)
        elif isinstance(value, type):
            yield from self._class(value)
        elif isinstance(value, types.BuiltinFunctionType):
            yield name_of(value)
        elif (wrapped := _wrapped(value)) is not None:
            yield self.digest(wrapped, containers=containers)
        elif _is_dspys(value):
            yield from self._module(value) if isinstance(value, sys.modules["dspy"].Module) else self._lm(value)
        else:
            yield from self._object(value)

    def _function(self, function: types.FunctionType, *, containers: bool) -> Iterator[str]:
        yield type_name(function)
        yield text_of_function(function)
        yield self.text([list(function.__defaults__ or ()), function.__kwdefaults__ or {}])
        counted = stored_names(function.__code__)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name in counted or name == "__class__":
                continue
            try:
                held = cell.cell_contents
            except ValueError:
                continue  # not bound yet
            yield from self._held(name, held, containers=containers or self._exact)
        yield from self._reached(function)
        if (wrapped := _wrapped(function)) is not None:
            # What a decorator closes over counts as much as what it wraps.
            yield self.digest(wrapped, containers=containers)

    def _reached(self, function: types.FunctionType) -> Iterator[str]:
        names, space = names_in(function.__code__), function.__globals__
        for name in sorted(names - stored_names(function.__code__)):
            if name not in space or hasattr(builtins, name):
                continue
            held = space[name]
            if function.__name__ == "__init__" and signatures.is_signature(held):
                continue  # what it is used for is in the object, and perhaps tuned there
            if not isinstance(held, types.ModuleType):
                is_constant = name.isupper() and not name.startswith("_")
                yield from self._held(name, held, containers=is_constant or self._is_read(held))
            elif is_own_module(held.__name__):
                for inner in sorted(names & vars(held).keys()):
                    yield from self._held(
                        f"{name}.{inner}", vars(held)[inner], containers=self._is_read(vars(held)[inner])
                    )

    def _is_read(self, held: Any) -> bool:
        """Tell whether a container in a module decides what code does: settings do, and a list is often a tally."""
        return self._exact and isinstance(held, Mapping)

    def _held(self, name: str, held: Any, *, containers: bool) -> Iterator[str]:
        """Describe what code reaches under a name."""
        if _is_code(held):
            yield f"{name}:{self.digest(held) if is_own(_named(held)) else name_of(held)}"
        elif _is_dspys(held):
            yield f"{name}:{self.digest(held)}"
        elif _says_who_asks(name, held) or isinstance(held, (types.ModuleType, logging.Logger)):
            return
        elif _is_plain(held):
            if containers or _is_constant(held):
                yield f"{name}={self.text(held)}"
        elif self._exact:
            yield f"{name}={self.text(held, name)}"
        else:
            yield from self._dspys_within(name, held)

    def _dspys_within(self, name: str, held: Any) -> Iterator[str]:
        """Describe the modules and LMs in an attribute or a container: they decide, whatever else is there."""
        yield from (f"{where}:{self.digest(found)}" for where, found in _dspys_in(name, held, _DEEPEST))

    def _class(self, kind: type) -> Iterator[str]:
        yield type_name(kind)
        if signatures.is_signature(kind):
            yield self.text(dict(signatures.parts("", kind)))
            return
        functions = [*functions_of(kind)]
        text = source_of(kind)
        if text is not None:
            yield text
            if self._exact:  # it may have been set since
                yield self.text({name: item for name, item in _class_attributes(kind) if _is_plain(item)})
            for name, item in vars(kind).items():
                yield from self._dspys_within(name, item)
        else:
            yield from (f"{function.__name__}: {text_of_function(function)}" for function in functions)
            yield self.text(dict(_class_attributes(kind)))
        for function in functions:
            yield from self._reached(function)

    def _object(self, value: Any) -> Iterator[str]:
        is_users = any(map(is_own, type(value).__mro__))
        if self._exact and not is_users:
            raise UnstableError("", type_name(type(value)), why="may hold more than can be seen")
        yield from self._kind(type(value))
        attributes = _attributes_of(value)
        held = {name: item for name, item in attributes.items() if self._exact or not name.startswith("_")}
        yield from [self.text(held)] if is_users else _plain_attributes(held)
        for name, item in sorted(attributes.items()):
            if not is_users or name not in held:
                yield from self._dspys_within(name, item)

    def _kind(self, kind: type) -> Iterator[str]:
        yield type_name(kind)
        yield from (self.digest(base) for base in kind.__mro__ if is_own(base))

    def _module(self, module: Any) -> Iterator[str]:
        for part, value in module_parts(module):
            yield f"{part}={self.text(value)}"
        for name, lm in lms_of(module):
            yield f"{name}:{self.digest(lm)}"

    def _lm(self, lm: Any) -> Iterator[str]:
        yield from self._kind(type(lm))
        facts = [getattr(lm, "model", None), getattr(lm, "version", None), endpoint_of_lm(lm), checkpoint_of(lm)]
        yield self.text([*facts, draws.clean_request(getattr(lm, "kwargs", None) or {})])


def module_parts(program: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a `dspy.Module` and those in it are, part by part; their LMs are looked at apart.

    Of each its class, the source of that, prompts, demos, settings and attributes. `self.generate.predict` is called
    `generate.predict`, and the program itself `self`.
    """
    import dspy

    for name, module in program.named_sub_modules(dspy.Module):
        yield from _parts_of_module(name.removeprefix("self.").removeprefix("self") or "self", module)


def _parts_of_module(name: str, module: Any) -> Iterator[tuple[str, Any]]:
    import dspy

    yield f"{name}.class", type_name(type(module))
    yield from class_parts(type(module))
    is_predictor = isinstance(module, dspy.Predict)
    if is_predictor:
        yield from signatures.parts(name, module.signature)
        yield f"{name}.demos", [dict(demo.items() if hasattr(demo, "items") else demo) for demo in module.demos]
        yield f"{name}.config", module.config
    skipped = _NOT_OF_A_PREDICTOR if is_predictor else _NOT_THE_PROGRAM
    for attribute, value in vars(module).items():
        if attribute not in skipped and not _says_who_asks(attribute, value) and not _is_dspys(value):
            yield f"{name}.{attribute}", value


def _says_who_asks(name: str, held: Any) -> bool:
    """Tell whether something only says who asks: a known credential, or an object that holds some."""
    return is_known_credential(name) or (is_secret_name(name) and not _is_plain(held))


def class_parts(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the class of a program or adapter and its bases, but for those of DSPy."""
    for base in kind.__mro__:
        if base.__module__.split(".")[0] not in {"dspy", "builtins", "dspy_cachectl", "abc", "typing"}:
            yield f"source:{type_name(base)}", base


def lms_of(program: Any) -> Iterator[tuple[str, Any]]:
    """Yield the LMs that a program carries itself, with where they are, in the order of its attributes."""
    import dspy

    if not isinstance(program, dspy.Module):
        return
    for name, module in program.named_sub_modules(dspy.Module):
        for attribute, value in vars(module).items():
            for key, item in _items(value):
                if isinstance(item, dspy.BaseLM):
                    where = f"{name}.{attribute}" + (f"[{key}]" if key != "" else "")
                    yield where.removeprefix("self."), item


def _items(value: Any) -> Any:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, (list, tuple)) else [("", value)]


def _dspys_in(name: str, held: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if _is_dspys(held):
        yield name, held
    elif depth and isinstance(held, Mapping):
        for key, item in itertools.islice(held.items(), _MOST_LOOKED_AT):
            yield from _dspys_in(f"{name}[{key!r}]" if _is_constant(key) else f"{name}[]", item, depth - 1)
    elif depth and isinstance(held, (list, tuple, set, frozenset)):
        for index, item in enumerate(itertools.islice(held, _MOST_LOOKED_AT)):
            yield from _dspys_in(f"{name}[{index}]", item, depth - 1)


def _class_attributes(kind: type) -> Iterator[tuple[str, Any]]:
    yield from ((name, item) for name, item in vars(kind).items() if not (name.startswith("__") or callable(item)))


def _plain_attributes(held: Mapping[str, Any]) -> Iterator[str]:
    # Of an object of a package: what it rests on is not looked into.
    for name, item in sorted(without_known(held).items()):
        with contextlib.suppress(UnstableError):
            yield f"{name}={canonical.text(item)}"


def _attributes_of(value: Any) -> dict[str, Any]:
    held = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if slot not in {"__dict__", "__weakref__"} and hasattr(value, slot):
                held[slot] = getattr(value, slot)
    return held


def _is_code(value: Any) -> bool:
    return isinstance(value, _CODE) or _wrapped(value) is not None


def _wrapped(value: Any) -> types.FunctionType | None:
    wrapped = getattr(value, "__wrapped__", None)
    return wrapped if isinstance(wrapped, types.FunctionType) else None


def _named(value: Any) -> Any:
    value = value.func if isinstance(value, functools.partial) else value
    return value if isinstance(getattr(value, "__qualname__", None), str) else type(value)


def name_of(value: Any) -> str:
    """Return the full name of code: of the function, of what a `partial` calls, or of an object's class."""
    return type_name(_named(value))


def _is_dspys(value: Any) -> bool:
    dspy = sys.modules.get("dspy")
    return dspy is not None and not isinstance(value, type) and isinstance(value, (dspy.Module, dspy.BaseLM))


def _is_constant(value: Any) -> bool:
    if isinstance(value, (tuple, frozenset)):
        return all(_is_constant(item) for item in value)
    return isinstance(value, _CONSTANTS)


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_constant(key) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, set, tuple)):
        return all(_is_plain(item) for item in value)
    return _is_constant(value)
