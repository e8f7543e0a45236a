"""The demo from beginning to end: a model, a relay in front of it, a folder, and the acts."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dspy

from dspy_cachectl.calls.installation import install, installed, uninstall
from dspy_cachectl.demo import local_model, task, telling
from dspy_cachectl.demo.act_results import ActResult, DemoResult
from dspy_cachectl.demo.acts import ACTS, Act, log_to_mlflow
from dspy_cachectl.demo.child import DemoError
from dspy_cachectl.demo.connection import Connection
from dspy_cachectl.demo.jobs import store_folder
from dspy_cachectl.demo.relay import Relay
from dspy_cachectl.demo.stage import Stage
from dspy_cachectl.errors import CachectlError, ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class Options:
    """What can be chosen; see `dspy_cachectl.demo.run`."""

    endpoint: str | None = None
    model: str | None = None
    api_key_env: str | None = None
    output: Path | None = None
    quick: bool = False

    def __post_init__(self) -> None:
        if (self.endpoint is None) != (self.model is None):
            raise ConfigurationError("a server needs both its address and the model's name: endpoint= and model=")
        if self.endpoint is None and self.api_key_env is not None:
            raise ConfigurationError("the local model wants no key; name an endpoint= for api_key_env=")
        if self.api_key_env is not None and not os.environ.get(self.api_key_env):
            raise ConfigurationError(f"the environment variable {self.api_key_env!r} is not set; put the key into it")

    @property
    def api_key(self) -> str:
        """The server's key, or what LiteLLM takes for one."""
        return "none" if self.api_key_env is None else os.environ[self.api_key_env]


def play(options: Options, console: Console | None = None) -> DemoResult:
    """Play all acts, show them on a console, and return what they found."""
    console = console or telling.standard_console()
    began = time.monotonic()
    acts = [act for act in ACTS if not (options.quick and act.play is log_to_mlflow)]
    rows: list[ActResult] = []
    with ExitStack() as stack:
        folder = stack.enter_context(_folder(options.output))
        progress = stack.enter_context(telling.showing_progress(console, len(acts)))
        progress.begin("starting the model")
        connection, relay = stack.enter_context(_reaching_the_model(options, progress.note_requests))
        stack.enter_context(_set_up(connection, folder))
        stage = _stage(relay, connection, folder, quick=options.quick)
        for act in acts:
            progress.begin(act.title)
            rows.extend(_play(act, stage))
            progress.done()
        result = DemoResult(
            model=connection.model,
            examples=len(stage.dev),
            rows=tuple(rows),
            mlflow=stage.mlflow,
            comparison=stage.comparison,
            seconds=time.monotonic() - began,
            output=folder if options.output is not None else None,
        )
        if options.output is not None:
            (folder / "result.json").write_text(result.as_json(), encoding="utf-8")
    telling.show(result, console)
    return result


def _play(act: Act, stage: Stage) -> list[ActResult]:
    try:
        return list(act.play(stage))
    except CachectlError:
        raise
    except Exception as error:
        # DSPy says that it gave up, and in its log why; the relay knows what the server said.
        if stage.relay.failure is None:
            raise
        raise DemoError(f"{act.title} failed ({error}); the model's server said {stage.relay.failure}") from error


@contextmanager
def _reaching_the_model(options: Options, on_request: Callable[[int], None]) -> Iterator[tuple[Connection, Relay]]:
    with ExitStack() as stack:
        is_local = options.endpoint is None
        address = options.endpoint or stack.enter_context(local_model.serving())
        model = options.model or local_model.MODEL
        relay = stack.enter_context(Relay(address, on_request=on_request))
        if not is_local:
            relay.check(model, options.api_key)
        yield Connection(relay.url, model, options.api_key, completes=is_local), relay


@contextmanager
def _set_up(connection: Connection, folder: Path) -> Iterator[None]:
    """Set DSPy to the model and to the demo's own store; put everything back at the end."""
    before = installed()
    logger = logging.getLogger("dspy")
    level = logger.level
    install(store_folder(folder))
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


def _stage(relay: Relay, connection: Connection, folder: Path, *, quick: bool) -> Stage:
    train, dev = task.train_set(), task.dev_set()
    if quick:
        train, dev = train[: len(train) // 2], dev[: len(dev) // 2]
    return Stage(relay=relay, connection=connection, folder=folder, train=train, dev=dev)


@contextmanager
def _folder(output: Path | None) -> Iterator[Path]:
    """Give a fresh folder: a new one in `output`, or a temporary one."""
    if output is None:
        with tempfile.TemporaryDirectory(prefix="dspy-cachectl-demo-", ignore_cleanup_errors=True) as name:
            yield Path(name)
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=output)).absolute()
    except OSError as error:
        raise ConfigurationError(f"nothing can be written to {str(output)!r}: {error}; name another folder") from error
    yield folder
