"""What a tool came to, as plain data and back: a result, or an error by its name and its text.

Nothing is imported or run because its name was stored. Of Python's own errors there is the very class again; of any
other one that has its name and derives from the first of Python's own that it derived from.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import sys
import traceback
from collections.abc import Mapping
from typing import Any, NamedTuple

from dspy_cachectl.boundary.shown import logger_for
from dspy_cachectl.entries.values import UnstorableError, dumps
from dspy_cachectl.errors import CorruptEntryError

_RESULT, _ERROR = "result", "error"

_logger = logger_for("dspy_cachectl")


class Outcome(NamedTuple):
    """What a tool came to: its result, or else the error that it raised."""

    result: Any = None
    error: BaseException | None = None

    def stored(self) -> dict[str, Any]:
        """Return what is kept of it."""
        return {_RESULT: self.result} if self.error is None else {_ERROR: _described(self.error)}

    def says_the_same(self, other: Outcome) -> bool:
        """Tell whether an agent is told the same of two errors."""
        errors = [each.error for each in (self, other) if each.error is not None]
        return len({"".join(traceback.format_exception(type(error), error, None)) for error in errors}) == 1

    @classmethod
    def of(cls, stored: Any) -> Outcome:
        """Return the outcome that was kept.

        Raises:
            CorruptEntryError: If what is stored is none.
        """
        if isinstance(stored, Mapping) and _RESULT in stored:
            return cls(stored[_RESULT])
        if isinstance(stored, Mapping) and isinstance(stored.get(_ERROR), Mapping):
            with contextlib.suppress(ValueError, TypeError, RecursionError):  # of a name that no class can have
                return cls(error=_raised(stored[_ERROR]))
        raise CorruptEntryError("the entry holds neither a tool's result nor its error")

    @classmethod
    def failed(cls, name: str, error: Exception) -> Outcome:
        """Return an error as it is told in every phase: without the tool's own lines and what it came from.

        An agent is told of them, and asks with it: what it asks would be tied to the very lines of a file. The log has
        them, for who looks for the fault.
        """
        _logger.debug("the tool %r failed", name, exc_info=error)
        return cls(error=_told(error))


def _told(error: BaseException) -> BaseException:
    if _is_pythons(error):
        return _raised(_described(error))
    parts = _parts_of(error)
    if parts and type(error) is _group():
        again: BaseException = type(error)(error.message, [*map(_told, parts)])  # type: ignore[attr-defined]
        again.__dict__.update(vars(error))
        return again
    return _bare(error)


def _bare(error: BaseException) -> BaseException:
    for part in _parts_of(error):
        _bare(part)
    error.__cause__ = error.__context__ = error.__traceback__ = None
    return error


def _group() -> Any:
    """Return the class of several errors in one, as task groups raise it; None where there is none."""
    found = getattr(builtins, "ExceptionGroup", None)  # from Python 3.11 on
    return found or getattr(sys.modules.get("exceptiongroup"), "ExceptionGroup", None)


def _parts_of(error: BaseException) -> tuple[BaseException, ...]:
    group = _group()
    return error.exceptions if group is not None and isinstance(error, group) else ()


def _described(error: BaseException) -> dict[str, Any]:
    kind = type(error)
    said: dict[str, Any] = {
        "type": kind.__qualname__,
        "module": kind.__module__,
        "base": next(base.__name__ for base in kind.__mro__ if _pythons(base.__name__) is base),
        "text": _text(error),
    }
    if parts := _parts_of(error):
        said |= {"message": str(error.message), "parts": [*map(_described, parts)]}  # type: ignore[attr-defined]
    notes = [note for note in getattr(error, "__notes__", ()) if isinstance(note, str)]
    if notes:
        said["notes"] = notes
    try:
        # As it would be pickled: of some errors not all that they were made of is in their `args`.
        made_of = error.__reduce__()[1] if _is_pythons(error) else error.args
        dumps(made_of)
        said["args"] = made_of
    except (UnstorableError, TypeError, IndexError):
        pass
    return said


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - what it says of itself is anybody's code
        return "<exception str() failed>"  # as Python says it


def _raised(said: Mapping[str, Any]) -> BaseException:
    names = {name: str(said.get(name, "")) for name in ("type", "module", "base", "text")}
    args, parts = said.get("args"), said.get("parts")
    error = None
    if isinstance(parts, list) and (group := _group()) is not None:
        is_own = (names["type"], names["module"]) != (group.__qualname__, group.__module__)
        kind = _kind(names["type"], names["module"], "", group) if is_own else group
        error = kind(str(said.get("message")), [_raised(part) for part in parts if isinstance(part, Mapping)])
        error.__dict__["_said"] = names["text"]
    elif names["module"] == "builtins" and isinstance(args, tuple):
        error = _again(names["type"], args)
    if error is None or _text(error) != names["text"]:
        kind = _kind(names["type"], names["module"], names["base"])
        error = kind.__new__(kind)
        error.args = args if isinstance(args, tuple) else (names["text"],)
        error.__dict__["_said"] = names["text"]
    notes = said.get("notes")
    if isinstance(notes, list) and notes:
        error.__dict__["__notes__"] = [str(note) for note in notes]
    return error


def _is_pythons(error: BaseException) -> bool:
    return _pythons(type(error).__name__) is type(error)


def _again(name: str, args: tuple[Any, ...]) -> BaseException | None:
    kind = _pythons(name)
    try:
        return None if kind is None else kind(*args)
    except Exception:  # noqa: BLE001 - it was made of something else
        return None


def _pythons(name: str) -> type[Exception] | None:
    """Return an error of Python's own by its name; None for what is none, or ends more than the tool."""
    kind = getattr(builtins, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)) or name.endswith("Group"):
        return None
    return kind


@functools.lru_cache(maxsize=256)
def _kind(name: str, module: str, base: str, group: type[BaseException] | None = None) -> type[BaseException]:
    """Return a class that is told and caught as the one that was raised, as far as it is Python's."""
    body = {"__module__": module, "__str__": _said, "__reduce__": _reduced}
    kind = type(name.rpartition(".")[2] or "Exception", (group or _pythons(base) or Exception,), body)
    kind.__qualname__ = name
    return kind


def _said(error: BaseException) -> str:
    return str(vars(error).get("_said", ""))


def _reduced(error: BaseException) -> tuple[Any, ...]:
    return _raised, (_described(error),)
