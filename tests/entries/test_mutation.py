"""A caller who changes what it got changes nobody else's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.stores import MemoryStore, Store
from dspy_cachectl.stores.disk import DiskStore
from tests.endpoint import Endpoint

MakeLM = Callable[..., cachectl.LM]
QUESTION = "What is the colour?"
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(params=["memory", "disk", "both"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> list[Store]:
    disk = DiskStore(tmp_path / "store")
    chosen: dict[str, list[Store]] = {"memory": [MemoryStore()], "disk": [disk], "both": [MemoryStore(), disk]}
    cachectl.install(chosen[request.param])
    return chosen[request.param]


def spoil(value: Any, seen: set[int] | None = None) -> None:
    """Change everything that can be changed in a value, however deep."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    for item in _spoiled(value):
        if isinstance(item, (dict, list)) or hasattr(item, "__dict__"):
            spoil(item, seen)


def _spoiled(value: Any) -> list[Any]:
    """Change what is in a value, and return what was in it."""
    if isinstance(value, list):
        inner, value[:] = list(value), ["spoiled"]
        return inner
    fields = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    inner = list(fields.values())
    for name in list(fields):
        if fields is value:
            value[name] = "spoiled"
            continue
        with contextlib.suppress(AttributeError, TypeError, ValueError):
            object.__setattr__(value, name, "spoiled")
    return inner


@pytest.mark.parametrize(
    "options", [{}, {"n": 2}, {"tools": [TOOL], "tool_choice": "required"}, {"model_type": "text"}]
)
@pytest.mark.parametrize("engine", ["auto", "litellm"])
@pytest.mark.parametrize("name", ["compile", "eval"])
def test_spoiled_answers(
    lm: MakeLM, endpoint: Endpoint, stores: list[Store], engine: str, name: str, options: dict[str, Any]
) -> None:
    """The first caller, the second and the third get the same answer, though each spoils what it got."""
    model = lm(engine=engine, **options)
    results: list[str] = []
    bought = 0  # for two answers the native engine makes two requests
    for _ in range(3):
        with cachectl.phase(name, run_id="run-1" if name == "eval" else None):
            got = model(QUESTION)
        results.append(repr(got))
        bought = endpoint.requests if len(results) == 1 else bought
        entry = model.history[-1]
        spoil(entry["response"])
        spoil(entry["outputs"])
        spoil(got)

    assert bought == endpoint.requests
    assert [results[0]] * 3 == results
    assert "spoiled" not in results[0]


@pytest.mark.parametrize("engine", ["auto", "litellm"])
def test_spoiled_coalesced_answers(lm: MakeLM, endpoint: Endpoint, stores: list[Store], engine: str) -> None:
    """Callers who shared one request in the air have objects of their own."""
    model = lm(engine=engine)
    endpoint.hold()
    with ThreadPoolExecutor(8) as pool, cachectl.phase("compile", everywhere=True):
        waiting = [pool.submit(model, QUESTION) for _ in range(8)]
        assert endpoint.wait_for(1)
        endpoint.release()
        got = [future.result() for future in waiting]
    expected = list(got[0])
    for result in got[1:]:
        spoil(result)

    assert 1 == endpoint.requests
    assert expected == got[0]
    assert expected == model(QUESTION)


def test_spoiled_predictions(lm: MakeLM, endpoint: Endpoint, stores: list[Store]) -> None:
    """A program that changes its prediction does not change the next one's."""
    program = dspy.Predict("question -> answer, parts: list[str]")
    texts = []
    for _ in range(3):
        with dspy.context(lm=lm()):
            prediction = program(question=QUESTION)
        texts.append((prediction.answer, tuple(prediction.parts)))
        prediction.parts.append("spoiled")
        prediction.answer = "spoiled"

    assert 1 == endpoint.requests
    assert [texts[0]] * 3 == texts


def test_spoiled_vectors(endpoint: Endpoint, stores: list[Store]) -> None:
    """Vectors can be normalised in place without harm to others'."""
    embedder = dspy.Embedder("openai/test-embedding", api_base=endpoint.url, api_key="sk-test")
    first = embedder(["red"])
    expected = first.copy()
    first *= 0

    second = embedder(["red"])
    second *= 0

    assert expected.tolist() == embedder(["red"]).tolist()
    assert 1 == endpoint.requests


@pytest.mark.filterwarnings("ignore:Passing OpenAI-style message")
def test_spoiled_questions(lm: MakeLM, endpoint: Endpoint, stores: list[Store]) -> None:
    """Messages that are changed after the call are another question; the first one is still answered."""
    model = lm()
    messages = [{"role": "user", "content": QUESTION}]
    answer = model(messages=messages)
    messages[0]["content"] = "What is the number?"
    messages.append({"role": "user", "content": "Say it."})

    assert answer == model(messages=[{"role": "user", "content": QUESTION}])
    assert 1 == endpoint.requests
