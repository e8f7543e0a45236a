"""Compiling replays: DSPy's optimizers make the same program of a cassette, with nobody to ask."""

from __future__ import annotations

from typing import Any

import pytest

from tests.calls.support import gold
from tests.endpoint import Endpoint
from tests.replay.bare import bare
from tests.replay.optimizers import NAMES


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every optimizer, recorded in one process and replayed in another, when the server is gone."""
    folder, elsewhere = tmp_path_factory.mktemp("cassettes"), tmp_path_factory.mktemp("elsewhere")
    with Endpoint(gold=gold(12), accuracy=0.6) as endpoint:
        recorded = bare(
            "tests.replay.optimizers",
            *("record", folder, endpoint.url),
            cwd=elsewhere,
            NO_PROXY="127.0.0.1",
            PYTHONHASHSEED="1",
        )
        asked = endpoint.requests
    replayed = bare(
        "tests.replay.optimizers",
        *("replay", folder, "http://127.0.0.1:1/v1"),
        cwd=elsewhere,
        HOME=str(elsewhere),
        PYTHONHASHSEED="2",
    )
    assert asked == sum(one.get("requests", 0) for one in recorded["optimizers"].values())
    return {"recorded": recorded["optimizers"], "replayed": replayed["optimizers"]}


@pytest.mark.parametrize("name", NAMES)
def test_the_same_program(compiled: dict[str, Any], name: str) -> None:
    """An optimizer replays without a request, and its program is the one that was compiled."""
    first, again = compiled["recorded"][name], compiled["replayed"][name]
    assert "error" not in first, first["error"]
    assert "error" not in again, again["error"]
    assert first["requests"] > 0
    assert first["program"] == again["program"]
    assert (0, 0, 0) == (again["requests"], again["missed"], again["unused"])
    assert again["calls"] == again["served"]
