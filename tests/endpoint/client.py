"""`Endpoint`: starts the server process and steers it from a test."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.limits import PATIENCE

_ROOT = Path(__file__).resolve().parents[2]


class EndpointError(RuntimeError):
    """The server process did not start, or refused a control request."""


@dataclass
class Counting:
    """Requests that arrived since a point in time."""

    endpoint: Endpoint
    start: int

    @property
    def requests(self) -> int:
        """LM requests since then, also after the block has ended."""
        return self.endpoint.requests - self.start


class Endpoint:
    """An OpenAI-compatible server in a process of its own; safe to use from several threads.

    Args:
        options: Fields of `tests.endpoint.config.Config`; `reset` returns to them.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self._port = 0

    def start(self) -> Endpoint:
        """Start the process and wait for its port."""
        command = [sys.executable, "-m", "tests.endpoint.server", json.dumps(self._options)]
        self._process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line.isdigit():
            self.stop()
            raise EndpointError("the test endpoint did not print its port; run it by hand: " + " ".join(command[1:]))
        self._port = int(line)
        return self

    def stop(self) -> None:
        """End the process; harmless when it has ended already."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def __enter__(self) -> Endpoint:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        return self._port

    @property
    def url(self) -> str:
        """What to give an LM as `api_base`."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def requests(self) -> int:
        """LM requests that arrived since the last reset, failed ones too."""
        return int(self._control("state")["requests"])

    @property
    def state(self) -> dict[str, Any]:
        """`requests`, `paths` (requests per path), `in_flight`, `peak` (most at once), `held`."""
        return self._control("state")

    def counts(self) -> dict[str, int]:
        """Requests per prompt: the text of the last user message."""
        return self._control("counts")

    def log(self) -> list[dict[str, Any]]:
        """The requests in order.

        Each has `path`, `query`, `headers`, `body`, `prompt`, `fault`, `at` (Unix seconds), `k` (its draw), `usage`.
        """
        return self._control("log")

    def reset(self) -> None:
        """Forget counts, draws, log and faults, release what is held, return to the first configuration."""
        self._control("reset", {})

    def reset_counts(self) -> None:
        """Forget counts and log only: the next draw of a prompt still differs from those before."""
        self._control("reset", {"counts_only": True})

    @contextmanager
    def counting(self) -> Iterator[Counting]:
        """Count the requests from here on: `with endpoint.counting() as seen: ...; seen.requests`."""
        yield Counting(self, self.requests)

    def fail(self, kind: str = "status", **options: Any) -> None:
        """Add a fault; the options are the fields of `tests.endpoint.faults.Rule`. The first that strikes wins."""
        self._control("fail", {"kind": kind, **options})

    def clear_faults(self) -> None:
        """Answer every request again."""
        self._control("clear_faults", {})

    def configure(self, **options: Any) -> None:
        """Change fields of `tests.endpoint.config.Config` until the next reset."""
        self._control("configure", options)

    def hold(self, match: str = "") -> None:
        """Let requests arrive (and be counted) but keep their answers back until `release`."""
        self._control("hold", {"match": match})

    def release(self) -> int:
        """Answer what is held and hold no more; how many requests that were."""
        return int(self._control("release", {})["released"])

    def wait_for(self, requests: int, timeout: float = PATIENCE) -> bool:
        """Block until so many requests have arrived since the last reset; False when the time is up."""
        return bool(self._control("wait", {"requests": requests, "timeout": timeout}, timeout + PATIENCE)["arrived"])

    def batches(self) -> list[dict[str, Any]]:
        """The batches in order, each with its `lines`."""
        return list(self._control("batches"))

    def finish_batches(self, ending: str = "completed") -> None:
        """Let the batches that are not done come to an end."""
        self._control("batches", {"ending": ending})

    def _control(self, name: str, options: dict[str, Any] | None = None, timeout: float = PATIENCE) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout)
        try:
            body = None if options is None else json.dumps(options)
            connection.request("GET" if body is None else "POST", f"/_control/{name}", body)
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status == 400:
            raise ValueError(answer["error"])
        if response.status != 200:
            raise EndpointError(f"control request {name}: {response.status} {answer}")
        return answer
