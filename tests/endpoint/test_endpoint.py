"""The endpoint itself: what it counts, how it draws, and how it fails."""

from __future__ import annotations

import http.client
import json
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
        [("drop", http.client.RemoteDisconnected), ("hang", TimeoutError)],
    )
    def test_transport_faults(self, endpoint: Endpoint, kind: str, expected: type[Exception]) -> None:
        """No answer, and no end."""
        endpoint.fail(kind, times=1)
        with pytest.raises(expected):
            post(endpoint, "completions", {"prompt": "a"}, timeout=0.2)
        assert post(endpoint, "completions", {"prompt": "a"})[0] == 200

    def test_bodies_that_are_wrong(self, endpoint: Endpoint) -> None:
        """Cut JSON, empty text, text that no adapter parses."""
        for kind in ("truncate", "empty", "garbage"):
            endpoint.fail(kind, times=1)
        status, _, body = post(endpoint, "chat/completions", {"messages": [{"role": "user", "content": "hello"}]})
        assert status == 200
        with pytest.raises(json.JSONDecodeError):
            json.loads(body)
        assert said(endpoint) == ""
        assert "nothing that parses" in said(endpoint)

    def test_bad_options_are_refused(self, endpoint: Endpoint) -> None:
        """A misspelt option or kind is an error at once, not a fault that never strikes."""
        for wrong in ({"kind": "explode"}, {"stauts": 500}):
            with pytest.raises(ValueError, match="known are"):
                endpoint.fail(**wrong)
        with pytest.raises(ValueError, match="known are"):
            endpoint.configure(sead=1)


def test_server_ends_with_its_parent() -> None:
    """A server whose standard input closes ends by itself."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.endpoint.server"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert output.strip().isdigit()


def test_child_that_fails_shows_its_output(child: Callable[..., Any]) -> None:
    """A child that raises is an AssertionError with its traceback."""
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        child("1 / 0")
    assert child("1 / 0", check=False).returncode == 1
