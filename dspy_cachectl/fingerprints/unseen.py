"""What code reads that is not in it: files, environment variables, databases, the network.

A fingerprint holds what code says, and the values that it reaches. What it reads while it runs may change under one
fingerprint. It is found by the names that the code uses, resolved as Python would: only the user's own code is looked
at, and what an `__init__` reads is in the object that it made.
"""

from __future__ import annotations

import builtins
import dis
import io
import itertools
import mmap
import os
import re
import socket
import sqlite3
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from dspy_cachectl.boundary.secrets import is_secret_name
from dspy_cachectl.fingerprints.canonical import type_name
from dspy_cachectl.fingerprints.changes import changes_in
from dspy_cachectl.fingerprints.code import CALLED, Walk
from dspy_cachectl.fingerprints.kinds import name_of
from dspy_cachectl.fingerprints.modules import class_parts, lms_of, module_parts, sub_modules
from dspy_cachectl.fingerprints.source_text import MAKING, is_own, is_own_module, nested_code

_FILE, _VARIABLE, _DATABASE, _NETWORK = "a file", "the environment", "a database", "the network"
_READERS: dict[str, str] = {
    **dict.fromkeys(("io.open", "os.open", "codecs.open", "gzip.open", "bz2.open", "lzma.open"), _FILE),
    **dict.fromkeys(("numpy.load", "numpy.loadtxt", "numpy.genfromtxt", "joblib.load", "torch.load"), _FILE),
    **dict.fromkeys(("linecache.getline", "linecache.getlines", "shelve.open"), _FILE),
    **dict.fromkeys(("os.getenv", "os.environ", "os.environb", "os.getenvb"), _VARIABLE),
    **dict.fromkeys(
        ("sqlite3.connect", "dbm.open", "duckdb.connect", "psycopg.connect", "psycopg2.connect"), _DATABASE
    ),
    **dict.fromkeys(("pymongo.MongoClient", "redis.Redis", "redis.from_url", "sqlalchemy.create_engine"), _DATABASE),
    **dict.fromkeys(("socket.socket", "socket.create_connection", "urllib.request.urlopen"), _NETWORK),
    **dict.fromkeys(("http.client.HTTPConnection", "http.client.HTTPSConnection", "aiohttp.ClientSession"), _NETWORK),
    **{
        f"{package}.{name}": _NETWORK
        for package in ("requests", "httpx")
        for name in ("get", "post", "request", "stream", "Session", "Client", "AsyncClient")
    },
}
"""What reads, by the name under which a module has it."""
_READS = re.compile(r"(?:pandas|polars|pyarrow\.\w+)\.(?:read|scan)_\w+")
_METHODS = frozenset({"read_text", "read_bytes"})
"""Methods that read, whatever they are called on: of a path, or of a package's resource."""
_HOLDERS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((io.FileIO, io.BufferedIOBase, io.TextIOWrapper, mmap.mmap), _FILE),
    (sqlite3.Connection, _DATABASE),
    (socket.socket, _NETWORK),
)
_HELD = tuple(kind for kinds, _ in _HOLDERS for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
_IN_MEMORY = (io.BytesIO, io.StringIO)
_WRITES = re.compile(r"[wax][bt]*")
_ENCODING = re.compile(
    r"(?i)|\n|\r\n|utf.?(8|16|32).*|ascii|latin.?1|cp\d+|iso-.*|strict|ignore|replace|\w+replace|surrogate\w+"
)
_GLOBALS = frozenset({"LOAD_GLOBAL", "LOAD_NAME"})
_CELLS = frozenset({"LOAD_DEREF", "LOAD_CLASSDEREF"})
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_ENDS = frozenset({"POP_TOP", "RETURN_VALUE", "BEFORE_WITH", "SETUP_WITH", "LOAD_SPECIAL", "STORE_FAST", "STORE_DEREF"})
_NOT_FOUND = object()


def unseen_by(value: Any) -> tuple[str, ...]:
    """Return what a program or a metric reads that its fingerprint does not hold, in words, each place once.

    Args:
        value: A `dspy.Module`, or anything callable.
    """
    import dspy

    looking = _Looking()
    if isinstance(value, dspy.Module):
        modules = {id(module): module for _, module in sub_modules(value)}
        used = CALLED.union(*(looking.tallies.of_object(module, CALLED) for module in modules.values()))
        for _, part in (*module_parts(value, looking.tallies.names_of), *class_parts(type(value))):
            looking.text_of_part(part, "", modules, used)
        for _, lm in lms_of(value):
            looking.digest(lm)
    else:
        looking.digest(value)
    return tuple(looking.found)


class _Looking(Walk):
    """The walk that makes fingerprints, which notes on its way what the code reads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, None] = {}
        self._looked_at: set[int] = set()

    def _reached(self, function: types.FunctionType) -> Iterator[str]:
        if function.__name__ in MAKING:
            return
        if is_own(function):
            name = function.__qualname__.rpartition("<locals>.")[2]
            for what, how in _reads(function):
                self.found[f"{name}() reads {what} ({how})"] = None
            if changes_in(function.__code__).looks_up:
                self.found[f"{name}() looks up by name what it uses"] = None
        yield from super()._reached(function)

    def _held(self, name: str, held: Any, used: frozenset[str]) -> Iterator[str]:
        self._look_at(name, held)
        yield from super()._held(name, held, used)

    def _object(self, value: Any, used: frozenset[str]) -> Iterator[str]:
        self._look_at("an attribute", value)
        if not isinstance(value, _HELD) or isinstance(value, _IN_MEMORY):
            yield from super()._object(value, used)

    def cannot_see(self, said: str, kind: str, why: str = "") -> None:  # noqa: ARG002 - here it is said
        self.found[said] = None

    def _look_at(self, name: str, held: Any) -> None:
        if id(held) in self._looked_at:
            return
        self._looked_at.add(id(held))  # it lives as long as what holds it
        what = next((what for kinds, what in _HOLDERS if isinstance(held, kinds)), None)
        if what is not None and not isinstance(held, _IN_MEMORY):
            self.found[f"{name} is {what} ({type_name(type(held))})"] = None
        elif isinstance(held, types.BuiltinFunctionType) and held.__module__ and is_own_module(held.__module__):
            self.found[f"{name_of(held)}() has no source in Python"] = None


def _reads(function: types.FunctionType) -> Iterator[tuple[str, str]]:
    """Yield what a function reads, and by what."""
    for code in nested_code(function.__code__):
        instructions = [one for one in dis.get_instructions(code) if one.opname not in {"CACHE", "PUSH_NULL", "NOP"}]
        imported = dict(_imported(instructions))
        held = [_held_by(function, imported, one) for one in instructions]
        names_path = any(map(_is_path, held))
        for index, one in enumerate(instructions):
            rest = instructions[index + 1 :]
            if one.opname in _ATTRIBUTES:
                if one.argval in _METHODS or (one.argval == "open" and names_path and not _writes(rest)):
                    yield _FILE, f".{one.argval}"
            elif held[index] is not _NOT_FOUND:
                yield from _read_by(held[index], rest)


def _imported(instructions: Sequence[dis.Instruction]) -> Iterator[tuple[str, Any]]:
    """Yield what a function imports, by the name that it gives it: it may never have run in this process."""
    module: Any = None
    for one, following in itertools.pairwise(instructions):
        if one.opname == "IMPORT_NAME":
            module = _module(one.argval)
            yield str(following.argval), _module(one.argval.partition(".")[0])
        elif one.opname == "IMPORT_FROM":
            stub = types.SimpleNamespace(__module__=module.__name__, __qualname__=one.argval)
            yield str(following.argval), getattr(module, one.argval, stub)


def _module(name: str) -> types.ModuleType:
    return sys.modules.get(name) or types.ModuleType(name)


def _held_by(function: types.FunctionType, imported: Mapping[str, Any], instruction: dis.Instruction) -> Any:
    """Return what code loads by a name from outside, or from an import of its own."""
    name, code = instruction.argval, instruction.opname
    if code in _GLOBALS:
        return function.__globals__.get(name, getattr(builtins, name, _NOT_FOUND))
    if code.startswith("LOAD_FAST"):  # two at once from Python 3.13 on
        return imported.get(name[-1] if isinstance(name, tuple) else name, _NOT_FOUND)
    if code not in _CELLS:
        return _NOT_FOUND
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    try:
        return cells[name].cell_contents
    except (KeyError, ValueError):  # of a function within, or not bound yet
        return _NOT_FOUND


def _read_by(held: Any, rest: Sequence[dis.Instruction]) -> Iterator[tuple[str, str]]:
    """Yield what is read by an object that code names, or by what it takes from that module."""
    name = _known(held)
    while name is None and isinstance(held, types.ModuleType) and rest and rest[0].opname in _ATTRIBUTES:
        path = f"{held.__name__}.{rest[0].argval}"
        held, rest = vars(held).get(rest[0].argval, _NOT_FOUND), rest[1:]
        name = path if path in _READERS or _READS.fullmatch(path) else _known(held)
    if name is None:
        return
    what = _READERS.get(name, _FILE)
    # A key decides nothing of what is answered.
    is_key = what == _VARIABLE and any(map(is_secret_name, _texts_of_call(rest)))
    if not is_key and not (what == _FILE and _writes(rest)):
        yield what, name.removeprefix("io.")


def _is_path(held: Any) -> bool:
    return isinstance(held, PurePath) or (isinstance(held, type) and issubclass(held, PurePath))


def _writes(rest: Sequence[dis.Instruction]) -> bool:
    # The mode stands after the name, and how the text is encoded after that.
    texts = [text for text in _texts_of_call(rest) if not _ENCODING.fullmatch(text)]
    return bool(texts and _WRITES.fullmatch(texts[-1]))


def _texts_of_call(rest: Sequence[dis.Instruction]) -> Iterator[str]:
    for one in rest:
        if one.opname in _ENDS:
            return
        if isinstance(one.argval, str) and one.opname.startswith("LOAD_CONST"):
            yield one.argval


def _known(held: Any) -> str | None:
    """Return the name of something that reads, wherever it was imported from."""
    if held is os.environ:
        return "os.environ"
    module, name = getattr(held, "__module__", None), getattr(held, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    # C code and packages say of their parts that they are of a module within.
    for path in (f"{module}.{name}", f"{module.lstrip('_')}.{name}", f"{module.partition('.')[0].lstrip('_')}.{name}"):
        if path in _READERS or _READS.fullmatch(path):
            return path
    return None
