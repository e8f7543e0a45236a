"""Python in a process of its own: a new interpreter, or a fork of one that has imported what takes long."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tests.limits import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
COMMAND_MODULES = ("tests.isolation", "tests.processes.commands")
"""What commands import that load nothing of DSPy."""
DSPY_MODULES = ("tests.isolation", "tests.processes.programs")
"""What the programs of users import."""
PYTEST_MODULES = (*DSPY_MODULES, "tests.processes.suites")
"""What their tests import."""


class Finished(subprocess.CompletedProcess[str]):
    """A finished child process."""

    @property
    def output(self) -> str:
        """Both its streams, for a message."""
        return f"--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"

    @property
    def data(self) -> Any:
        """The last line of its output that is JSON."""
        for line in reversed(self.stdout.splitlines()):
            try:
                return json.loads(line)
            except json.JSONDecodeError:
                continue
        raise AssertionError(f"the child printed no JSON line\n{self.output}")


def python(
    *arguments: str | Path,
    warm: Sequence[str] = (),
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    timeout: float = PATIENCE,
) -> Finished:
    """Run Python in a process of its own, and wait for its end.

    Args:
        arguments: A script, or -c or -m and what follows; other options of Python need a new interpreter.
        warm: The modules that are imported when the process begins: it is then a fork of one that has imported them.
            Without any it is a new interpreter.
        cwd: The folder in which it runs.
        env: All of its environment, instead of this process's.
        stdin: What it can read.
        timeout: How long it may take, in seconds.
    """
    environment = dict(os.environ if env is None else env)
    words = [str(argument) for argument in arguments]
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin.encode())
        given.seek(0)
        streams = (given, out, err)
        if warm:
            code = _forking(tuple(warm)).run(words, cwd or Path.cwd(), environment, streams, timeout)
        else:
            call = [sys.executable, *words]
            code = subprocess.call(call, cwd=cwd, env=environment, stdin=given, stdout=out, stderr=err, timeout=timeout)
        out.seek(0)
        err.seek(0)
        return Finished(words, code, _text(out), _text(err))


def _text(file: IO[bytes]) -> str:
    return file.read().decode().replace("\r\n", "\n")


class ForkServer:
    """The process of `server.py` that has imported some modules."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("server.py")), *modules],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=theirs,
                stdout=subprocess.DEVNULL,
            )

    def run(
        self, arguments: list[str], cwd: Path, env: dict[str, str], streams: Sequence[IO[bytes]], timeout: float
    ) -> int:
        """Run a program in a fork; its exit code."""
        request = json.dumps({"arguments": arguments, "cwd": str(cwd), "env": env}).encode() + b"\n"
        heard, told = os.pipe()
        with os.fdopen(heard, encoding="ascii") as answers:
            try:
                descriptors = [*(stream.fileno() for stream in streams), told]
                sent = socket.send_fds(self._control, [request], descriptors)
            finally:
                os.close(told)
            self._control.sendall(request[sent:])
            process_id = int(answers.readline())
            if not select.select([answers], [], [], timeout)[0]:
                os.kill(process_id, signal.SIGKILL)
                raise subprocess.TimeoutExpired(arguments, timeout)
            return int(answers.readline())

    def end(self) -> None:
        """Let it end."""
        self._control.close()
        self._process.wait(PATIENCE)


_servers: dict[tuple[str, ...], ForkServer] = {}


def _forking(modules: tuple[str, ...]) -> ForkServer:
    if modules not in _servers:
        _servers[modules] = ForkServer(modules)
    return _servers[modules]


def end_servers() -> None:
    """End the processes that fork."""
    while _servers:
        _servers.popitem()[1].end()
