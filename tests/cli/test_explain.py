"""`dspy-cachectl explain`: why a request was bought though others are stored."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import Policy
from tests.calls.support import MakeLM
from tests.processes import COMMAND_MODULES, Finished, python


def explain(*arguments: str, stdin: str = "") -> Finished:
    """Run the command on the store of the test."""
    return command("explain", *arguments, stdin=stdin)


def command(*arguments: str, stdin: str = "") -> Finished:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return python("-m", "dspy_cachectl", *arguments, warm=COMMAND_MODULES, env=environment, stdin=stdin)


def explained(*arguments: str, stdin: str = "") -> dict[str, Any]:
    """Return what the command says as JSON."""
    done = explain(*arguments, "--json", stdin=stdin)
    assert (0, "") == (done.returncode, done.stderr)
    data: dict[str, Any] = json.loads(done.stdout)
    return data


def key_of(lm: Any) -> str:
    """Return the key of the call that an LM made last."""
    key: str = lm.history[-1]["cachectl"]["key"]
    return key


def test_a_changed_prompt(lm: MakeLM) -> None:
    """The nearest entry before it is named, with the words that differ."""
    asked = lm(temperature=0.5)
    with cachectl.phase("compile"):
        asked("Something else entirely")
        asked("What is the capital of France?")
        first = key_of(asked)
        asked("What is the capital of Spain?")
    found = explained(key_of(asked)[:12])
    assert (True, first) == (found["stored"], found["nearest"])
    assert ["message 0 (user): after 'the capital of': asked 'Spain?', stored 'France?'"] == found["differences"]
    done = explain(key_of(asked))
    assert f"nearest of 2 entries: {first}" in done.stdout


def test_the_first_of_its_kind(lm: MakeLM) -> None:
    """There is nothing to compare with."""
    asked = lm()
    with cachectl.phase("compile"):
        asked("hello")
    found = explained(key_of(asked))
    reason = "it is an answer outside runs; nothing that asks the same was stored before it"
    assert (None, reason) == (found["nearest"], found["reason"])


def test_a_draw_of_another_run(lm: MakeLM) -> None:
    """What is stored is not said to be missing: a draw is bought because the one before it belongs to another run."""
    asked = lm()
    with cachectl.phase("eval", run_id="first"):
        asked("hello")
    with cachectl.phase("eval", run_id="second"):
        asked("hello")
    found = explained(key_of(asked))
    assert found["stored"]
    whose = "it is a draw of the run 'second', and a fresh run serves only its own"
    assert f"{whose}; the same request was there as a draw of the run 'first'" == found["reason"]


def test_a_draw_that_nothing_was_like(lm: MakeLM) -> None:
    """It is stored, and bought since it was the first of its kind; it is never called not stored."""
    asked = lm()
    with cachectl.phase("eval", run_id="first"):
        asked("hello")
        asked("something else altogether, in many words")
    found = explained(key_of(asked))
    assert found["stored"]
    assert found["reason"].endswith("; nothing that asks the same was stored before it")
    assert "never" not in found["reason"]


def test_a_request(lm: MakeLM, endpoint: Any) -> None:
    """A request that was never made is looked for, and explained where it is not stored."""
    asked = lm(temperature=0.5)
    with cachectl.phase("compile"):
        asked("hello")
    message = [{"role": "user", "content": "hello"}]
    request = {"model": "openai/test-model", "messages": message, "temperature": 0.5, "api_base": endpoint.url}
    there = explained("--request", "-", stdin=json.dumps({**request, "api_key": "sk-other"}))
    assert (True, key_of(asked)) == (there["stored"], there["key"])
    away = explained("--request", "-", stdin=json.dumps({**request, "temperature": 0.7}))
    assert (False, ["temperature: asked 0.7, stored 0.5"]) == (away["stored"], away["differences"])


def test_what_show_prints(lm: MakeLM, tmp_path: Path) -> None:
    """The request that `show --json` prints is one that can be edited and asked about."""
    asked = lm()
    with cachectl.phase("compile"):
        asked("hello")
    request = json.loads(command("show", "--json", key_of(asked)).stdout)["request"]
    path = tmp_path / "request.json"
    path.write_text(json.dumps(request), encoding="utf-8")
    assert key_of(asked) == explained("--request", str(path))["key"]
    path.write_text(json.dumps({**request, "version": "2"}), encoding="utf-8")
    assert ["version: asked '2', stored None"] == explained("--request", str(path))["differences"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        ([], "", "name the KEY of an entry, or a --request"),
        (["abcdef"], "", "no entry's key begins with 'abcdef'"),
        (["--request", "-"], "no JSON", "cannot be read as JSON"),
        (["--request", "-"], "[]", "holds no JSON object"),
        (["--request", "-"], "{}", "a request names its model"),
        (["--request", "missing.json"], "", "cannot be read"),
    ],
)
def test_what_cannot_be_explained(arguments: list[str], stdin: str, message: str) -> None:
    """A message says what is wrong: with exit code 2 where nothing is named, with 1 where what is named will not do."""
    done = explain(*arguments, stdin=stdin)
    assert (1 if arguments else 2, "") == (done.returncode, done.stdout)
    assert message in " ".join(done.stderr.split())


class TestReasonsOfMisses:
    """The error of a replay says why there was no answer."""

    @staticmethod
    def reason(lm: Any, *, run_id: str | None = None, text: str = "hello", **options: Any) -> str:
        with (
            pytest.raises(cachectl.CacheMissError) as miss,
            cachectl.phase("check", Policy.REPLAY, run_id=run_id, **options),
        ):
            lm(text)
        assert miss.value.reason in str(miss.value)
        return miss.value.reason

    def test_another_run(self, lm: MakeLM) -> None:
        """It was drawn in another run, or outside runs, or more often than it was drawn."""
        with cachectl.phase("eval", run_id="first"):
            lm()("hello")
        assert "as a draw of the run 'first', and a draw of the run 'second' is" in self.reason(lm(), run_id="second")
        assert "as a draw of the run 'first', and an answer outside runs is" in self.reason(lm())
        with pytest.raises(cachectl.CacheMissError) as miss, cachectl.phase("check", Policy.REPLAY, run_id="first"):
            [lm()("hello") for _ in range(2)]
        assert "the same request is in this run, but this is a further draw of it" in miss.value.reason
        with cachectl.phase("compile"):
            lm()("other")
        assert "not as a draw of the run 'first'" in self.reason(lm(), run_id="first", text="other")

    def test_expired(self, lm: MakeLM) -> None:
        """It is too old."""
        with cachectl.phase("compile"):
            lm()("hello")
        assert "older than max_age=0 s" in self.reason(lm(), max_age=0)

    def test_never_stored(self, lm: MakeLM, endpoint: Any) -> None:
        """It was bought by this process and not kept; why is said."""
        with cachectl.phase("compile", Policy.OFF):
            lm()("hello")
        assert "not stored: the phase does not store" in self.reason(lm())
        endpoint.fail("empty")
        with cachectl.phase("compile"):
            lm()("empty")
        assert "not stored: it was empty" in self.reason(lm(), text="empty")
