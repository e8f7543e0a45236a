"""An error of a tool is told alike when it is raised and when it is replayed."""

from __future__ import annotations

import builtins
import pickle
import traceback
from pathlib import Path
from typing import Any

import orjson
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.entries.values import dumps, loads
from dspy_cachectl.errors import CorruptEntryError
from dspy_cachectl.tools.outcomes import Outcome


class NotFoundError(KeyError):
    """An error of somebody's own, which says more than it was made of."""

    def __init__(self, what: str, where: object) -> None:
        super().__init__(what)
        self.where = where

    def __str__(self) -> str:
        return f"{self.args[0]} is not here"


def noted(error: Exception) -> Exception:
    """An error with a note, as Python 3.11 has them."""
    error.__dict__["__notes__"] = ["look elsewhere"]
    return error


def missing() -> Exception:
    """An error whose text suggests what was meant."""
    try:
        return [].appendd  # type: ignore[attr-defined,no-any-return]
    except AttributeError as error:
        return error


def several() -> list[Exception]:
    """Errors of several at once, as task groups raise them, where this Python has them."""
    group: Any = getattr(builtins, "ExceptionGroup", None)
    if group is None:
        return []
    own = type("OwnGroup", (group,), {})
    parts = [ValueError("no"), NotFoundError("key", 1), missing(), raised_from(), noted(KeyError("x"))]
    inner = group("inner", [ZeroDivisionError("inner")])
    return [group("some", parts), noted(group("nested", [inner, own("own", [inner])])), own("own", [raised_from()])]


def raised_from() -> Exception:
    """An error with lines and a cause of its own."""
    try:
        raise LookupError("here") from KeyError("there")  # noqa: TRY301
    except LookupError as error:
        return error


ERRORS: list[Any] = [
    ValueError("no"),
    KeyError("x"),
    OSError(2, "No such file", "a.txt"),
    ZeroDivisionError(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
    SyntaxError("bad", ("f.py", 1, 2, "1 +", 1, 3)),
    NotFoundError("key", object()),
    ValueError(object()),
    noted(ValueError("no")),
    missing(),
    StopIteration(3),
    *several(),
]


def told(error: BaseException) -> str:
    """What DSPy tells an agent, but for the lines that it came by."""
    return "".join(traceback.format_exception(type(error), error, None))


@pytest.mark.parametrize("raised", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_told_the_same(raised: Exception) -> None:
    """What an agent is told of an error is what it is told of the error that was kept, and of one that was pickled."""
    live = Outcome.failed("tool", raised)
    assert live.error is not None
    replayed = _replayed(live)
    assert replayed.error is not None
    assert told(live.error) == told(replayed.error)
    assert isinstance(replayed.error, type(raised).__mro__[type(raised).__module__ == __name__])
    assert told(live.error) == told(pickle.loads(pickle.dumps(replayed.error)))


def _replayed(outcome: Outcome) -> Outcome:
    data, tagged = dumps(outcome.stored())
    return Outcome.of(loads(data, tagged=tagged))


def test_an_error_of_ones_own_is_caught_as_pythons() -> None:
    """Live it is the error itself; replayed, what catches the one of Python's that it derives from catches it."""
    with pytest.raises(NotFoundError):
        raise Outcome.failed("tool", NotFoundError("key", 1)).error  # type: ignore[misc]
    replayed = _replayed(Outcome.failed("tool", NotFoundError("key", 1))).error
    assert isinstance(replayed, KeyError)
    assert "key is not here" == str(replayed)


def test_where_it_comes_from_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The tool's own lines are not told to the agent, and are in the log."""

    def broken() -> None:
        """Break."""
        raise ValueError("here") from KeyError("there")

    tool = cachectl.wrap(broken)
    with caplog.at_level("DEBUG", logger="dspy_cachectl"), pytest.raises(ValueError, match="here") as caught:
        tool()
    text = "".join(traceback.format_exception(caught.value))
    assert "there" not in text
    assert '"<dspy_cachectl>", line' in text
    assert "in broken" in text
    assert Path(__file__).name in caplog.text
    assert "there" in caplog.text


@pytest.mark.parametrize("base", [name for name, one in vars(builtins).items() if isinstance(one, type)])
def test_any_class_of_pythons_may_be_named(base: str) -> None:
    """Whatever class of Python's is named as what an error derives from, it is an exception that says its text."""
    for said in (
        {"type": "Own", "module": "mine", "args": (3,)},
        {"type": base, "module": "builtins", "args": ("no",)},
    ):
        error = Outcome.of({"error": {"base": base, "text": "no", **said}}).error
        assert isinstance(error, Exception)
        assert "no" == str(error)
        assert isinstance(pickle.loads(pickle.dumps(error)), Exception)


@pytest.mark.parametrize(
    "stored",
    [None, {}, [], {"error": "x"}, {"answer": 1}, {"error": {"type": "a\0b"}}, {"error": {"type": "\ud800"}}],
    ids=repr,
)
def test_what_is_no_outcome_is_damaged(stored: Any) -> None:
    """What a store holds under a tool's key and is none is damaged, and never a result."""
    with pytest.raises(CorruptEntryError):
        Outcome.of(stored)


@pytest.mark.parametrize(
    "said",
    [
        {"type": "SystemExit", "module": "builtins", "base": "SystemExit", "args": (0,), "text": "0"},
        {"type": "eval", "module": "builtins", "base": "eval", "args": ("1/0",), "text": ""},
        {"type": "Popen", "module": "subprocess", "base": "object", "text": "x"},
        {"type": 3, "args": 4, "notes": 5},
        {},
    ],
    ids=str,
)
def test_a_stored_name_makes_no_more_than_an_error(said: Any) -> None:
    """Whatever name a store says, it makes an ordinary exception, and runs and imports nothing."""
    error = Outcome.of(orjson.loads(orjson.dumps({"error": said}))).error
    assert isinstance(error, Exception)
    assert str(said.get("text", "")) == str(error)
