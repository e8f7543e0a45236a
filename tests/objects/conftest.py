"""An S3 endpoint on loopback, started once, and a bucket of its own for each test."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.objects.servers import KINDS, NAME, SECRET, SOMEBODY, running

_EXHAUSTIVE = pytest.mark.exhaustive


@pytest.fixture(scope="session", params=[KINDS[0], *(pytest.param(kind, marks=_EXHAUSTIVE) for kind in KINDS[1:])])
def s3_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Return the kind and the address of an S3 endpoint."""
    with running(request.param, tmp_path_factory.mktemp("s3")) as url:
        yield request.param, url


class Bucket:
    """A bucket: what somebody sees who looks into it from outside.

    Args:
        kind: What the S3 endpoint is.
        endpoint: Its address.
    """

    def __init__(self, kind: str, endpoint: str) -> None:
        self.endpoint, self.name, self._somebody = endpoint, f"b{uuid.uuid4().hex}", SOMEBODY.get(kind, {})
        self._asked("PUT", "").raise_for_status()

    @property
    def url(self) -> str:
        """A prefix in it."""
        return f"s3://{self.name}/team/evals"

    def dump(self) -> dict[str, bytes]:
        """Return all objects."""
        listed = self._asked("GET", "?list-type=2").text
        names = [part.partition("</Key>")[0] for part in listed.split("<Key>")[1:]]
        return {name: self._asked("GET", name).content for name in names}

    def remove(self, name: str) -> None:
        """Remove an object."""
        self._asked("DELETE", name).raise_for_status()

    def write(self, name: str, data: bytes) -> None:
        """Write an object."""
        self._asked("PUT", name, content=data).raise_for_status()

    def _asked(self, method: str, path: str, content: bytes = b"") -> httpx.Response:
        url = f"{self.endpoint}/{self.name}/{path}"
        return httpx.request(method, url, content=content, headers=self._somebody, trust_env=False)


@pytest.fixture
def bucket(s3_server: tuple[str, str], environment: Callable[[str], None]) -> Bucket:
    """Return a bucket of one's own, for which the environment has the credentials."""
    environment(s3_server[1])
    return Bucket(*s3_server)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Return what lets the environment name an endpoint."""

    def names(endpoint: str) -> None:
        values = {"AWS_ACCESS_KEY_ID": NAME, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
        for name, value in {**values, "AWS_ENDPOINT_URL": endpoint, "NO_PROXY": "127.0.0.1"}.items():
            monkeypatch.setenv(name, value)

    return names


class Cutting:
    """A proxy before an endpoint: it hands requests on, and cuts the replies to those that are chosen.

    Args:
        endpoint: What is behind it.

    Attributes:
        url: Its address.
        cuts: Tells by method and path whether the reply is cut.
        refuses: Tells likewise whether the request goes no further.
    """

    def __init__(self, endpoint: str) -> None:
        self.cuts: Callable[[str, str], bool] = lambda *_: False
        self.refuses: Callable[[str, str], bool] = lambda *_: False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                asked = (self.command, self.path.partition("?")[0])
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if outer.refuses(*asked):
                    self.close_connection = True
                    return
                headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
                reply = httpx.request(
                    self.command, endpoint + self.path, headers=headers, content=body, trust_env=False, timeout=60
                )
                if outer.cuts(*asked):
                    self.close_connection = True
                    return
                self.send_response(reply.status_code)
                left = {"transfer-encoding", "connection", "content-length", "content-encoding"}
                for name, value in reply.headers.items():
                    if name.lower() not in left:
                        self.send_header(name, value)
                length = reply.headers.get("Content-Length") if self.command == "HEAD" else None
                self.send_header("Content-Length", length or str(len(reply.content)))
                self.end_headers()
                self.wfile.write(reply.content)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _any  # noqa: N815 - as they are found

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def cutting(bucket: Bucket, environment: Callable[[str], None]) -> Iterator[Cutting]:
    """Return a proxy before the endpoint, which the environment names from now on."""
    proxy = Cutting(bucket.endpoint)
    environment(proxy.url)
    yield proxy
    proxy.close()
