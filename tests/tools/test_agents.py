"""An agent replays although the world that its tools look at has changed."""

from __future__ import annotations

import asyncio
import builtins
import json
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import dspy
import pytest
from dspy.primitives.local_interpreter import LocalInterpreter

import dspy_cachectl as cachectl
from tests.endpoint import Endpoint
from tests.processes import ROOT
from tests.tools import worlds
from tests.tools.worlds import World

QUICK = [(worlds.function, worlds.sync), (worlds.coroutine, worlds.awaited), (worlds.function, worlds.streamed)]
REST = [(tool, way) for tool in worlds.TOOLS for way in worlds.WAYS if (tool, way) not in QUICK]


@pytest.fixture
def asked(endpoint: Endpoint, lm: Callable[..., Any]) -> Endpoint:
    """Let agents call a tool three times."""
    endpoint.configure(react_steps=3)
    dspy.configure(lm=lm(temperature=1.0))
    return endpoint


@pytest.mark.parametrize(("tool", "way"), [*QUICK, *(pytest.param(*one, marks=pytest.mark.exhaustive) for one in REST)])
def test_an_agent_replays_to_the_byte(asked: Endpoint, tmp_path: Path, tool: Any, way: Any) -> None:
    """A replay makes no request and calls no tool, and its trajectory is that of the recording, errors too."""
    world = World(2)
    agent = worlds.agent(cachectl.wrap(tool(world)))
    with cachectl.cassette(tmp_path / "agent.jsonl", "record") as recording:
        recorded = way(agent)
    assert (world.calls, recording.stats.tool_calls_made, recording.stats.tool_calls_failed) == (3, 3, 1)
    assert "no weather in" in json.dumps(recorded)
    with asked.counting() as seen, cachectl.cassette(tmp_path / "agent.jsonl") as replay:
        replayed = way(agent)
    assert json.dumps(recorded) == json.dumps(replayed)
    assert (0, 3) == (seen.requests, world.calls)
    assert (5, 3, 0) == (replay.stats.replayed, replay.stats.tool_calls_served, replay.stats.tool_calls_made)


def test_an_agent_replays_where_there_is_no_world(
    asked: Endpoint, tmp_path: Path, child: Callable[..., Any], endpoint: Endpoint
) -> None:
    """Another process, whose tool raises and whose provider fails, replays the trajectory to the byte."""
    world = World()
    with cachectl.cassette(tmp_path / "agent.jsonl", "record"):
        recorded = worlds.sync(worlds.agent(cachectl.wrap(worlds.function(world))))
    endpoint.fail(status=500)
    ended = child(
        """
        import json, os, dspy, dspy_cachectl as cachectl
        from tests.tools import worlds

        lm = cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="k", temperature=1.0)
        dspy.configure(lm=lm)
        with cachectl.cassette("agent.jsonl"):
            print(json.dumps(worlds.sync(worlds.agent(cachectl.wrap(worlds.function(None))))))
        """
    )
    assert json.dumps(recorded) == ended.stdout.strip().splitlines()[-1]


def test_an_error_replays_where_dspy_lies_elsewhere(
    asked: Endpoint, tmp_path: Path, child: Callable[..., Any], endpoint: Endpoint
) -> None:
    """What an agent is told of an error has the paths of a machine in it; its recording is found on another one."""
    with cachectl.cassette(tmp_path / "agent.jsonl", "record"):
        recorded = worlds.sync(worlds.agent(cachectl.wrap(worlds.function(World(1, 3)))))
    elsewhere = tmp_path / "lib" / "site-packages"
    elsewhere.mkdir(parents=True)
    (elsewhere / "dspy").symlink_to(Path(dspy.__file__).parent)
    endpoint.fail(status=500)
    ended = child(
        """
        import json, os, dspy, dspy_cachectl as cachectl
        from tests.tools import worlds

        lm = cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="k", temperature=1.0)
        dspy.configure(lm=lm)
        with cachectl.cassette("agent.jsonl"):
            print(json.dumps(worlds.sync(worlds.agent(cachectl.wrap(worlds.function(None))))))
        """,
        env={"PYTHONPATH": os.pathsep.join([str(elsewhere), str(ROOT)])},
    )
    replayed = json.loads(ended.stdout.strip().splitlines()[-1])
    assert str(elsewhere) in replayed["trajectory"]["observation_0"]
    assert recorded["answer"] == replayed["answer"]


def test_a_tool_of_an_mcp_server_replays_without_it(asked: Endpoint, tmp_path: Path) -> None:
    """What an MCP server said is replayed where its session is closed, its errors too."""
    world = World(2)

    async def ask(tool: Any) -> Any:
        return (await worlds.agent(cachectl.wrap(tool)).acall(question="Rain?")).toDict()

    kept = []

    async def keep(tool: Any) -> Any:
        kept.append(tool)
        return await ask(tool)

    with cachectl.cassette(tmp_path / "agent.jsonl", "record"):
        recorded = asyncio.run(worlds.with_mcp(world, keep))
    assert world.calls == 3
    assert "Failed to call a MCP tool" in json.dumps(recorded)
    with asked.counting() as seen, cachectl.cassette(tmp_path / "agent.jsonl"):
        assert json.dumps(recorded) == json.dumps(asyncio.run(ask(kept[0])))
    assert (0, 3) == (seen.requests, world.calls)


CODE = """[[ ## reasoning ## ]]
Look.

[[ ## code ## ]]
```python
print(look(city='Rome'))
```

[[ ## generated_code ## ]]
```python
print(look(city='Rome'))
```

[[ ## finished ## ]]
True

[[ ## answer ## ]]
Rain.

[[ ## completed ## ]]"""


def looked(city: str) -> str:
    """Look at the weather of a city."""
    return city.upper()


def test_an_agent_that_writes_code_replays_what_its_tools_said(asked: Endpoint, tmp_path: Path) -> None:
    """The code of an RLM runs anew in a replay, and the tools that it calls are not called."""
    asked.configure(answers={"": [CODE]})
    world = World()
    tool = cachectl.wrap(worlds.function(world))
    program = dspy.RLM("question -> answer", tools=[tool], max_iters=2, interpreter_factory=LocalInterpreter)
    with cachectl.cassette(tmp_path / "agent.jsonl", "record"):
        recorded = worlds.sync(program)
    assert "Rome: 2 degrees" in json.dumps(recorded)
    with asked.counting() as seen, cachectl.cassette(tmp_path / "agent.jsonl"):
        assert json.dumps(recorded) == json.dumps(worlds.sync(program))
    assert (0, 2) == (seen.requests, world.calls)


def test_code_act_runs_its_tools_where_its_code_runs(asked: Endpoint, tmp_path: Path) -> None:
    """What CodeAct's tools say is in nobody's hands; its calls replay as long as they say the same."""
    asked.configure(answers={"": [CODE.replace("look(", "looked(")]})
    program = dspy.CodeAct("question -> answer", tools=[cachectl.wrap(looked)], interpreter_factory=LocalInterpreter)
    with cachectl.cassette(tmp_path / "agent.jsonl", "record") as recording:
        recorded = worlds.sync(program)
    assert "ROME" in json.dumps(recorded)
    assert 0 == recording.stats.tool_calls_made
    with asked.counting() as seen, cachectl.cassette(tmp_path / "agent.jsonl"):
        assert json.dumps(recorded) == json.dumps(worlds.sync(program))
    assert 0 == seen.requests


def test_a_changed_tool_makes_kept_predictions_stale(asked: Endpoint, tmp_path: Path) -> None:
    """A kept prediction is served while the wrapped tool's code is the same, and made anew when it has changed."""

    def first(city: str) -> str:
        """Look."""
        return city

    def second(city: str) -> str:
        """Look."""
        return city + "!"

    devset = [dspy.Example(question="Rain?").with_inputs("question")]
    made = []
    for function in (first, first, second):
        agent = worlds.agent(cachectl.wrap(dspy.Tool(function, name="look")))
        with asked.counting() as seen:
            cachectl.evaluate(agent, devset, _always, predictions=tmp_path / "kept", run_id="one")
        made.append(seen.requests > 0)
    assert [True, False, True] == made


def _always(*_: Any) -> float:
    return 1.0


def test_a_miss_of_a_tool_is_raised_at_the_end(asked: Endpoint, tmp_path: Path) -> None:
    """A tool whose result is not on the cassette is not called; the agent is told so, and so is who replays."""
    world = World()
    with cachectl.cassette(tmp_path / "agent.jsonl", "record"):
        cachectl.wrap(world.look)(city="Rome")
    wrapped = cachectl.wrap(world.look)
    with (
        pytest.raises(cachectl.ReplayIncompleteError, match=r"arguments: asked {'city': 'Paris'}") as incomplete,
        cachectl.cassette(tmp_path / "agent.jsonl") as replay,
        pytest.raises(cachectl.ToolMissError, match="no stored result of the tool 'look'"),
    ):
        wrapped(city="Paris")
    assert (1, 1) == (world.calls, replay.stats.missed)
    assert ["look"] == [miss.model for miss in incomplete.value.misses]


def test_an_evaluated_agent_resumes(asked: Endpoint, tmp_path: Path) -> None:
    """An evaluation calls its tools anew; the same run again asks nobody and calls none."""
    world = World()
    agent = worlds.agent(cachectl.wrap(world.look))
    devset = [dspy.Example(question=f"Rain {number}?").with_inputs("question") for number in range(3)]
    found = []
    for _ in range(2):
        for run_id in ("one", "two"):
            with cachectl.phase("eval", run_id=run_id) as run:
                program = dspy.Evaluate(devset=devset, metric=lambda *_: 1.0, num_threads=2, display_progress=False)
                found.append([prediction.toDict() for _, prediction, _ in program(agent).results])
            assert run.stats.tool_calls_failed == 0
    assert found[:2] == found[2:]
    assert found[0] != found[1]
    assert 2 * 3 * 3 == world.calls


def test_two_threads_that_want_the_same_call_the_tool_once(tmp_path: Path) -> None:
    """In `compile`, threads that call a tool with the same arguments at once share one call of it."""
    cachectl.configure(store=str(tmp_path / "store"))
    begun, go, calls = Event(), Event(), []

    def look(city: str) -> str:
        """Look."""
        calls.append(city)
        begun.set()
        go.wait()
        return city

    wrapped = cachectl.wrap(look)
    with cachectl.phase("compile", everywhere=True) as run, ThreadPoolExecutor(2) as pool:
        first = pool.submit(wrapped, city="Rome")
        begun.wait()
        second = pool.submit(wrapped, city="Rome")
        go.set()
        assert ["Rome", "Rome"] == [first.result(), second.result()]
    assert ["Rome"] == calls
    assert (1, 1) == (run.stats.tool_calls_made, run.stats.tool_calls_served)


@pytest.mark.exhaustive
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_tools_obey_on_a_pool(asked: Endpoint, tmp_path: Path, method: str) -> None:
    """Workers call tools once for a run, whichever of them does, and serve what they returned when it is resumed."""
    cachectl.configure(store=str(tmp_path / "store"), predictions=False)
    agent = worlds.agent(cachectl.wrap(worlds.written(str(tmp_path / "looks"))))
    devset = [dspy.Example(question=f"Rain {number}?").with_inputs("question") for number in range(4)]
    for counter in ("tool_calls_made", "tool_calls_served"):
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
            report = cachectl.evaluate(agent, devset, _always, run_id="one", executor=pool)
        assert 4 * 3 == report.provenance.counters[counter]
    assert 4 * 3 == len((tmp_path / "looks").read_text().splitlines())
    cachectl.uninstall()


def several(text: str) -> Exception:
    """Errors of a group of tasks, where this Python has them."""
    group = getattr(builtins, "ExceptionGroup", None)
    return ValueError(text) if group is None else group("some failed", [ValueError(text), LookupError("else")])


def noted(text: str) -> Exception:
    """An error whose note has a secret."""
    error = ValueError(text)
    error.__dict__["__notes__"] = ["asked with sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJ"]
    return error


@pytest.mark.parametrize("raised", [several, noted], ids=lambda raises: raises.__name__)
def test_what_a_task_group_raises_replays(asked: Endpoint, tmp_path: Path, raised: Any) -> None:
    """Errors of several tasks at once, as MCP's tools raise them, and secrets in an error's notes, are told alike."""
    world = World()

    def look(city: str) -> str:
        """Look at the weather of a city."""
        raise raised(world.look(city))

    agent = worlds.agent(cachectl.wrap(look))
    with cachectl.cassette(tmp_path / "agent.jsonl", "record"):
        recorded = worlds.sync(agent)
    assert "1 degrees" in json.dumps(recorded)
    with asked.counting() as seen, cachectl.cassette(tmp_path / "agent.jsonl"):
        assert json.dumps(recorded) == json.dumps(worlds.sync(agent))
    assert (0, 3) == (seen.requests, world.calls)
