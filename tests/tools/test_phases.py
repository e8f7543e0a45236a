"""A wrapped tool obeys the phase: what is called, what is served, what is kept and what is not."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections import OrderedDict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import cloudpickle
import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import Policy
from tests.tools.worlds import World


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[Path]:
    """Keep what tools return in a folder."""
    folder = tmp_path / "store"
    cachectl.configure(store=str(folder))
    yield folder
    cachectl.uninstall()


def restarted() -> None:
    """Forget what is in memory: what is served from here on comes from the disk."""
    cachectl.uninstall()
    cachectl.install()


POLICIES = [
    # twice in one passage, then in another one: what comes back by the number of the look, and the looks
    (Policy.REUSE, [1, 1, 1], 1),
    (Policy.FRESH, [1, 2, 3], 3),
    (Policy.REFRESH, [1, 2, 3], 3),
    (Policy.OFF, [1, 2, 3], 3),
]


@pytest.mark.parametrize(("policy", "looks", "calls"), POLICIES, ids=lambda one: getattr(one, "name", None))
@pytest.mark.parametrize("is_async", [False, True])
def test_each_policy_does_what_it_says(policy: Policy, looks: list[int], calls: int, is_async: bool) -> None:
    """A tool is called as often as the policy says, and its results come from where it says."""
    world = World()
    tool = cachectl.wrap(dspy.Tool(world.alook if is_async else world.look, name="look"))

    def ask() -> Any:
        return asyncio.run(tool.acall(city="Rome")) if is_async else tool(city="Rome")

    with cachectl.phase("one", policy):
        found = [ask(), ask()]
    restarted()
    with cachectl.phase("one", policy):
        found.append(ask())
    assert [f"Rome: {look} degrees" for look in looks] == found
    assert calls == world.calls


def test_outside_phases_and_unwrapped() -> None:
    """Outside phases a wrapped tool is served; one that is not wrapped is called each time, in every phase."""
    world = World()
    tool = cachectl.wrap(world.look)
    assert tool(city="Rome") == tool(city="Rome")
    plain = dspy.Tool(world.look)
    with cachectl.phase("compile"):
        assert plain(city="Rome") != plain(city="Rome")
    assert 3 == world.calls


def test_a_run_is_resumed_and_replayed(store: Path) -> None:
    """The draws of a run are its own: the same run id serves them in their order, and buys what is new."""
    world = World(2)
    tool = cachectl.wrap(world.look)

    def ask() -> Any:
        try:
            return tool(city="Rome")
        except LookupError as error:
            return str(error)

    with cachectl.phase("eval") as run:
        first = [ask(), ask()]
    restarted()
    with cachectl.phase("eval", run_id=run.run_id) as again:
        assert first == [ask(), ask()]
        assert "Rome: 3 degrees" == ask()
    assert (1, 2) == (again.stats.tool_calls_made, again.stats.tool_calls_served)
    with cachectl.phase("again", Policy.REPLAY, run_id=run.run_id):
        assert first == [ask(), ask()]
    assert 3 == world.calls


def test_an_error_is_kept_only_where_each_call_is_a_draw() -> None:
    """Outside of runs a tool that failed is tried again."""
    world = World(1)
    tool = cachectl.wrap(world.look)
    with cachectl.phase("compile") as run:
        with pytest.raises(LookupError, match="no weather in Rome at look 1"):
            tool(city="Rome")
        assert "Rome: 2 degrees" == tool(city="Rome") == tool(city="Rome")
    assert (2, 1, 1) == (run.stats.tool_calls_made, run.stats.tool_calls_served, run.stats.tool_calls_failed)


def test_tools_are_ruled_by_their_name_or_their_role() -> None:
    """A phase treats a tool otherwise that it names, by the tool's name or by its role."""
    world = World()
    look = cachectl.wrap(world.look)
    other = cachectl.wrap(look, role="news")
    with cachectl.phase("eval", roles={"look": Policy.REUSE, "news": Policy.OFF}):
        assert look(city="Rome") == look(city="Rome")
        assert other(city="Rome") != other(city="Rome")


def test_what_tells_results_apart() -> None:
    """Other arguments, another version, another server and other code have other results; another object has not."""

    def first(city: str) -> str:
        """Look."""
        return world.look(city)

    def second(city: str) -> str:
        """Look."""
        return world.look(city) + "!"

    world = World()
    tools = {
        "first": cachectl.wrap(dspy.Tool(first, name="look")),
        "version": cachectl.wrap(dspy.Tool(first, name="look"), version="2"),
        "endpoint": cachectl.wrap(dspy.Tool(first, name="look"), endpoint="elsewhere"),
        "second": cachectl.wrap(dspy.Tool(second, name="look")),
        "name": cachectl.wrap(dspy.Tool(first, name="look_again")),
    }
    results = {name: tool(city="Rome") for name, tool in tools.items()}
    assert len(tools) == len(set(results.values())) == world.calls
    assert results["first"] == cachectl.wrap(dspy.Tool(first, name="look"))(city="Rome")
    assert results["version"] == cachectl.wrap(dspy.Tool(second, name="look"), version="2")(city="Rome")
    assert results["first"] != tools["first"](city="Paris")


def test_a_tool_that_is_called_by_hand_is_the_same() -> None:
    """Its function, with arguments by place, and a copy that was pickled are served the same."""
    tool = cachectl.wrap(_look)
    first = tool(city="Rome")
    assert first == tool.func("Rome")
    assert first == cloudpickle.loads(cloudpickle.dumps(tool))(city="Rome")
    assert _look.__doc__ == tool.desc == tool.func.__doc__
    assert {"city": {"type": "string"}} == tool.args


LOOKS: list[str] = []


def _look(city: str) -> str:
    """Look at a city."""
    LOOKS.append(city)
    return f"{city}: {len(LOOKS)}"


@pytest.mark.parametrize(
    "result",
    [None, "", [1, 2.5, True], {"a": {"b": [None]}}, (1, 2), {1: "one"}, {"x", "y"}, b"\0", 2**80, float("inf")],
    ids=lambda one: type(one).__name__,
)
def test_results_come_back_as_they_were(result: Any) -> None:
    """Plain data of every kind is served as it was, from the disk."""
    calls = []

    def give() -> Any:
        """Give."""
        calls.append(1)
        return result

    tool = cachectl.wrap(give)
    first = tool()
    restarted()
    again = tool()
    assert (result, type(result)) == (first, type(first)) == (again, type(again))
    assert [1] == calls


def test_the_caller_has_what_a_replay_will_give() -> None:
    """What is kept otherwise than it was returned is returned as it is kept, the first time too."""
    tool = cachectl.wrap(dspy.Tool(lambda: OrderedDict(a=1), name="give"))
    assert [dict, dict] == [type(tool()), type(tool())]


def test_what_cannot_be_kept_is_passed_through(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It reaches the caller, is counted and said once; a cassette says at its end that it lacks it."""
    tool = cachectl.wrap(dspy.Tool(lambda: dt.date(2026, 1, 2), name="today"))
    with cachectl.phase("compile") as run, caplog.at_level(logging.WARNING):
        assert tool() == tool() == dt.date(2026, 1, 2)
    assert (2, 2) == (run.stats.tool_calls_made, run.stats.failed_writes)
    assert 1 == caplog.text.count("an answer of 'today' is not stored")
    with (
        pytest.raises(cachectl.ConfigurationError, match="today"),
        cachectl.cassette(tmp_path / "c.jsonl", "record"),
    ):
        assert tool() == dt.date(2026, 1, 2)


def test_arguments_without_a_form_are_passed_through_and_never_replayed() -> None:
    """A tool that is given what has no canonical form is called, and in a replay it is a miss."""
    calls = []

    def take(what: Any) -> None:
        calls.append(what)

    tool = cachectl.wrap(dspy.Tool(take, name="take", args={"what": {}}))
    with cachectl.phase("compile"):
        tool(what=object())
    with (
        pytest.raises(cachectl.ReplayIncompleteError),
        cachectl.phase("again", Policy.REPLAY),
        pytest.raises(cachectl.ToolMissError),
    ):
        tool(what=object())
    assert 1 == len(calls)


def test_no_secret_is_written(store: Path, tmp_path: Path) -> None:
    """A key in arguments or in a result is on no disk; a recording's program goes on with what was written."""
    secret = "sk-" + "a1B2c3D4e5F6g7H8" * 3
    tool = cachectl.wrap(dspy.Tool(lambda api_key: {"said": f"you gave me {api_key}"}, name="say"))
    with cachectl.phase("compile"):
        assert secret in tool(api_key=secret)["said"]
    path = tmp_path / "c.jsonl"
    with cachectl.cassette(path, "record", redact=lambda text: text.replace("you gave", "was given")):
        recorded = tool(api_key=secret)
    with cachectl.cassette(path):
        assert recorded == tool(api_key=secret)
    assert recorded["said"].startswith("was given me ")
    cachectl.uninstall()
    written = [file.read_bytes() for file in [path, *store.rglob("*")] if file.is_file()]
    assert [] == [data for data in written if secret.encode() in data]


def test_a_tool_that_asks_an_lm_is_replayed_whole(lm: Any, endpoint: Any, tmp_path: Path) -> None:
    """What a tool asks an LM is asked when it is called, and not when what it returned is served."""
    dspy.configure(lm=lm())
    tool = cachectl.wrap(dspy.Tool(lambda: dspy.settings.lm("hello")[0], name="ask"))
    with cachectl.cassette(tmp_path / "c.jsonl", "record"):
        recorded = tool()
    with endpoint.counting() as seen, cachectl.cassette(tmp_path / "c.jsonl"):
        assert recorded == tool()
    assert 0 == seen.requests


@pytest.mark.parametrize("given", [3, "look", dspy.Predict("a -> b")], ids=["number", "name", "module"])
def test_what_cannot_be_wrapped_is_refused(given: Any) -> None:
    """What is no LM and no tool is refused with what to write, and so is an empty name."""
    with pytest.raises(cachectl.ConfigurationError, match=r"a dspy\.Tool or a function"):
        cachectl.wrap(given)
    with pytest.raises(cachectl.ConfigurationError, match="version is a text"):
        cachectl.wrap(_look, version=" ")


@pytest.mark.parametrize(
    ("argument", "other"),
    [
        (b"\xff", b"\xfe"),
        ({"one", "two", "three"}, {"one", "two"}),
        (Decimal("1.50"), Decimal("1.51")),
        ([{"a": (b"x", frozenset({1}))}], [{"a": (b"x", frozenset({2}))}]),
    ],
    ids=["bytes", "set", "decimal", "inside"],
)
def test_what_json_has_not_is_told_apart(tmp_path: Path, argument: Any, other: Any) -> None:
    """A tool is called once with the same bytes, sets or decimals, and replays; with others it is another call."""
    calls = []

    def look(where: Any) -> int:
        """Look."""
        calls.append(where)
        return len(calls)

    tool = cachectl.wrap(look)
    with cachectl.phase("compile"):
        assert [1, 1, 2] == [tool(where=one) for one in (argument, argument, other)]
    for mode in ("record", "replay"):
        with cachectl.cassette(tmp_path / "calls.jsonl", mode):
            assert [3, 4] == [tool(where=one) for one in (argument, other)]
    assert 4 == len(calls)


def test_arguments_that_nothing_tells_apart_are_named(tmp_path: Path) -> None:
    """Why a call is not on a cassette, what it was called with or what it returned, is said at its end."""
    tool, endless = cachectl.wrap(lambda where: 1), [0]
    endless.append(endless)  # type: ignore[arg-type]
    for argument in (object(), endless):
        with (
            pytest.raises(cachectl.ConfigurationError, match="was called with has no canonical form"),
            cachectl.cassette(tmp_path / f"{type(argument).__name__}.jsonl", "record"),
        ):
            assert 1 == tool(where=argument)
