"""`LM` and `wrap()` as drop-ins: copies, pickles, state, and what an LM of somebody else becomes."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from collections.abc import Callable
from typing import Any

import dspy
import pytest
from dspy.clients.execution import prepare
from dspy.utils.dummies import DummyLM

import dspy_cachectl as cachectl
from dspy_cachectl.calls.adapter import is_managed
from tests.endpoint import Endpoint

MakeLM = Callable[..., cachectl.LM]


class Theirs(dspy.LM):  # type: ignore[misc]
    """Somebody's subclass, with state of its own."""

    def __init__(self, *args: Any, greeting: str = "hi", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.greeting = greeting
        self.seen = 0

    def __call__(self, prompt: Any = None, **kwargs: Any) -> Any:
        self.seen += 1
        return super().__call__(prompt, **kwargs)


COPIES: dict[str, Callable[[Any], Any]] = {
    "copy()": lambda lm: lm.copy(),
    "copy.copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda lm: pickle.loads(pickle.dumps(lm)),
}


@pytest.mark.parametrize("how", COPIES)
def test_copies_stay_governed(lm: MakeLM, endpoint: Endpoint, how: str) -> None:
    """DSPy copies LMs all the time; a copy obeys the phase and keeps its names."""
    copied = COPIES[how](lm(role="judge", endpoint="lab", version="7", max_tokens=50))
    assert isinstance(copied, cachectl.LM)
    assert ("judge", "lab", "7", 50) == (copied.role, copied.endpoint, copied.version, copied.kwargs["max_tokens"])
    with cachectl.phase("eval") as run:
        copied("q")
        copied("q")
    assert 2 == endpoint.requests == run.stats.fresh
    assert ["judge"] == [row.role for row in run.stats.by]


@pytest.mark.parametrize("how", COPIES)
def test_copies_of_a_wrapped_lm_stay_governed(endpoint: Endpoint, how: str) -> None:
    """The class of a wrapped LM is made at run time, and its copies and pickles find it all the same."""
    theirs = Theirs("openai/m", api_base=endpoint.url, api_key="k", greeting="hello")
    copied = COPIES[how](cachectl.wrap(theirs, role="judge"))
    assert isinstance(copied, Theirs)
    assert ("hello", "judge", "Theirs") == (copied.greeting, copied.role, type(copied).__name__)
    with cachectl.phase("eval"):
        copied("q")
        copied("q")
    assert (2, 2, 0) == (endpoint.requests, copied.seen, theirs.seen)


def test_copy_changes_names_and_options(lm: MakeLM) -> None:
    """`lm.copy(role=...)` gives the copy another role; DSPy's own options go where DSPy puts them."""
    copied = lm(role="judge").copy(role="generator", rollout_id=3, temperature=0.5)
    assert ("generator", 3, 0.5) == (copied.role, copied.kwargs["rollout_id"], copied.kwargs["temperature"])
    assert "role" not in copied.kwargs


def test_the_state_is_that_of_dspys_class(lm: MakeLM) -> None:
    """A program saved with our LM says `dspy.LM`, with nothing that `dspy.LM` does not know, and no key."""
    state = lm(role="judge", temperature=0.5).dump_state()
    assert "dspy.clients.lm.LM" == state["_dspy_lm_class"]
    assert not {"role", "endpoint", "version", "api_key"} & set(state)
    assert not any(word in json.dumps(state) for word in ("cachectl", "sk-test-secret"))
    loaded = dspy.BaseLM.load_state(state)
    assert (dspy.LM, 0.5) == (type(loaded), loaded.kwargs["temperature"])
    ours = cachectl.LM.load_state(state)
    assert (cachectl.LM, "judge") == (type(ours), ours.role)


def test_the_state_of_a_wrapped_lm_is_that_of_its_own_class(endpoint: Endpoint) -> None:
    """A wrapped subclass is saved as that subclass, a wrapped `dspy.LM` as `dspy.LM`."""
    assert f"{__name__}.Theirs" == cachectl.wrap(Theirs("openai/m")).dump_state()["_dspy_lm_class"]
    assert "dspy.clients.lm.LM" == cachectl.wrap(dspy.LM("openai/m")).dump_state()["_dspy_lm_class"]


def test_forward_is_never_overridden() -> None:
    """That would switch DSPy's cache, retries and engines off."""
    assert cachectl.LM.forward is dspy.LM.forward
    assert cachectl.LM.aforward is dspy.LM.aforward


def test_the_constructor_takes_what_dspys_takes(lm: MakeLM) -> None:
    """Positional and keyword arguments of `dspy.LM` mean the same."""
    ours, theirs = cachectl.LM("openai/m", "chat", 0.5, 100), dspy.LM("openai/m", "chat", 0.5, 100)
    assert theirs.kwargs == ours.kwargs
    assert (
        inspect.signature(dspy.LM.__call__).parameters.keys()
        == inspect.signature(cachectl.LM.__call__).parameters.keys()
    )


@pytest.mark.parametrize("name", ["role", "endpoint", "version"])
def test_names_must_be_text(name: str) -> None:
    """A name that is no text is an error that says which."""
    with pytest.raises(cachectl.ConfigurationError, match=name):
        cachectl.LM("openai/m", **{name: " "})


def test_wrap_leaves_the_lm_as_it_is(plain_lm: Callable[..., Any]) -> None:
    """The wrapped one is a copy with a history of its own."""
    plain = plain_lm()
    governed = cachectl.wrap(plain)
    governed("q")
    assert dspy.LM is type(plain)
    assert ([], 1) == (plain.history, len(governed.history))
    assert isinstance(governed, dspy.LM)


def test_wrap_of_a_governed_lm_only_renames(lm: MakeLM) -> None:
    """Wrapping twice is harmless; names that are not given stay."""
    again = cachectl.wrap(lm(role="judge", version="1"), version="2")
    assert (cachectl.LM, "judge", "2") == (type(again), again.role, again.version)


def test_wrap_takes_lms_only() -> None:
    """Anything else is told what to do."""
    with pytest.raises(cachectl.ConfigurationError, match=r"dspy\.BaseLM"):
        cachectl.wrap("openai/gpt-4o-mini")


def test_a_wrapped_dummy_obeys_the_phase() -> None:
    """A scripted LM is reused in `compile` and drawn afresh in `eval`, and shares nothing with another one."""
    answers = [{"answer": str(number)} for number in range(5)]
    program = dspy.Predict("question -> answer")
    dummy = cachectl.wrap(DummyLM(answers))
    with dspy.context(lm=dummy):
        with cachectl.phase("compile"):
            assert ["0", "0"] == [program(question="q").answer for _ in range(2)]
        with cachectl.phase("eval") as run:
            assert ["1", "2"] == [program(question="q").answer for _ in range(2)]
        with cachectl.phase("eval", run_id=run.run_id):
            assert ["1", "2"] == [program(question="q").answer for _ in range(2)]
    with dspy.context(lm=cachectl.wrap(DummyLM([{"answer": "other"}]))), cachectl.phase("compile"):
        assert "other" == program(question="q").answer


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("base", [dspy.BaseLM, dspy.LM, DummyLM])
@pytest.mark.parametrize("own", [(), ("forward",), ("aforward",), ("forward", "aforward")])
@pytest.mark.parametrize("is_of_class", [False, True])
def test_who_runs_a_call_is_what_dspy_says(
    base: type, own: tuple[str, ...], is_of_class: bool, asynchronous: bool
) -> None:
    """Whether DSPy runs the calls of an LM itself decides what is cached, and is told here before DSPy is asked."""
    methods = {name: lambda *_, **__: None for name in own}
    lm = type("Own", (base,), methods if is_of_class else {})([{}] if base is DummyLM else "openai/model")
    if not is_of_class:
        vars(lm).update(methods)
    said = prepare(lm, "hello", None, {}, asynchronous=asynchronous).managed
    assert said is is_managed(lm, asynchronous=asynchronous)
