"""`dspy-cachectl demo`."""

from pathlib import Path
from typing import Annotated

import typer

from dspy_cachectl.cli.options import wrong_usage


def run_demo(
    *,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="An OpenAI-compatible server to ask, instead of the local model."),
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="The name of the model at that server.")] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(metavar="VAR", help="The environment variable that holds that server's key, if it wants one."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder to keep what the demo writes. Default: nothing is kept."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Half of the examples, and no MLflow.")] = False,
) -> None:
    """Compile from the cache and evaluate afresh, on a real model.

    Without options that is a small model on this machine: offline, and without a key. It takes a minute or two.
    """
    from dspy_cachectl.demo.environment import prepare_environment

    # Before dspy, which may load litellm.
    prepare_environment()
    from dspy_cachectl.demo.pipeline import run

    with wrong_usage():
        run(endpoint=endpoint, model=model, api_key_env=api_key_env, output=output, quick=quick)
