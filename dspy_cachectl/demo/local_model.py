"""A small language model behind an OpenAI-compatible server on this machine.

`serve()` runs the server in this process, `serve_in_child()` in one of its own, which outlives any evaluation
that is killed. As a command, `python -m dspy_cachectl.demo.local_model [GGUF]` prints the address and serves
until its standard input closes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspy_cachectl.demo.environment import child_environment, prepare_environment
from dspy_cachectl.demo.weights import FILE, find_weights, require_runtime
from dspy_cachectl.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

ALIAS = "smollm2"
SLOTS = 4
CONTEXT = 2048
MAX_TOKENS = 512
START_SECONDS = 60.0
STOP_SECONDS = 10.0

# The demo's adapter writes the whole prompt, so the template only joins the messages.
_CHAT_TEMPLATE = "{%- for m in messages -%}{{- m.content -}}{%- endfor -%}"


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A running server.

    Attributes:
        url: The base address of its OpenAI-compatible API, ending in `/v1`.
        model: The name of the model there.
    """

    url: str
    model: str


@contextmanager
def serve(gguf: Path | None = None) -> Iterator[LocalModel]:
    """Run the model's server in this process while the block lasts.

    Args:
        gguf: A GGUF file of the user's own, instead of the packaged weights.

    Raises:
        MissingExtraError: The engine or the weights are not installed.
        ConfigurationError: The weights cannot be used.
    """
    require_runtime()
    path = find_weights(gguf)
    prepare_environment()
    import xllamacpp

    try:
        server = xllamacpp.Server(_parameters(xllamacpp, path))
    except RuntimeError as error:
        raise ConfigurationError(f"the model in {str(path)!r} could not be loaded: {error}") from error
    try:
        yield LocalModel(url=f"{server.listening_address}/v1", model=_name(path))
    finally:
        # The server has no method to stop it: it stops when its last reference goes.
        del server


@contextmanager
def serve_in_child(gguf: Path | None = None) -> Iterator[LocalModel]:
    """Run the model's server in a process of its own while the block lasts.

    The child serves until its standard input closes, so it also ends when this process is killed.

    Args:
        gguf: A GGUF file of the user's own, instead of the packaged weights.

    Raises:
        MissingExtraError: The engine or the weights are not installed.
        ConfigurationError: The weights cannot be used, or the server did not start.
    """
    require_runtime()
    path = find_weights(gguf)
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(  # noqa: S603 - this interpreter, this module
            [sys.executable, "-m", "dspy_cachectl.demo.local_model", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=child_environment(),
        )
        try:
            yield _first_line(process, log)
        finally:
            _stop(process)


def _first_line(process: subprocess.Popen[str], log: Any) -> LocalModel:
    assert process.stdout is not None  # noqa: S101 - for the type checker
    # A server that hangs while it starts is killed, which ends the read below.
    watchdog = threading.Timer(START_SECONDS, process.kill)
    watchdog.start()
    try:
        line = process.stdout.readline()
    finally:
        watchdog.cancel()
    if not line:
        code = process.wait()
        log.seek(0)
        tail = "".join(log.readlines()[-5:]).strip()
        raise ConfigurationError(
            f"the local model's server ended while starting (exit code {code}): {tail or 'it said nothing'}"
        )
    return LocalModel(**json.loads(line))


def _stop(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None  # noqa: S101 - for the type checker
    assert process.stdout is not None  # noqa: S101 - for the type checker
    process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def _name(path: Path) -> str:
    return ALIAS if path.name == FILE else path.stem


def _parameters(xllamacpp: Any, path: Path) -> Any:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.model_alias = {_name(path)}
    parameters.hostnames, parameters.port = ["127.0.0.1"], 0
    parameters.n_parallel, parameters.n_ctx = SLOTS, SLOTS * CONTEXT
    parameters.n_batch = parameters.n_ubatch = 512
    parameters.cpuparams.n_threads, parameters.cpuparams_batch.n_threads = 1, 2
    parameters.n_predict, parameters.n_gpu_layers = MAX_TOKENS, 0
    parameters.ui, parameters.offline, parameters.verbosity = False, True, 1
    parameters.chat_template = _CHAT_TEMPLATE
    return parameters


def main(arguments: list[str]) -> None:
    """Serve until standard input closes; the first line of output is the address as JSON."""
    # Whatever the native library prints must not be taken for the address.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with serve(Path(arguments[0]) if arguments else None) as model:
        print(json.dumps({"url": model.url, "model": model.model}), file=out, flush=True)
        while sys.stdin.read(1 << 16):
            pass


if __name__ == "__main__":
    main(sys.argv[1:])
