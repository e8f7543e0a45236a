"""`wrap()`: an LM or a tool that one already has, made to obey the phase."""

from __future__ import annotations

import functools
import hashlib
import inspect
import types
from collections.abc import Callable
from typing import Any, TypeVar

import dspy

from dspy_cachectl.boundary.secrets import readable_name
from dspy_cachectl.calls import lm as lms
from dspy_cachectl.calls.installation import ensure_installed
from dspy_cachectl.entries.draws import UncacheableError, canonical
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.fingerprints.source_text import is_own, text_of_function
from dspy_cachectl.tools.governed import Governed

M = TypeVar("M")

_FILE = "<dspy_cachectl>"
"""Where a wrapped tool's own frame says that it is: an agent is told of it, and no line in there ever moves."""

_MARK = "__cachectl__"


def wrap(
    lm: M,
    *,
    role: str | None = None,
    endpoint: str | None = None,
    version: str | None = None,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
) -> M:
    """Return a copy of an LM, or of an agent's tool, that obeys the phase. What is given is left as it is.

    An LM's copy is an instance of the LM's own class. An LM with its own `forward` is not cached by DSPy: its calls
    are counted, and refused in a replay, but never served; a warning says so.

    What a wrapped tool returns is kept, served and replayed as an LM's answer is: in `compile` the same call is made
    once, in `eval` each is made anew, and in a replay none is. Wrap what looks something up, and never what acts: where
    its result is served it does nothing. What it returns is plain data; other values are passed through, and not kept.

    Args:
        lm: Any `dspy.BaseLM`: a `dspy.LM`, a `DummyLM`, somebody's subclass. Or a `dspy.Tool`, an MCP server's too, or
            a function, of which a `dspy.Tool` is made.
        role: As for `LM`; a tool without one goes by its name. None keeps what a wrapped one has, here and below.
        endpoint: See `LM`; of a tool, a name for the server that it asks.
        version: See `LM`; of a tool, what tells its results from those that it gave before. None: its own source does.
        requests_per_minute: See `LM`, also for the next one. A tool has no such limit.
        tokens_per_minute: See `LM`.

    Raises:
        ConfigurationError: If it is neither, or its class cannot be extended, or a name is empty.
    """
    given: dict[str, Any] = {"role": role, "endpoint": endpoint, "version": version}
    limits: dict[str, Any] = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
    if isinstance(lm, dspy.BaseLM):
        return lms.wrap(lm, **given, **limits)
    if not isinstance(lm, dspy.Tool) and not inspect.isroutine(lm):
        raise ConfigurationError(
            f"wrap() takes a dspy.BaseLM, a dspy.Tool or a function, not a {type(lm).__name__}; to make an LM, use "
            "cachectl.LM"
        )
    tool: Any = lm if isinstance(lm, dspy.Tool) else dspy.Tool(lm)
    for what, limit in limits.items():
        if limit is not None:
            raise ConfigurationError(f"{what} is for LMs, and {tool.name!r} is a tool")
    for what, name in given.items():
        if name is not None and not (isinstance(name, str) and name.strip()):
            raise ConfigurationError(f"{what} is a text that is not empty, not {name!r}")
    governed = getattr(tool.func, _MARK, None) or Governed(tool.func, str(tool.name), _said_of(tool), _code(tool.func))
    given = {what: readable_name(name) for what, name in given.items() if name is not None}
    governed = governed._replace(**given)
    ensure_installed()
    wrapped: Any = tool.model_copy(update={"func": _function(governed)})
    return wrapped  # type: ignore[no-any-return]


def _said_of(tool: Any) -> str:
    said = {"description": tool.desc, "parameters": {"properties": tool.args}}
    try:
        return canonical(said).decode()
    except UncacheableError:  # of a default that is no plain value
        return canonical({"description": tool.desc, "parameters": repr(sorted(tool.args))}).decode()


def _code(func: Any) -> str | None:
    """Return a hash of a tool's own source, where that is the user's: what it holds may change with each call."""
    func = inspect.unwrap(getattr(func, "func", func))
    func = getattr(func, "__func__", func)
    func = func if isinstance(func, types.FunctionType) else vars(type(func)).get("__call__")
    if not isinstance(func, types.FunctionType) or not is_own(func):
        return None
    return hashlib.sha256(text_of_function(func).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _function(governed: Governed) -> Callable[..., Any]:
    """Return what is called in a tool's place: a function as it is, with its name, its signature and its source."""

    def called(*args: Any, **kwargs: Any) -> Any:
        outcome = governed.run(args, kwargs)
        if outcome.error is not None:
            raise outcome.error
        return outcome.result

    async def awaited(*args: Any, **kwargs: Any) -> Any:
        outcome = await governed.arun(args, kwargs)
        if outcome.error is not None:
            raise outcome.error
        return outcome.result

    made: Any = awaited if _is_async(governed.func) else called
    made.__code__ = made.__code__.replace(co_filename=_FILE, co_name=governed.name, co_firstlineno=1)
    functools.update_wrapper(made, governed.func)
    setattr(made, _MARK, governed)
    return made  # type: ignore[no-any-return]


def _is_async(func: Any) -> bool:
    func = getattr(func, "func", func)  # of a `partial`
    return inspect.iscoroutinefunction(func) or inspect.iscoroutinefunction(getattr(func, "__call__", None))  # noqa: B004
