"""Compiling again, in another process on the same store, is free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.calls.support import gold
from tests.endpoint import Endpoint
from tests.phases.optimizers import OPTIMIZERS

SCRIPT = "from tests.phases import optimizers; optimizers.main()"


def test_second_process_makes_no_request(endpoint: Endpoint, child: Callable[..., Any]) -> None:
    """Every optimizer, run again in another process, makes no request and compiles the same program."""
    endpoint.configure(gold=gold(12), accuracy=0.6)

    first = child(SCRIPT, env={"PYTHONHASHSEED": "1"}).data
    bought = endpoint.requests
    second = child(SCRIPT, env={"PYTHONHASHSEED": "2"}).data

    assert bought == endpoint.requests
    assert dict.fromkeys(OPTIMIZERS, 0) == {name: one["requests"] for name, one in second.items()}
    assert [name for name, one in first.items() if one["requests"] == 0] == []
    for runs in (first, second):
        assert {name: one["requests"] for name, one in runs.items()} == {
            name: one["counted"] for name, one in runs.items()
        }
    assert {name: one["calls"] for name, one in second.items()} == {name: one["served"] for name, one in second.items()}
    assert {name: one["program"] for name, one in first.items()} == {
        name: one["program"] for name, one in second.items()
    }
