"""What code does, as a hash: functions, classes, objects, DSPy's modules and LMs, and all that they reach.

One walk serves programs, metrics, judges and embedding functions. A method that calls a helper changes when the helper
does, so functions, classes and constants that the code names are followed through its globals as long as they are the
user's own. Installed packages are not followed.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
import itertools
import logging
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

from dspy_cachectl.boundary.secrets import without_known
from dspy_cachectl.entries import draws
from dspy_cachectl.fingerprints import canonical, signatures
from dspy_cachectl.fingerprints.canonical import UnstableError, type_name
from dspy_cachectl.fingerprints.content import checkpoint_of
from dspy_cachectl.fingerprints.endpoints import endpoint_of_lm
from dspy_cachectl.fingerprints.engines import asked_of_lm
from dspy_cachectl.fingerprints.kinds import (
    attributes_of,
    is_code,
    is_constant,
    is_dspys,
    is_plain,
    is_users,
    name_of,
    named,
    says_who_asks,
    wrapped,
)
from dspy_cachectl.fingerprints.source_text import (
    changed_attributes,
    changed_in,
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

_CALLED = frozenset({"__call__", "forward", "aforward"})
"""The methods of an object that is called."""

_NOT_THE_PROGRAM = frozenset({"history", "callbacks", "lm", "_compiled"})
"""Attributes of modules that are their past, or are looked at apart."""
_NOT_OF_A_PREDICTOR = _NOT_THE_PROGRAM | {"traces", "train", "stage", "demos", "config", "signature"}


def code_fingerprint(value: Any, *, exact: bool = False) -> str:
    """Hash what code does, or what an object is; the same in every process.

    Args:
        value: A function, method, lambda, `functools.partial`, class, or any object.
        exact: Whether everything that it depends on has to be told apart; otherwise what cannot be is left out.

    Returns:
        64 hexadecimal digits.

    Raises:
        UnstableError: If it has to be exact, and rests on something that cannot be told from others of its kind.
    """
    return Walk(exact=exact).digest(value)


class Walk:
    """One walk over code and objects. What was met is not looked at again, so that it ends.

    Args:
        exact: See `code_fingerprint`.
    """

    def __init__(self, *, exact: bool = False) -> None:
        self._exact = exact
        # With the things themselves, so that no other one gets the id of one that was met.
        self._met: dict[int, tuple[Any, str]] = {}

    @property
    def is_cut(self) -> bool:
        """Whether it reached so much that it did not look at all of it."""
        return len(self._met) > _FOLLOW_AT_MOST

    def digest(self, value: Any, *, used: frozenset[str] = _CALLED) -> str:
        """Hash one thing. Of an object, `used` are its methods that are called."""
        if id(value) not in self._met:
            name = name_of(value)
            if self.is_cut:
                if self._exact:
                    raise UnstableError("", name, why="reaches too much to be told from others")
                return name
            self._met[id(value)] = value, f"under way: {name}"
            text = "\x1e".join(self._parts(value, used))
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
            fallback=lambda held, _: type_name(type(held)) if is_dspys(held) else {"$is": self.digest(held)},
        )

    def _parts(self, value: Any, used: frozenset[str]) -> Iterator[str]:
        if isinstance(value, functools.partial):
            yield self.text(["partial", list(value.args), value.keywords])
            yield self.digest(value.func)
        elif isinstance(value, types.MethodType):
            yield self.digest(value.__func__)
            yield self.digest(value.__self__, used=frozenset({value.__name__}))
        elif isinstance(value, types.FunctionType):
            yield from self._function(value)
        elif isinstance(value, type):
            yield from self._class(value)
        elif isinstance(value, types.BuiltinFunctionType):
            yield name_of(value)
        elif (inner := wrapped(value)) is not None:
            yield self.digest(inner)
        elif is_dspys(value):
            yield from self._module(value) if isinstance(value, sys.modules["dspy"].Module) else self._lm(value)
        else:
            yield from self._object(value, used)

    def _function(self, function: types.FunctionType) -> Iterator[str]:
        yield type_name(function)
        yield text_of_function(function)
        yield self.text([list(function.__defaults__ or ()), function.__kwdefaults__ or {}])
        used, counted, changed = _uses(function.__code__)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name in counted or name == "__class__":
                continue
            try:
                held = cell.cell_contents
            except ValueError:
                continue  # not bound yet
            yield from self._held(name, held, used, frozenset() if self._exact else changed)
        for name in sorted(used & vars(function).keys() - {"__wrapped__"}):
            yield from self._held(name, vars(function)[name], used, _of_attributes(function.__name__, changed))
        yield from self._reached(function)
        if (inner := wrapped(function)) is not None:
            # What a decorator closes over counts as much as what it wraps.
            yield self.digest(inner)

    def _reached(self, function: types.FunctionType) -> Iterator[str]:
        used, counted, changed = _uses(function.__code__)
        space = function.__globals__
        for name in sorted(used & space.keys() - counted):
            held = space[name]
            if function.__name__ == "__init__" and signatures.is_signature(held):
                continue  # what it is used for is in the object, and perhaps tuned there
            if isinstance(held, types.ModuleType):
                yield from self._of_module(name, held, used, changed, {held.__name__})
            else:
                yield from self._held(name, held, used, changed)

    def _of_module(
        self, name: str, module: types.ModuleType, used: frozenset[str], changed: frozenset[str], met: set[str]
    ) -> Iterator[str]:
        """Describe what code uses of a module of the user's, and of those in it."""
        if not is_own_module(module.__name__):
            return
        for inner in sorted(used & vars(module).keys()):
            held, path = vars(module)[inner], f"{name}.{inner}"
            if not isinstance(held, types.ModuleType):
                yield from self._held(path, held, used, changed)
            elif held.__name__ not in met:
                yield from self._of_module(path, held, used, changed, met | {held.__name__})

    def _held(self, name: str, held: Any, used: frozenset[str], changed: frozenset[str]) -> Iterator[str]:
        """Describe what code reaches under a name.

        Args:
            name: The name.
            held: What stands there.
            used: The names that the code uses.
            changed: What of these it changes itself: a tally or a cache decides nothing.
        """
        if isinstance(held, contextvars.ContextVar):
            with contextlib.suppress(LookupError):  # it has no value here
                held = held.get()
        if is_code(held):
            yield f"{name}:{self.digest(held) if is_own(named(held)) else name_of(held)}"
        elif is_dspys(held) or (is_users(held) and not self._exact):
            yield f"{name}:{self.digest(held, used=used)}"
        elif not (says_who_asks(name, held) or isinstance(held, (types.ModuleType, logging.Logger))):
            yield from self._value(name, held, used, is_tally=name in changed)

    def _value(self, name: str, held: Any, used: frozenset[str], *, is_tally: bool) -> Iterator[str]:
        if self._exact:
            if isinstance(held, Mapping) or not (is_tally and is_plain(held)):
                yield f"{name}={self.text(held, name)}"
            return
        if not is_tally:
            with contextlib.suppress(UnstableError):
                yield f"{name}={canonical.text(without_known(held), fallback=functools.partial(self._within, used))}"
        yield from self._dspys_within(name, held)

    def _within(self, used: frozenset[str], held: Any, _: str) -> Any:
        """Return what stands for an object in a container: of what is a package's and no value, its class."""
        if (is_code(held) and is_own(named(held))) or is_dspys(held) or is_users(held):
            return {"$is": self.digest(held, used=used)}
        return type_name(named(held))

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
                yield self.text({name: item for name, item in _class_attributes(kind) if is_plain(item)})
            used = frozenset().union(*(names_in(function.__code__) for function in functions))
            changed = frozenset(changed_attributes(kind, used))
            for name, item in vars(kind).items():
                if not name.startswith("__"):
                    yield from self._held(name, item, used, changed)
        else:
            yield from (f"{function.__name__}: {text_of_function(function)}" for function in functions)
            yield self.text(dict(_class_attributes(kind)))
        for function in functions:
            yield from self._reached(function)

    def _object(self, value: Any, used: frozenset[str]) -> Iterator[str]:
        whole = is_users(value)
        if self._exact and not whole:
            raise UnstableError("", type_name(type(value)), why="may hold more than can be seen")
        yield from self._kind(type(value))
        attributes = attributes_of(value)
        dspy = sys.modules.get("dspy")
        if dspy is not None and isinstance(value, dspy.Retrieve):
            # By chance, and its past; it asks the retriever of the settings.
            attributes = {name: item for name, item in attributes.items() if name not in {"stage", "callbacks"}}
            yield f"rm:{self.digest(dspy.settings.rm)}"
        changed = set() if self._exact else changed_attributes(type(value), used)
        held = {name: item for name, item in attributes.items() if name not in changed}
        yield from [self.text(held)] if whole else _plain_attributes(held)
        for name, item in sorted(attributes.items()):
            if not whole or name in changed:
                yield from self._dspys_within(name, item)

    def _kind(self, kind: type) -> Iterator[str]:
        yield type_name(kind)
        yield from (self.digest(base) for base in kind.__mro__ if is_own(base))

    def _module(self, module: Any) -> Iterator[str]:
        for part, value in module_parts(module):
            yield f"{part}={self.text(value)}"
        for name, lm in lms_of(module):
            yield f"{name}:{self.digest(lm)}"
        settings = sys.modules["dspy"].settings
        yield f"adapter:{self.digest(settings.adapter)}"
        if any(predictor.lm is None for predictor in module.predictors()):
            yield f"settings:{self.digest(settings.lm)}"

    def _lm(self, lm: Any) -> Iterator[str]:
        yield from self._kind(type(lm))
        facts = [getattr(lm, name, None) for name in ("model", "version", "model_type")]
        facts += [endpoint_of_lm(lm), checkpoint_of(lm)]
        yield self.text([*facts, asked_of_lm(lm, getattr(lm, "kwargs", None) or {})])


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
        # As in what is asked, where numbers count by their value. None and what is not sent stand here all the same.
        options = module.config.items()
        yield f"{name}.config", {key: draws.clean_request({key: value}).get(key, value) for key, value in options}
    skipped = _NOT_OF_A_PREDICTOR if is_predictor else _NOT_THE_PROGRAM | changed_attributes(type(module), _CALLED)
    for attribute, value in vars(module).items():
        if attribute not in skipped and not says_who_asks(attribute, value) and not is_dspys(value):
            yield f"{name}.{attribute}", value


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
    if is_dspys(held):
        yield name, held
    elif depth and isinstance(held, Mapping):
        for key, item in itertools.islice(held.items(), _MOST_LOOKED_AT):
            yield from _dspys_in(f"{name}[{key!r}]" if is_constant(key) else f"{name}[]", item, depth - 1)
    elif depth and isinstance(held, (list, tuple, set, frozenset)):
        for index, item in enumerate(itertools.islice(held, _MOST_LOOKED_AT)):
            yield from _dspys_in(f"{name}[{index}]", item, depth - 1)


def _uses(code: types.CodeType) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Return the names that code uses, those that it sets, and what it changes in place."""
    return names_in(code), stored_names(code), changed_in(code)


def _of_attributes(name: str, changed: frozenset[str]) -> frozenset[str]:
    return frozenset(one.removeprefix(f"{name}.") for one in changed if one.startswith(f"{name}."))


def _class_attributes(kind: type) -> Iterator[tuple[str, Any]]:
    yield from ((name, item) for name, item in vars(kind).items() if not (name.startswith("__") or callable(item)))


def _plain_attributes(held: Mapping[str, Any]) -> Iterator[str]:
    # Of an object of a package: what it rests on is not looked into.
    for name, item in sorted(without_known(held).items()):
        with contextlib.suppress(UnstableError):
            yield f"{name}={canonical.text(item)}"
