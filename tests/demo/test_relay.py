"""The relay counts what passes, and nothing else passes."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request

import pytest

from dspy_cachectl.demo.relay import Relay, Traffic
from tests.endpoint import Endpoint


def ask(relay: Relay, token: str | None = None, text: str = "Hello?") -> dict[str, object]:
    body = json.dumps({"model": "test-model", "messages": [{"role": "user", "content": text}]}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token or relay.token}"}
    request = urllib.request.Request(f"{relay.url}/chat/completions", body, headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        answer: dict[str, object] = json.load(response)
    return answer


def test_it_counts_requests_and_tokens(endpoint: Endpoint) -> None:
    """Requests are those that arrive; tokens are those that the server says it used."""
    seen: list[int] = []
    with Relay(endpoint.url, on_request=seen.append) as relay:
        usages = [ask(relay, text=text)["usage"] for text in ("One?", "Two?")]
        total = sum(usage["total_tokens"] for usage in usages)  # type: ignore[index]
        assert Traffic(requests=2, tokens=total) == relay.traffic
    assert (2, [1, 2]) == (endpoint.requests, seen)


def test_it_serves_only_its_own_demo(endpoint: Endpoint) -> None:
    """Somebody else on this machine cannot use the key that the relay holds."""
    with Relay(endpoint.url, api_key="sk-secret") as relay, pytest.raises(urllib.error.HTTPError, match="403"):
        ask(relay, token="somebody-else")
    assert (0, Traffic()) == (endpoint.requests, relay.traffic)


def test_it_passes_failures_on_and_remembers_them(endpoint: Endpoint) -> None:
    """The program sees the server's status, and the demo can say what the server said."""
    endpoint.fail("status", status=429, message="slow down", retry_after=7)
    with Relay(endpoint.url) as relay:
        with pytest.raises(urllib.error.HTTPError) as raised:
            ask(relay)
        assert (429, "7") == (raised.value.code, raised.value.headers["Retry-After"])
        assert relay.failure is not None
        assert "slow down" in relay.failure


def test_what_is_held_never_arrives(endpoint: Endpoint) -> None:
    """After the agreed number, requests wait, and are dropped when the relay lets go."""
    failures: list[Exception] = []

    def ask_in_vain() -> None:
        try:
            ask(relay)
        except OSError as error:
            failures.append(error)

    with Relay(endpoint.url) as relay:
        relay.hold_after(1)
        ask(relay)
        thread = threading.Thread(target=ask_in_vain)
        thread.start()
        assert relay.wait_held(1, alive=thread.is_alive, seconds=10)
        relay.release()
        thread.join()
        assert (1, 1, 1) == (len(failures), relay.traffic.requests, endpoint.requests)
        ask(relay)
        assert 2 == endpoint.requests
