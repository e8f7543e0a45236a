"""The relay counts what passes, and nothing else passes."""

from __future__ import annotations

import json
import socket
import struct
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from threading import Event

import pytest

from dspy_cachectl.demo.relay import Relay
from tests.endpoint import Endpoint
from tests.limits import PATIENCE


def ask(relay: Relay, text: str = "Hello?") -> dict[str, object]:
    body = json.dumps({"model": "test-model", "messages": [{"role": "user", "content": text}]}).encode()
    headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-test"}
    request = urllib.request.Request(f"{relay.url}/chat/completions", body, headers)
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        answer: dict[str, object] = json.load(response)
    return answer


def test_it_counts_requests_and_tokens(endpoint: Endpoint) -> None:
    """Requests are those that arrive; tokens are those that the server says it used."""
    seen: list[int] = []
    with Relay(endpoint.url, on_request=seen.append) as relay:
        usages = [ask(relay, text=text)["usage"] for text in ("One?", "Two?")]
        total = sum(usage["total_tokens"] for usage in usages)  # type: ignore[index]
        assert (2, total) == (relay.requests, relay.tokens)
    assert (2, [1, 2]) == (endpoint.requests, seen)


def test_it_passes_failures_on_and_remembers_them(endpoint: Endpoint) -> None:
    """The program sees the server's status, and the demo can say what the server said."""
    endpoint.fail("status", status=429, message="slow down", retry_after=7)
    with Relay(endpoint.url) as relay:
        with pytest.raises(urllib.error.HTTPError) as raised:
            ask(relay)
        assert (429, "7") == (raised.value.code, raised.value.headers["Retry-After"])
        assert relay.failure is not None
        assert "slow down" in relay.failure


def test_its_end_waits_for_what_was_handed_on(endpoint: Endpoint) -> None:
    """What a sender that was killed had in the air is counted with its tokens when the block has ended."""
    endpoint.hold("Hello?")
    passed = Event()
    with ThreadPoolExecutor(2) as pool, ExitStack() as stack:
        relay = stack.enter_context(Relay(endpoint.url, on_request=lambda _: passed.set(), waits=True))
        asked = pool.submit(ask, relay)
        assert passed.wait(PATIENCE)
        ended = pool.submit(stack.pop_all().close)
        assert set() == wait([ended], timeout=1).done
        assert (1, 0) == (relay.requests, relay.tokens)
        endpoint.release()
        ended.result()
        usage: dict[str, int] = asked.result()["usage"]  # type: ignore[assignment]
        assert (1, usage["total_tokens"]) == (relay.requests, relay.tokens)


def test_a_sender_that_is_gone_is_no_error(endpoint: Endpoint, capfd: pytest.CaptureFixture[str]) -> None:
    """A killed process's requests are counted, and nothing is said of a connection that broke."""
    endpoint.hold("Hello?")
    passed = Event()
    with Relay(endpoint.url, on_request=lambda _: passed.set(), waits=True) as relay:
        address = urllib.parse.urlsplit(relay.url)
        body = json.dumps({"model": "test-model", "messages": [{"role": "user", "content": "Hello?"}]})
        with socket.create_connection((address.hostname or "", address.port or 0)) as sender:
            # Reset, as by a process that is killed, and not closed.
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            head = f"POST /chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
            sender.sendall(f"{head}{body}".encode())
            assert passed.wait(PATIENCE)
        endpoint.release()
    assert relay.tokens > 0
    assert "" == capfd.readouterr().err
