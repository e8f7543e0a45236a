"""The demo: compile from the cache, evaluate afresh, on a real model.

`run()` is what `dspy-cachectl demo` calls. Importing this package loads nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from dspy_cachectl.demo.act_results import DemoResult

__all__ = ["run"]


def run(
    *,
    endpoint: str | None = None,
    model: str | None = None,
    api_key_env: str | None = None,
    output: Path | None = None,
    quick: bool = False,
    console: Console | None = None,
) -> DemoResult:
    """Play the demo, show its progress, and print what it found.

    Without an endpoint it runs a small model on this machine, offline. It uses a store, a DSPy cache and an
    MLflow database of its own, and leaves the caller's settings as they were.

    Args:
        endpoint: The base address of an OpenAI-compatible server to ask instead, usually ending in `/v1`.
        model: The model's name at that server.
        api_key_env: The environment variable that holds that server's key.
        output: A folder to keep what the demo writes; each run has a folder of its own in it. None: nothing
            is kept.
        quick: Half of the reviews, and no MLflow.
        console: Where to print. None: standard output.

    Returns:
        What it found, row by row.

    Raises:
        ConfigurationError: An option cannot be used, or the server does not answer.
        MissingExtraError: The local model is not installed; the message names the commands that install it.
        DemoError: The server or a child process failed on the way.
    """
    from dspy_cachectl.demo.environment import prepare_environment

    # Before dspy, which may load litellm.
    prepare_environment()
    from dspy_cachectl.demo.pipeline import Options, play

    options = Options(endpoint=endpoint, model=model, api_key_env=api_key_env, output=output, quick=quick)
    return play(options, console)
