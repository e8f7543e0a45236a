"""No secret is in a cassette, and what its owner redacts is not either; the replay goes the same way."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.entries import records
from dspy_cachectl.entries.cleaning import Cleaner
from tests.calls.support import MakeLM
from tests.endpoint import Endpoint
from tests.replay.support import recordings, write

SECRETS = {
    "api_key": "sk-test-secret",
    "header": "header-credential-1234",
    "environment": "environment-credential-5678",
    "form": "sk-proj-abcdefghijklmnop0123456789",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


class TestSecrets:
    def test_nowhere(
        self, endpoint: Endpoint, lm: MakeLM, plain_lm: MakeLM, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Keys, headers and secrets of the environment are not in the file, in prompts and answers either."""
        monkeypatch.setenv("OPENAI_API_KEY", SECRETS["environment"])
        told = " ".join(SECRETS.values())
        endpoint.configure(
            answers={"tell": [f"the keys are {told}, Bearer {SECRETS['header']}, and password: hunter2"]}
        )
        options: dict[str, Any] = {"extra_headers": {"Authorization": f"Bearer {SECRETS['header']}"}}
        embedder = dspy.Embedder("openai/test-embedding", api_base=endpoint.url, api_key=SECRETS["api_key"])

        def program() -> list[Any]:
            found = [
                lm(**options)(f"tell {told}"),
                plain_lm(**options)(f"tell me {told}"),
                lm(engine="litellm")("tell"),
            ]
            return [*found, embedder([told]).tolist()]

        with cachectl.cassette(path, "record"):
            recorded = program()
        text = path.read_text()
        for secret in SECRETS.values():
            assert secret not in text
            assert secret not in str(recorded[0])
        assert "[removed]" in text
        with cachectl.cassette(path):
            replayed = program()
        assert (recorded[0], recorded[2:]) == (replayed[0], replayed[2:])
        assert endpoint.requests == 4

    def test_in_what_is_not_saved_yet(
        self, endpoint: Endpoint, lm: MakeLM, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nor are they in what a killed recording leaves behind."""
        monkeypatch.setenv("SOME_API_KEY", SECRETS["environment"])
        known = [secret for name, secret in SECRETS.items() if name != "header"]
        endpoint.configure(answers={"tell": [" ".join(known)]})
        with cachectl.cassette(path, "record"):
            lm()(f"tell {SECRETS['environment']}")
            (unsaved,) = path.parent.glob(".*.unsaved")
            content = unsaved.read_bytes()
        assert [] == [secret for secret in known if secret.encode() in content]
        assert b"[removed]" in content

    def test_in_the_arguments_of_a_tool(self, endpoint: Endpoint, path: Path) -> None:
        """A tool's parameter may have any name: what is called `key` or `id` is text as well."""
        answer = {"id": "call_1", "type": "tool_call", "name": "find", "input": {"key": SECRETS["form"], "id": "Alice"}}
        cleaned = Cleaner(lambda text: text.replace("Alice", "[name]")).outputs([{"tool_calls": [answer]}])
        assert {"key": "[removed]", "id": "[name]"} == cleaned[0]["tool_calls"][0]["input"]
        assert ("call_1", "tool_call") == (cleaned[0]["tool_calls"][0]["id"], cleaned[0]["tool_calls"][0]["type"])

    def test_in_half_characters(self) -> None:
        """A text that JSON cannot hold, with half of a character in it, is cleaned too; numbers stay as they are."""
        import numpy as np

        answer = [f"{SECRETS['form']} \ud83d Alice", "\ud83d", b"Alice", 2**80, np.ones(3)]
        entry = records.encode(records.Origin("lm", "m"), answer)
        cleaned = records.decode(Cleaner(lambda text: text.replace("Alice", "[name]")).entry(entry)).answer
        assert ["[removed] \ud83d [name]", *answer[1:4]] == cleaned[:4]
        assert [1.0] * 3 == cleaned[4].tolist()

    def test_what_is_no_secret(self, endpoint: Endpoint, lm: MakeLM, path: Path) -> None:
        """Placeholders for keys, as local servers want them, are no secrets: texts keep such words."""
        endpoint.configure(answers={"tell": ["the list is EMPTY, or none"]})
        with cachectl.cassette(path, "record"):
            assert ["the list is EMPTY, or none"] == lm(api_key="EMPTY")("tell")


def without_names(text: str) -> str:
    return re.sub("Alice|Bob", "[name]", text)


class TestRedact:
    @pytest.mark.parametrize("engine", ["auto", "litellm"])
    def test_a_chain(self, endpoint: Endpoint, lm: MakeLM, path: Path, engine: str) -> None:
        """A second step that is asked with the first one's answer is found in the replay."""
        endpoint.configure(answers={"Who": ["It was Alice."], "Where": ["Bob knows."]})
        lm = lm(engine=engine)

        def program() -> list[str]:
            (first,) = lm("Who was it?")
            (second,) = lm(f"Where is she? {first}")
            return [first, second]

        with cachectl.cassette(path, "record", redact=without_names):
            recorded = program()
        assert ["It was [name].", "[name] knows."] == recorded
        assert "Alice" not in path.read_text()
        assert "Bob" not in path.read_text()
        for redact in (None, without_names):
            with cachectl.cassette(path, redact=redact):
                assert recorded == program()
        assert endpoint.requests == 2

    def test_async_streamed_and_predicted(self, endpoint: Endpoint, lm: MakeLM, path: Path) -> None:
        """It holds for predictions and coroutines too."""
        endpoint.configure(answers={"Who": ["It was Alice."]})
        dspy.configure(lm=lm())
        program = dspy.ChainOfThought("question -> answer")

        async def ask() -> Any:
            first = await program.acall(question="Who was it?")
            return [first.answer, (await program.acall(question=f"Who else? {first.answer}")).answer]

        import asyncio

        with cachectl.cassette(path, "record", redact=without_names):
            recorded = asyncio.run(ask())
        assert "It was [name]." == recorded[0]
        assert "Alice" not in path.read_text()
        with cachectl.cassette(path):
            assert recorded == asyncio.run(ask())
        assert endpoint.requests == 2

    def test_the_request(self, endpoint: Endpoint, lm: MakeLM, path: Path) -> None:
        """The prompt is redacted in the file, and asked as it is; it is found by its key."""
        with cachectl.cassette(path, "record", redact=without_names):
            recorded = lm()("What about Bob?")
        assert "What about [name]?" == recordings(path)[0]["request"]["request"]["messages"][0]["content"]
        assert {"What about Bob?": 1} == endpoint.counts()
        with cachectl.cassette(path):
            assert recorded == lm()("What about Bob?")

    def test_a_miss_shows_no_more(self, endpoint: Endpoint, lm: MakeLM, path: Path) -> None:
        """What a miss says of the nearest recording is redacted as well."""
        with cachectl.cassette(path, "record", redact=without_names):
            lm()("What about Bob today?")
        with pytest.raises(cachectl.CacheMissError) as miss, cachectl.cassette(path, redact=without_names):
            lm()("What about Alice tomorrow?")
        assert "Alice" not in str(miss.value)
        assert "tomorrow" in str(miss.value)

    @pytest.mark.parametrize("returned", [None, 5, b"text"])
    def test_no_text(self, endpoint: Endpoint, lm: MakeLM, path: Path, returned: Any) -> None:
        """A function that returns no text is an error of the call, and once more of the block where it is swallowed."""
        with (
            pytest.raises(cachectl.ConfigurationError, match=re.escape(repr(returned))),
            cachectl.cassette(path, "record", redact=lambda _: returned),
        ):
            lm()("one")
        with (
            pytest.raises(cachectl.ConfigurationError, match="1 answer is not in the cassette"),
            cachectl.cassette(path.with_name("other.jsonl"), "record", redact=lambda _: returned),
            pytest.raises(cachectl.ConfigurationError),
        ):
            lm()("one")
        assert not path.exists()

    def test_a_function_that_fails(self, endpoint: Endpoint, lm: MakeLM, path: Path) -> None:
        """So is one that raises."""

        def fail(text: str) -> str:
            raise KeyError(text)

        with (
            pytest.raises(cachectl.ConfigurationError, match="KeyError") as raised,
            cachectl.cassette(path, "record", redact=fail),
            pytest.raises(KeyError),
        ):
            lm()("one")
        assert isinstance(raised.value.__cause__, KeyError)

    def test_recordings_of_others_stay(self, endpoint: Endpoint, lm: MakeLM, path: Path) -> None:
        """Only what is recorded now goes through the function."""
        with cachectl.cassette(path, "record"):
            lm()("What about Bob?")
        before = recordings(path)
        with cachectl.cassette(path, "new", redact=without_names):
            lm()("What about Alice?")
        after = recordings(path)
        assert before[0] in after
        assert ["What about Bob?", "What about [name]?"] == sorted(
            (one["request"]["request"]["messages"][0]["content"] for one in after), key=len
        )


def test_a_cassette_cleaned_by_hand(endpoint: Endpoint, lm: MakeLM, path: Path) -> None:
    """Who removes a text from the file's requests by hand still replays it: the keys are what counts."""
    with cachectl.cassette(path, "record"):
        recorded = lm()("one")
    head, one = [{"cassette": 3}, recordings(path)[0]]
    del one["request"]
    write(path, [head, one])
    with cachectl.cassette(path):
        assert recorded == lm()("one")
