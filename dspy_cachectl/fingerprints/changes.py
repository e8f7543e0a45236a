"""What code sets or changes itself while it runs: its tallies and its caches, by name or key."""

from __future__ import annotations

import ast
import functools
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dspy_cachectl.fingerprints.source_text import PARSING, globals_in, names_in, source_of, stored_names

Step = tuple[str, Any]
Path = tuple[str, tuple[Step, ...]]
"""A name, and how something is reached from it: each step is an attribute or a key with its name, or any item, or the
class."""

_ANY: Step = ("any", None)
_CLASS: Step = ("class", None)
_SPACE: Step = ("space", None)
_CHANGES = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "extendleft", "fill", "insert", "move_to_end"}
    | {"pop", "popitem", "popleft", "put", "put_nowait", "remove", "rotate", "set", "subtract", "update"}
)
"""What changes a container in place each time; what does it once, such as `sort`, is a value like any other."""
_CHANGERS = frozenset({"heappush", "heappop", "heapreplace", "heappushpop", "insort", "insort_left", "insort_right"})
"""Functions that change what they get first."""


@dataclass(frozen=True)
class Call:
    """A call in code: what is called, and what it is given by position and by name, as far as that has a path."""

    called: Path
    given: tuple[Path | None, ...]
    named: tuple[tuple[str, Path], ...]


@dataclass(frozen=True)
class Changes:
    """What code changes.

    Attributes:
        made: What it sets or changes in place, but for what it only makes where it is missing: that decides as if it
            had been there before.
        read: The items that it reads by a key.
        passed: What it calls with something from outside.
        idle: The names that it uses for nothing but to change them.
        named: The attributes that it names by a text.
        looks_up: Whether it looks up a name that is not in it.
        imported: The modules that it names by a text.
    """

    made: tuple[Path, ...] = ()
    read: frozenset[Path] = frozenset()
    passed: tuple[Call, ...] = ()
    idle: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()
    looks_up: bool = False
    imported: frozenset[str] = frozenset()


@functools.lru_cache(maxsize=4096)
def changes_in(code: types.CodeType) -> Changes:
    """Return what code changes; where it has no source, the names that it sets."""
    try:
        with PARSING:
            tree = ast.parse(source_of(code) or "")
    except SyntaxError:
        tree = ast.Module([], [])
    if not tree.body:
        stored = stored_names(code)
        return Changes(made=tuple((name, ()) for name in sorted(stored)), idle=frozenset())
    return _Reading(tree, code).found()


def names_used(code: types.CodeType) -> frozenset[str]:
    """Return the global names and attributes that code uses, also those that it names by a text."""
    return names_in(code) | changes_in(code).named


def globals_used(code: types.CodeType) -> frozenset[str]:
    """Return the global names that code uses, also those that it names by a text."""
    return globals_in(code) | changes_in(code).named


class _Reading:
    """One reading of a piece of code."""

    def __init__(self, tree: ast.Module, code: types.CodeType) -> None:
        self._nodes = [node for part in _run_by(tree, code) for node in ast.walk(part)]
        self._first = code.co_varnames[0] if code.co_argcount else ""
        self._outer = {
            name for node in self._nodes if isinstance(node, (ast.Global, ast.Nonlocal)) for name in node.names
        }
        self._aliases: dict[str, Path] = {}
        self._local = {
            node.id for node in self._nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        } - self._outer
        for node in self._nodes:
            self._alias(node)

    def found(self) -> Changes:
        lazy = self._made_where_missing()
        made = [(path, node) for node in self._nodes for path in self._changed_by(node) if id(node) not in lazy]
        loaded: dict[str, int] = {}
        for node in self._nodes:
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                loaded[node.id] = loaded.get(node.id, 0) + 1
        calls = [node for node in self._nodes if isinstance(node, ast.Call)]
        return Changes(
            made=tuple(dict.fromkeys(path for path, _ in made)),
            read=frozenset(self._read()),
            passed=tuple(found for node in calls if (found := self._passed(node)) is not None),
            idle=frozenset(name for name in self._idle(loaded) if name in {path[0] for path, _ in made}),
            named=frozenset(name for node in calls for name in _named_by(node)) | frozenset(self._of_globals()),
            looks_up=any(self._looks_up(node) for node in calls),
            imported=frozenset(name for node in calls for name in _imported_by(node)),
        )

    def path(self, node: ast.AST) -> Path | None:
        """Return how something is reached from a name, or None."""
        if isinstance(node, ast.Name):
            if node.id in self._aliases:
                return self._aliases[node.id]
            return None if node.id in self._local else (node.id, ())
        if isinstance(node, ast.Attribute):
            named = {"__dict__": _SPACE, "__class__": _CLASS}
            return self._beyond(node.value, named.get(node.attr, ("attribute", node.attr)))
        if isinstance(node, ast.Subscript):
            return self._beyond(node.value, _step_of(node.slice))
        if isinstance(node, (ast.NamedExpr, ast.Starred)):
            return self.path(node.value)
        return self._path_of_call(node) if isinstance(node, ast.Call) else None

    def _path_of_call(self, node: ast.Call) -> Path | None:
        function, given = node.func, node.args
        if isinstance(function, ast.Attribute):
            if function.attr in {"get", "setdefault"} and given:
                return self._beyond(function.value, _step_of(given[0]))
            return self._beyond(function.value, _ANY) if function.attr in {"values", "items"} else None
        if not isinstance(function, ast.Name):
            return None
        if function.id == "super" and self._first:
            return self._first, ()
        if function.id == "getattr" and len(given) > 1 and isinstance(given[1], ast.Constant):
            return self._beyond(given[0], ("attribute", given[1].value))
        steps = {"vars": _SPACE, "type": _CLASS, "enumerate": None, "iter": None, "reversed": None}
        if function.id not in steps or not given:
            return None
        step = steps[function.id]
        return self.path(given[0]) if step is None else self._beyond(given[0], step)

    def _beyond(self, node: ast.AST, step: Step) -> Path | None:
        before = self.path(node)
        if before is None:
            return None
        root, steps = before
        if steps and steps[-1] == _SPACE:  # `vars(x)["a"]` is `x.a`
            return root, (*steps[:-1], ("attribute", step[1]) if step[0] == "key" else step)
        return root, (*steps, step)

    def _alias(self, node: ast.AST) -> None:
        """Note that a local name stands for something from outside."""
        if isinstance(node, ast.Assign):
            pairs = [(target, node.value) for target in node.targets]
        elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
            pairs = [(node.target, node.value)]
        elif isinstance(node, (ast.For, ast.comprehension)):
            return self._alias_item(node.target, node.iter)
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            pairs = [(node.optional_vars, node.context_expr)]
        else:
            return None
        for target, value in pairs:
            if isinstance(target, ast.Name) and target.id in self._local and (path := self.path(value)) is not None:
                self._aliases.setdefault(target.id, path)
        return None

    def _alias_item(self, target: ast.AST, items: ast.AST) -> None:
        path = self.path(items)
        names = target.elts if isinstance(target, ast.Tuple) else [target]
        if path is not None:
            path = path if path[1] and path[1][-1] == _ANY else (path[0], (*path[1], _ANY))
            for name in names:
                if isinstance(name, ast.Name):
                    self._aliases.setdefault(name.id, path)

    def _changed_by(self, node: ast.AST) -> Iterator[Path]:
        if isinstance(node, (ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load):
            if (path := self.path(node)) is not None:
                yield path
        elif isinstance(node, ast.Name) and node.id in self._outer and not isinstance(node.ctx, ast.Load):
            yield node.id, ()
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            path = self._aliases.get(node.target.id)
            if path is not None and isinstance(node.value, (ast.List, ast.Set, ast.ListComp, ast.SetComp)):
                yield path[0], (*path[1], _ANY)  # a list's `+=` changes the list
        elif isinstance(node, ast.Call):
            yield from self._changed_by_call(node)

    def _changed_by_call(self, node: ast.Call) -> Iterator[Path]:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        first = self.path(node.args[0]) if node.args else None
        if name in _CHANGERS and first is not None:
            yield first[0], (*first[1], _ANY)
        elif name in {"setattr", "delattr"} and first is not None and len(node.args) > 1:
            step = _step_of(node.args[1])
            if step[0] == "key":
                yield first[0], (*first[1], ("attribute", step[1]))
        elif isinstance(node.func, ast.Attribute) and (path := self.path(node.func.value)) is not None:
            if name == "setdefault" and node.args and _step_of(node.args[0]) == _ANY:
                yield path[0], (*path[1], _ANY)
            elif name in _CHANGES:
                if isinstance(node.func.value, ast.Call):  # of `x.setdefault("a", []).append(1)`, which makes it first
                    yield path
                yield from ((path[0], (*path[1], step)) for step in _steps_of_change(name, node))

    def _made_where_missing(self) -> set[int]:
        """Return the nodes by which something is made under the condition that it is not there yet."""
        found = set()
        for node in self._nodes:
            if isinstance(node, ast.If):
                tested = {path for one in ast.walk(node.test) if (path := self._tested(one)) is not None}
                targets = [one for each in node.body for one in _targets(each)]
                found |= {id(one) for one in targets if self._target(one) in tested}
            elif isinstance(node, ast.Assign) and isinstance(node.value, (ast.BoolOp, ast.IfExp)):
                first = node.value.values[0] if isinstance(node.value, ast.BoolOp) else node.value.test
                tested = {path for one in ast.walk(first) if (path := self._tested(one)) is not None}
                found |= {id(one) for one in node.targets if self._target(one) in tested}
        return found

    def _target(self, node: ast.AST) -> Path | None:
        path = (node.id, ()) if isinstance(node, ast.Name) else self.path(node)
        return path if path is None or _ANY not in path[1] else None

    def _tested(self, node: ast.AST) -> Path | None:
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "hasattr" and len(node.args) > 1:
            return self._beyond(node.args[0], ("attribute", _step_of(node.args[1])[1]))
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.In, ast.NotIn)):
            return self._beyond(node.comparators[0], _step_of(node.left))
        return self._target(node) if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript, ast.Call)) else None

    def _read(self) -> Iterator[Path]:
        stored = {id(node.target) for node in self._nodes if isinstance(node, ast.AugAssign)}
        for node in self._nodes:
            is_read = isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and id(node) not in stored
            if is_read or (isinstance(node, ast.Call) and getattr(node.func, "attr", "") in {"get", "setdefault"}):
                path = self.path(node)
                if path is not None and path[1] and path[1][-1][0] == "key":
                    yield path

    def _passed(self, node: ast.Call) -> Call | None:
        called = self.path(node.func)
        given = tuple(self.path(one) for one in node.args)
        named = tuple(
            (one.arg, path) for one in node.keywords if one.arg and (path := self.path(one.value)) is not None
        )
        return Call(called, given, named) if called is not None and (any(given) or named) else None

    def _idle(self, loaded: dict[str, int]) -> Iterator[str]:
        """Yield the names that are loaded only where they are changed, as a statement of its own."""
        own: dict[str, int] = {}
        for node in self._nodes:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                root = _root(node.value.func.value) if isinstance(node.value.func, ast.Attribute) else None
                is_change = root is not None and getattr(node.value.func, "attr", "") in _CHANGES
                if is_change and root is not None:
                    inside = (one for one in ast.walk(node) if isinstance(one, ast.Name) and one.id == root)
                    own[root] = own.get(root, 0) + len([*inside])
            elif isinstance(node, (ast.Assign, ast.AugAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for root in {root for target in targets if (root := _root(target)) is not None}:
                    names = (one for one in ast.walk(node) if isinstance(one, ast.Name) and one.id == root)
                    own[root] = own.get(root, 0) + sum(isinstance(one.ctx, ast.Load) for one in names)
        yield from (name for name in {*own, *self._outer} if own.get(name, 0) == loaded.get(name, 0))

    def _of_globals(self) -> Iterator[str]:
        for node in self._nodes:
            if isinstance(node, ast.Subscript) and _is_globals(node.value):
                kind, key = _step_of(node.slice)
                if kind == "key" and isinstance(key, str):
                    yield key

    def _looks_up(self, node: ast.Call) -> bool:
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in {"import_module", "__import__"}:
            return not [*_imported_by(node)]
        if not _is_globals(node):
            return False
        known = {id(one.value) for one in self._nodes if isinstance(one, ast.Subscript) and _step_of(one.slice) != _ANY}
        return id(node) not in known


def _run_by(tree: ast.Module, code: types.CodeType) -> Iterator[ast.AST]:
    """Yield what runs when code is called: not its decorators and defaults, nor the statement around a lambda."""
    if code.co_name == "<lambda>":
        yield from (node.body for node in ast.walk(tree) if isinstance(node, ast.Lambda))
    else:
        for node in tree.body:
            yield from node.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else [node]


def _step_of(node: ast.AST) -> Step:
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, int)):
        return "key", node.value
    return _ANY


def _steps_of_change(name: str, node: ast.Call) -> Iterator[Step]:
    if name == "update" and (node.keywords or node.args) and all(one.arg for one in node.keywords):
        tables = [one for one in node.args if isinstance(one, ast.Dict)]
        if len(tables) == len(node.args):
            yield from (("key", one.arg) for one in node.keywords)
            yield from (_step_of(key) if key is not None else _ANY for table in tables for key in table.keys)
            return
    yield _ANY


def _targets(node: ast.AST) -> Iterator[ast.AST]:
    for one in ast.walk(node):
        if isinstance(one, (ast.Name, ast.Attribute, ast.Subscript)) and isinstance(one.ctx, ast.Store):
            yield one


def _root(node: ast.AST) -> str | None:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _is_globals(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == "globals"


def _named_by(node: ast.Call) -> Iterator[str]:
    if getattr(node.func, "id", "") in {"getattr", "hasattr"} and len(node.args) > 1:
        kind, key = _step_of(node.args[1])
        if kind == "key" and isinstance(key, str):
            yield key
    if isinstance(node.func, ast.Attribute) and node.func.attr == "get" and _is_globals(node.func.value) and node.args:
        kind, key = _step_of(node.args[0])
        if kind == "key" and isinstance(key, str):
            yield key


def _imported_by(node: ast.Call) -> Iterator[str]:
    if getattr(node.func, "attr", getattr(node.func, "id", "")) in {"import_module", "__import__"} and node.args:
        kind, key = _step_of(node.args[0])
        if kind == "key" and isinstance(key, str):
            yield key
