"""Evaluations whose predictions are in a bucket, by processes that share nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.predictions import growing
from dspy_cachectl.predictions.library import Library
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate_processes import CHILD
from tests.limits import PATIENCE, SOON
from tests.objects.conftest import Bucket, Cutting
from tests.objects.test_library import DATA, QUESTIONS, evaluate, machine
from tests.predictions.support import key_of, row
from tests.processes import ROOT, Finished
from tests.shards.asking import CALLS
from tests.stores.servers import until

__all__ = ["machine"]
QUESTIONS_ASKED = 12
ANSWERS = 20 * 3


@pytest.fixture
def evaluates(child: Callable[..., Finished], bucket: Bucket, tmp_path: Path) -> Callable[..., Any]:
    """Return what evaluates in a process on a machine of its own, with a store of its own."""

    def run(name: str) -> Any:
        alone = {"DSPY_CACHECTL_STATE": str(tmp_path / name), "DSPY_CACHECTL_STORE": str(tmp_path / name / "store")}
        script = CHILD.replace('predictions="library"', f'predictions="{bucket.url}"')
        return child(script, str(QUESTIONS_ASKED), "openai/a", "1", "-", env=alone).data

    return run


def test_the_second_process_asks_nothing(evaluates: Callable[..., Any], endpoint: Endpoint, bucket: Bucket) -> None:
    """It is served all that the first has kept, from the bucket alone, and reports the same."""
    first = evaluates("one")
    assert QUESTIONS_ASKED == endpoint.requests
    again = evaluates("two")
    assert QUESTIONS_ASKED == endpoint.requests
    assert (first["score"], first["run"], "loaded") == (again["score"], again["run"], again["status"])


SHARD = """
    import sys, json
    from tests.shards.asking import evaluated

    index, of, url = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    report = evaluated(predictions=url, **({"shard": (index, of)} if of > 1 else {}))
    report.save(sys.argv[4])
    print(json.dumps(report.provenance.predictions))
"""


@pytest.mark.exhaustive
def test_shards_on_machines_of_their_own_are_one_evaluation(
    child: Callable[..., Finished], endpoint: Endpoint, bucket: Bucket, tmp_path: Path
) -> None:
    """Each asks for its own part; the evaluation at once, and other shards, on other machines, for nothing."""

    def evaluates(index: int, of: int) -> tuple[str, cachectl.EvalReport]:
        name = f"{index}-of-{of}"
        alone = {"DSPY_CACHECTL_STATE": str(tmp_path / name), "DSPY_CACHECTL_STORE": str(tmp_path / name / "store")}
        file = tmp_path / f"{name}.json"
        said = child(SHARD, str(index), str(of), bucket.url, str(file), env=alone).data
        return said, cachectl.EvalReport.load(file)

    parts = [evaluates(index, 2) for index in range(2)]
    asked = endpoint.requests
    assert ANSWERS * CALLS == asked
    status, whole = evaluates(0, 1)
    merged = cachectl.EvalReport.merge([report for _, report in parts])
    assert ("loaded", merged.score, merged.interval) == (status, whole.score, whole.interval)
    assert ["loaded"] * 3 == [evaluates(index, 3)[0] for index in range(3)]
    assert asked == endpoint.requests
    judges = [sum(one.calls for one in report.provenance.judges) for report in (merged, whole)]
    assert [ANSWERS] * 2 == judges


@pytest.mark.parametrize("held", ["part", pytest.param("index", marks=pytest.mark.exhaustive)])
def test_a_killed_upload_leaves_the_old_state_whole(
    held: str, cutting: Cutting, bucket: Bucket, machine: Callable[[str], None], tmp_path: Path
) -> None:
    """SIGKILL while a part, or the index, is on its way: what was there is served, and what was kept goes up later."""
    machine("other")
    assert 3 == evaluate(bucket.url, "eval-a", at_most=3)
    before = bucket.dump()
    arrived, ended = threading.Event(), threading.Event()

    def hold(method: str, path: str) -> bool:
        if method != "PUT" or path.endswith("/index.json.zst") != (held == "index"):
            return False
        arrived.set()
        return ended.wait(PATIENCE) or True

    cutting.refuses = hold
    code = "import sys; from tests.objects.test_library import *; evaluate(sys.argv[1])"
    place = {"DSPY_CACHECTL_STATE": str(tmp_path / "killed"), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", code, bucket.url], env={**os.environ, **place})
    assert arrived.wait(PATIENCE)
    process.send_signal(signal.SIGKILL)
    process.wait(SOON)
    ended.set()
    cutting.refuses = lambda *_: False
    assert before.items() <= bucket.dump().items()
    machine("third")
    with Library(bucket.url).open(key_of(DATA), QUESTIONS) as elsewhere:
        assert 3 == elsewhere.kept_before
    machine("killed")
    assert 0 == evaluate(bucket.url)
    machine("fourth")
    assert 0 == evaluate(bucket.url)


def test_what_is_found_goes_up_while_more_is_looked_for(
    bucket: Bucket, machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is lost takes nothing with it that was sent, and the end has one part again."""
    monkeypatch.setattr(growing, "EVERY", 0.01)
    machine("lost")
    session = Library(bucket.url).open(key_of(DATA), QUESTIONS)
    for number in (0, 1, 2):
        session.keep(row(QUESTIONS[number]))
        for _ in until("the row to be in the bucket"):
            if number < sum(info.rows for info in Library(bucket.url).snapshots()):
                break
    machine("other")
    with Library(bucket.url).open(key_of(DATA), QUESTIONS) as elsewhere:
        assert (3, session.run_id) == (elsewhere.kept_before, elsewhere.run_id)
    machine("lost")
    for question in QUESTIONS[3:]:
        session.keep(row(question))
    session.finish()
    session.close()
    library = Library(bucket.url)
    library.open(key_of(DATA), QUESTIONS).close()
    assert 0 == library.wait(PATIENCE)
    machine("third")
    assert [6] == [info.rows for info in Library(bucket.url).snapshots()]


@pytest.mark.exhaustive
def test_nobody_waits_for_what_grows(
    cutting: Cutting, bucket: Bucket, machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An evaluation goes on and ends while a part of it hangs, which is then not needed any more."""
    monkeypatch.setattr(growing, "EVERY", 0.01)
    machine("one")
    arrived, ended = threading.Event(), threading.Event()

    def hold(method: str, _path: str) -> bool:
        if method == "PUT" and not arrived.is_set():
            arrived.set()
            return not ended.wait(PATIENCE)
        return False

    cutting.refuses = hold
    library = Library(bucket.url)
    session = library.open(key_of(DATA), QUESTIONS)
    session.keep(row(QUESTIONS[0]))
    assert arrived.wait(PATIENCE)
    for question in QUESTIONS[1:]:
        session.keep(row(question))
    session.finish()
    session.close()
    assert 0 == library.wait(PATIENCE)
    ended.set()
    for _ in until("the late part to be gone"):
        if 2 == len(bucket.dump()) and not [t for t in threading.enumerate() if t.name == "dspy-cachectl-growing"]:
            break
    assert [6] == [info.rows for info in Library(bucket.url).snapshots()]
