"""Whose an answer is: what another model answered is not served as the asked one's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.endpoint import Endpoint

MakeLM = Callable[..., Any]


def ask(lm: Any, question: str = "q", *, asynchronous: bool = False, **options: Any) -> Any:
    """Ask an LM one way or the other."""
    return asyncio.run(lm.acall(question, **options)) if asynchronous else lm(question, **options)


def requests(endpoint: Endpoint) -> list[str]:
    """The models that were asked since the last look, where they answered."""
    found = [request["body"]["model"] for request in endpoint.log() if request["fault"] is None]
    endpoint.reset_counts()
    return found


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("entry", ["text", "mapping"])
def test_a_fallbacks_answer_is_filed_as_its_own(endpoint: Endpoint, lm: MakeLM, asynchronous: bool, entry: str) -> None:
    """Big is down and LiteLLM asks small: asked directly, small is a hit; big, once it is back, is asked."""
    listed = {"text": "openai/small", "mapping": {"model": "openai/small", "api_base": endpoint.url}}[entry]
    big, small = lm("openai/big", fallbacks=[listed], num_retries=0), lm("openai/small")
    endpoint.fail("status", status=500, times=1)
    with cachectl.phase("compile") as run:
        said = ask(big, asynchronous=asynchronous)
    assert requests(endpoint) == ["small"]
    assert run.stats.by_other_models == 1
    with cachectl.phase("compile"):
        assert ask(small, asynchronous=asynchronous) == said
        assert requests(endpoint) == []
        assert ask(big, asynchronous=asynchronous) != said
        assert requests(endpoint) == ["big"]
        ask(big)
        ask(lm("openai/big"))  # the same is asked of big, whatever would be asked in its place
        assert requests(endpoint) == []


def test_a_fallbacks_draw_is_its_own_in_its_run(endpoint: Endpoint, lm: MakeLM) -> None:
    """In a run as well: small has its draw, and big's is missing."""
    big = lm("openai/big", fallbacks=["openai/small"], num_retries=0)
    endpoint.fail("status", status=500, times=1)
    with cachectl.phase("eval", run_id="r"):
        said = big("q")
    assert requests(endpoint) == ["small"]
    with cachectl.phase("eval", run_id="r"):
        assert lm("openai/small")("q") == said
        assert requests(endpoint) == []
        big("q")
        assert requests(endpoint) == ["big"]


@pytest.mark.parametrize("governed", [True, False])
@pytest.mark.parametrize("engine", ["auto", "litellm"])
def test_what_a_server_answers_as_another_stays_with_its_run(
    endpoint: Endpoint, lm: MakeLM, plain_lm: MakeLM, governed: bool, engine: str
) -> None:
    """A server that answers as small: its run is resumed and replayed as it was, and nobody else is served it."""
    big = (lm if governed else plain_lm)("openai/big", engine=engine)
    endpoint.configure(answers_as={"": "small"})
    with cachectl.phase("eval", run_id="r") as run:
        said = big("q")
    assert run.stats.by_other_models == 1
    endpoint.configure(answers_as={})
    for policy in (cachectl.Policy.FRESH, cachectl.Policy.REPLAY):
        with cachectl.phase("eval", policy, run_id="r") as run:
            assert big("q") == said
        assert run.stats.by_other_models == 1
    assert endpoint.requests == 1
    with cachectl.phase("eval"):
        big("q")
    assert endpoint.requests == 2


@pytest.mark.parametrize("asynchronous", [False, True])
def test_reuse_asks_again_what_another_answered(
    endpoint: Endpoint, lm: MakeLM, child: Callable[..., Any], asynchronous: bool
) -> None:
    """Outside runs the asked model is asked again once it is back, in another process too; a replay is as it was."""
    big = lm("openai/big")
    endpoint.configure(answers_as={"": "small"})
    said = ask(big, asynchronous=asynchronous)
    with cachectl.phase("test", cachectl.Policy.REPLAY):
        assert ask(big, asynchronous=asynchronous) == said
    endpoint.configure(answers_as={})
    child(
        """
        import os, dspy_cachectl as c
        lm = c.LM("openai/big", api_base=os.environ["ENDPOINT_URL"], api_key="sk-test-secret")
        lm("q"), lm("q")
        """
    )
    assert endpoint.requests == 2
    ask(big, asynchronous=asynchronous)
    assert endpoint.requests <= 3
    with endpoint.counting() as seen:
        ask(big, asynchronous=asynchronous)
    assert seen.requests == 0


@pytest.mark.parametrize("name", ["big-2024-08-06", "openai/big", "big:latest", "accounts/x/models/big"])
def test_a_qualified_name_hits_without_a_word(
    endpoint: Endpoint, lm: MakeLM, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """A dated, tagged or prefixed name of the asked model is the same: served as before, and nothing is said."""
    endpoint.configure(answers_as={"": name})
    with cachectl.phase("compile") as run:
        lm("openai/big")("q")
        lm("openai/big")("q")
    assert endpoint.requests == 1
    assert run.stats.by_other_models == 0
    assert "answered" not in caplog.text


def test_an_alias_is_said_with_what_to_write_and_nothing_paid_is_lost(
    endpoint: Endpoint, lm: MakeLM, caplog: pytest.LogCaptureFixture
) -> None:
    """A deployment that always answers by another name: once that is said to be its own, what is stored is served."""
    endpoint.configure(answers_as={"": "llama-3-8b"})
    local = lm("openai/local")
    local("q")
    assert caplog.text.count('configure(answers_as="openai/local=llama-3-8b")') == 1
    local("q")
    assert endpoint.requests == 2
    with cachectl.configure(answers_as="openai/local=llama-3*"), cachectl.phase("compile") as run:
        local("q")
        lm("openai/local", temperature=0.5)("q")
        lm("openai/local", temperature=0.5)("q")
    assert endpoint.requests == 3
    assert run.stats.by_other_models == 0


def test_a_change_within_a_run_is_said(endpoint: Endpoint, lm: MakeLM, caplog: pytest.LogCaptureFixture) -> None:
    """Two dates of one model within a run: each is the model that was asked, and they are two."""
    endpoint.configure(answers_as={"first": "big-2024-05-13", "second": "big-2024-08-06"})
    with cachectl.phase("eval"):
        lm("openai/big")("first")
        lm("openai/big")("second")
    assert "within one run, 'openai/big' was answered by big-2024-08-06 and by big-2024-05-13 before" in caplog.text


def test_a_cassette_replays_as_it_was(endpoint: Endpoint, lm: MakeLM, tmp_path: Path) -> None:
    """What small answered in a recording is replayed there, by a fallback or by the server; an import serves nobody."""
    big = lm("openai/big", fallbacks=["openai/small"], num_retries=0)
    endpoint.configure(answers_as={"server": "small"})
    endpoint.fail("status", status=500, times=1)

    def program() -> list[Any]:
        return [big("fallback"), big("server")]

    with cachectl.cassette(tmp_path / "tape.jsonl", mode="record"):
        said = program()
    endpoint.configure(answers_as={})
    with endpoint.counting() as seen, cachectl.cassette(tmp_path / "tape.jsonl", mode="replay"):
        assert program() == said
    assert seen.requests == 0


def test_a_stream_that_another_answers_is_not_reused(endpoint: Endpoint, lm: MakeLM) -> None:
    """A streamed answer says who answers as well."""
    endpoint.configure(answers_as={"": "small"})
    dspy.configure(lm=lm("openai/big"))
    program = dspy.Predict("question -> answer")

    def stream() -> None:
        listener = dspy.streaming.StreamListener(signature_field_name="answer")
        streamed = dspy.streamify(program, stream_listeners=[listener], async_streaming=False)
        list(streamed(question="q"))

    stream()
    endpoint.configure(answers_as={})
    with endpoint.counting() as seen:
        stream()
        stream()
    assert seen.requests == 1


def test_the_entry_names_who_answered(endpoint: Endpoint, lm: MakeLM, child: Callable[..., Any]) -> None:
    """`show` names the answering model, in words and as JSON."""
    endpoint.configure(answers_as={"": "big-2024-08-06"})
    big = lm("openai/big")
    big("q")
    finished = child(
        """
        import subprocess, sys
        for options in ([], ["--json"]):
            print(subprocess.run([sys.executable, "-m", "dspy_cachectl", "show", sys.argv[1], *options],
                                 capture_output=True, text=True).stdout)
        """,
        big.history[-1]["cachectl"]["key"],
    )
    assert "answered by  big-2024-08-06" in finished.stdout
    assert '"answered_by"' in finished.stdout
