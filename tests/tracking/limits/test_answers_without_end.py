"""A server whose answers do not end costs neither memory nor a thread."""

from __future__ import annotations

import io
import resource
import threading

import pytest
import requests

from dspy_cachectl.tracking import sync
from dspy_cachectl.tracking.log import log_to_mlflow
from dspy_cachectl.tracking.outbox import Outbox
from tests.limits import PATIENCE
from tests.reports.made_up import report
from tests.tracking import servers
from tests.tracking.rest import Rest

MB = 1024 * 1024


def _pushes() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "dspy-cachectl-push"]


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "plain"])
def test_an_answer_without_end(server: Rest, outbox: Outbox, packed: bool) -> None:
    """The results wait with the reason, nothing of it is kept, and nobody goes on reading."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with servers.endless(packed=packed) as address:
        outcome = log_to_mlflow(report([1, 0]), tracking_uri=address, timeout=PATIENCE)
        for push in _pushes():
            push.join(PATIENCE)
        assert not any(push.is_alive() for push in _pushes())
    assert outcome.status == "pending"
    assert "longer than" in outcome.reason
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * MB // 1024
    assert [one.status for one in sync(uri=server.url)] == ["logged"]


def test_other_answers_are_read_whole() -> None:
    """What the program itself asks for is not this package's."""
    response = requests.Response()
    response.raw = io.BytesIO(bytes(80 * MB))
    assert len(response.content) == 80 * MB
