"""The smaller examples: what each asks the provider the first time, and again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.endpoint import Endpoint
from tests.examples.running import EXAMPLES, example, surroundings
from tests.limits import PATIENCE
from tests.processes import ROOT, Finished, python


def test_a_fourth_model_costs_itself(endpoint: Endpoint, tmp_path: Path) -> None:
    """Three models are asked 21 messages twice; again nobody is; of a fourth only that one."""
    script = EXAMPLES / "classification" / "classify.py"
    three = [part for name in ("small", "middle", "large") for part in ("--model", f"openai/{name}")]
    asked = []
    for more in ((), (), ("--more", "openai/new")):
        with endpoint.counting() as seen:
            finished = example(script, tmp_path, *three, *more, endpoint=endpoint)
        asked.append(seen.requests)
    assert [3 * 42, 0, 42] == asked
    assert "openai/new: 42 requests" in finished.stdout
    assert 4 == len(list((tmp_path / "outputs/classification/predictions").glob("*.json*")))


@pytest.mark.exhaustive
def test_an_agent_compiles_from_the_cache(endpoint: Endpoint, tmp_path: Path) -> None:
    """The second time nobody is asked, and its report is of the same answers."""
    script = EXAMPLES / "agent" / "agent.py"
    first = example(script, tmp_path, endpoint=endpoint)
    with endpoint.counting() as seen:
        again = example(script, tmp_path, endpoint=endpoint)
    assert 0 == seen.requests
    scores = [one.stdout.partition("score ")[2].partition(",")[0] for one in (first, again)]
    assert scores[0]
    assert scores[0] == scores[1]


@pytest.mark.exhaustive
def test_passages_are_embedded_once(endpoint: Endpoint, tmp_path: Path) -> None:
    """Ten passages and six questions are sixteen texts, however often they are searched."""
    example(EXAMPLES / "retrieval" / "retrieve.py", tmp_path, "--repeats", "3", endpoint=endpoint)
    texts = [
        text for entry in endpoint.log() if entry["path"].endswith("embeddings") for text in entry["body"]["input"]
    ]
    assert 16 == len(set(texts))
    assert 6 * 3 == sum(entry["path"].endswith("chat/completions") for entry in endpoint.log())


def test_the_tests_replay_what_is_committed() -> None:
    """In a process of their own, without a key."""
    assert "5 passed" in _pytest(EXAMPLES / "testing", ROOT).stdout


@pytest.mark.exhaustive
def test_the_tests_are_recorded_anew(endpoint: Endpoint, tmp_path: Path) -> None:
    """With a provider: 14 calls, and none when they are replayed."""
    folder = shutil.copytree(EXAMPLES / "testing", tmp_path / "testing")
    endpoint.configure(gold={"message": "urgent"}, accuracy=1.0, answers={"cellar": ["urgent"]})
    for mode, requests in (("all", 14), ("replay", 0)):
        with endpoint.counting() as seen:
            _pytest(folder, tmp_path, f"--cachectl={mode}", "--model=openai/test-model", endpoint=endpoint)
        assert requests == seen.requests


def _pytest(folder: Path, cwd: Path, *options: str, endpoint: Endpoint | None = None) -> Finished:
    finished = python("-m", "pytest", folder, "-p", "no:cacheprovider", *options, cwd=cwd, env=surroundings(endpoint))
    assert 0 == finished.returncode, finished.output
    return finished


@pytest.mark.exhaustive
def test_a_request_is_a_phase(endpoint: Endpoint, tmp_path: Path) -> None:
    """The second request is served, the third is fresh, because it asks for that."""
    pytest.importorskip("fastapi")
    script = EXAMPLES / "server" / "server.py"
    command = [sys.executable, script, "--model", "openai/test-model", "--port", "0"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=surroundings(endpoint), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        try:
            asked = []
            for more in ({}, {}, {"fresh": "true"}):
                with endpoint.counting() as seen:
                    said = httpx.get(address + "/sentiment", params={"review": "It broke.", **more}, timeout=PATIENCE)
                assert said.json()["requests"] == seen.requests
                asked.append(seen.requests)
            assert [1, 0, 1] == asked
            with endpoint.counting() as seen:
                found = httpx.post(address + "/evaluation", json={"Bad.": "negative"}, timeout=PATIENCE).json()
            assert (1, 1, True) == (found["requests"], seen.requests, 0 <= found["score"] <= 1)
        finally:
            process.terminate()
