"""A standard output that takes nothing is one line and exit code 1, for every command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT

COMMANDS = ["--help", "path", "config show --json", "ls --json", "run script.py"]


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        pytest.param(arguments, where, marks=[] if 0 in (one, other) else pytest.mark.exhaustive)
        for one, arguments in enumerate(COMMANDS)
        for other, where in enumerate([">/dev/full", ">&-", "| true"])
    ],
)
def test_one_line_and_no_trace(arguments: str, where: str, tmp_path: Path) -> None:
    """A full one and a closed one are said; who reads no further is not told."""
    (tmp_path / "script.py").write_text("print('x' * 200_000)")
    line = f"set -o pipefail; {sys.executable} -m dspy_cachectl --store {tmp_path}/store {arguments} {where}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    said = [one for one in done.stderr.splitlines() if "standard output" in one]
    if where == "| true":
        assert not said
    else:
        assert (1, 1) == (done.returncode, len(said))
