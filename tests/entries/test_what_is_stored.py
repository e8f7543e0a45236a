"""Which answers are kept, and for how long they are served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.entries import records
from dspy_cachectl.stores import Label, MemoryStore, Store
from dspy_cachectl.stores.disk import DiskStore
from tests.endpoint import Endpoint

MakeLM = Callable[..., cachectl.LM]
QUESTION = "What is the colour?"
ENGINES = ["auto", "litellm"]


@pytest.fixture(params=["compile", "eval"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=ENGINES)
def model(request: pytest.FixtureRequest, lm: MakeLM, tmp_path: Path) -> cachectl.LM:
    cachectl.install([MemoryStore(), DiskStore(tmp_path / "store")])
    return lm(engine=request.param)


def ask(model: cachectl.LM, name: str, **options: float) -> cachectl.Stats:
    """Ask once in a passage of the phase; of the same run, where it has one."""
    with cachectl.phase(name, run_id="run-1" if name == "eval" else None, **options) as run:
        model(QUESTION)
    return run.stats


@pytest.mark.parametrize("fault", ["empty", "content_filter"])
def test_worthless_answers_are_not_stored(model: cachectl.LM, endpoint: Endpoint, name: str, fault: str) -> None:
    """An empty answer or a refusal would be served for ever: it reaches its caller, is counted, and asked for again."""
    endpoint.fail(fault, times=2)

    counted = [ask(model, name) for _ in range(4)]

    assert 3 == endpoint.requests
    assert [1, 1, 0, 0] == [stats.unstored for stats in counted]
    assert [1, 1, 1, 0] == [stats.fresh for stats in counted]
    assert [0] * 4 == [stats.failed_writes for stats in counted]


def test_truncated_answers_are_stored_and_counted(model: cachectl.LM, endpoint: Endpoint, name: str) -> None:
    """An answer cut at the token limit would be cut again; whoever bought it is told."""
    endpoint.fail("length", times=1)

    counted = [ask(model, name) for _ in range(2)]

    assert 1 == endpoint.requests
    assert [1, 0] == [stats.truncated for stats in counted]
    assert [0, 1] == [stats.reused + stats.resumed for stats in counted]


def test_errors_are_not_stored(model: cachectl.LM, endpoint: Endpoint, name: str) -> None:
    """A call that failed leaves nothing behind that could be served."""
    endpoint.fail("status", status=400, times=1)
    with pytest.raises(Exception, match="400"):
        ask(model, name)

    assert 1 == ask(model, name).fresh
    assert 2 == endpoint.requests


def make_older(stores: tuple[Store, ...], seconds: float) -> None:
    """Give every answer another birthday."""
    for store in stores:
        for key in list(store.keys()):
            entry = records.decode(store.get(key) or b"")
            origin = replace(entry.origin, created=entry.origin.created - seconds)
            store.put(key, records.encode(origin, entry.answer), Label(kind=origin.kind))


def test_old_answers_are_passed_over(model: cachectl.LM, endpoint: Endpoint, name: str) -> None:
    """An answer older than `max_age` is counted as expired and bought again; the new one takes its place."""
    cache = cachectl.install([MemoryStore(), *[store for store in _stores() if isinstance(store, DiskStore)]])
    ask(model, name)
    make_older(cache.tiers.stores, 3600)

    assert (1, 0) == _served(ask(model, name, max_age=7200))
    assert (0, 1) == _served(ask(model, name, max_age=1800))
    assert (1, 0) == _served(ask(model, name, max_age=1800))
    assert 2 == endpoint.requests


def test_the_age_is_not_part_of_the_key(model: cachectl.LM, endpoint: Endpoint, name: str) -> None:
    """However long answers may be served, it is the same answers."""
    for age in (60.0, 3600.0, 86_400.0):
        ask(model, name, max_age=age)
    ask(model, name)

    assert 1 == endpoint.requests


def _served(stats: cachectl.Stats) -> tuple[int, int]:
    return stats.reused + stats.resumed, stats.expired


def _stores() -> tuple[Store, ...]:
    import dspy

    return tuple(dspy.cache.tiers.stores)
