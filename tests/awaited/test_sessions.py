"""What an evaluation on the caller's loop is for: programs with tools of a session that lives there."""

from __future__ import annotations

from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.calls.support import MakeLM, examples, qa
from tests.endpoint import Endpoint

pytest.importorskip("mcp")

from tests.tools.worlds import World, with_mcp


async def test_tools_of_mcp(endpoint: Endpoint, lm: MakeLM) -> None:
    """A session of MCP, which is open on this loop, is used by all questions."""
    dspy.configure(lm=lm())
    world = World()

    async def evaluated(tool: Any) -> Any:
        async def program(question: str) -> Any:
            found = await tool.acall(city="Rome")
            return await qa().acall(question=f"{question} {found}")

        options: dict[str, Any] = {"concurrency": 3, "predictions": False, "display_progress": False}
        return await cachectl.aevaluate(program, examples(6), lambda *_: 1.0, **options)

    report = await with_mcp(world, evaluated)
    assert (0, 6) == (report.failures, endpoint.requests)
    assert 6 == world.calls
