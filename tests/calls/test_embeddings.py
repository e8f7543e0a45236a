"""Embeddings do not vary: they are served wherever a policy reads."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import dspy
import numpy as np
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import Policy
from dspy_cachectl.accounting.ledger import Row
from tests.calls.support import MakeLM, assert_counted, examples, qa
from tests.endpoint import Endpoint

TEXTS = ["a b", "c", "Zürich 🚀"]


@pytest.fixture
def embedder(endpoint: Endpoint) -> dspy.Embedder:
    """A hosted embedding model; making one does not by itself put our cache in place."""
    cachectl.install()
    return make(endpoint)


def make(endpoint: Endpoint, model: str = "openai/test-embedding", **options: Any) -> dspy.Embedder:
    return dspy.Embedder(model, api_base=endpoint.url, api_key="sk-test-secret", **options)


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype == np.float32 and bool(np.array_equal(one, other))


@pytest.mark.parametrize("phase", ["compile", "eval"])
def test_served_in_every_phase(endpoint: Endpoint, embedder: dspy.Embedder, phase: str) -> None:
    """The same texts are embedded once, also in `eval`, and the arrays are equal."""
    first = embedder(TEXTS)
    with cachectl.phase(phase) as run:
        assert same(first, embedder(TEXTS))
        embedder(["new"])
        embedder(["new"])
    assert endpoint.requests == 2
    assert_counted(run.stats, reused=2, fresh=1, requests=1)
    assert (run.stats.collapsed, run.stats.unpriced) == (0, 0)


def test_from_the_disk(endpoint: Endpoint, embedder: dspy.Embedder, child: Callable[..., Any]) -> None:
    """Another process gets the same vectors from the store."""
    first = embedder(TEXTS)
    script = """
        import json, os, sys, dspy
        import dspy_cachectl as cachectl

        cachectl.install()
        embedder = dspy.Embedder("openai/test-embedding", api_base=os.environ["ENDPOINT_URL"], api_key="sk-test")
        with cachectl.phase("eval"):
            print(json.dumps(embedder(json.loads(sys.argv[1])).tolist()))
    """
    assert first.tolist() == child(script, json.dumps(TEXTS)).data
    assert endpoint.requests == 1


def test_sync_and_async_share(endpoint: Endpoint, embedder: dspy.Embedder) -> None:
    """`acall` is served what `__call__` bought, and the other way round."""
    first = embedder(TEXTS)
    assert same(first, asyncio.run(embedder.acall(TEXTS)))
    second = asyncio.run(embedder.acall(["other"]))
    assert same(second, embedder(["other"]))
    assert endpoint.requests == 2


def test_one_text_and_a_list(endpoint: Endpoint, embedder: dspy.Embedder) -> None:
    """A text by itself is a list of one, in a vector instead of a matrix."""
    assert same(embedder("a b"), embedder(["a b"])[0])
    assert endpoint.requests == 1


def test_what_comes_back_is_ones_own(endpoint: Endpoint, embedder: dspy.Embedder) -> None:
    """Changing a vector that was served changes nobody else's."""
    first = embedder(TEXTS)
    embedder(TEXTS)[:] = 0
    assert same(first, embedder(TEXTS))


def test_what_keeps_vectors_apart(endpoint: Endpoint, embedder: dspy.Embedder) -> None:
    """Another model, another length and other texts are other entries."""
    sized = make(endpoint, "openai/text-embedding-3-small")
    assert [(1, 16), (1, 8)] == [sized(["a"]).shape, sized(["a"], dimensions=8).shape]
    embedder(["a"])
    embedder(["b"])
    assert endpoint.requests == 4


def test_two_endpoints_do_not_share(endpoint: Endpoint, embedder: dspy.Embedder) -> None:
    """The same model's name at another address is another model; the stats name the model."""
    with Endpoint() as other:
        embedder(TEXTS)
        make(other)(TEXTS)
        assert (endpoint.requests, other.requests) == (1, 1)
    assert [Row("", None, "openai/test-embedding")] == list(cachectl.stats().by)


def test_caching_off(endpoint: Endpoint, embedder: dspy.Embedder) -> None:
    """caching=False asks each time, as DSPy promises."""
    for _ in range(2):
        embedder(TEXTS, caching=False)
    assert endpoint.requests == 2


def test_refresh_and_off(endpoint: Endpoint, embedder: dspy.Embedder) -> None:
    """A policy that does not read asks again; REFRESH replaces what is stored."""
    embedder(TEXTS)
    for policy in (Policy.REFRESH, Policy.OFF):
        with cachectl.phase("again", policy) as run:
            embedder(TEXTS)
        assert run.stats.requests == 1
    embedder(TEXTS)
    assert endpoint.requests == 3


_calls: list[list[str]] = []
FACTOR = 1
settings = {"factor": 1}


def lengths(texts: list[str]) -> np.ndarray:
    """An embedding of one's own."""
    _calls.append(texts)
    return np.array([[float(len(text)), np.nan] for text in texts], dtype=np.float64)


class Model:
    """A local model, of which there may be several."""

    power = 1

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def encode(self, texts: list[str]) -> list[list[float]]:
        return [[float(self.factor * self.power * len(text))] for text in texts]


def test_own_function(embedder: dspy.Embedder) -> None:
    """A function of one's own is cached by its source, and costs no request."""
    _calls.clear()
    own = dspy.Embedder(lengths)
    with cachectl.phase("eval") as run:
        first = own(TEXTS)
        assert np.array_equal(first, own(TEXTS), equal_nan=True)
    assert len(_calls) == 1
    assert_counted(run.stats, fresh=1, reused=1, requests=0)


def scaled(factor: int, way: str) -> Callable[[list[str]], list[list[float]]]:
    """The same function with another number, which it comes by in one of several ways."""

    def keyword(texts: list[str], *, by: int = factor) -> list[list[float]]:
        return [[float(by * len(text))] for text in texts]

    def of_a_global(texts: list[str]) -> list[list[float]]:
        return [[float(FACTOR * len(text))] for text in texts]

    def of_settings(texts: list[str]) -> list[list[float]]:
        return [[float(settings["factor"] * len(text))] for text in texts]

    globals()["FACTOR"] = settings["factor"] = factor
    Model.power = factor if way == "class" else 1
    ways = {
        "default": lambda texts, by=factor: [[float(by * len(text))] for text in texts],
        "keyword": keyword,
        "closure": lambda texts: [[float(factor * len(text))] for text in texts],
        "global": of_a_global,
        "settings": of_settings,
        "class": Model(1).encode,
        "method": Model(factor).encode,
        "partial": partial(keyword, by=factor),
    }
    return ways[way]


@pytest.mark.parametrize("way", ["default", "keyword", "closure", "global", "settings", "class", "method", "partial"])
def test_functions_that_depend_on_more_than_their_source(embedder: dspy.Embedder, way: str) -> None:
    """Two functions of one source do not get each other's vectors, and each is served its own."""
    with cachectl.phase("eval") as run:
        for _ in range(2):
            assert [[1.0], [2.0]] == [dspy.Embedder(scaled(factor, way))("x").tolist() for factor in (1, 2)]
    assert_counted(run.stats, fresh=2, reused=2, requests=0)


class Weights:
    """Something of which nothing can be told but its class."""

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()


def test_functions_that_cannot_be_told_apart(embedder: dspy.Embedder) -> None:
    """What rests on an object that cannot be looked into is computed each time, and counted."""
    weights = Weights()

    def embed(texts: list[str]) -> list[list[float]]:
        return [[float(len(text) + (weights is None))] for text in texts]

    with cachectl.phase("eval") as run:
        for _ in range(2):
            assert dspy.Embedder(embed)("x").tolist() == [1.0]
    assert_counted(run.stats, uncacheable=2, requests=0)
    with cachectl.phase("check", Policy.REPLAY):
        assert dspy.Embedder(embed)("x").tolist() == [1.0]


class Encoder(Weights):
    """A model of a package: a method that counts, on weights that nothing can be told of."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[str]] = []

    def encode(self, texts: list[str], by: int = 1) -> list[list[float]]:
        self.calls.append(texts)
        return [[float(by * len(text))] for text in texts]

    __call__ = encode


class CopiedEncoder(Encoder):
    """One that DSPy can copy, as it does with a function that has no version."""

    def __deepcopy__(self, memo: Any) -> CopiedEncoder:
        return self


WAYS: dict[str, Callable[[Encoder], Any]] = {
    "method": lambda encoder: encoder.encode,
    "object": lambda encoder: encoder,
    "partial": lambda encoder: partial(encoder.encode, by=1),
    "lambda": lambda encoder: lambda texts: encoder.encode(texts, by=1),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_version_of_ones_own(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """Without one it is computed each time, which is said once; with one its vectors are kept, sync and async."""
    for _ in range(2):
        encoder: Encoder = CopiedEncoder()
        plain = dspy.Embedder(WAYS[way](encoder))
        with cachectl.phase("eval") as run:
            assert [[1.0], [1.0]] == [plain("x").tolist() for _ in range(2)]
        assert_counted(run.stats, uncacheable=2, requests=0)
        assert 2 == len(encoder.calls)
    assert 1 == len([line for line in caplog.messages if "cachectl.Embedder(function, version=...)" in line])

    for version, computed in (("1", 1), ("1", 0), ("2", 1)):
        encoder = Encoder()
        with cachectl.phase("eval") as run:
            embedder = cachectl.Embedder(WAYS[way](encoder), version=version)
            assert [3.0] == embedder("xyz").tolist() == asyncio.run(embedder.acall("xyz")).tolist()
        assert computed == len(encoder.calls)
        assert_counted(run.stats, fresh=computed, reused=2 - computed, requests=0)


def test_two_functions_of_one_version(embedder: dspy.Embedder) -> None:
    """A version is one of a function: another function, or another option, has vectors of its own."""
    encoder = Encoder()
    found = [
        cachectl.Embedder(encoder.encode, version="1")("x"),
        cachectl.Embedder(lengths, version="1")("x"),
        cachectl.Embedder(encoder.encode, version="1")("x", by=2),
    ]
    assert [1.0, 1.0, 2.0] == [float(vector[0]) for vector in found]
    assert [1, 2, 1] == [len(vector) for vector in found]


def test_a_version_of_a_hosted_model(endpoint: Endpoint) -> None:
    """It keeps what another version has embedded apart; a copy of the embedder has it, too."""
    options: dict[str, Any] = {"api_base": endpoint.url, "api_key": "sk-test-secret"}
    for version in ("1", "2", "1", None):
        one = cachectl.Embedder("openai/test-embedding", version=version, **options)
        for copied in (one, copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
            copied(TEXTS)
    assert 3 == endpoint.requests
    with pytest.raises(cachectl.ConfigurationError, match="not empty"):
        cachectl.Embedder("openai/test-embedding", version=" ")


def test_replayed(endpoint: Endpoint, embedder: dspy.Embedder) -> None:
    """A replay serves the vectors that were recorded."""
    first = embedder(TEXTS)
    with cachectl.phase("check", Policy.REPLAY) as run:
        assert same(first, embedder(TEXTS))
    assert endpoint.requests == 1
    assert_counted(run.stats, replayed=1)


def test_retrieval_in_an_evaluation(
    endpoint: Endpoint, embedder: dspy.Embedder, lm: MakeLM, caplog: pytest.LogCaptureFixture
) -> None:
    """A program that retrieves and answers: the answers are fresh, the vectors of the same question are served.

    DSPy's retriever embeds in a thread that no phase reaches; that is no stray call, for vectors do not vary.
    """
    retriever = dspy.Embeddings(corpus=["a b", "c d"], embedder=embedder, k=1)
    endpoint.reset_counts()

    class Retrieving(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.answer = qa()

        def forward(self, question: str) -> dspy.Prediction:
            return self.answer(question=f"{question} {retriever(question).passages}")

    dspy.configure(lm=lm(temperature=1.0))
    with cachectl.phase("eval") as run:
        for _ in range(3):
            for one in examples(2):
                Retrieving()(**one.inputs())
    assert {"/v1/embeddings": 2, "/v1/chat/completions": 6} == endpoint.state["paths"]
    assert_counted(run.stats, fresh=6, stray=0)
    assert caplog.messages == []


def test_without_a_phase_nothing_is_needed(endpoint: Endpoint) -> None:
    """DSPy's own cache serves embeddings until a phase opens; a phase puts ours in place."""
    embedder = make(endpoint)
    embedder(TEXTS)
    assert type(dspy.cache) is not cachectl.ManagedCache
    with cachectl.phase("eval"):
        embedder(TEXTS)
        embedder(TEXTS)
    assert endpoint.requests == 2


class Listing(cachectl.Embedder):
    """A class of the user's that makes something else of vectors than an array."""

    def _postprocess(self, embeddings_list: Any, is_single_input: bool) -> Any:
        return [[type(vector), *vector] for vector in embeddings_list]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("kind", [dspy.Embedder, cachectl.Embedder, Listing])
def test_each_hit_is_as_what_was_bought(endpoint: Endpoint, kind: Any, asynchronous: bool) -> None:
    """From memory and from disk, decoded now or before, an embedder gives what it gave when it bought."""
    cache = cachectl.install()
    one = kind("openai/test-embedding", api_base=endpoint.url, api_key="sk-test-secret")

    def ask() -> Any:
        return asyncio.run(one.acall(texts)) if asynchronous else one(texts)

    texts = [*TEXTS, TEXTS[0]]
    first = ask()
    for _ in range(3):
        for _ in range(2):
            served = ask()
            assert repr(first) == repr(served) if kind is Listing else same(first, served)
        cache.reset_memory_cache()
    assert endpoint.requests == 1


def test_what_makes_arrays_may_be_anothers(monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint) -> None:
    """An array is made as DSPy makes it, and where another's function stands in DSPy's place, that makes it."""
    cachectl.install()
    one = cachectl.Embedder("openai/test-embedding", api_base=endpoint.url, api_key="sk-test-secret")
    plain = make(endpoint)
    assert same(plain(TEXTS), one(TEXTS))
    assert same(plain("c"), one("c"))
    assert same(plain([]), one([]))
    monkeypatch.setattr(dspy.Embedder, "_postprocess", lambda self, rows, is_single: [is_single, *rows])
    assert repr(plain(TEXTS)) == repr(one(TEXTS))
    assert repr(plain("c")) == repr(one("c"))
    assert endpoint.requests == 1


def test_what_is_around_a_call_decides_where_it_goes(monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint) -> None:
    """Another address in the environment, or in LiteLLM's settings, is another model, however alike the calls are."""
    cachectl.install()
    one = cachectl.Embedder("openai/test-embedding", api_key="sk-test-secret")
    with Endpoint() as other:
        for address in (endpoint.url, other.url, endpoint.url):
            monkeypatch.setenv("OPENAI_API_BASE", address)
            one(TEXTS)
            one(TEXTS)
        assert (1, 1) == (endpoint.requests, other.requests)
        for organization in ("a", "b", "a"):
            monkeypatch.setattr("litellm.organization", organization)
            one(TEXTS)
        assert (3, 1) == (endpoint.requests, other.requests)
