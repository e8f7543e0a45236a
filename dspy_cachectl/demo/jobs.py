"""What a child process of the demo does: evaluations, under a run id or with plain DSPy.

The parent writes the job to standard input as one line of JSON, and then one line for each evaluation that it
wants; the child answers each with a line of JSON.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

MLFLOW_SECONDS = 60.0
EXPERIMENT = "dspy-cachectl demo"


@dataclass(frozen=True, slots=True)
class Job:
    """What a child does.

    Attributes:
        connection: The fields of the `Connection` to use.
        examples: How many reviews to evaluate.
        folder: The demo's folder, with its store.
        program: The file of the compiled program; None for the program without demonstrations.
        run_id: Draw under this identity. None: with plain DSPy, and its own cache.
        tracking_uri: Log the phase there when it is done. None: do not.
    """

    connection: dict[str, Any]
    examples: int
    folder: str
    program: str | None = None
    run_id: str | None = None
    tracking_uri: str | None = None


def evaluate(job: Job) -> dict[str, Any]:
    """Evaluate once, in a fresh phase or with plain DSPy.

    Returns:
        `score`, `labels` and `calls`; in a phase also `requests`, `served` and `lent` from its stats; with a
        tracking server also `mlflow`, the fields of what became of the results.
    """
    import dspy

    from dspy_cachectl.demo import task
    from dspy_cachectl.demo.connection import Connection

    connection = Connection(**job.connection)
    program = task.Classifier()
    if job.program is not None:
        program.load(job.program)
    reviews = task.dev_set()[: job.examples]
    lm = connection.plain_lm() if job.run_id is None else connection.lm()
    with dspy.context(lm=lm, adapter=connection.adapter()):
        if job.run_id is None:
            found = task.evaluate(program, reviews, threads=connection.threads)
            return {**asdict(found), "calls": len(lm.history)}
        return _in_phase(job, program, reviews, connection.threads)


def _in_phase(job: Job, program: Any, reviews: list[Any], threads: int) -> dict[str, Any]:
    from dspy_cachectl.calls.installation import install
    from dspy_cachectl.demo import task
    from dspy_cachectl.phases.phase import phase
    from dspy_cachectl.policy import Policy

    install(store_folder(job.folder))
    with phase("eval", Policy.FRESH, run_id=job.run_id) as run:
        found = task.evaluate(program, reviews, threads=threads)
    stats = run.stats
    answer = {
        **asdict(found),
        "calls": stats.calls,
        "requests": stats.requests,
        "served": stats.served,
        "lent": stats.temperatures_lent,
    }
    if job.tracking_uri is not None:
        answer["mlflow"] = _log(run, job)
    return answer


def _log(run: Any, job: Job) -> dict[str, Any]:
    from mlflow import MlflowClient

    from dspy_cachectl.tracking import log_to_mlflow

    # Made here, because a new database takes longer to set up than any limit should be, and because MLflow
    # would keep the artifacts in the working directory.
    artifacts = (Path(job.folder) / "artifacts").as_uri()
    MlflowClient(job.tracking_uri).create_experiment(EXPERIMENT, artifact_location=artifacts)
    outcome = log_to_mlflow(run, tracking_uri=job.tracking_uri, experiment=EXPERIMENT, timeout=MLFLOW_SECONDS)
    return {"status": outcome.status, "run_id": outcome.run_id, "reason": outcome.reason}


def store_folder(folder: str | Path) -> Path:
    """Return where the demo in this folder keeps its answers."""
    return Path(folder) / "store"


def main() -> None:
    """Do what the parent asks for, until it closes standard input."""
    with _answers() as out:
        job = Job(**json.loads(sys.stdin.readline()))
        import dspy  # noqa: F401 - its start is not to be timed as part of an evaluation

        logging.getLogger("dspy").setLevel(logging.ERROR)
        _say(out, {})
        for _ in sys.stdin:
            _say(out, evaluate(job))


@contextmanager
def _answers() -> Iterator[IO[str]]:
    # Progress bars and notices of the libraries go elsewhere: they must not be taken for answers.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        yield out


def _say(out: IO[str], answer: dict[str, Any]) -> None:
    out.write(f"{json.dumps(answer)}\n")
    out.flush()


if __name__ == "__main__":
    main()
