"""Tools whose world changes: each call has another result, and counts itself."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import dspy
import mcp
from mcp.server import mcpserver


class World:
    """What tools look at: another thing each time.

    Attributes:
        calls: How often it was looked at.
        fails: Which looks fail, by their number from 1.
    """

    def __init__(self, *fails: int) -> None:
        self.calls = 0
        self.fails = frozenset(fails)

    def look(self, city: str) -> str:
        """Look at the weather of a city."""
        self.calls += 1
        if self.calls in self.fails:
            raise LookupError(f"no weather in {city} at look {self.calls}")
        return f"{city}: {self.calls} degrees"

    async def alook(self, city: str) -> str:
        """Look at the weather of a city."""
        await asyncio.sleep(0)
        return self.look(city)


def function(world: World) -> Any:
    """A tool that is a function."""

    def look(city: str) -> str:
        """Look at the weather of a city."""
        return world.look(city)

    return look


def coroutine(world: World) -> Any:
    """A tool that is a coroutine function."""

    async def look(city: str) -> str:
        """Look at the weather of a city."""
        return await world.alook(city)

    return look


def method(world: World) -> Any:
    """A tool that is a method, with a name and a description of its own."""
    return dspy.Tool(world.look, name="look", desc="Look at the weather.")


def partial(world: World) -> Any:
    """A tool that is a part of another one."""
    return dspy.Tool(functools.partial(_look, world), name="look", args={"city": {"type": "string"}})


def _look(world: World, city: str) -> str:
    return world.look(city)


def written(path: str) -> Any:
    """A tool that writes down each look, for other processes to count."""

    def look(city: str) -> str:
        """Look at the weather of a city."""
        with Path(path).open("a", encoding="utf-8") as looks:
            looks.write("looked\n")
        return city

    return look


async def with_mcp(world: World, use: Callable[[Any], Awaitable[Any]]) -> Any:
    """Use a tool of an MCP server."""
    server = mcpserver.MCPServer("weather")
    server.tool(name="look")(world.alook)
    async with mcp.Client(server) as client:
        (tool,) = (await client.list_tools()).tools
        return await use(dspy.Tool.from_mcp_tool(client, tool))


TOOLS = [function, coroutine, method, partial]


def agent(tool: Any) -> Any:
    """An agent that has one tool."""
    return dspy.ReAct("question -> answer", tools=[tool])


def sync(program: Any) -> dict[str, Any]:
    """What a program says of the weather."""
    with dspy.context(allow_tool_async_sync_conversion=True):
        return dict(program(question="Rain?").toDict())


def awaited(program: Any) -> dict[str, Any]:
    """The same, awaited."""
    return dict(asyncio.run(program.acall(question="Rain?")).toDict())


def streamed(program: Any) -> dict[str, Any]:
    """The same, at the end of a stream, and what it said by then; its pieces come to its answer."""
    listeners = [dspy.streaming.StreamListener(signature_field_name="answer")]
    listening = dspy.streamify(program, stream_listeners=listeners, is_async_program=True)

    async def read() -> list[Any]:
        return [piece async for piece in listening(question="Rain?")]

    *pieces, said = asyncio.run(read())
    heard = [getattr(piece, "chunk", "") for piece in pieces]
    assert said.answer == "".join(heard)
    return {**said.toDict(), "statuses": [piece.message for piece in pieces if hasattr(piece, "message")]}


WAYS = [sync, awaited, streamed]
