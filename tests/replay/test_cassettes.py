"""A cassette that was recorded against a real provider replays anywhere: without it, a key or a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.calls.support import gold
from tests.endpoint import Endpoint
from tests.replay.bare import bare
from tests.replay.programs import KEY, PROGRAMS

OPTIONS: dict[str, Any] = {"gold": gold(8), "accuracy": 0.5, "call_tools": True}
PRICE_LIST = "raw.githubusercontent.com"
"""LiteLLM looks for its list of prices there when it is imported, whatever the program does."""


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every program, recorded in one process and replayed in another, when both servers are gone."""
    folder, elsewhere = tmp_path_factory.mktemp("cassettes"), tmp_path_factory.mktemp("elsewhere")
    with Endpoint(**OPTIONS) as first, Endpoint(seed=7, **OPTIONS) as second:
        recorded = bare(
            "tests.replay.programs",
            *("record", folder, first.url, second.url),
            cwd=elsewhere,
            NO_PROXY="127.0.0.1",
            LITELLM_LOCAL_MODEL_COST_MAP="True",
        )
        asked = first.requests + second.requests
    replayed = bare(
        "tests.replay.programs",
        *("replay", folder, "http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"),
        cwd=elsewhere,
        HOME=str(elsewhere),
    )
    return {
        "recorded": recorded["programs"],
        "replayed": replayed["programs"],
        "tried": replayed["tried"],
        "asked": asked,
        "folder": folder,
        "elsewhere": elsewhere,
    }


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(played: dict[str, Any], name: str) -> None:
    """A program gives the same results from its cassette, uses all of it and asks nobody."""
    first, again = played["recorded"][name], played["replayed"][name]
    assert "error" not in first, first["error"]
    assert "error" not in again, again["error"]
    assert first["result"] == again["result"]
    assert first["calls"] == again["calls"] == again["served"]
    assert (0, 0) == (again["requests"], again["unused"])


def test_two_servers_of_one_model(played: dict[str, Any]) -> None:
    """In a phase that reuses each of two servers is asked, and each keeps its answer."""
    found, _ = played["replayed"]["two_endpoints"]["result"]
    assert found[4] != found[5]


def test_every_request_was_counted(played: dict[str, Any]) -> None:
    """What the cassettes count as bought is what the servers saw."""
    # A `DummyLM` answers by itself.
    bought = {name: one["requests"] for name, one in played["recorded"].items() if name != "dummy"}
    assert played["asked"] == sum(bought.values())
    assert [name for name, requests in bought.items() if requests == 0] == []


def test_nobody_was_looked_for(played: dict[str, Any]) -> None:
    """No replay so much as looks up a name."""
    assert [one for one in played["tried"] if PRICE_LIST not in one] == []


def test_nothing_else_was_written(played: dict[str, Any]) -> None:
    """Beside the cassettes nothing is left: no store, no journal, no cache in the home folder."""
    assert sorted(f"{name}.jsonl" for name in PROGRAMS) == sorted(path.name for path in played["folder"].iterdir())
    assert [] == [path for path in played["elsewhere"].rglob("*") if "dspy_cachectl" in str(path)]


def test_no_key_is_in_a_cassette(played: dict[str, Any]) -> None:
    """The key that every LM was given is in no file."""
    text = b"".join(path.read_bytes() for path in Path(played["folder"]).iterdir())
    assert len(text) > 100_000
    assert KEY.encode() not in text
