"""Embeddings text by text: what is missing of a batch is computed, and nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import dspy
import numpy as np
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import Policy
from tests.calls.support import assert_counted
from tests.calls.test_embeddings import make, same
from tests.endpoint import Endpoint

CALLS: list[list[str]] = []


@pytest.fixture
def embedder(endpoint: Endpoint) -> dspy.Embedder:
    """A hosted embedding model."""
    cachectl.install()
    return make(endpoint)


def lengths(texts: list[str]) -> np.ndarray:
    """An embedding of one's own."""
    CALLS.append(texts)
    return np.array([[float(len(text)), np.nan] for text in texts], dtype=np.float64)


CORPUS = [f"text {number}" for number in range(10)]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_one_text_more_is_one_text_sent(endpoint: Endpoint, embedder: dspy.Embedder, asynchronous: bool) -> None:
    """Of a corpus to which a text is added only that is sent, once, and every vector is in its place."""

    def embed(texts: list[str], **options: Any) -> np.ndarray:
        return asyncio.run(embedder.acall(texts, **options)) if asynchronous else embedder(texts, **options)

    first = embed(CORPUS)
    more = [CORPUS[3], "new", *reversed(CORPUS), "new", "newer"]
    with cachectl.phase("eval") as run:
        found = embed(more)
    assert [CORPUS, ["new", "newer"]] == [request["body"]["input"] for request in endpoint.log()]
    assert same(found[2:12], first[::-1])
    assert same(found[:1], first[3:4])
    assert same(found[1], found[12])
    assert not same(found[1], found[13])
    assert_counted(run.stats, fresh=1, requests=1)
    embed(more, batch_size=3)
    assert endpoint.requests == 2


def test_batches_are_as_large_as_was_asked(endpoint: Endpoint, embedder: dspy.Embedder) -> None:
    """What is missing is sent batch by batch; what an earlier batch bought is not sent again."""
    embedder(CORPUS[:2])
    embedder([*CORPUS, CORPUS[9]], batch_size=4)
    sent = [request["body"]["input"] for request in endpoint.log()]
    assert [CORPUS[:2], CORPUS[2:4], CORPUS[4:8], CORPUS[8:]] == sent


def test_a_failure_keeps_what_was_paid(endpoint: Endpoint, embedder: dspy.Embedder) -> None:
    """The batches before it are in the store, and the call counts as failed."""
    endpoint.fail("status", match="text 5", status=400)
    with cachectl.phase("compile") as run, pytest.raises(Exception, match="400"):
        embedder(CORPUS, batch_size=4)
    assert_counted(run.stats, fresh=1, failed=1, requests=1)
    endpoint.clear_faults()
    endpoint.reset_counts()
    embedder(CORPUS)
    assert [CORPUS[4:]] == [request["body"]["input"] for request in endpoint.log()]


def test_a_function_computes_what_is_missing() -> None:
    """A function of one's own gets the missing texts only; rows of an array are kept row by row."""
    CALLS.clear()
    own = cachectl.Embedder(lengths)
    own(["a", "bb"])
    assert [[3.0], [1.0], [2.0]] == own(["ccc", "a", "bb"])[:, :1].tolist()
    assert [["a", "bb"], ["ccc"]] == CALLS


def test_not_a_vector_for_each_text() -> None:
    """A function that gives too few is told so, and nothing is kept under a text that it may not be of."""
    embedder = cachectl.Embedder(lambda texts: [[1.0]], version="1")
    with pytest.raises(ValueError, match="gave 1 vectors for 2 texts"):
        embedder(["a", "b"])


def test_a_replay_of_another_batch(endpoint: Endpoint, embedder: dspy.Embedder) -> None:
    """Texts that were embedded one way are replayed another way; one that was not ends the replay."""
    first = embedder(CORPUS)
    with cachectl.phase("again", Policy.REPLAY):
        assert same(first[::2], embedder(CORPUS[::2]))
    with pytest.raises(cachectl.CacheMissError), cachectl.phase("again", Policy.REPLAY):
        embedder([*CORPUS, "new"])
    assert endpoint.requests == 1
