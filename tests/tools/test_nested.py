"""A tool that asks an LM itself: where its result is served that is not asked, and nothing else is put off by it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.endpoint import Endpoint


class Asking(dspy.Module):
    """Asks by a tool, and then the same itself."""

    def __init__(self, *, is_async: bool) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")
        self.tool = cachectl.wrap(dspy.Tool(self.aexpert if is_async else self.expert, name="expert"))

    def expert(self, question: str) -> str:
        """Ask an expert."""
        found = dspy.Parallel(num_threads=2, disable_progress_bar=True)([(self.ask, {"question": question})] * 2)
        return " ".join(one.answer for one in [*found, self.ask(question=question)])

    async def aexpert(self, question: str) -> str:
        """Ask an expert."""
        return str((await self.ask.acall(question=question)).answer)

    def forward(self, question: str) -> Any:
        """Ask by the tool first."""
        return [self.tool(question=question), *(self.ask(question=question).answer for _ in range(2))]

    async def aforward(self, question: str) -> Any:
        """Do the same, awaited."""
        return [
            await self.tool.acall(question=question),
            *[(await self.ask.acall(question=question)).answer for _ in range(2)],
        ]


def asked(program: Asking, *, is_async: bool, as_module: bool) -> list[str]:
    """What a program says, as a module or as a function that calls modules."""
    if is_async:
        return list(asyncio.run(program.acall(question="Why?") if as_module else program.aforward(question="Why?")))
    return list(program(question="Why?") if as_module else program.forward(question="Why?"))


WAYS = pytest.mark.parametrize(("is_async", "as_module"), [(False, False), (True, False), (False, True), (True, True)])


@WAYS
def test_a_resumed_run_serves_each_its_own(
    endpoint: Endpoint, lm: Callable[..., Any], tmp_path: Path, *, is_async: bool, as_module: bool
) -> None:
    """What the tool had asked is not asked again, and no answer of it is served to who asked the same beside it."""
    cachectl.configure(store=str(tmp_path / "store"))
    program, said = Asking(is_async=is_async), []
    with dspy.context(lm=lm(temperature=1.0)):
        for _ in range(2):
            with cachectl.phase("eval", run_id="one"):
                said.append(asked(program, is_async=is_async, as_module=as_module))
    assert said[0] == said[1]
    assert 3 == len(set(said[0]))
    assert (3 if is_async else 5) == endpoint.requests


@WAYS
def test_a_cassette_has_what_a_replay_asks(
    endpoint: Endpoint, lm: Callable[..., Any], tmp_path: Path, *, is_async: bool, as_module: bool
) -> None:
    """And no more: what the tool asked itself is not on it, so nothing of it counts as not used."""
    program, path = Asking(is_async=is_async), tmp_path / "nested.jsonl"
    with dspy.context(lm=lm(temperature=1.0)):
        with cachectl.cassette(path, "record") as recording:
            first = asked(program, is_async=is_async, as_module=as_module)
        with endpoint.counting() as seen, cachectl.cassette(path) as replay:
            assert first == asked(program, is_async=is_async, as_module=as_module)
        assert (0, []) == (seen.requests, replay.unused)
        assert 3 == recording.recorded == len(path.read_text().splitlines()) - 1
        with cachectl.cassette(path, "all") as anew:
            asked(program, is_async=is_async, as_module=as_module)
    assert (3, []) == (anew.recorded, anew.unused)


def test_what_is_served_besides_stays_on_it(endpoint: Endpoint, lm: Callable[..., Any], tmp_path: Path) -> None:
    """Where one answer serves all, as in `compile`, one that a tool had bought may be asked for by others."""
    program, path = Asking(is_async=False), tmp_path / "nested.jsonl"
    with dspy.context(lm=lm(temperature=1.0)):
        for mode in ("record", "replay"):
            with endpoint.counting() as seen, cachectl.cassette(path, mode), cachectl.phase("compile"):
                said = [program.ask(question="Why?").answer, *program.forward("Why?")]
            assert (1 if mode == "record" else 0) == seen.requests
            assert 1 == len(set(" ".join(said).split()) - {"draw"} - {said[0].split()[0]})


def test_a_tool_within_a_tool(endpoint: Endpoint, lm: Callable[..., Any], tmp_path: Path) -> None:
    """Is not on the cassette either, since it is not called in a replay."""
    inner = cachectl.wrap(Asking(is_async=False).expert)

    def outer(question: str) -> str:
        """Ask somebody who asks an expert."""
        return "They say: " + inner(question=question)

    tool, path = cachectl.wrap(outer), tmp_path / "nested.jsonl"
    with dspy.context(lm=lm(temperature=1.0)):
        for mode in ("record", "replay"):
            with endpoint.counting() as seen, cachectl.cassette(path, mode) as tape:
                said = tool(question="Why?")
            assert (3 if mode == "record" else 0) == seen.requests
            assert said.startswith("They say: ")
    assert [] == tape.unused
    assert "outer" in json.dumps([json.loads(line) for line in path.read_text().splitlines()])
