"""What goes wrong with a batch: its lines, all of it, and what of it is known."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.batches import notes
from tests.batches.support import Three, questions, run
from tests.endpoint import Endpoint

LINES = "/v1/batches"


@pytest.fixture
def one(lm: Any) -> dspy.Module:
    """A program of one call."""
    dspy.configure(lm=lm())
    return dspy.Predict("question -> answer")


def sizes(endpoint: Endpoint) -> list[int]:
    """How many lines each batch had."""
    return [len(batch["lines"]) for batch in endpoint.batches()]


def test_a_line_that_failed_is_asked_again(lm: Any, endpoint: Endpoint) -> None:
    """With the next wave, beside what the others ask by then, and the report is the same."""
    dspy.configure(lm=lm())
    endpoint.fail(status=429, path=LINES, times=1)
    report = run(Three(), questions(3), predictions=False)
    first, *second, third, fourth = sizes(endpoint)
    assert (3, [1, 2], 3, 1) == (first, sorted(second), third, fourth)
    assert 9 == report.provenance.counters["fresh"]
    assert all(draw.failed is None for question in report.questions for draw in question.draws)


@pytest.mark.parametrize(("status", "tries"), [(400, 1), (500, 2)])
def test_an_answer_that_does_not_come_is_a_failed_question(
    one: dspy.Module, endpoint: Endpoint, status: int, tries: int
) -> None:
    """At once where the provider says that the line is wrong, else after as many attempts as there may be."""
    endpoint.fail(status=status, path=LINES, match="question 2", message="no such thing")
    report = run(one, questions(3), predictions=False, batch=cachectl.Batch(interval=0.01, attempts=2))
    assert ([3, *[1] * (tries - 1)], 0) == (sizes(endpoint), endpoint.requests)
    failed = [draw.failed for question in report.questions for draw in question.draws]
    assert [None, None] == failed[:2]
    assert f"{status}: no such thing" in str(failed[2])
    assert (2, 1) == (report.provenance.counters["fresh"], report.provenance.counters["failed"])


def test_what_expired_is_asked_again(one: dspy.Module, endpoint: Endpoint) -> None:
    """And what was answered before that is not."""
    endpoint.configure(batch_looks=None, batch_answered=2)
    with pytest.raises(cachectl.BatchPendingError):
        run(one, questions(5), batch=cachectl.Batch(wait=False))
    endpoint.finish_batches("expired")
    endpoint.configure(batch_looks=1)
    report = run(one, questions(5))
    assert ([5, 3], 5) == (sizes(endpoint), report.provenance.counters["fresh"])


def test_a_refused_batch_ends_it(one: dspy.Module, endpoint: Endpoint) -> None:
    """With the provider's reason, and the next evaluation sends it anew."""
    endpoint.configure(batch_ending="failed")
    with pytest.raises(cachectl.BatchError, match="was refused by the provider: the file is not what was agreed"):
        run(one, questions(2))
    endpoint.configure(batch_ending="completed")
    assert 2 == run(one, questions(2)).provenance.counters["fresh"]
    assert [2, 2] == sizes(endpoint)


def test_a_cancelled_batch_ends_it(one: dspy.Module, endpoint: Endpoint) -> None:
    """What was answered before is there, and the next evaluation asks for the others only."""
    endpoint.configure(batch_ending="cancelled", batch_answered=2)
    with pytest.raises(cachectl.BatchError, match=r"was cancelled\. 2 answers of it are there"):
        run(one, questions(5))
    endpoint.configure(batch_ending="completed")
    assert 5 == run(one, questions(5)).provenance.counters["fresh"]
    assert [5, 3] == sizes(endpoint)


@pytest.mark.parametrize("what", ["POST /v1/files", "POST /v1/batches"])
def test_what_the_provider_does_not_take_is_not_noted(
    one: dspy.Module, endpoint: Endpoint, tmp_path: Path, what: str
) -> None:
    """It is said with the provider's words."""
    endpoint.fail(status=400, path=what, message="you have no money")
    with pytest.raises(cachectl.BatchError, match="you have no money"):
        run(one, questions(2))
    assert [] == list((tmp_path / "state" / "batches").glob("*.json"))
    endpoint.clear_faults()
    assert 2 == run(one, questions(2)).provenance.counters["fresh"]


def test_a_batch_whose_making_was_not_told_is_found(one: dspy.Module, endpoint: Endpoint) -> None:
    """The connection broke when it was made: it is there once, and its answers are taken."""
    endpoint.fail("drop", path="POST /v1/batches", times=1)
    assert 2 == run(one, questions(2)).provenance.counters["fresh"]
    assert [2] == sizes(endpoint)


def test_where_it_is_not_known_nothing_is_sent(one: dspy.Module, endpoint: Endpoint, tmp_path: Path) -> None:
    """The provider does not say which batches it has: the message says what to look for, and what to remove.

    Once it says so, the batch is found.
    """
    endpoint.fail("drop", path="POST /v1/batches", times=1)
    endpoint.fail(status=403, path="GET /v1/batches")
    for _ in range(2):
        with pytest.raises(cachectl.BatchError):
            run(one, questions(2))
    with pytest.raises(cachectl.BatchError, match=r"remove .*\.json, and run again") as known:
        run(one, questions(2))
    assert [2] == sizes(endpoint)
    (note,) = (tmp_path / "state" / "batches").glob("*.json")
    assert str(note) in str(known.value)
    endpoint.clear_faults()
    assert 2 == run(one, questions(2)).provenance.counters["fresh"]
    assert [2] == sizes(endpoint)


@pytest.mark.parametrize("text", ["", "{}", '{"version":99}', '{"version":1,"name":3}'])
def test_a_note_that_cannot_be_read_is_said(one: dspy.Module, endpoint: Endpoint, tmp_path: Path, text: str) -> None:
    """With its place, and nothing is sent."""
    folder = tmp_path / "state" / "batches"
    folder.mkdir(parents=True)
    note = folder / f"{'0' * 32}.json"
    note.write_text(text)
    with pytest.raises(cachectl.StoreError, match=note.name):
        run(one, questions(2))
    assert [] == endpoint.batches()


@pytest.mark.parametrize("what", ["GET /v1/batches/batch_", "GET /v1/files/"])
def test_a_batch_that_is_gone_is_said(one: dspy.Module, endpoint: Endpoint, tmp_path: Path, what: str) -> None:
    """With its note, without which it is sent anew."""
    endpoint.fail(status=404, path=what)
    with pytest.raises(cachectl.BatchError, match=r"Where it is gone for good, remove .*\.json") as gone:
        run(one, questions(2), batch=cachectl.Batch(interval=0.001, longest_interval=0.001))
    endpoint.clear_faults()
    (note,) = (tmp_path / "state" / "batches").glob("*.json")
    assert str(note) in str(gone.value)
    note.unlink()
    assert 2 == run(one, questions(2)).provenance.counters["fresh"]
    assert [2, 2] == sizes(endpoint)


def test_an_old_note_goes(one: dspy.Module, tmp_path: Path) -> None:
    """Nothing of its batch is left with any provider."""
    old = notes.Note("0" * 32, "e", "r", "openai", "m", ("key",), 1, created=time.time() - 61 * 86400, batch="b")
    notes.write(old)
    assert [notes.path_of(old)] == list((tmp_path / "state" / "batches").glob("*.json"))
    run(one, questions(1))
    assert [] == list((tmp_path / "state" / "batches").glob("*.json"))
