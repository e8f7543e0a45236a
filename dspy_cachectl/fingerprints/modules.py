"""What DSPy's modules are, part by part, and the LMs that they carry."""

from __future__ import annotations

import collections
import functools
import itertools
import re
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dspy_cachectl.entries import draws
from dspy_cachectl.fingerprints import classes
from dspy_cachectl.fingerprints.canonical import type_name
from dspy_cachectl.fingerprints.kinds import HIDDEN, is_dspys, is_users, read, says_who_asks

_DEEPEST = 6
_MOST_LOOKED_AT = 1000
"""How deep into containers and objects, and at how many of their items, is looked for LMs."""

_NOT_THE_PROGRAM = frozenset({"history", "callbacks", "lm", "_compiled"})
"""Attributes of modules that are their past, or are looked at apart."""
_NOT_OF_A_PREDICTOR = _NOT_THE_PROGRAM | {"traces", "train", "stage", "demos", "config", "signature"}


def sub_modules(program: Any, kind: type | None = None) -> Iterator[tuple[str, Any]]:
    """Yield a module and those in it, with their names, as DSPy's `named_sub_modules` does.

    DSPy's own walk also goes through the past of each: up to 10,000 calls, with all that was asked and answered.

    Args:
        program: The module.
        kind: The class of those that are wanted; None for all.
    """
    import dspy
    from dspy.primitives.base_module import BaseModule

    kind = kind or dspy.Module
    seen = {id(program)}
    waiting: collections.deque[tuple[str, Any]] = collections.deque([("self", program)])
    while waiting:
        name, item = waiting.popleft()
        if isinstance(item, kind):
            yield name, item
        if isinstance(item, BaseModule):
            inside = [(f".{key}", one) for key, one in list(vars(item).items()) if not _is_past(key, one)]
        elif isinstance(item, (list, tuple)):
            inside = [(f"[{index}]", one) for index, one in enumerate(item)]
        else:
            inside = [(f"[{key}]", one) for key, one in item.items()] if isinstance(item, dict) else []
        for step, one in inside:
            if id(one) not in seen:
                seen.add(id(one))
                waiting.append((name + step, one))


_OTHERS = re.compile(r"\.(candidate_programs|mb_candidate_programs|trial_logs)\[")
"""Where optimizers leave with a program the other candidates that they scored."""


def own_predictors(program: Any) -> Iterator[tuple[str, Any]]:
    """Yield the program's own predictors with their names: `""` for itself, or `"generate.predict"`."""
    import dspy

    for name, predictor in sub_modules(program, dspy.Predict):
        if not _OTHERS.search(name):
            yield name.removeprefix("self.").removeprefix("self"), predictor


def _is_past(name: str, value: Any) -> bool:
    return name == "history" and isinstance(value, list)


def module_parts(program: Any, changed: Callable[[Any], frozenset[str]]) -> Iterator[tuple[str, Any]]:
    """Yield what a `dspy.Module` and those in it are, part by part; their LMs are looked at apart.

    Of each its class, the source of that, prompts, demos, settings and attributes. `self.generate.predict` is called
    `generate.predict`, and the program itself `self`.

    Args:
        program: The module.
        changed: Tells the attributes of a module that code changes as it runs.
    """
    for name, module in sub_modules(program):
        yield from _parts_of_module(name.removeprefix("self.").removeprefix("self") or "self", module, changed(module))


def _parts_of_module(name: str, module: Any, changed: frozenset[str]) -> Iterator[tuple[str, Any]]:
    import dspy

    yield f"{name}.class", type_name(type(module))
    yield from class_parts(type(module))
    is_predictor = isinstance(module, dspy.Predict)
    if is_predictor:
        yield from classes.parts(name, module.signature)
        yield f"{name}.demos", [dict(demo.items() if hasattr(demo, "items") else demo) for demo in module.demos]
        # As in what is asked, where numbers count by their value. None and what is not sent stand here all the same.
        options = module.config.items()
        yield f"{name}.config", {key: draws.clean_request({key: value}).get(key, value) for key, value in options}
    skipped = (_NOT_OF_A_PREDICTOR if is_predictor else _NOT_THE_PROGRAM) | changed
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
    met: set[int] = set()
    waiting = collections.deque(sub_modules(program))
    met.update(id(module) for _, module in waiting)
    while waiting:
        name, module = waiting.popleft()
        for attribute, value in vars(module).items():
            if attribute in _NOT_OF_A_PREDICTOR - {"lm"}:
                continue
            for where, found in dspys_in(f"{name}.{attribute}", value):
                if isinstance(found, dspy.BaseLM):
                    yield where.removeprefix("self."), found
                elif id(found) not in met:
                    met.add(id(found))
                    waiting.append((where, found))


def dspys_in(name: str, held: Any, depth: int = _DEEPEST) -> Iterator[tuple[str, Any]]:
    """Yield the modules and LMs in containers and in objects of the user's, with where they are."""
    if is_dspys(held):
        yield name, held
    elif depth:
        for step, item in itertools.islice(_items(held), _MOST_LOOKED_AT):
            yield from dspys_in(f"{name}{step}", item, depth - 1)


def _items(held: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(held, Mapping):
        yield from ((f"[{key}]" if isinstance(key, (str, int)) else "[]", item) for key, item in list(held.items()))
    elif isinstance(held, (list, tuple, collections.deque)):
        yield from ((f"[{index}]", item) for index, item in enumerate(held))
    elif isinstance(held, (set, frozenset)):
        ordered = sorted(held, key=lambda one: (type_name(type(one)), str(getattr(one, "model", ""))))
        yield from ((f"[{index}]", item) for index, item in enumerate(ordered))
    elif isinstance(held, functools.partial):
        yield from _items([held.func, *held.args, *held.keywords.values()])
    elif isinstance(held, types.MethodType):
        yield "", held.__self__
    if is_users(held) and not isinstance(held, type):
        yield from ((f".{name}", item) for name, item in read(held)[0].items())
        if not isinstance(held, (Mapping, list, tuple, set, frozenset)) and (found := read(held)[1]) is not HIDDEN:
            yield from _items(found)
