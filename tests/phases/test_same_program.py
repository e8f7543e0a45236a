"""What a phase adds shows nowhere in what a program asks: no frame, no callback, no other line in a traceback."""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import cloudpickle
import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import Policy
from tests.endpoint import Endpoint

ANSWER = """[[ ## next_thought ## ]]
Look.
[[ ## next_tool_name ## ]]
{tool}
[[ ## next_tool_args ## ]]
{{}}
[[ ## reasoning ## ]]
Seen.
[[ ## answer ## ]]
Rain.
[[ ## completed ## ]]"""


class Divides(dspy.Module):  # type: ignore[misc]
    """A module of one's own that raises."""

    def forward(self, **_: Any) -> Any:
        return 1 / 0


def raising() -> str:
    """Call a module that raises."""
    return str(Divides()(question="How?"))


def raising_in_an_evaluation() -> str:
    """Evaluate a program whose failures end the evaluation."""
    example = dspy.Example(question="How?").with_inputs("question")
    return str(dspy.Evaluate(devset=[example], metric=lambda *_: 1.0, max_errors=1, num_threads=1)(Divides()))


def raising_in_parallel() -> str:
    """Call modules in threads of DSPy's until they are given up."""
    example = dspy.Example(question="How?").with_inputs("question")
    return str(dspy.Parallel(num_threads=2, max_errors=1, disable_progress_bar=True)([(Divides(), example)] * 2))


def raising_in_a_loop() -> str:
    """Await a module that raises."""

    class Awaited(dspy.Module):  # type: ignore[misc]
        async def aforward(self, **_: Any) -> Any:
            raise LookupError("nowhere")

    return str(asyncio.run(Awaited().acall(question="How?")))


def raising_asyncified() -> str:
    """Await a module that raises in a thread that DSPy carries its settings into."""
    return str(asyncio.run(dspy.asyncify(Divides())(question="How?")))


def raising_while_it_streams() -> str:
    """Read a stream of a module that raises."""

    async def read() -> list[Any]:
        return [chunk async for chunk in dspy.streamify(Divides())(question="How?")]

    return str(asyncio.run(read()))


def telling_its_traceback() -> str:
    """Make an observation of a traceback, with what it came from."""
    try:
        try:
            Divides()(question="How?")
        except ZeroDivisionError as error:
            raise RuntimeError("no way") from error
    except RuntimeError:
        return traceback.format_exc()


def telling_its_stack() -> str:
    """Make an observation of what is on the stack, and of what DSPy's settings hold."""
    stack: list[str] = []

    class Looks(dspy.Module):  # type: ignore[misc]
        def forward(self, **_: Any) -> Any:
            stack.extend(f"{frame.filename}:{frame.lineno} {frame.function}" for frame in inspect.stack())
            return dspy.Prediction(answer="")

    Looks()(question="How?")
    example = dspy.Example(question="How?").with_inputs("question")
    dspy.Parallel(num_threads=2, disable_progress_bar=True)([(Looks(), example)])
    return "\n".join([*stack, str(dspy.settings.callbacks), str(sys.getrecursionlimit()), _depth_left()])


def _depth_left() -> str:
    def deeper(depth: int) -> int:
        try:
            return deeper(depth + 1)
        except RecursionError:
            return depth

    return str(deeper(0))


TOOLS = [
    raising,
    raising_in_an_evaluation,
    raising_in_parallel,
    raising_in_a_loop,
    raising_asyncified,
    raising_while_it_streams,
    telling_its_traceback,
    telling_its_stack,
]

PLACES: dict[str, Callable[[], list[Any]]] = {
    "compile": lambda: [cachectl.phase("compile")],
    "replay": lambda: [cachectl.phase("again", Policy.REPLAY)],
    "eval": lambda: [cachectl.phase("eval", temperature=None)],
    "nested": lambda: [cachectl.phase("compile"), cachectl.phase("eval", temperature=None)],
    "everywhere": lambda: [cachectl.phase("eval", temperature=None, everywhere=True)],
    "off": lambda: [cachectl.phase("live", Policy.OFF)],
    "none": lambda: [nullcontext()],
    "plain": lambda: [_ungoverned()],
}


@contextmanager
def _ungoverned() -> Iterator[None]:
    """DSPy as it is where this package is not."""
    cachectl.uninstall()
    governed = dspy.settings.lm
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
    with dspy.context(lm=dspy.LM(governed.model, **governed.kwargs)):
        yield
    cachectl.install()


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_an_agent_asks_the_same_everywhere(
    endpoint: Endpoint, lm: Callable[..., cachectl.LM], tmp_path: Path, tool: Callable[[], str]
) -> None:
    """An agent that is told what its tool raised, or saw of its stack, asks the same in every phase and in none."""
    endpoint.configure(answers={"Rain?": [ANSWER.format(tool=tool.__name__)]})
    dspy.configure(lm=lm(temperature=0.0))
    agent = dspy.ReAct("question -> answer", tools=[tool], max_iters=2)
    asked: dict[str, list[str]] = {}
    for place, opened in PLACES.items():
        if place != "replay":
            cachectl.install(tmp_path / place)
        endpoint.reset_counts()
        with ExitStack() as stack:
            for block in opened():
                stack.enter_context(block)
            assert agent(question="Rain?").answer == "Rain."
        asked[place] = [json.dumps(request["body"], sort_keys=True) for request in endpoint.log()]
    assert asked.pop("replay") == []
    plain = asked.pop("plain")
    # DSPy calls an evaluation from another line as soon as somebody listens to it, and this package always does.
    expected = asked["none"] if tool is raising_in_an_evaluation else plain
    assert len(expected) == 3
    assert asked == dict.fromkeys(asked, expected)


def test_an_agent_is_told_the_same_of_a_call_that_failed(
    endpoint: Endpoint, lm: Callable[..., cachectl.LM], tmp_path: Path
) -> None:
    """What an LM raises within a tool looks the same in every phase in which it is asked, and in none."""
    endpoint.configure(answers={"Rain?": [ANSWER.format(tool="asking")]})
    endpoint.fail(status=400, match="Snow?")
    dspy.configure(lm=lm(temperature=0.0))

    def asking() -> str:
        """Ask the LM, in words that the traceback does not quote."""
        return str(dspy.settings.lm("Sn" + "ow?"))

    async def awaiting() -> str:
        """Await the LM."""
        return str(await dspy.settings.lm.acall("Sn" + "ow?"))

    told = {}
    for place in ("compile", "eval", "nested", "everywhere", "off", "none"):
        cachectl.install(tmp_path / place)
        endpoint.reset_counts()
        with ExitStack() as stack:
            for block in PLACES[place]():
                stack.enter_context(block)
            dspy.ReAct("question -> answer", tools=[asking], max_iters=2)(question="Rain?")
            with pytest.raises(dspy.LMError) as awaited:
                asyncio.run(awaiting())
        asked = [str(request["body"]) for request in endpoint.log() if "Rain?" in str(request["body"])]
        told[place] = asked, [f"{one.filename}:{one.lineno}" for one in traceback.extract_tb(awaited.tb)]
    assert "asking" in told["none"][0][-1]
    assert "lm.py" in told["none"][0][-1]
    assert told == dict.fromkeys(told, told["none"])


class Seen(dspy.utils.BaseCallback):  # type: ignore[misc]
    """A callback of the user's, which counts."""

    def __init__(self) -> None:
        self.modules = 0

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self.modules += 1


@pytest.mark.parametrize("opened", PLACES.values(), ids=PLACES)
def test_the_settings_hold_no_callback_of_a_phase(
    lm: Callable[..., cachectl.LM], opened: Callable[[], list[Any]], tmp_path: Path
) -> None:
    """The list of callbacks is the user's, the very one, and all settings can be pickled."""
    mine = [Seen()]
    dspy.configure(lm=lm(temperature=0.0), callbacks=mine)
    with ExitStack() as stack:
        for block in opened():
            stack.enter_context(block)
        assert dspy.settings.callbacks is mine
        dspy.settings.save(str(tmp_path / "settings.pkl"))
        assert cloudpickle.loads((tmp_path / "settings.pkl").read_bytes())["callbacks"][0].modules == 0
        more = [*mine, Seen()]
        if not isinstance(dspy.settings.lm, cachectl.LM):
            return  # DSPy's own block copies all settings
        dspy.configure(callbacks=more)
        assert dspy.settings.callbacks is more


def test_an_evaluation_keeps_callbacks_of_its_own() -> None:
    """Whoever gives an evaluation or an optimizer callbacks reads them again, and adds to the list that is used."""
    cachectl.install()
    evaluation: Any = dspy.Evaluate(devset=[dspy.Example(question="1").with_inputs("question")], metric=lambda *_: 1.0)
    assert not hasattr(evaluation, "callbacks")
    told: list[str] = []

    class Hears(dspy.utils.BaseCallback):  # type: ignore[misc]
        def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
            told.append("started")

    evaluation.callbacks = []
    evaluation.callbacks.append(Hears())
    with cachectl.phase("eval") as run:
        evaluation(Divides().deepcopy())
    assert told == ["started"]
    assert len(run.evaluations) == 1
    del evaluation.callbacks
    assert not hasattr(evaluation, "callbacks")
    cachectl.uninstall()
    assert "callbacks" not in vars(dspy.Evaluate)
