"""The endpoint itself: what it counts, how it draws, and how it fails."""

from __future__ import annotations

import base64
import http.client
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.endpoint import Endpoint
from tests.limits import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


def post(
    endpoint: Endpoint, path: str, body: dict[str, Any] | bytes, timeout: float = PATIENCE
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=timeout)
    try:
        content = body if isinstance(body, bytes) else json.dumps({"model": "test-model", **body})
        connection.request("POST", f"/v1/{path}", content)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def chat(endpoint: Endpoint, prompt: str = "hello", **options: Any) -> dict[str, Any]:
    status, _, body = post(endpoint, "chat/completions", {"messages": [{"role": "user", "content": prompt}], **options})
    assert status == 200, body
    return json.loads(body)


def said(endpoint: Endpoint, prompt: str = "hello", **options: Any) -> str:
    return chat(endpoint, prompt, **options)["choices"][0]["message"]["content"]


def events(body: bytes) -> list[dict[str, Any]]:
    lines = [line.removeprefix(b"data: ") for line in body.splitlines() if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


class TestCounting:
    """The counters are the oracle of all other tests."""

    def test_counts_every_request_by_prompt(self, endpoint: Endpoint) -> None:
        """Requests are counted in all, by path and by the text of the last user message."""
        chat(endpoint, "a")
        chat(endpoint, "a")
        post(endpoint, "completions", {"prompt": "b"})
        assert endpoint.requests == 3
        assert endpoint.counts() == {"a": 2, "b": 1}
        assert endpoint.state["paths"] == {"/v1/chat/completions": 2, "/v1/completions": 1}

    def test_health_models_and_control_are_not_counted(self, endpoint: Endpoint) -> None:
        """Only requests to a language-model API count."""
        connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=PATIENCE)
        for path, expected in (("/health", 200), ("/v1/models", 200), ("/v1/nothing", 404)):
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            assert expected == response.status
        connection.close()
        assert endpoint.requests == 0

    def test_log_keeps_headers_body_and_draw(self, endpoint: Endpoint) -> None:
        """The log has what was sent, and which draw of the prompt it was."""
        chat(endpoint, "a", top_p=0.5)
        chat(endpoint, "a", top_p=0.5)
        first, second = endpoint.log()
        assert first["path"] == "/v1/chat/completions"
        assert first["body"]["top_p"] == 0.5
        assert "content-length" in first["headers"]
        assert [first["k"], second["k"]] == [0, 1]

    def test_counting_is_a_difference(self, endpoint: Endpoint) -> None:
        """`counting` sees only the requests of its block and later."""
        chat(endpoint)
        with endpoint.counting() as seen:
            chat(endpoint)
        assert seen.requests == 1

    def test_held_requests_arrive_together(self, endpoint: Endpoint) -> None:
        """`hold` keeps answers back, `wait_for` sees the arrivals, `release` answers them."""
        endpoint.hold()
        with ThreadPoolExecutor(3) as pool:
            answers = [pool.submit(said, endpoint, "same") for _ in range(3)]
            assert endpoint.wait_for(3)
            assert [answer.done() for answer in answers] == [False] * 3
            assert endpoint.release() == 3
            assert len({answer.result() for answer in answers}) == 3
        assert endpoint.state["peak"] == 3

    def test_wait_for_gives_up(self, endpoint: Endpoint) -> None:
        """`wait_for` says so when fewer requests came."""
        assert not endpoint.wait_for(1, timeout=0.01)


class TestDraws:
    """Every request draws another answer, and all of it can be repeated."""

    def test_draws_differ_and_repeat(self, endpoint: Endpoint) -> None:
        """Draws of one prompt differ; after a reset they come again in the same order."""
        first = [said(endpoint) for _ in range(4)]
        endpoint.reset()
        assert len(set(first)) == 4
        assert first == [said(endpoint) for _ in range(4)]

    def test_counts_reset_goes_on_drawing(self, endpoint: Endpoint) -> None:
        """`reset_counts` forgets counts, not draws."""
        first = said(endpoint)
        endpoint.reset_counts()
        assert first != said(endpoint)
        assert endpoint.requests == 1

    def test_seed_changes_the_answers(self, endpoint: Endpoint) -> None:
        """Another seed is another distribution."""
        first = said(endpoint)
        endpoint.reset()
        endpoint.configure(seed=1)
        assert first != said(endpoint)

    def test_temperature_zero_repeats_itself(self, endpoint: Endpoint) -> None:
        """At temperature 0 the text repeats and the response id does not; the option switches that off."""
        one, two = chat(endpoint, temperature=0), chat(endpoint, temperature=0)
        assert one["choices"] == two["choices"]
        assert one["id"] != two["id"]
        endpoint.configure(deterministic_at_zero=False)
        assert one["choices"] != chat(endpoint, temperature=0)["choices"]

    def test_n_choices_are_n_draws(self, endpoint: Endpoint) -> None:
        """`n` answers of one request are the draws that `n` requests would have got."""
        together = {choice["message"]["content"] for choice in chat(endpoint, n=3)["choices"]}
        endpoint.reset()
        assert together == {said(endpoint) for _ in range(3)}

    def test_api_does_not_change_the_draw(self, endpoint: Endpoint) -> None:
        """Streamed or not, chat or Responses: the same draw is the same text."""
        plain = said(endpoint)
        endpoint.reset()
        _, _, body = post(endpoint, "responses", {"input": "hello"})
        assert plain == json.loads(body)["output"][0]["content"][0]["text"]
        endpoint.reset()
        message = {"messages": [{"role": "user", "content": "hello"}], "stream": True}
        _, _, body = post(endpoint, "chat/completions", message)
        assert plain == "".join(event["choices"][0]["delta"].get("content") or "" for event in events(body))

    def test_configured_answers_go_round(self, endpoint: Endpoint) -> None:
        """The k-th draw takes the k-th configured text."""
        endpoint.configure(answers={"hell": ["x", "y"]})
        assert [said(endpoint) for _ in range(3)] == ["x", "y", "x"]

    def test_accuracy_is_a_probability(self, endpoint: Endpoint) -> None:
        """About that part of the answers is right, and the longest known question decides."""
        endpoint.configure(gold={"1+1": "2", "1+10": "11"}, accuracy=0.7)
        right = sum(said(endpoint, "1+10", temperature=1.0) == "11" for _ in range(200))
        assert 110 < right < 170

    def test_caching_proxy(self, endpoint: Endpoint) -> None:
        """With `fixed_id` an identical request gets the identical body, and is counted."""
        endpoint.configure(fixed_id=True)
        assert chat(endpoint) == chat(endpoint)
        assert chat(endpoint)["id"] != chat(endpoint, top_p=0.3)["id"]
        assert endpoint.requests == 4


class TestShapes:
    """The bodies are what OpenAI's would be."""

    def test_usage_counts_words(self, endpoint: Endpoint) -> None:
        """Prompt and completion tokens are words."""
        endpoint.configure(answers={"": ["one two three"]})
        expected = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
        assert expected == chat(endpoint, "hello there")["usage"]

    def test_stream_ends_with_usage(self, endpoint: Endpoint) -> None:
        """With `include_usage` the last event has no choices and the usage."""
        message = {"messages": [{"role": "user", "content": "hello"}], "stream": True}
        _, headers, body = post(endpoint, "chat/completions", {**message, "stream_options": {"include_usage": True}})
        assert headers["content-type"] == "text/event-stream"
        assert body.endswith(b"data: [DONE]\n\n")
        assert events(body)[-1]["choices"] == []
        assert events(body)[-1]["usage"]["prompt_tokens"] == 1

    def test_responses_stream(self, endpoint: Endpoint) -> None:
        """The deltas of a Responses stream join to the text of its last event."""
        _, _, body = post(endpoint, "responses", {"input": "hello", "stream": True})
        seen = events(body)
        assert (seen[0]["type"], seen[-1]["type"]) == ("response.created", "response.completed")
        joined = "".join(event["delta"] for event in seen if event["type"] == "response.output_text.delta")
        assert seen[-1]["response"]["output"][0]["content"][0]["text"] == joined
        assert list(range(len(seen))) == [event["sequence_number"] for event in seen]

    def test_schema_is_followed(self, endpoint: Endpoint) -> None:
        """A JSON schema in the request shapes the answer."""
        schema = {
            "type": "object",
            "properties": {"kind": {"enum": ["a", "b"]}, "parts": {"type": "array", "items": {"$ref": "#/$defs/P"}}},
            "$defs": {"P": {"type": "object", "properties": {"size": {"type": "integer", "minimum": 3}}}},
        }
        wanted = {"type": "json_schema", "json_schema": {"name": "r", "schema": schema}}
        value = json.loads(said(endpoint, response_format=wanted))
        assert value["kind"] in ("a", "b")
        assert all(part["size"] >= 3 for part in value["parts"])
        assert "answer" in json.loads(said(endpoint, response_format={"type": "json_object"}))

    def test_tools_are_called_when_told(self, endpoint: Endpoint) -> None:
        """`tool_choice` or the option makes a call with valid arguments; otherwise the answer is text."""
        parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
        tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
        assert chat(endpoint, tools=tools)["choices"][0]["message"]["content"]
        choice = chat(endpoint, tools=tools, tool_choice="required")["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        assert list(json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"])) == ["city"]
        endpoint.configure(call_tools=True)
        assert chat(endpoint, tools=tools)["choices"][0]["finish_reason"] == "tool_calls"

    def test_embeddings_depend_on_the_text_alone(self, endpoint: Endpoint) -> None:
        """The same text has the same vector, packed or not, in any batch."""
        _, _, body = post(endpoint, "embeddings", {"input": ["a b", "c"], "dimensions": 4})
        first, second = (item["embedding"] for item in json.loads(body)["data"])
        assert len(first) == 4
        assert first != second
        options = {"input": "c", "dimensions": 4, "encoding_format": "base64"}
        _, _, body = post(endpoint, "embeddings", options)
        packed = struct.unpack("<4f", base64.b64decode(json.loads(body)["data"][0]["embedding"]))
        assert pytest.approx(second, abs=1e-6) == packed


class TestFaults:
    """Each fault does to a plain HTTP client what its name says."""

    def test_status_with_retry_after(self, endpoint: Endpoint) -> None:
        """A status comes so many times, with the header and OpenAI's error body, and then no more."""
        endpoint.fail(status=429, retry_after=1, times=2)
        for _ in range(2):
            status, headers, body = post(endpoint, "completions", {"prompt": "a"})
            assert (status, headers["retry-after"]) == (429, "1")
            assert json.loads(body)["error"]["code"] == "rate_limit_exceeded"
        assert post(endpoint, "completions", {"prompt": "a"})[0] == 200
        assert endpoint.counts() == {"a": 3}
        assert [record["k"] for record in endpoint.log()] == [0, 0, 0]

    def test_rules_match_and_skip(self, endpoint: Endpoint) -> None:
        """A rule strikes only prompts with its substring, after the ones it skips."""
        endpoint.fail(status=500, match="bad", skip=1)
        prompts = ("good", "bad", "bad", "good", "bad")
        assert [post(endpoint, "completions", {"prompt": p})[0] for p in prompts] == [200, 200, 500, 200, 500]
        endpoint.clear_faults()
        assert post(endpoint, "completions", {"prompt": "bad"})[0] == 200

    @pytest.mark.parametrize(
        ("kind", "expected"),
        [("drop", http.client.RemoteDisconnected), ("hang", TimeoutError), ("stall_stream", TimeoutError)],
    )
    def test_transport_faults(self, endpoint: Endpoint, kind: str, expected: type[Exception]) -> None:
        """No answer, or half of one, and no end."""
        endpoint.fail(kind, times=1)
        with pytest.raises(expected):
            post(endpoint, "completions", {"prompt": "a"}, timeout=0.2)
        assert post(endpoint, "completions", {"prompt": "a"})[0] == 200

    def test_stream_stalls_after_some_pieces(self, endpoint: Endpoint) -> None:
        """The first pieces of a stalled stream arrive."""
        endpoint.fail("stall_stream", chunks=2)
        connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=PATIENCE)
        connection.request("POST", "/v1/completions", json.dumps({"prompt": "a", "stream": True}))
        response = connection.getresponse()
        assert response.readline().startswith(b"data: ")
        assert connection.sock is not None
        connection.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            response.read()
        connection.close()

    def test_bodies_that_are_wrong(self, endpoint: Endpoint) -> None:
        """Cut JSON, no choices, empty text, text that no adapter parses, the prompt itself."""
        for kind in ("truncate", "no_choices", "empty", "garbage", "echo"):
            endpoint.fail(kind, times=1)
        status, _, body = post(endpoint, "chat/completions", {"messages": [{"role": "user", "content": "hello"}]})
        assert status == 200
        with pytest.raises(json.JSONDecodeError):
            json.loads(body)
        assert chat(endpoint)["choices"] == []
        assert said(endpoint) == ""
        assert "nothing that parses" in said(endpoint)
        assert said(endpoint) == "hello"

    @pytest.mark.parametrize(("kind", "reason"), [("length", "max_output_tokens"), ("content_filter",) * 2])
    def test_finish_reasons(self, endpoint: Endpoint, kind: str, reason: str) -> None:
        """A cut or filtered answer says so in each API's own words."""
        endpoint.fail(kind)
        assert kind == chat(endpoint)["choices"][0]["finish_reason"]
        answer = json.loads(post(endpoint, "responses", {"input": "a"})[2])
        assert ("incomplete", reason) == (answer["status"], answer["incomplete_details"]["reason"])

    def test_bad_options_are_refused(self, endpoint: Endpoint) -> None:
        """A misspelt option or kind is an error at once, not a fault that never strikes."""
        for wrong in ({"kind": "explode"}, {"stauts": 500}):
            with pytest.raises(ValueError, match="known are"):
                endpoint.fail(**wrong)
        with pytest.raises(ValueError, match="known are"):
            endpoint.configure(sead=1)

    def test_a_body_that_is_not_json_is_a_400(self, endpoint: Endpoint) -> None:
        """A broken request is answered, and not counted."""
        assert post(endpoint, "completions", b"{")[0] == 400
        assert endpoint.requests == 0


def test_server_ends_with_its_parent() -> None:
    """A server whose standard input closes ends by itself."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.endpoint.server"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert output.strip().isdigit()


def test_child_uses_the_same_endpoint(endpoint: Endpoint, child: Callable[..., Any]) -> None:
    """A child process finds the endpoint and its arguments, and hands back its last JSON line."""
    script = """
        import json, os, sys, urllib.request
        print("some chatter")
        body = json.dumps({"prompt": sys.argv[1]}).encode()
        answer = json.load(urllib.request.urlopen(os.environ["ENDPOINT_URL"] + "/completions", body))
        print(json.dumps({"store": os.environ["DSPY_CACHECTL_STORE"], "choices": len(answer["choices"])}))
        """
    data = child(script, "from a child").data
    assert {"store": os.environ["DSPY_CACHECTL_STORE"], "choices": 1} == data
    assert endpoint.counts() == {"from a child": 1}


def test_child_that_fails_shows_its_output(child: Callable[..., Any]) -> None:
    """A child that raises is an AssertionError with its traceback."""
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        child("1 / 0")
    assert child("1 / 0", check=False).returncode == 1
