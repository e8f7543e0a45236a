"""`rekey` reaches a bucket, and `verify --repair` says that it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.errors import StoreUnavailableError
from dspy_cachectl.manage.rekeying import rekey_cassette
from dspy_cachectl.predictions.library import Library
from tests.encryption.support import KEY, OTHER, readable_in
from tests.encryption.test_files import keys
from tests.endpoint import Endpoint
from tests.objects.conftest import Bucket
from tests.objects.test_library import command, evaluate, machine

__all__ = ["machine"]
ROW = '"example_key":'


def readable(bucket: Bucket, *, besides: set[str] | frozenset[str] = frozenset()) -> list[str]:
    """What stands readable in the parts of a bucket."""
    return [name for name, data in bucket.dump().items() if name not in besides and readable_in(data, [ROW])]


def test_predictions(bucket: Bucket, machine: Callable[[str], None]) -> None:
    """Each part is written anew in the place of the old one, and what is kept is served with the new key alone."""
    pytest.importorskip("cryptography")
    machine("one")
    evaluate(bucket.url, "eval-a")
    machine("two")
    evaluate(bucket.url, "eval-b")
    assert 2 == len(old := readable(bucket))
    with cachectl.configure(predictions=bucket.url, store="memory://"):
        for given, says in (([KEY], "3 written"), ([KEY], "0 written anew, 3 left"), ([OTHER, KEY], "3 written")):
            with keys(*given):
                assert says in command("rekey")
    assert [] == readable(bucket, besides={*old})
    for name in ("three", "two"):
        machine(name)
        with keys(OTHER):
            assert 2 == len(Library(bucket.url).snapshots())
            assert [0, 0] == [evaluate(bucket.url, run) for run in ("eval-a", "eval-b")]


def test_a_cassette(bucket: Bucket, machine: Callable[[str], None], lm: Callable[..., Any], endpoint: Endpoint) -> None:
    """It is encrypted in the bucket, and replayed with its key; one that is not there is said to be missing."""
    pytest.importorskip("cryptography")
    machine("one")
    address = f"{bucket.url}/answers.jsonl"

    def asked(mode: Any) -> list[str]:
        with cachectl.cassette(address, mode=mode):
            return [str(lm()("hi")[0])]

    answers = asked("new")
    with keys(KEY):
        assert "1 written anew" in command("rekey", address)
        assert [] == readable_in(b"".join(bucket.dump().values()), answers)
        machine("two")
        assert answers == asked("replay")
        with pytest.raises(StoreUnavailableError, match=f"{address}x cannot be read"):
            rekey_cassette(f"{address}x")
    assert 1 == endpoint.requests


def test_what_is_damaged_stays_in_the_bucket(bucket: Bucket, machine: Callable[[str], None]) -> None:
    """`verify --repair` moves nothing there, and says what to do, which helps."""
    machine("one")
    evaluate(bucket.url)
    (part,) = (name for name in bucket.dump() if "index" not in name)
    bucket.write(part, b"damaged")
    dumped = bucket.dump()
    said = command("verify", "--repair", "--yes", "--predictions", bucket.url, code=3)
    assert "predictions clear SNAPSHOT --library" in " ".join(said.split())
    assert dumped == bucket.dump()
    (info,) = Library(bucket.url).snapshots()
    command("predictions", "clear", info.path.name, "--yes", "--library", bucket.url)
    assert "Nothing is damaged" in command("verify", "--predictions", bucket.url)
