"""What code does, as text: the source of classes and functions, and what they reach in their own modules.

A method that calls a helper changes when the helper does, so functions, classes and constants that the code
names are followed through its globals as long as they are the user's own. Installed packages are not followed.
"""

from __future__ import annotations

import ast
import builtins
import dis
import functools
import hashlib
import inspect
import site
import sys
import sysconfig
import textwrap
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dspy_cachectl.entries.secrets import is_secret_name
from dspy_cachectl.fingerprints import canonical

_FOLLOW_AT_MOST = 500
_PLAIN = (str, bytes, int, float, bool, complex, type(None))


def class_source(kind: type) -> str:
    """Return what a class does: its normalised source, and what its methods reach."""
    seen: set[Any] = set()
    return _hash([*_of_class(kind, seen)])


def function_source(function: Callable[..., Any], *, containers: bool = False) -> str:
    """Return what a function does: its source, its defaults, what it closes over and what it reaches.

    Args:
        function: A function, method, lambda, `functools.partial`, or object with `__call__`.
        containers: Whether lists and dictionaries that it closes over count too. Programs that keep a tally
            in one would otherwise change while they run.
    """
    seen: set[Any] = set()
    return _hash([*_of_callable(function, seen, containers=containers)])


def object_source(value: Any) -> str:
    """Return what an object of an unknown class is: its class, the source of that, and its plain attributes."""
    seen: set[Any] = set()
    return _hash([*_of_object(value, seen, depth=0)])


def is_own(kind: Any) -> bool:
    """Tell whether code is the user's: not Python's, and not an installed package's."""
    module = getattr(kind, "__module__", None)
    if module is None or module.split(".")[0] in {"builtins", "dspy", "dspy_cachectl"}:
        return False
    return _is_own_module(module)


def plain_attributes(value: Any, *, skip: frozenset[str] = frozenset(), private: bool = True) -> dict[str, Any]:
    """Return the attributes of an object that are plain data, without secrets."""
    held = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if slot not in {"__dict__", "__weakref__"} and hasattr(value, slot):
                held[slot] = getattr(value, slot)
    found = {}
    for name, item in held.items():
        if name in skip or is_secret_name(name) or (name.startswith("_") and not private):
            continue
        try:
            canonical.text(item)
        except canonical.UnstableError:
            continue
        found[name] = item
    return found


@functools.lru_cache(maxsize=4096)
def _is_own_module(name: str) -> bool:
    if name == "__main__":
        return True
    module = sys.modules.get(name)
    if module is None:
        return True
    file = getattr(module, "__file__", None)
    if file is None:
        return False  # built in, or a namespace
    path = Path(file).resolve()
    return not any(path.is_relative_to(folder) for folder in _INSTALLED)


def _installed() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    folders = {paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"]}
    folders.update(site.getsitepackages() if hasattr(site, "getsitepackages") else ())
    return tuple(Path(folder).resolve() for folder in folders if folder)


_INSTALLED = _installed()


def _hash(parts: list[str]) -> str:
    return hashlib.sha256("\x1e".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _of_class(kind: type, seen: set[Any]) -> Iterator[str]:
    if kind in seen:
        return
    seen.add(kind)
    yield canonical.type_name(kind)
    functions = [*_functions_of(kind)]
    text = _text_of(kind)
    if text is not None:
        yield text
    else:
        for function in functions:
            yield f"{function.__name__}: {_text_of(function) or _code(function.__code__)}"
        yield _dumped({name: item for name, item in vars(kind).items() if not name.startswith("__")})
    for function in functions:
        yield from _reached(function, seen)


def _functions_of(kind: type) -> Iterator[types.FunctionType]:
    for item in vars(kind).values():
        candidates = (item.fget, item.fset) if isinstance(item, property) else (getattr(item, "__func__", item),)
        for candidate in candidates:
            function = inspect.unwrap(candidate) if callable(candidate) else None
            if isinstance(function, types.FunctionType):
                yield function


def _of_callable(function: Any, seen: set[Any], *, containers: bool) -> Iterator[str]:
    if isinstance(function, functools.partial):
        yield "partial"
        yield _dumped([list(function.args), dict(function.keywords)])
        yield from _of_callable(function.func, seen, containers=containers)
        return
    if isinstance(function, types.MethodType):
        yield from _of_callable(function.__func__, seen, containers=containers)
        yield from _of_object(function.__self__, seen, depth=0)
        return
    if isinstance(function, type):
        yield from _of_class(function, seen)
        return
    while hasattr(function, "__wrapped__"):
        # What a decorator closes over counts as much as what it wraps.
        if isinstance(function, types.FunctionType):
            yield from _of_function(function, seen, containers=containers)
        function = function.__wrapped__
    if isinstance(function, types.FunctionType):
        yield from _of_function(function, seen, containers=containers)
    elif isinstance(function, types.BuiltinFunctionType):
        yield f"{function.__module__}.{function.__qualname__}"
    else:
        yield from _of_object(function, seen, depth=0)


def _of_function(function: types.FunctionType, seen: set[Any], *, containers: bool) -> Iterator[str]:
    if function in seen:
        return
    seen.add(function)
    yield canonical.type_name(function)
    text = _text_of(function)
    if text is not None:
        yield text
    if text is None or function.__name__ == "<lambda>":
        # Two lambdas on one line have the same source.
        yield _code(function.__code__)
    yield _dumped([list(function.__defaults__ or ()), function.__kwdefaults__ or {}])
    yield from _closed_over(function, seen, containers=containers)
    yield from _reached(function, seen)


def _closed_over(function: types.FunctionType, seen: set[Any], *, containers: bool) -> Iterator[str]:
    counted = _stored_names(function.__code__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if name in counted or name == "__class__":
            continue
        try:
            held = cell.cell_contents
        except ValueError:
            continue  # not bound yet
        yield from _held(name, held, seen, containers=containers)


def _reached(function: types.FunctionType, seen: set[Any]) -> Iterator[str]:
    if len(seen) > _FOLLOW_AT_MOST:
        return
    names = _names(function.__code__)
    counted = _stored_names(function.__code__)
    space = function.__globals__
    for name in sorted(names - counted):
        if name in space and not hasattr(builtins, name):
            held = space[name]
            if function.__name__ == "__init__" and _is_signature(held):
                continue  # what it is used for is in the object, and perhaps tuned there
            if isinstance(held, types.ModuleType):
                yield from _of_module(held, names, seen)
            else:
                yield from _held(name, held, seen, containers=name.isupper() and not name.startswith("_"))


def _of_module(module: types.ModuleType, names: set[str], seen: set[Any]) -> Iterator[str]:
    if not _is_own_module(module.__name__):
        return
    for name in sorted(names & vars(module).keys()):
        held = vars(module)[name]
        if not isinstance(held, types.ModuleType):
            yield from _held(f"{module.__name__}.{name}", held, seen, containers=False)


def _held(name: str, held: Any, seen: set[Any], *, containers: bool) -> Iterator[str]:
    if isinstance(held, (types.FunctionType, types.MethodType, functools.partial)):
        if is_own(getattr(held, "func", held)):
            yield f"{name}:"
            yield from _of_callable(held, seen, containers=False)
    elif isinstance(held, type):
        if is_own(held):
            yield f"{name}:"
            yield from _of_class(held, seen)
    elif (known := _of_dspy(held)) is not None:
        yield f"{name}={known}"
    elif not is_secret_name(name) and (_is_constant(held) or (containers and _is_plain(held))):
        yield f"{name}={_dumped(held)}"


def _of_object(value: Any, seen: set[Any], *, depth: int) -> Iterator[str]:
    kind = type(value)
    yield canonical.type_name(kind)
    if isinstance(value, types.ModuleType):
        return
    if (known := _of_dspy(value)) is not None:
        yield known
        return
    for base in kind.__mro__:
        if is_own(base):
            yield from _of_class(base, seen)
    yield _dumped(plain_attributes(value, private=False))
    if depth < 3:
        for name, item in sorted(getattr(value, "__dict__", {}).items()):
            if (known := _of_dspy(item)) is not None:
                yield f"{name}={known}"
            elif not name.startswith("_") and is_own(type(item)) and not isinstance(item, type):
                yield name
                yield from _of_object(item, seen, depth=depth + 1)
            elif isinstance(item, types.FunctionType) and is_own(item):
                yield name
                yield from _of_function(item, seen, containers=False)


_UNDER_WAY = threading.local()


def _of_dspy(value: Any) -> str | None:
    """Return what tells a DSPy program or LM from others; None for anything else."""
    dspy = sys.modules.get("dspy")
    if dspy is None or isinstance(value, type) or not isinstance(value, (dspy.Module, dspy.BaseLM)):
        return None
    under_way: set[int] = _UNDER_WAY.__dict__.setdefault("objects", set())
    if id(value) in under_way:
        return "itself"
    under_way.add(id(value))
    try:
        if isinstance(value, dspy.BaseLM):
            from dspy_cachectl.fingerprints.models import generation_config, model_identity

            return canonical.text([model_identity(value).as_dict(), generation_config(value)])
        from dspy_cachectl.fingerprints.programs import program_fingerprint

        return program_fingerprint(value).hash
    finally:
        under_way.discard(id(value))


def _is_signature(value: Any) -> bool:
    dspy = sys.modules.get("dspy")
    return dspy is not None and isinstance(value, type) and issubclass(value, dspy.Signature)


def _is_constant(value: Any) -> bool:
    if isinstance(value, (tuple, frozenset)):
        return all(_is_constant(item) for item in value)
    return isinstance(value, _PLAIN)


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_constant(key) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, set, tuple)):
        return all(_is_plain(item) for item in value)
    return _is_constant(value)


def _dumped(value: Any) -> str:
    return canonical.text(value, fallback=lambda other, _path: f"<{canonical.type_name(type(other))}>")


def _text_of(code: Any) -> str | None:
    try:
        source = textwrap.dedent(inspect.getsource(code))
    except (OSError, TypeError, IndentationError, SyntaxError):
        return None
    try:
        # Without comments and layout: a reformatted program is the same program.
        return ast.unparse(ast.parse(source))
    except (SyntaxError, ValueError, RecursionError):
        return source  # a lambda's lines need not be a statement


def _code(code: types.CodeType) -> str:
    constants = [_code(item) if isinstance(item, types.CodeType) else _constant(item) for item in code.co_consts]
    return repr((code.co_code.hex(), constants, code.co_names, code.co_varnames, code.co_freevars))


def _constant(value: Any) -> str:
    # A set in the code has no order of its own.
    return repr(sorted(map(_constant, value))) if isinstance(value, frozenset) else repr(value)


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for item in code.co_consts:
        if isinstance(item, types.CodeType):
            yield from _nested(item)


def _names(code: types.CodeType) -> set[str]:
    return {name for one in _nested(code) for name in one.co_names}


def _stored_names(code: types.CodeType) -> set[str]:
    """Return the outer names that the code itself sets: counters and caches, not constants."""
    stores = {"STORE_GLOBAL", "STORE_DEREF", "DELETE_GLOBAL", "DELETE_DEREF"}
    return {
        instruction.argval
        for one in _nested(code)
        for instruction in dis.get_instructions(one)
        if instruction.opname in stores
    }
