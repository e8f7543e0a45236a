"""A cassette in an object store: one process records it, another replays it without a provider."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.errors import ConfigurationError, StoreError, StoreUnavailableError
from tests.calls.support import MakeLM
from tests.endpoint import Endpoint
from tests.objects.conftest import Bucket, Cutting
from tests.objects.servers import NAME, SECRET
from tests.replay.plugin.suites import Suite
from tests.replay.support import ask

PASSWORD = "of-the-customer-8f31c2"
REPLAY = """
import os, sys, dspy
import dspy_cachectl as cachectl

dspy.configure(lm=cachectl.LM("openai/test-model", api_base="http://127.0.0.1:1/v1", api_key="sk-none"))
with cachectl.cassette(sys.argv[1]) as opened:
    print(*(dspy.settings.lm(text)[0] for text in sys.argv[2:]), sep="|")
print(opened.stats.requests)
"""


@pytest.fixture(autouse=True)
def _lm(lm: MakeLM) -> None:
    dspy.configure(lm=lm())


@pytest.fixture
def tape(bucket: Bucket) -> str:
    """The address of a cassette in a bucket."""
    return f"{bucket.url}/answers.jsonl"


def lines(bucket: Bucket) -> list[dict[str, Any]]:
    """The recordings of the one cassette in a bucket, as they lie there."""
    (data,) = bucket.dump().values()
    return [json.loads(line) for line in data.splitlines()][1:]


def elsewhere(folder: Path) -> None:
    """Go to another machine: nothing that was kept on this one is there."""
    cachectl.configure(state=str(folder))


def record(tape: str, *texts: str, mode: Any = "record") -> list[str]:
    """Record, and return the answers."""
    with cachectl.cassette(tape, mode):
        return ask(*texts)


def test_another_process_replays_without_a_provider(
    tape: str,
    bucket: Bucket,
    endpoint: Endpoint,
    child: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """It makes no request and is given the same answers; what lies in the bucket holds no secret."""
    monkeypatch.setenv("CUSTOMER_PASSWORD", PASSWORD)
    texts = ("One?", f"Two, {PASSWORD}?")
    answers = record(tape, *texts)
    asked = endpoint.requests
    assert 2 == asked
    (data,) = bucket.dump().values()
    for secret in (PASSWORD, NAME, SECRET, "sk-test-secret"):
        assert secret.encode() not in data
    replayed = child(REPLAY, tape, *texts, env={"DSPY_CACHECTL_STATE": str(tmp_path / "elsewhere")})
    assert ["|".join(answers), "0"] == replayed.stdout.splitlines()
    assert asked == endpoint.requests


@pytest.mark.parametrize("name", ["answers.jsonl", pytest.param("answers.jsonl.zst", marks=pytest.mark.exhaustive)])
def test_two_that_record_at_once_lose_nothing(
    bucket: Bucket, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who saves last has read anew what the other saved meanwhile, and says so."""
    tape = f"{bucket.url}/{name}"
    elsewhere(tmp_path / "one")
    with cachectl.cassette(tape, "new"):
        ask("One?")
        elsewhere(tmp_path / "two")
        record(tape, "Two?", mode="new")
    elsewhere(tmp_path / "three")
    with cachectl.cassette(tape) as replayed:
        assert 2 == len(ask("One?", "Two?"))
    assert 2 == replayed.stats.served


def test_who_meets_another_reads_again(
    cutting: Cutting, tape: str, bucket: Bucket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A write is refused where somebody else has written since it was read; then both are kept."""
    caplog.set_level("INFO", "dspy_cachectl")
    elsewhere(tmp_path / "somebody")
    record(tape, "One?", "Three?", mode="new")
    (theirs,) = bucket.dump().items()
    bucket.remove(theirs[0])
    elsewhere(tmp_path / "one")
    record(tape, "One?", mode="new")
    met: list[str] = []

    def meets(method: str, _path: str) -> bool:
        if method == "PUT" and not met:
            met.append(method)
            bucket.write(*theirs)
        return False

    cutting.refuses = meets
    record(tape, "Two?", mode="new")
    assert 3 == len(lines(bucket))
    assert "changed by somebody else meanwhile" in caplog.text


@pytest.mark.parametrize("what", ["refused", pytest.param("lost", marks=pytest.mark.exhaustive)])
def test_what_was_bought_outlives_an_upload_that_fails(
    cutting: Cutting, tape: str, bucket: Bucket, endpoint: Endpoint, what: str, tmp_path: Path
) -> None:
    """A reply that is lost is harmless; what was not written is said, and written by the next recording."""
    record(tape, "One?")
    before = bucket.dump()
    if what == "lost":
        cutting.cuts = lambda method, _: method == "PUT"
        record(tape, "Two?", mode="new")
    else:
        cutting.refuses = lambda method, _: method == "PUT"
        with pytest.raises(StoreUnavailableError, match="does not reply"):
            record(tape, "Two?", mode="new")
        assert before == bucket.dump()
    cutting.cuts = cutting.refuses = lambda *_: False
    asked = endpoint.requests
    record(tape, "Two?", mode="new")
    assert asked == endpoint.requests
    elsewhere(tmp_path / "elsewhere")
    with cachectl.cassette(tape) as replayed:
        ask("One?", "Two?")
    assert 2 == replayed.stats.served


def test_what_is_no_cassette_is_left_alone(tape: str, bucket: Bucket, endpoint: Endpoint) -> None:
    """Before anything is paid for it is said what is wrong, by the address."""
    with pytest.raises(ConfigurationError, match=f"no cassette {tape} to replay"), cachectl.cassette(tape):
        pass
    bucket.write("team/evals/answers.jsonl", b"somebody's notes\n")
    with pytest.raises(StoreError, match=f"^{tape} is not a cassette"):
        record(tape, "One?", mode="new")
    assert [b"somebody's notes\n"] == list(bucket.dump().values())
    for wrong in (f"s3://{bucket.name}", f"s3://{NAME}:{SECRET}@{bucket.name}/x"):
        with pytest.raises(ConfigurationError) as error:
            cachectl.cassette(wrong)
        assert SECRET not in str(error.value)
    assert 0 == endpoint.requests


def test_without_the_bucket_nothing_is_paid_for(cutting: Cutting, tape: str, endpoint: Endpoint) -> None:
    """A recording that could not be saved does not begin."""
    cutting.refuses = lambda *_: True
    with pytest.raises(StoreUnavailableError, match="does not reply"):
        record(tape, "One?")
    assert 0 == endpoint.requests


@pytest.fixture
def suite(pytester: pytest.Pytester, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """A folder for tests of a user, run by a pytest of their own."""
    return Suite(pytester, endpoint, monkeypatch)


TESTS = """
import pytest
from conftest import ask

@pytest.mark.cachectl
def test_own(say):
    say(ask("One?"))

@pytest.mark.cachectl(cassette="{marked}")
def test_marked(say):
    say(ask("Two?"))
"""


def test_tests_replay_from_a_bucket(suite: Suite, bucket: Bucket, endpoint: Endpoint) -> None:
    """The folder of the configuration may be one of a bucket, and so may the file of a marker."""
    suite.write("test_it.py", TESTS.format(marked=f"{bucket.url}/shared.jsonl"))
    options = ("-o", f"cachectl_folder={bucket.url}/cassettes")
    assert {"passed": 2} == suite.run("--cachectl=record", *options).counts()
    assert ["team/evals/cassettes/test_it.jsonl", "team/evals/shared.jsonl"] == sorted(bucket.dump())
    asked = endpoint.requests
    ran = suite.run(*options)
    assert {"passed": 2} == ran.counts(), ran.text
    assert asked == endpoint.requests == 2
