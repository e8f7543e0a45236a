"""A child process that evaluates when asked to, and that may be killed while it does."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from dspy_cachectl.demo.environment import child_environment
from dspy_cachectl.demo.failure import DemoError
from dspy_cachectl.demo.jobs import Job


class Worker:
    """A child process that does one job; a context manager, which is entered when the child is ready.

    Raises:
        DemoError: On entering: the child did not start.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._log: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed with the process
        folder = Path(job.folder)
        # DSPy's own cache and the outbox for MLflow are not the user's, and nothing leaves this machine.
        environment = child_environment(
            DSPY_CACHEDIR=str(folder / "dspy"),
            DSPY_CACHECTL_STATE=str(folder / "state"),
            MLFLOW_DISABLE_TELEMETRY="true",
            PYTHONIOENCODING="utf-8",
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dspy_cachectl.demo.jobs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            encoding="utf-8",
            cwd=folder,
            env=environment,
        )

    def __enter__(self) -> Worker:
        try:
            self._write(json.dumps(asdict(self._job)))
            self._read()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._close()

    def evaluate(self) -> dict[str, Any]:
        """Let it evaluate once; return what it answers.

        Raises:
            DemoError: It failed.
        """
        self.begin()
        return self._read()

    def begin(self) -> None:
        """Let it evaluate once, without waiting for the answer."""
        self._write("evaluate")

    def alive(self) -> bool:
        """Tell whether it runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill it at once (SIGKILL): it gets no chance to tidy up."""
        self._process.kill()
        self._process.wait()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._failure() from error

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        line = self._process.stdout.readline()
        if not line:
            raise self._failure()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _failure(self) -> DemoError:
        code = self._process.wait()
        self._log.seek(0)
        said = "".join(self._log.readlines()[-15:]).strip()
        return DemoError(f"a child process of the demo ended with exit code {code}: {said or 'it said nothing'}")

    def _close(self) -> None:
        # It may be in the middle of a call that nobody will answer.
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            if pipe is not None:
                pipe.close()
