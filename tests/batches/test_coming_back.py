"""Batches that another process goes on with: one that was killed has paid for nothing that is paid for again."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.batches.support import Three, questions, run
from tests.endpoint import Endpoint
from tests.processes import Finished

CHILD = """
    import os
    import sys
    import time

    import dspy

    import dspy_cachectl as cachectl
    from dspy_cachectl.batches import provider
    from tests.batches.support import Three, questions, run

    dspy.configure(lm=cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="sk-test-secret"))
    {before}
    report = run(Three(), questions(6))
    print(f"{{report.score!r}} {{report.run_id}} {{report.provenance.counters['fresh']}}")
"""

KILLED_AFTER = """
    sent, made = provider.Account.send, []

    def send(self, name, lines):
        made.append(sent(self, name, lines))
        if len(made) == 2:
            os._exit(9)
        return made[-1]

    provider.Account.send = send
"""


def test_a_killed_evaluation_goes_on(
    lm: Any, endpoint: Endpoint, child: Callable[..., Finished], tmp_path: Path
) -> None:
    """Killed when the second batch was sent, before its id was noted: the next process takes its answers."""
    dspy.configure(lm=lm())
    ordinary = run(Three(), questions(6), batch=False, predictions=False, run_id="ordinary")
    endpoint.reset()
    assert 9 == child(CHILD.format(before=KILLED_AFTER), check=False).returncode
    assert [6, 6] == [len(batch["lines"]) for batch in endpoint.batches()]
    score, _, fresh = child(CHILD.format(before="")).stdout.split()
    assert [6, 6, 6] == [len(batch["lines"]) for batch in endpoint.batches()]
    assert (repr(ordinary.score), "18", 0) == (score, fresh, endpoint.requests)
    assert [] == list((tmp_path / "state" / "batches").glob("*.json"))


def test_it_need_not_be_waited_for(lm: Any, endpoint: Endpoint, tmp_path: Path) -> None:
    """Each time it says what is on its way, which is noted for this user alone, with no secret in it."""
    dspy.configure(lm=lm())
    endpoint.configure(batch_looks=None)
    here = cachectl.Batch(wait=False)
    runs = set()
    for wave in (1, 2, 3):
        for _ in range(2):
            with pytest.raises(cachectl.BatchPendingError, match="Run the same evaluation again later") as pending:
                run(Three(), questions(4), batch=here)
            assert wave == len(endpoint.batches())
            assert ((endpoint.batches()[-1]["id"],), 4) == (pending.value.batches, pending.value.lines)
            runs.add(pending.value.run_id)
        endpoint.finish_batches()
        for path in (tmp_path / "state" / "batches").glob("*.json"):
            assert (0o600, False) == (path.stat().st_mode & 0o777, b"sk-test-secret" in path.read_bytes())
    report = run(Three(), questions(4), batch=here)
    assert (3, 0, runs) == (len(endpoint.batches()), endpoint.requests, {report.run_id})
    assert 12 == report.provenance.counters["fresh"]


@pytest.mark.exhaustive
def test_two_processes_that_want_the_same_send_it_once(
    endpoint: Endpoint, child: Callable[..., Finished], tmp_path: Path
) -> None:
    """The second waits for the batch of the first, and both report the same."""
    endpoint.configure(batch_looks=20)
    script = CHILD.format(before="").replace("questions(6)", 'questions(6), run_id="one-run"')
    with ThreadPoolExecutor(2) as pool:
        ends = [pool.submit(child, script, env={"HOME": str(tmp_path / str(number))}) for number in range(2)]
        said = [end.result().stdout.split() for end in ends]
    assert said[0][:2] == said[1][:2]
    assert [6, 6, 6] == [len(batch["lines"]) for batch in endpoint.batches()]


def test_another_machine_finds_the_batch_with_the_provider(lm: Any, endpoint: Endpoint, tmp_path: Path) -> None:
    """It has neither the store nor the notes of the first, and the run's name."""
    dspy.configure(lm=lm())
    endpoint.configure(batch_looks=None)
    with pytest.raises(cachectl.BatchPendingError):
        run(Three(), questions(4), run_id="one-run", batch=cachectl.Batch(wait=False))
    endpoint.finish_batches()
    endpoint.configure(batch_looks=1)
    with cachectl.configure(store=str(tmp_path / "elsewhere"), state=str(tmp_path / "state-elsewhere")):
        report = run(Three(), questions(4), run_id="one-run", predictions=str(tmp_path / "kept"))
    assert [4, 4, 4] == [len(batch["lines"]) for batch in endpoint.batches()]
    assert 12 == report.provenance.counters["fresh"]


def test_batches_of_several_models_are_on_their_way_at_once(lm: Any, endpoint: Endpoint) -> None:
    """Each wave of one beside that of the other, and both are told of where they are not waited for."""
    dspy.configure(lm=lm())
    models = {name: lm(f"openai/{name}") for name in ("one", "two")}
    endpoint.configure(batch_looks=None)
    with pytest.raises(cachectl.BatchPendingError) as pending:
        run(Three(), questions(3), lms=models, predictions=False, batch=cachectl.Batch(wait=False))
    assert (2, 6) == (len(pending.value.batches), pending.value.lines)
    endpoint.finish_batches()
    endpoint.configure(batch_looks=2)
    ranking = run(Three(), questions(3), lms=models, predictions=False)
    assert ["one", "two"] == sorted(report.name for report in ranking)
    asked = [batch["lines"][0]["body"]["model"] for batch in endpoint.batches()]
    assert (["one", "two"] * 3, 0) == (asked, endpoint.requests)
