"""Values out of DSPy's own cache, which keeps pickles: unpickled where nothing can come of it.

A pickle runs what it names. Here it finds nothing to run: each name in it becomes a class that only keeps what it is
given, and the objects of LiteLLM's answers are then their fields. What a pickle can do without any name (a key that is
nested two million deep ends Python itself, a list that names itself again and again unfolds to terabytes) it does in a
process of its own, with limits of memory and time. What comes back from there is JSON.
"""

from __future__ import annotations

import base64
import contextlib
import io
import math
import multiprocessing
import pickle
import re
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import orjson

from dspy_cachectl.boundary.reading import LARGEST_VALUE, MB, parsed
from dspy_cachectl.entries.values import RESPONSE_CLASSES, Encoder, UnstorableError
from dspy_cachectl.errors import CorruptEntryError, StoreUnavailableError

LARGEST = LARGEST_VALUE
"""Up to so many bytes a pickle is looked at."""
MOST_MEMORY = 256 * MB
MOST_SECONDS = 5.0
_MOST_LOST = 15.0
"""For how many seconds values are tried that come to nothing: a folder may hold thousands that take long."""

_START = 120.0
_PACKAGES = ("litellm.types.", "openai.types.")
_NUMBERS = re.compile(r"[biufc]\d{1,2}")
_ARRAYS = {"numpy._core.numeric._frombuffer", "numpy.core.numeric._frombuffer"}


class RefusedPickleError(CorruptEntryError):
    """A pickle holds more than plain data and answers, is damaged, or asks for too much."""


class Unpickler(contextlib.AbstractContextManager["Unpickler"]):
    """Reads pickles in a process of its own, which is started anew where one has ended it. Not thread-safe.

    Args:
        seconds: How long one value may take.
        memory: How many bytes of memory that process may take for it, where the system can hold it to that.
    """

    def __init__(self, *, seconds: float = MOST_SECONDS, memory: int = MOST_MEMORY) -> None:
        self._seconds = seconds
        self._memory = memory
        self._lost = 0.0
        self._child: BaseProcess | None = None
        self._connection: Connection | None = None

    def __exit__(self, *_: object) -> None:
        self._stop()

    def read(self, data: bytes) -> Any:
        """Return the value that a pickle holds, in its stored form (see `values`).

        Raises:
            RefusedPickleError: If it is anything but plain data, the answers of LiteLLM and arrays of numbers; if it
                is damaged; or if reading it takes too much.
        """
        if len(data) > LARGEST:
            raise RefusedPickleError(f"the pickle has {len(data):,} bytes, more than {LARGEST:,}")
        if self._lost > _MOST_LOST:
            raise RefusedPickleError(f"those before it took {self._lost:.0f} s and came to nothing; it is not tried")
        started = time.monotonic()
        try:
            return self._read(data)
        except RefusedPickleError:
            self._lost += time.monotonic() - started
            raise

    def _read(self, data: bytes) -> Any:
        connection = self._connection or self._start()
        try:
            connection.send_bytes(data)
            reply = connection.recv_bytes() if connection.poll(self._seconds) else None
        except (EOFError, OSError) as error:
            self._stop()
            raise RefusedPickleError("reading the pickle ended the process that read it") from error
        if reply is None:
            self._stop()
            raise RefusedPickleError(f"reading the pickle took more than {self._seconds:g} s")
        if reply[:1] == _REFUSED:
            raise RefusedPickleError(reply[1:].decode())
        try:
            return parsed(reply[1:])
        except CorruptEntryError as error:
            raise RefusedPickleError(str(error)) from error

    def _start(self) -> Connection:
        # Spawned, not forked: what this process has open is nothing to a pickle.
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        self._child = context.Process(target=_serve, args=(theirs, self._memory), daemon=True)
        self._child.start()
        theirs.close()
        self._connection = mine
        with contextlib.suppress(EOFError):  # it ended at once
            if mine.poll(_START) and mine.recv_bytes() == _READY:
                return mine
        self._stop()
        raise StoreUnavailableError("the process that reads the pickles of DSPy's cache could not be started")

    def _stop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._child is not None:
            self._child.kill()
            self._child.join()
        self._connection = self._child = None


_READY, _READ, _REFUSED = b"ready", b"+", b"-"


def _serve(connection: Connection, memory: int) -> None:
    """Read pickles until nobody is there to send any."""
    _limit_memory(memory)
    connection.send_bytes(_READY)
    with contextlib.suppress(EOFError):
        while True:
            connection.send_bytes(_reply(connection.recv_bytes()))


def _limit_memory(wanted: int) -> None:
    # Windows has no such limit, and macOS does not keep it: there only the time is limited.
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        wanted += pages * resource.getpagesize()
        limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))


def _reply(data: bytes) -> bytes:
    try:
        written = orjson.dumps(_StoredForm().walk(_InertUnpickler(io.BytesIO(data)).load()))
        if len(written) > LARGEST_VALUE:
            return _REFUSED + f"it becomes {len(written):,} bytes, more than {LARGEST_VALUE:,}".encode()
        return _READ + written
    except UnstorableError as error:
        return _REFUSED + str(error).encode("utf-8", "backslashreplace")
    except Exception as error:  # noqa: BLE001 - whatever a pickle made of any bytes raises
        return _REFUSED + f"the pickle cannot be read: {error!r}".encode("utf-8", "backslashreplace")


class _Inert:
    """Stands for an object that a pickle asks for: it keeps what it was given, and does nothing with it."""

    named = ""
    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any) -> _Inert:
        made = super().__new__(cls)
        made.arguments, made.state = arguments, None
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _InertUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return type("_Named", (_Inert,), {"named": f"{module}.{name}"})


class _StoredForm(Encoder):
    """The stored form of what was unpickled."""

    def other(self, value: Any) -> Any:
        """Return the stored form of what is no JSON."""
        if not isinstance(value, _Inert):
            return super().other(value)
        if value.named in _ARRAYS:
            return self._array_of(*value.arguments)
        if not value.named.startswith(_PACKAGES) or not isinstance(value.state, dict):
            raise UnstorableError(f"the pickle asks for {value.named[:160]!r}, which is nothing of an answer")
        return self._object(value)

    def _object(self, value: _Inert) -> Any:
        fields = _fields(value)
        written = self.walk({name: item for name, item in fields.items() if not str(name).startswith("_")})
        module, _, kind = value.named.rpartition(".")
        if RESPONSE_CLASSES.get(kind) != module:
            return written
        # LiteLLM tells a field that was not given from one that was given as None.
        given = value.state.get("__pydantic_fields_set__") or ()
        written = {name: item for name, item in written.items() if item is not None or name in given}
        # Of the hidden parameters only the cost is kept: the rest holds headers and addresses.
        hidden = fields.get("_hidden_params")
        cost = (_fields(hidden) if isinstance(hidden, _Inert) else hidden or {}).get("response_cost")
        return self.tag("response", written, of=kind, cost=cost if isinstance(cost, float) else None)

    def _array_of(self, buffer: Any, dtype: Any, shape: Any, order: Any) -> Any:
        code, byte_order = dtype.arguments[0], dtype.state[1]
        in_a_row = order == "C" and _NUMBERS.fullmatch(code) and len(buffer) == int(code[1:]) * math.prod(shape)
        if not in_a_row:
            raise UnstorableError("the pickle makes an array in another way than its numbers in a row")
        return self.tag("array", base64.b64encode(buffer).decode(), dtype=f"{byte_order}{code}", shape=list(shape))


def _fields(value: _Inert) -> dict[Any, Any]:
    """Return the fields of an object of pydantic's, as it pickles them."""
    parts = (value.state.get(name) or {} for name in ("__dict__", "__pydantic_extra__", "__pydantic_private__"))
    return {name: item for part in parts for name, item in part.items()}
