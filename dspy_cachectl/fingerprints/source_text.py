"""What a piece of code says, whose it is, and which names it uses. Nothing is followed here."""

from __future__ import annotations

import ast
import dis
import functools
import importlib
import importlib.util
import inspect
import site
import sys
import sysconfig
import textwrap
import threading
import types
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dspy_cachectl.boundary.forks import free_after_fork

MAKING = frozenset({"__init__", "__new__", "__post_init__", "__init_subclass__", "__set_name__", "model_post_init"})
"""The methods that make an object or a class."""
PARSING = free_after_fork(threading.RLock())
"""Python 3.11 loses count where two threads make syntax trees: "AST constructor recursion depth mismatch"."""
_sources: weakref.WeakKeyDictionary[type, str | None] = weakref.WeakKeyDictionary()
"""The sources of classes: to find one, Python reads its whole file."""
_GLOBALS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS", "STORE_GLOBAL", "DELETE_GLOBAL"})
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
    return file is not None and not is_installed(Path(file))


def is_installed(path: Path) -> bool:
    """Tell whether a file is Python's, or an installed package's."""
    return any(map(path.resolve().is_relative_to, _installed()))


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
    if not isinstance(code, type):
        return _source_of(code)
    if code not in _sources:
        _sources[code] = _source_of(code)
    return _sources[code]


def _source_of(code: Any) -> str | None:
    with PARSING:
        return _parsed(code)


def _parsed(code: Any) -> str | None:
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
def globals_in(code: types.CodeType) -> frozenset[str]:
    """Return the global names that code uses, and the functions in it; an attribute of the same name is none."""
    instructions = (instruction for one in nested_code(code) for instruction in dis.get_instructions(one))
    return frozenset(one.argval for one in instructions if one.opname in _GLOBALS)


@functools.lru_cache(maxsize=4096)
def stored_names(code: types.CodeType) -> frozenset[str]:
    """Return the outer names that code sets itself: counters and caches, not constants."""
    instructions = (instruction for one in nested_code(code) for instruction in dis.get_instructions(one))
    return frozenset(one.argval for one in instructions if one.opname in _STORES)


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


@functools.lru_cache(maxsize=4096)
def imports_in(code: types.CodeType) -> tuple[tuple[str, int, tuple[str, ...]], ...]:
    """Return what code imports: the module, how many packages above its own, and what it takes from that."""
    return tuple(_imports(code))


def _imports(code: types.CodeType) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    for one in nested_code(code):
        found = [each for each in dis.get_instructions(one) if each.opname not in {"CACHE", "PUSH_NULL", "NOP"}]
        for index, each in enumerate(found):
            if each.opname == "IMPORT_NAME":
                level, names = found[index - 2].argval, found[index - 1].argval
                yield each.argval, level if isinstance(level, int) else 0, tuple(names or ())


def users_module(name: str, level: int, package: str | None) -> types.ModuleType | None:
    """Return a module of the user's that code names, loaded as the code would load it; None where it is not theirs.

    Raises:
        ImportError: If it cannot be loaded.
    """
    whole = importlib.util.resolve_name("." * level + name, package) if level else name
    module = sys.modules.get(whole)
    if module is None and _is_users(whole):
        try:
            module = importlib.import_module(whole)
        except (Exception, SystemExit) as error:
            raise ImportError(f"{whole}: {type(error).__name__}") from error
    return module if module is not None and is_own_module(whole) else None


def _is_users(name: str) -> bool:
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top in {"dspy", "dspy_cachectl"}:
        return False
    if top in sys.modules:
        return is_own_module(top)
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    places = [] if spec is None else [spec.origin] if spec.origin else [*(spec.submodule_search_locations or ())]
    return bool(places) and not any(is_installed(Path(place)) for place in places if place)
