"""`dspy-cachectl demo`."""

from pathlib import Path
from typing import Annotated

import typer


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
    gguf: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The weights for the local model, instead of the packaged ones.")
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
    if (endpoint is None) != (model is None):
        raise typer.BadParameter("a server needs both --endpoint and --model", param_hint="--endpoint")
    if endpoint is not None and gguf is not None:
        raise typer.BadParameter("weights are for the local model; leave out --endpoint", param_hint="--gguf")
    if endpoint is None and api_key_env is not None:
        raise typer.BadParameter("the local model wants no key; name an --endpoint", param_hint="--api-key-env")

    from dspy_cachectl.demo import run

    run(endpoint=endpoint, model=model, api_key_env=api_key_env, gguf=gguf, output=output, quick=quick)
