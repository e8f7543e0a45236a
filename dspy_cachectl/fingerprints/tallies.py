"""What code that is followed keeps count in: the objects, and what of each the code changes itself."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dspy_cachectl.fingerprints.changes import Call, Changes, Path, Step, changes_in, names_used
from dspy_cachectl.fingerprints.source_text import MAKING, is_own

_MISSING = object()
_SETTING = re.compile(r"__(set|del|i(?!nit|nt__|ter|ndex|nstancecheck)).*__")
"""Methods that Python calls where something is set from outside."""
_MOST = 100
_DEEPEST = 5


@dataclasses.dataclass
class _Tally:
    """What is changed of an object: attributes and items by name, or any of its items but those that are read."""

    of: Any  # so that no other object gets its id
    names: set[Any] = dataclasses.field(default_factory=set)
    any: bool = False
    read: set[Any] = dataclasses.field(default_factory=set)

    def has(self, name: Any) -> bool:
        return name in self.names or (self.any and name not in self.read)


class Tallies:
    """What the code that was looked at changes itself."""

    def __init__(self) -> None:
        self._of: dict[int, _Tally] = {}
        self._noted: dict[tuple[Any, ...], Any] = {}
        self.marks = 0
        """How many things are known to be changed: whoever has looked at one before has to look again."""

    def of_code(self, function: types.FunctionType, bound: Mapping[str, Any] | None = None, depth: int = 0) -> Changes:
        """Note what a function changes.

        Args:
            function: The function.
            bound: What its parameters are, as far as that is known.
            depth: How many calls away it is.
        """
        found = changes_in(function.__code__)
        known = {**_defaults(function), **(bound or {})}
        key = (id(function), *sorted((name, id(item)) for name, item in known.items()))
        if key in self._noted or depth > _DEEPEST:
            return found
        self._noted[key] = function, known
        for path in found.made:
            self._mark(function, known, path, self._changed)
        for path in found.read:
            self._mark(function, known, path, self._read)
        for call in found.passed:
            self._follow(function, known, call, depth)
        return found

    def of_partial(self, value: functools.partial[Any]) -> frozenset[str]:
        """Note what the function of a `partial` changes of what it is given there; return the names that it uses."""
        function = value.func
        if not isinstance(function, types.FunctionType):
            return frozenset()
        code = function.__code__
        self.of_code(function, {**dict(zip(code.co_varnames, value.args, strict=False)), **value.keywords})
        return names_used(code)

    def of_object(self, value: Any, used: frozenset[str]) -> frozenset[str]:
        """Note what an object's, or a class's, methods change of it.

        Args:
            value: The object or class.
            used: The names that are used from outside; the methods that these use are looked at, too.

        Returns:
            All names that are used.
        """
        kind = value if isinstance(value, type) else type(value)
        methods = _methods(kind)
        waiting = {*used, *(getattr(getattr(kind, name, None), "__name__", name) for name in used if name in methods)}
        # Python itself calls what a `with`, a loop or an index needs.
        waiting |= {name for name in methods if name.startswith("__") and not _SETTING.fullmatch(name)}
        names = set(waiting)
        while waiting:
            for raw, function in methods.get(waiting.pop(), ()):
                code = function.__code__
                if code.co_name in MAKING or not code.co_argcount:
                    continue
                itself = kind if isinstance(raw, classmethod) else value
                self.of_code(function, {} if isinstance(raw, staticmethod) else {code.co_varnames[0]: itself})
                more = names_used(code) - names
                waiting |= more
                names |= more
        return frozenset(names)

    def has(self, holder: Any, key: Any) -> bool:
        """Tell whether code changes the item that a container has under a key."""
        tally = self._of.get(id(holder))
        return tally is not None and tally.has(key)

    def sets(self, holder: Any, name: str) -> bool:
        """Tell whether code sets what an object, a class, a namespace or a cell has under a name."""
        tally = self._of.get(id(holder))
        return tally is not None and name in tally.names

    def names_of(self, holder: Any) -> frozenset[Any]:
        """Return the names that code sets of an object."""
        tally = self._of.get(id(holder))
        return frozenset(tally.names) if tally is not None else frozenset()

    def is_changed(self, held: Any) -> bool:
        """Tell whether code changes any of what a container holds."""
        return id(held) in self._of

    def _changed(self, holder: Any, step: Step) -> None:
        tally = self._of.setdefault(id(holder), _Tally(holder))
        before = len(tally.names), tally.any
        if step[0] == "any":
            tally.any = True
        else:
            tally.names.add(step[1])
        self.marks += before != (len(tally.names), tally.any)

    def _read(self, holder: Any, step: Step) -> None:
        if isinstance(holder, (Mapping, list, tuple)) and step[0] == "key":
            self._of.setdefault(id(holder), _Tally(holder)).read.add(step[1])

    def _mark(
        self, function: types.FunctionType, known: Mapping[str, Any], path: Path, mark: Callable[[Any, Step], None]
    ) -> None:
        root, steps = path
        if not steps:
            if root not in known:
                mark(_cells(function).get(root, function.__globals__), ("attribute", root))
            return
        for holder in _at(_root(function, known, root), steps[:-1]):
            if steps[-1][0] not in {"class", "space"}:
                mark(holder, steps[-1])

    def _follow(self, function: types.FunctionType, known: Mapping[str, Any], call: Call, depth: int) -> None:
        """Note what a function changes of what it gives another."""
        root = _root(function, known, call.called[0])
        for callee in _at(root, call.called[1]):
            inner, first = callee, []
            if isinstance(callee, types.MethodType):
                inner, first = callee.__func__, [callee.__self__]
            elif call.called[1]:
                owners = _at(root, call.called[1][:-1])
                first = [one for one in owners[:1] if not isinstance(one, (type, types.ModuleType))]
            if not isinstance(inner, types.FunctionType) or not is_own(inner):
                continue
            code = inner.__code__
            values = [*first, *(_value(function, known, path) for path in call.given)]
            bound = dict(zip(code.co_varnames[: code.co_argcount], values, strict=False))
            bound |= {name: _value(function, known, path) for name, path in call.named}
            kept = {name: item for name, item in bound.items() if item is not _MISSING}
            self.of_code(inner, kept, depth + 1)


def _value(function: types.FunctionType, known: Mapping[str, Any], path: Path | None) -> Any:
    return next(iter(_at(_root(function, known, path[0]), path[1])), _MISSING) if path is not None else _MISSING


def _defaults(function: types.FunctionType) -> dict[str, Any]:
    code, given = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(given) : code.co_argcount]
    return {**dict(zip(names, given, strict=True)), **(function.__kwdefaults__ or {})}


def _cells(function: types.FunctionType) -> dict[str, types.CellType]:
    return dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))


def _root(function: types.FunctionType, known: Mapping[str, Any], name: str) -> Any:
    if name in known:
        return known[name]
    cells = _cells(function)
    if name in cells:
        try:
            return cells[name].cell_contents
        except ValueError:  # not bound yet
            return _MISSING
    return function.__globals__.get(name, _MISSING)


def _at(held: Any, steps: tuple[Step, ...]) -> list[Any]:
    found = [held]
    for step in steps:
        found = [inner for one in found if one is not _MISSING for inner in _step(one, step)][:_MOST]
    return [one for one in found if one is not _MISSING]


def _step(held: Any, step: Step) -> Iterator[Any]:
    kind, name = step
    if kind == "attribute":
        yield _attribute(held, name)
    elif kind == "key":
        if isinstance(held, Mapping) or (isinstance(held, (list, tuple)) and isinstance(name, int)):
            try:
                yield held[name]
            except (KeyError, IndexError):
                return
    elif kind == "class":
        yield held if isinstance(held, type) else type(held)
    elif kind == "any":
        items = held.values() if isinstance(held, Mapping) else held
        if isinstance(held, (Mapping, list, tuple, set, frozenset)):
            yield from list(items)[:_MOST]
    else:
        yield held


def _attribute(held: Any, name: str) -> Any:
    """Return an attribute without calling anything of the object's."""
    spaces = [getattr(held, "__dict__", {})]
    spaces += [vars(kind) for kind in (held.__mro__ if isinstance(held, type) else type(held).__mro__)]
    found = next((space[name] for space in spaces if name in space), _MISSING)
    if isinstance(found, types.MemberDescriptorType):
        return getattr(held, name, _MISSING)
    if isinstance(found, functools.cached_property):
        return _MISSING
    return found.__func__ if isinstance(found, staticmethod) else found


def _methods(kind: type) -> dict[str, list[tuple[Any, types.FunctionType]]]:
    found: dict[str, list[tuple[Any, types.FunctionType]]] = {}
    for base in kind.__mro__:
        for name, raw in list(vars(base).items()) if is_own(base) else ():
            parts = (raw.fget, raw.fset) if isinstance(raw, property) else (getattr(raw, "__func__", raw),)
            parts = (raw.func,) if isinstance(raw, functools.cached_property) else parts
            for part in parts:
                function = inspect.unwrap(part) if isinstance(part, types.FunctionType) else None
                if isinstance(function, types.FunctionType) and is_own(function):
                    for each in {name, function.__name__}:
                        found.setdefault(each, []).append((raw, function))
    return found
