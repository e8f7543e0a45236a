"""API keys, authorization headers and tokens are nowhere in the store's files."""

from __future__ import annotations

import base64
import http.server
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.entries.records import decode, decode_request
from dspy_cachectl.stores.disk import DiskStore
from tests.endpoint import Endpoint

SECRET = "geheim0123456789"
ENGINES = ["auto", "litellm"]

OPTIONS: dict[str, dict[str, Any]] = {
    "api_key": {"api_key": f"sk-{SECRET}"},
    "extra_headers": {
        "extra_headers": {
            "Authorization": f"Bearer {SECRET}",
            "X-Api-Key": SECRET,
            "Cookie": f"session={SECRET}",
            "X-Custom-Auth": SECRET,
            "X-Team": "red",
        }
    },
    "headers": {"headers": {"Proxy-Authorization": f"Basic {SECRET}", "x-goog-api-key": SECRET}},
    "cloud": {
        "aws_access_key_id": SECRET,
        "aws_secret_access_key": SECRET,
        "aws_session_token": SECRET,
        "azure_ad_token": SECRET,
        "vertex_credentials": json.dumps({"private_key": SECRET}),
    },
    "extra_body": {"extra_body": {"api_key": SECRET, "nested": {"access_token": SECRET, "colour": "red"}}},
    "password": {"client_secret": SECRET, "password": SECRET},
}


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    store = DiskStore(tmp_path / "store")
    cachectl.install([store])
    return store


def leaks(store: DiskStore) -> list[str]:
    """Where in the store the secret is: in the bytes of a file, or in what an entry decodes to."""
    plain = (SECRET.encode(), f"bob:{SECRET}".encode())
    forms = [*plain, *(base64.b64encode(text).rstrip(b"=") for text in plain)]
    found = [
        path.name
        for path in store.path.rglob("*")
        if path.is_file() and any(form in path.read_bytes() for form in [*forms, SECRET.encode("utf-16-le")])
    ]
    for key in store.keys():  # noqa: SIM118 - not a mapping
        data = store.get(key) or b""
        entry = decode(data)
        inside = getattr(entry.answer, "__dict__", None)
        text = f"{key} {entry.origin!r} {entry.answer!r} {inside!r} {decode_request(data)!r}"
        found += [f"entry {key}" for form in forms if form.decode() in text]
    return found


def test_the_search_finds_what_is_there(lm: Callable[..., Any], store: DiskStore) -> None:
    """The oracle works: a question is the user's own, and is found."""
    lm()(f"My word is {SECRET}, and a long text follows. " + "More. " * 200)

    assert [name for name in leaks(store) if name.startswith("entry")]


@pytest.mark.parametrize("place", ["of the LM", "of the call"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("engine", ENGINES)
def test_options(
    endpoint: Endpoint, store: DiskStore, caplog: pytest.LogCaptureFixture, engine: str, options: str, place: str
) -> None:
    """No secret option, of an LM or of one call, is part of an entry, in either phase; nor is it logged."""
    given = OPTIONS[options]
    ours = given if place == "of the LM" else {}
    lm = cachectl.LM("openai/test-model", **{"api_base": endpoint.url, "api_key": "sk-test", "engine": engine, **ours})
    for name in ("compile", "eval"):
        with cachectl.phase(name), caplog.at_level(logging.INFO, logger="dspy_cachectl"):
            lm("What is the colour?", **({} if ours else given))

    assert 2 == endpoint.requests
    assert {"lm": 2, "run": 1} == kinds(store)
    assert [] == leaks(store)
    assert SECRET not in caplog.text


@pytest.mark.parametrize("engine", ENGINES)
def test_the_environment(endpoint: Endpoint, store: DiskStore, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    """A key that the provider's client takes from the environment stays there."""
    monkeypatch.setenv("OPENAI_API_KEY", f"sk-{SECRET}")
    cachectl.LM("openai/test-model", api_base=endpoint.url, engine=engine)("What is the colour?")

    assert f"Bearer sk-{SECRET}" == endpoint.log()[-1]["headers"]["authorization"]
    assert {"lm": 1} == kinds(store)
    assert [] == leaks(store)


def test_credentials_in_the_address(endpoint: Endpoint, store: DiskStore) -> None:
    """A name and password before the host are not part of the endpoint's identity."""
    url = endpoint.url.replace("http://", f"http://bob:{SECRET}@")
    cachectl.LM("openai/test-model", api_base=url, api_key="sk-test", engine="litellm")("What is the colour?")

    assert {"lm": 1} == kinds(store)
    assert [] == leaks(store)


class AnyPath(http.server.BaseHTTPRequestHandler):
    """Answers whatever is posted to whatever path."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        message = {"role": "assistant", "content": "red"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = json.dumps({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def any_path() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), AnyPath) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


@pytest.mark.parametrize("parameter", ["api-key", "key", "token", "sig", "access_token", "code"])
def test_parameters_of_the_address(any_path: str, store: DiskStore, parameter: str) -> None:
    """A key among an address's parameters is not part of the endpoint's identity; its others are."""
    url = f"{any_path}?{parameter}={SECRET}&version=2"
    cachectl.LM("openai/test-model", api_base=url, api_key="sk-test")("What is the colour?")

    (key,) = store.keys()
    assert "version=2" in str(decode_request(store.get(key) or b"")["endpoint"])
    assert [] == leaks(store)


def test_typed_requests(lm: Callable[..., Any], store: DiskStore) -> None:
    """A `dspy.lm15.Request` is stored without the LM's key as well."""
    request = dspy.lm15.Request(model="openai/test-model", messages=(dspy.lm15.Message.user("What is the colour?"),))
    lm(api_key=f"sk-{SECRET}")(request=request)

    assert {"lm": 1} == kinds(store)
    assert [] == leaks(store)


def test_plain_lms_and_embedders(plain_lm: Callable[..., Any], endpoint: Endpoint, store: DiskStore) -> None:
    """What DSPy's own LMs and embedders put into the cache holds no secret either."""
    plain_lm(api_key=f"sk-{SECRET}", extra_headers={"Authorization": f"Bearer {SECRET}"})("What is the colour?")
    dspy.Embedder("openai/test-embedding", api_base=endpoint.url, api_key=f"sk-{SECRET}")(["red", "blue"])

    assert {"plain-lm": 1, "embedding": 2} == kinds(store)
    assert [] == leaks(store)


def kinds(store: DiskStore) -> dict[str, int]:
    """How many entries there are of each kind."""
    counts: dict[str, int] = {}
    for label, count in store.labels().items():
        counts[label.kind] = counts.get(label.kind, 0) + count
    return counts
