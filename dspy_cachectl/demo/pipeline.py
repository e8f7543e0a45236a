"""The demo from beginning to end: a model, a relay in front of it, a folder, and the acts."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import dspy

from dspy_cachectl.calls.installation import install, installed, uninstall
from dspy_cachectl.demo import local_model, task, telling
from dspy_cachectl.demo.act_results import ActResult, DemoResult
from dspy_cachectl.demo.acts import ACTS, Stage, log_to_mlflow
from dspy_cachectl.demo.child import DemoError
from dspy_cachectl.demo.jobs import STORE, Connection
from dspy_cachectl.demo.relay import Relay
from dspy_cachectl.errors import CachectlError, ConfigurationError
from dspy_cachectl.reports.progress_bar import progress
from dspy_cachectl.reports.texts import plural

_NO_KEY = "none"
"""What a server that wants no key is shown: without any, LiteLLM would look for one of the user's."""


def run(
    *,
    endpoint: str | None = None,
    model: str | None = None,
    api_key_env: str | None = None,
    output: Path | None = None,
    quick: bool = False,
) -> DemoResult:
    """Play the demo, show its progress, and print what it found.

    Without an endpoint it runs a small model on this machine, offline. It uses a store, a DSPy cache and an
    MLflow database of its own, and leaves the caller's settings as they were. It starts processes, so a script calls it
    under `if __name__ == "__main__":`.

    Args:
        endpoint: The base address of an OpenAI-compatible server to ask instead, usually ending in `/v1`.
        model: The model's name at that server.
        api_key_env: The environment variable that holds that server's key.
        output: A folder to keep what the demo writes; each run has a folder of its own in it. None: nothing
            is kept.
        quick: Half of the reviews, and no MLflow.

    Returns:
        What it found, row by row.

    Raises:
        ConfigurationError: An option cannot be used, or the server does not answer.
        MissingExtraError: The local model is not installed; the message names the commands that install it.
        DemoError: The server or a child process failed on the way.
    """
    api_key = _api_key(endpoint, model, api_key_env)
    began = time.monotonic()
    acts = {title: play for title, play in ACTS.items() if not (quick and play is log_to_mlflow)}
    with ExitStack() as stack:
        folder = _new_folder(output)
        if output is None:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        show = stack.enter_context(progress("demo"))
        show(0, len(acts), lambda: "starting the model")
        address = endpoint or stack.enter_context(local_model.local_model()).url
        relay = stack.enter_context(Relay(address))
        connection = Connection(relay.url, model or local_model.MODEL, api_key, completes=endpoint is None)
        stack.enter_context(_set_up(connection, folder))
        if endpoint is not None:
            _check(connection, relay)
        train, dev = task.train_set(), task.dev_set()
        if quick:
            train, dev = train[: len(train) // 2], dev[: len(dev) // 2]
        stage = Stage(relay, connection, folder, train, dev)
        rows: list[ActResult] = []
        for done, (title, play) in enumerate(acts.items()):
            relay.on_request = say = partial(_say, show, done, len(acts), title)
            say(relay.requests)
            telling.say_beginning(title, done + 1, len(acts))
            try:
                rows.extend(play(stage))
            except Exception as error:
                if isinstance(error, CachectlError) or relay.failure is None:
                    raise
                # DSPy says that it gave up, and in its log why; the relay knows what the server said.
                raise DemoError(f"{title} failed ({error}); the model's server said {relay.failure}") from error
        result = DemoResult(
            model=connection.model,
            examples=len(dev),
            rows=tuple(rows),
            mlflow=stage.mlflow,
            comparison=stage.comparison,
            settled=stage.settled,
            seconds=time.monotonic() - began,
            output=None if output is None else folder,
        )
        if output is not None:
            (folder / "result.json").write_text(result.as_json(), encoding="utf-8")
    telling.show(result)
    return result


def _api_key(endpoint: str | None, model: str | None, variable: str | None) -> str:
    if (endpoint is None) != (model is None) or (endpoint is None and variable is not None):
        raise ConfigurationError(
            "a server of your own needs both its address and the model's name, and no other wants a key: "
            "give endpoint and model"
        )
    if variable is not None and not os.environ.get(variable):
        raise ConfigurationError(f"the environment variable {variable!r} is not set; put the key into it")
    return _NO_KEY if variable is None else os.environ[variable]


def _say(show: Callable[..., None], done: int, acts: int, title: str, requests: int) -> None:
    show(done, acts, lambda: f"{title}: {plural(requests, 'request')}")


def _check(connection: Connection, relay: Relay) -> None:
    """Ask the server one question, which is in no row."""
    try:
        connection.plain_lm().copy(cache=False, num_retries=0)("Say yes.")
    except Exception as error:
        raise ConfigurationError(
            f"no answer from {relay.upstream!r}: {relay.failure or error}. "
            "Check the address, that it runs, the model's name and the key"
        ) from error


@contextmanager
def _set_up(connection: Connection, folder: Path) -> Iterator[None]:
    """Set DSPy to the model and to the demo's own store; put everything back at the end."""
    before = installed()
    logger = logging.getLogger("dspy")  # noqa: TID251 - another's
    level = logger.level
    install(folder / STORE)
    try:
        # DSPy logs every score, and every answer that is cut short; the table has both.
        logger.setLevel(logging.ERROR)
        with dspy.context(lm=connection.lm(), adapter=connection.adapter(), callbacks=[]):
            yield
    finally:
        logger.setLevel(level)
        uninstall()
        if before is not None:
            install(before.tiers.stores)


def _new_folder(output: Path | None) -> Path:
    try:
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=time.strftime("dspy-cachectl-demo-%Y%m%d-%H%M%S-"), dir=output)).absolute()
    except OSError as error:
        raise ConfigurationError(f"nothing can be written to {str(output)!r}: {error}; name another folder") from error
