"""What a piece of code says, whose it is, and which names it uses. Nothing is followed here."""

from __future__ import annotations

import ast
import dis
import functools
import inspect
import site
import sys
import sysconfig
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAKING = frozenset({"__init__", "__new__", "__post_init__"})
"""The methods that make an object."""
_CHANGES = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft", "remove"}
    | {"setdefault", "update"}
)
"""What changes a container in place."""
_STORES = frozenset({"STORE_GLOBAL", "STORE_DEREF", "DELETE_GLOBAL", "DELETE_DEREF"})


def is_own(kind: Any) -> bool:
    """Tell whether code is the user's: not Python's, and not an installed package's."""
    module = getattr(kind, "__module__", None)
    return isinstance(module, str) and is_own_module(module)


@functools.lru_cache(maxsize=4096)
def is_own_module(name: str) -> bool:
    """Tell whether a module is the user's."""
    if name.partition(".")[0] in {"dspy", "dspy_cachectl"}:
        return False  # wherever they lie
    module = sys.modules.get(name)
    if name == "__main__" or module is None:
        return True
    file = getattr(module, "__file__", None)  # None: built in, or a namespace
    return file is not None and not any(map(Path(file).resolve().is_relative_to, _installed()))


@functools.cache
def _installed() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    folders = {paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"]}
    folders.update(site.getsitepackages() if hasattr(site, "getsitepackages") else ())
    return tuple(Path(folder).resolve() for folder in folders if folder)


def text_of_function(function: types.FunctionType) -> str:
    """Return what a function says: its source without comments and layout, or its byte code where there is none."""
    return _text_of_code(function.__code__, function.__code__.co_filename)


@functools.lru_cache(maxsize=4096)
def _text_of_code(code: types.CodeType, filename: str) -> str:  # noqa: ARG001 - equal code may be of two files
    # Of the code and not of the function: the source of what a decorator returns would be that of what it wraps.
    text = source_of(code)
    if text is None:
        return _byte_code(code)
    # Two lambdas on one line have the same source.
    return text + _byte_code(code) if code.co_name == "<lambda>" else text


def source_of(code: Any) -> str | None:
    """Return the source of a class or of code without comments and layout; None where there is none."""
    try:
        source = textwrap.dedent(inspect.getsource(code))
    except (OSError, TypeError, IndentationError, SyntaxError):
        return None
    try:
        # Without comments and layout: a reformatted program is the same program.
        return ast.unparse(ast.parse(source))
    except (SyntaxError, ValueError, RecursionError):
        return source  # a lambda's lines need not be a statement


def _byte_code(code: types.CodeType) -> str:
    constants = [_byte_code(item) if isinstance(item, types.CodeType) else _constant(item) for item in code.co_consts]
    return repr((code.co_code.hex(), constants, code.co_names, code.co_varnames, code.co_freevars))


def _constant(value: Any) -> str:
    # A set in the code has no order of its own.
    return repr(sorted(map(_constant, value))) if isinstance(value, frozenset) else repr(value)


@functools.lru_cache(maxsize=4096)
def names_in(code: types.CodeType) -> frozenset[str]:
    """Return the global names and attributes that code uses, and the functions in it."""
    return frozenset(name for one in nested_code(code) for name in one.co_names)


@functools.lru_cache(maxsize=4096)
def stored_names(code: types.CodeType) -> frozenset[str]:
    """Return the outer names that code sets itself: counters and caches, not constants."""
    instructions = (instruction for one in nested_code(code) for instruction in dis.get_instructions(one))
    return frozenset(one.argval for one in instructions if one.opname in _STORES)


@functools.lru_cache(maxsize=4096)
def changed_in(code: types.CodeType) -> frozenset[str]:
    """Return what code sets or changes in place, as `name` or `name.attribute`: its tallies and its caches."""
    try:
        tree = ast.parse(source_of(code) or "")
    except SyntaxError:
        return frozenset()
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load):
            found.add(_dotted(node))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGES:
            found.add(_dotted(node.func.value))
    return frozenset(found)


def _dotted(node: ast.expr) -> str:
    """Return the name that an expression begins with, and the attribute that follows it."""
    attributes: list[str] = []
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        if isinstance(node, ast.Attribute):
            attributes.insert(0, node.attr)
        node = node.value
    return ".".join([node.id, *attributes[:1]]) if isinstance(node, ast.Name) else ""


def changed_attributes(kind: type, names: frozenset[str]) -> set[str]:
    """Return the attributes that an object's own methods change while it is used.

    Args:
        kind: Its class.
        names: The methods that are called from outside; those that these call are looked at, too.
    """
    functions = {function.__name__: function.__code__ for base in kind.__mro__ for function in functions_of(base)}
    waiting = {getattr(getattr(kind, name, None), "__name__", name) for name in names}
    used, found = set(waiting), set()
    while waiting:
        code = functions.get(waiting.pop())
        if code is not None and code.co_name not in MAKING and code.co_argcount:
            itself = f"{code.co_varnames[0]}."
            found |= {name.removeprefix(itself) for name in changed_in(code) if name.startswith(itself)}
            waiting |= names_in(code) - used
            used |= waiting
    return found


def nested_code(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield code, and the code of the functions in it."""
    yield code
    for item in code.co_consts:
        if isinstance(item, types.CodeType):
            yield from nested_code(item)


def functions_of(kind: type) -> Iterator[types.FunctionType]:
    """Yield the functions that a class defines: methods of all kinds, and of properties."""
    for item in vars(kind).values():
        candidates = (item.fget, item.fset) if isinstance(item, property) else (_function_of(item),)
        for candidate in candidates:
            function = inspect.unwrap(candidate) if callable(candidate) else None
            if isinstance(function, types.FunctionType):
                yield function


def _function_of(item: Any) -> Any:
    return item.func if isinstance(item, functools.cached_property) else getattr(item, "__func__", item)
