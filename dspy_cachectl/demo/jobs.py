"""How a process of the demo reaches the model, and what a child does: evaluations, as runs or with plain DSPy."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dspy

from dspy_cachectl.calls.installation import install
from dspy_cachectl.calls.lm import LM
from dspy_cachectl.demo import task
from dspy_cachectl.demo.act_results import ActResult
from dspy_cachectl.demo.completion import CompletionAdapter
from dspy_cachectl.phases.phase import phase
from dspy_cachectl.policy import Policy

if TYPE_CHECKING:
    from dspy_cachectl.context.phases import PhaseRun
    from dspy_cachectl.tracking import LogOutcome

LABEL_TOKENS = 8
MLFLOW_SECONDS = 60.0
EXPERIMENT = "dspy-cachectl demo"
STORE = "store"
"""Where in the demo's folder its answers are."""


@dataclass(frozen=True, slots=True)
class Connection:
    """What a process needs to know to ask the model; plain values, so that it can be handed to a child.

    Attributes:
        url: The base address of the relay.
        model: The model's name at the server behind it.
        api_key: The server's key; any text, where it wants none.
        completes: Whether it is a model that completes text, as the local one, or one that follows instructions.
    """

    url: str
    model: str
    api_key: str
    completes: bool

    def lm(self) -> LM:
        """Return an LM that obeys phases."""
        # The relay's port changes from run to run; the name tells whose answers these are.
        return LM(endpoint="demo", **self._options())

    def plain_lm(self) -> dspy.LM:
        """Return DSPy's own LM, at the temperature that a fresh phase lends."""
        return dspy.LM(**{**self._options(), "temperature": 1.0})

    def adapter(self) -> dspy.Adapter:
        """Return the adapter that suits the model."""
        return CompletionAdapter() if self.completes else dspy.ChatAdapter()

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"model": f"openai/{self.model}", "api_base": self.url, "api_key": self.api_key}
        if self.completes:
            # The server's own default temperature is not 0.
            options |= {"temperature": 0.0, "max_tokens": LABEL_TOKENS, "stop": "\n"}
        return options


@dataclass(frozen=True, slots=True)
class Job:
    """What a child does.

    Attributes:
        connection: How to reach the model.
        examples: How many reviews to evaluate.
        folder: The demo's folder, with its store.
        program: The file of the compiled program; None for the program without demonstrations.
        run_id: Draw under this identity. None: with plain DSPy, and its own cache.
        tracking_uri: Log the phase there when it is done. None: do not.
    """

    connection: Connection
    examples: int
    folder: Path
    program: Path | None = None
    run_id: str | None = None
    tracking_uri: str | None = None


def evaluations(job: Job) -> Iterator[ActResult | LogOutcome | None]:
    """Evaluate once each time, and log that the next time, if it is to be logged.

    The first value only says that all is loaded, which is not to be timed.
    """
    os.chdir(job.folder)
    logging.getLogger("dspy").setLevel(logging.ERROR)  # noqa: TID251 - another's
    yield None
    while True:
        yield from _evaluate(job)


def _evaluate(job: Job) -> Iterator[ActResult | LogOutcome]:
    connection = job.connection
    program = task.Classifier()
    if job.program is not None:
        program.load(job.program)
    reviews = task.dev_set()[: job.examples]
    lm = connection.plain_lm() if job.run_id is None else connection.lm()
    with dspy.context(lm=lm, adapter=connection.adapter()):
        if job.run_id is None:
            found = task.evaluate(program, reviews)
            # All its calls: the parent takes off those that the relay saw.
            found = replace(found, served=len(lm.history))
        else:
            install(job.folder / STORE)
            with phase("eval", Policy.FRESH, run_id=job.run_id) as run:
                found = task.evaluate(program, reviews)
            found = found.with_stats(run.stats)
    yield found
    if job.tracking_uri is not None:
        yield _log(run, job)


def _log(run: PhaseRun, job: Job) -> LogOutcome:
    from mlflow import MlflowClient

    from dspy_cachectl.tracking.log import log_to_mlflow

    # Made here, because a new database takes longer to set up than any limit should be, and because MLflow
    # would keep the artifacts in the working directory.
    MlflowClient(job.tracking_uri).create_experiment(EXPERIMENT, artifact_location=(job.folder / "artifacts").as_uri())
    return log_to_mlflow(run, tracking_uri=job.tracking_uri, experiment=EXPERIMENT, timeout=MLFLOW_SECONDS)
