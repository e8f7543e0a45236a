"""Whose question DSPy asks its cache: each carries the call that asks it, and lets go of it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dspy
import pytest
from dspy.clients.base_lm import GLOBAL_HISTORY
from dspy.clients.typesafe import TypeSafe
from dspy.utils.callback import BaseCallback

import dspy_cachectl as cachectl
from dspy_cachectl.calls.call import CALL, Call
from tests.calls.engines import OwnEngine
from tests.calls.support import MakeLM, assert_counted
from tests.endpoint import Endpoint


def holds_a_call(value: Any) -> bool:
    """Whether a call is anywhere in what a history keeps."""
    if isinstance(value, dict):
        return CALL in value or any(map(holds_a_call, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(holds_a_call, value))
    return isinstance(value, Call) or any(map(holds_a_call, getattr(value, "__dict__", {}).values()))


def test_no_call_stays_in_a_history(endpoint: Endpoint, lm: MakeLM, plain_lm: MakeLM) -> None:
    """Neither of ours, nor of a plain LM, asked with text or a typed request, bought or served."""
    for asked in (lm(), plain_lm()):
        for _ in range(2):
            asked("hello")
            asked(dspy.lm15.Request(model=asked.model, messages=(dspy.lm15.Message.user("typed"),)))
        assert 4 == len(asked.history)
        assert not holds_a_call(asked.history)
    assert not holds_a_call(GLOBAL_HISTORY)


def test_a_client_that_keeps_its_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """DSPy's TypeSafe asks get and put with one dictionary, and keeps a copy of it: served, and without a call."""
    asked = []

    class Client:
        def __init__(self, **options: Any) -> None:
            pass

        def __enter__(self) -> Client:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def system_one(self, **question: Any) -> Any:
            asked.append(question)
            usage = SimpleNamespace(input_tokens=1, output_tokens=1)
            return SimpleNamespace(model="jev", usage=usage, answers={"one": SimpleNamespace(choice="yes")})

    monkeypatch.setitem(sys.modules, "typesafe_sdk", SimpleNamespace(TypeSafeClient=Client))
    cachectl.install()
    client = TypeSafe(model="jev", api_key="none", base_url="http://127.0.0.1:9")
    answers = [client(state={"a": 1}, questions={"one": "?"}) for _ in range(2)]
    assert answers[0] == answers[1] == {"one": {"choice": "yes"}}
    assert 1 == len(asked)
    assert [False, True] == [entry["cache_hit"] for entry in client.history]
    assert not holds_a_call(client.history)


class Asking(BaseCallback):
    """Asks another LM whenever a call begins."""

    def __init__(self, other: dspy.LM) -> None:
        self.other = other

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        if instance is not self.other:
            self.other("What is asked here?")


def test_a_callback_that_asks_another_lm(endpoint: Endpoint, lm: MakeLM, plain_lm: MakeLM) -> None:
    """It runs within our call, before that asks the cache: each has its own question and its own answer."""
    plain, ours = plain_lm("openai/plain"), lm("openai/ours")
    alone = plain("What is asked here?")
    dspy.configure(callbacks=[Asking(plain)])
    with cachectl.phase("compile") as run:
        first, again = ours("hello"), ours("hello")
    assert first == again != alone
    assert {"openai/plain": (0, 2), "openai/ours": (1, 1)} == {
        row.model: (tally.fresh, tally.reused) for row, tally in run.stats.by.items()
    }
    assert 2 == endpoint.requests


class Inner(OwnEngine):
    """An engine that asks a plain LM before it answers."""

    def __init__(self, url: str, other: dspy.LM) -> None:
        super().__init__(url)
        self.other = other

    def complete(self, request: dspy.lm15.Request) -> dspy.lm15.Response:
        self.other("What is asked inside?")
        return super().complete(request)


def test_an_engine_that_asks_another_lm(endpoint: Endpoint, lm: MakeLM, plain_lm: MakeLM) -> None:
    """Between our call's question and its answer: neither is kept under the other's key."""
    plain = plain_lm("openai/plain")
    ours = cachectl.LM("ours/test-model", engine=Inner(endpoint.url, plain))
    with cachectl.phase("compile") as run:
        assert ours("hello") == ours("hello") != plain("What is asked inside?")
    assert_counted(run.stats, fresh=2, reused=2)
    assert 2 == endpoint.requests


def test_a_paid_answer_that_cannot_be_kept_is_counted(endpoint: Endpoint, plain_lm: MakeLM, tmp_path: Path) -> None:
    """A plain LM's too: what it cost does not depend on whether a cassette could record it."""

    def fails(text: str) -> str:
        raise OSError("no")

    with (
        pytest.raises(cachectl.ConfigurationError, match="1 answer is not in the cassette"),
        cachectl.cassette(tmp_path / "answers.jsonl", "record", redact=fails) as opened,
    ):
        assert plain_lm()("hello")
    assert_counted(opened.stats, fresh=1, failed_writes=1, requests=1)
