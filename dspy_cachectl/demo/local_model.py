"""A small language model behind an OpenAI-compatible server on this machine, in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dspy_cachectl.demo.child import Child
from dspy_cachectl.demo.environment import LOOPBACK
from dspy_cachectl.demo.weights import find_weights

MODEL = "smollm2"
SLOTS = 4
CONTEXT = 2048
MAX_TOKENS = 512

# The demo's adapter writes the whole prompt, so the template only joins the messages.
_CHAT_TEMPLATE = "{%- for m in messages -%}{{- m.content -}}{%- endfor -%}"


@contextmanager
def serving() -> Iterator[str]:
    """Run the model's server while the block lasts; yield the base address of its API, ending in `/v1`.

    Raises:
        MissingExtraError: The engine or the weights are not installed.
        ConfigurationError: The weights are not the expected ones.
        DemoError: The server did not start.
    """
    with Child(_serve, find_weights()) as child:
        yield child.first


def _serve(weights: Path) -> Iterator[str]:
    import xllamacpp

    server = xllamacpp.Server(_parameters(xllamacpp, weights))
    yield f"{server.listening_address}/v1"
    # The server has no method to stop it: it stops when its last reference goes.
    del server


def _parameters(xllamacpp: Any, path: Path) -> Any:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.model_alias = {MODEL}
    parameters.hostnames, parameters.port = [LOOPBACK], 0
    parameters.n_parallel, parameters.n_ctx = SLOTS, SLOTS * CONTEXT
    parameters.n_batch = parameters.n_ubatch = 512
    parameters.cpuparams.n_threads, parameters.cpuparams_batch.n_threads = 1, 2
    parameters.n_predict, parameters.n_gpu_layers = MAX_TOKENS, 0
    parameters.ui, parameters.offline, parameters.verbosity = False, True, 1
    parameters.chat_template = _CHAT_TEMPLATE
    return parameters
