"""`rekey`: what was plain, or encrypted with an old key, is encrypted with the first; or all is plain again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.cli.commands import command
from tests.encryption.support import KEY, OTHER, PROMPT, VARIABLE, bytes_below, bytes_in, readable_in
from tests.encryption.test_files import INSTRUCTIONS, evaluated, keys, recorded
from tests.endpoint import Endpoint
from tests.stores.servers import Server

MakeLM = Callable[..., Any]


@pytest.fixture(params=["folder", "redis"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, shared_servers: Callable[[str], Server]
) -> tuple[str, Callable[[], bytes]]:
    """Where a store is, and what gives all its bytes."""
    if request.param == "folder":
        return str(tmp_path / "kept"), lambda: bytes_below(tmp_path / "kept")
    port, name = shared_servers("redis").port, tmp_path.name
    return f"redis://127.0.0.1:{port}?namespace={name}&patience=60", lambda: bytes_in(port, name)


def facts(store: str) -> list[Any]:
    """What `ls` tells of the entries, but for how large they are."""
    told = json.loads(command("ls", "--json", store=Path(store) if "://" not in store else store).stdout)
    return [{name: one[name] for name in one.keys() - {"size", "prompt", "newer"}} for one in told]


def test_a_store(place: tuple[str, Callable[[], bytes]], tmp_path: Path, lm: MakeLM, endpoint: Endpoint) -> None:
    """Plain to encrypted, to another key and back: nothing is readable, nothing bought anew, and all facts stay."""
    store, dumped = place
    options = {"DSPY_CACHECTL_STORE": store, "DSPY_CACHECTL_PREDICTIONS": str(tmp_path / "none")}
    cachectl.configure(store=store)

    def ask() -> list[str]:
        dspy.cache.reset_memory_cache()
        with cachectl.phase("compile"):
            return [str(lm()(f"{PROMPT} {number}?")[0]) for number in range(3)]

    cachectl.install()
    answers = ask()
    assert [PROMPT, *answers] == readable_in(dumped(), [PROMPT, *answers])
    for given, said in (
        (KEY, "3 written anew, 0 left"),
        (f"{OTHER},{KEY}", "3 written anew"),
        (OTHER, "0 written anew, 3"),
    ):
        before = facts(store)
        done = command("rekey", **options, **{VARIABLE: given})
        assert (0, True) == (done.returncode, said in done.stdout)
        assert [] == readable_in(dumped(), [PROMPT, *answers])
        assert before == facts(store)
        with keys(*given.split(",")):
            assert answers == ask()

    left = command("rekey", **options, **{VARIABLE: KEY})
    assert (1, True) == (left.returncode, "left out: 3 encrypted with a key that is not given" in left.stdout)
    assert 0 == command("rekey", "--plain", **options, **{VARIABLE: OTHER}).returncode
    assert answers == ask()
    assert 3 == endpoint.requests
    assert 1 == command("rekey", **options).returncode


def test_predictions(tmp_path: Path, lm: MakeLM, endpoint: Endpoint) -> None:
    """Files of kept predictions are written anew, and their rows served."""
    folder = tmp_path / "predictions"
    cachectl.configure(predictions=folder, store="memory://")
    evaluated(lm)
    (path,) = folder.glob("*.json")
    before, asked = json.loads(path.read_text()), endpoint.requests
    options = {"DSPY_CACHECTL_STORE": "memory://", "DSPY_CACHECTL_PREDICTIONS": str(folder)}
    assert "1 written anew" in command("rekey", **options, **{VARIABLE: KEY}).stdout
    assert [] == readable_in(bytes_below(folder), [PROMPT, INSTRUCTIONS, "Labelled1"])
    assert "0 written anew, 1 left" in command("rekey", **options, **{VARIABLE: KEY}).stdout
    dspy.cache.reset_memory_cache()
    with keys(KEY):
        evaluated(lm)
    assert asked == endpoint.requests
    assert "1 written anew" in command("rekey", "--plain", **options, **{VARIABLE: KEY}).stdout
    after = json.loads(path.read_text())
    assert before["predictions"] == after["predictions"]
    assert before["metadata"]["program_text"] == after["metadata"]["program_text"]


def test_a_cassette(tmp_path: Path, lm: MakeLM, endpoint: Endpoint) -> None:
    """It is encrypted from then on, or plain again, byte by byte."""
    path = tmp_path / "answers.jsonl"
    answers, before = recorded(path, lm, range(2)), path.read_bytes()
    assert "2 written anew" in command("rekey", path, **{VARIABLE: KEY}).stdout
    assert [] == readable_in(path.read_bytes(), [PROMPT, *answers])
    with keys(KEY):
        assert answers == recorded(path, lm, range(2), "replay")
    assert 0 == command("rekey", path, "--plain", **{VARIABLE: KEY}).returncode
    assert before == path.read_bytes()
    assert 2 == endpoint.requests
