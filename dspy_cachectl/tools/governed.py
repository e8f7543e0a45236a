"""One call of a tool on its way: to what is kept of it, or to the tool, and back.

What a tool returns is given to the program as it is kept: what a replay will give it. An error is kept where each call
is a draw of its own, in a run or in a cassette, since the agent went on with it; elsewhere the tool is tried again.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import inspect
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

from dspy_cachectl.accounting.ledger import Tally
from dspy_cachectl.calls.account import account_tool
from dspy_cachectl.calls.cache import ManagedCache
from dspy_cachectl.calls.call import Answered, Asked, Asking, Call, current_call
from dspy_cachectl.calls.flight import Flights, turn_of
from dspy_cachectl.calls.installation import installed
from dspy_cachectl.calls.opening import identify, ruling_here
from dspy_cachectl.context.process import state
from dspy_cachectl.context.ruling import in_tool
from dspy_cachectl.entries.decoded import Decoded
from dspy_cachectl.entries.draws import UncacheableError, canonical
from dspy_cachectl.entries.values import UnstorableError
from dspy_cachectl.errors import CachectlError, CacheMissError, StoreError
from dspy_cachectl.policy import Kind
from dspy_cachectl.tools.outcomes import Outcome

_FLIGHTS: Flights[Answered] = Flights()
"""The calls of tools in the air."""


class Governed(NamedTuple):
    """A tool that obeys the phase.

    Attributes:
        func: What it calls.
        name: Its name.
        said: What else tells it from others, as JSON: its description and its parameters.
        code: A hash of its own source; None where it is no code of the user's.
        role: What it is for, or None: its name says it then.
        endpoint: The user's name for where it is served, or None.
        version: The user's name for its version, or None.
    """

    func: Callable[..., Any]
    name: str
    said: str
    code: str | None = None
    role: str | None = None
    endpoint: str | None = None
    version: str | None = None

    def opened(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Decide what is done for a call."""
        ruling = ruling_here()
        policy = ruling.context.policy_for(self.role or self.name)
        decision = ruling.decide(policy, Kind.TOOL, self.name)
        arguments = self._arguments(args, kwargs)
        request = {"tool": self.name, **orjson.loads(self.said), "arguments": arguments}
        if ruling.cassette is not None:
            ruling.cassette.clean.learn(arguments)
        elif self.code is not None and self.version is None:
            request["code"] = self.code
        asked = Asked(
            Kind.TOOL,
            self.name,
            ruling,
            policy,
            decision,
            role=self.role,
            endpoint=self.endpoint,
            version=self.version,
        )
        try:
            identify(asked, {**request, "arguments": _plain(arguments)}, by_litellm=False)
        except (UncacheableError, RecursionError) as error:
            self._say_unkept(f"its arguments have no canonical form: {error}")
        return Call(asked, parent=current_call(), tally=Tally())

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return what it is called with, by name."""
        if not args:
            return kwargs
        try:
            return dict(inspect.signature(self.func).bind_partial(*args, **kwargs).arguments)
        except (TypeError, ValueError):  # it will say so itself
            return {"args": args, **kwargs}

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
        """Return what a call comes to."""
        cache = installed()
        if cache is None:
            return self._called(args, kwargs)
        call = self.opened(args, kwargs)

        def ask(handed: Answered | None) -> Outcome:
            with Asking(call, None, handed):
                found = _found(cache, call)
                if found is None:
                    with in_tool(call.key):
                        found = self._called(args, kwargs)
                    found = self._kept(cache, call, found)
                return found

        with _Counted(call):
            if _goes_alone(cache, call):
                return ask(None)
            return _FLIGHTS.run(call.key or "", ask, lambda: call.shared, turn_of(call, cache))

    async def arun(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
        """Return what a call of a coroutine function comes to."""
        cache = installed()
        if cache is None:
            return await self._awaited(args, kwargs)
        call = self.opened(args, kwargs)

        async def ask(handed: Answered | None) -> Outcome:
            with Asking(call, None, handed):
                found: Outcome | None = await _elsewhere(call, _found, cache, call)
                if found is None:
                    with in_tool(call.key):
                        found = await self._awaited(args, kwargs)
                    found = await _elsewhere(call, self._kept, cache, call, found)
                return found

        with _Counted(call):
            if _goes_alone(cache, call):
                return await ask(None)
            turn = turn_of(call, cache, by_thread=False)
            return await _FLIGHTS.run_async(call.key or "", ask, lambda: call.shared, turn)

    def _called(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Outcome:
        try:
            return Outcome(self.func(*args, **kwargs))
        except CachectlError as error:
            return Outcome(error=error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the agent is told of it
            return Outcome.failed(self.name, error)

    async def _awaited(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Outcome:
        try:
            return Outcome(await self.func(*args, **kwargs))
        except CachectlError as error:
            return Outcome(error=error)
        except Exception as error:  # noqa: BLE001 - as above
            return Outcome.failed(self.name, error)

    def _kept(self, cache: ManagedCache, call: Call, outcome: Outcome) -> Outcome:
        """Count a call that the tool answered, and keep what it came to. Return that as it is kept."""
        call.tally.tool_calls_made += 1
        call.tally.tool_calls_failed += outcome.error is not None
        cassette, decision = call.asked.ruling.cassette, call.asked.decision
        if isinstance(outcome.error, CachectlError) or not (outcome.error is None or decision.from_run):
            return outcome
        before = 0 if cassette is None else len(cassette.unkept)
        cache.keep(call, outcome.stored())
        if call.answered.instead is not None:
            return Outcome.of(call.answered.instead)
        if call.answered.entry is not None:
            if cassette is not None:
                cassette.forget_within(call.key or "")
            kept = Outcome.of(Decoded(call.answered.entry).answer())
            return outcome if outcome.error is not None and outcome.says_the_same(kept) else kept
        if decision.stores and cassette is not None and len(cassette.unkept) == before:
            lacks = "was called with has no canonical form" if call.key is None else "returned has no stored form"
            cassette.unkept.append(UnstorableError(f"what the tool {self.name!r} {lacks}"))
        return outcome

    def _say_unkept(self, why: str) -> None:
        state.say_once(f"tool:{self.name}", f"what the tool {self.name!r} returns is not kept: {why}")


def _plain(value: Any) -> Any:
    """Return an argument as JSON tells it: of bytes, which may hold a secret, a hash, and sets in one order."""
    if isinstance(value, (bytes, bytearray)):
        return {"$": "bytes", "sha256": hashlib.sha256(value).hexdigest()}
    if isinstance(value, Decimal):
        return {"$": "decimal", "v": str(value)}
    if isinstance(value, (set, frozenset)):
        return {"$": "set", "v": sorted(map(_plain, value), key=canonical)}
    if type(value) in {list, tuple}:
        return [*map(_plain, value)]
    return {name: _plain(one) for name, one in value.items()} if type(value) is dict else value


class _Counted:
    """A block that a call of a tool ends with: it is counted then, however it ended."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def __enter__(self) -> None:
        """Nothing is known yet."""

    def __exit__(self, *_: object) -> None:
        """Count it."""
        account_tool(self._call)


def _found(cache: ManagedCache, call: Call) -> Outcome | None:
    """Return what is kept of a call; or the error that a replay has nothing; None where the tool is to be called."""
    try:
        entry = cache.look_up(call, lambda: (dict(call.asked.request or {}), None))
        found = None if entry is None else Outcome.of(entry.answer())
    except CacheMissError as miss:
        call.tally.missed += 1
        return Outcome(error=miss)
    except StoreError as error:
        cache.note_fault("read", error, call)
        return Outcome(error=call.miss(str(error))) if call.asked.decision.raises else None
    call.tally.tool_calls_served += found is not None
    return found


def _goes_alone(cache: ManagedCache, call: Call) -> bool:
    if not call.coalesces:
        return True
    return call.asked.ruling.cassette is None and not cache.tiers.stores


async def _elsewhere(call: Call, work: Callable[..., Any], *args: Any) -> Any:
    """Do what may wait for a disk in another thread; a cassette is in memory."""
    if call.asked.ruling.cassette is not None:
        return work(*args)
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(None, context.run, work, *args)
