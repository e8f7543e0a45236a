"""`docs/cli.md` is what the commands say of themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"


@pytest.mark.parametrize("columns", ["40", "200"])
def test_the_reference_page_is_up_to_date(tmp_path: Path, columns: str) -> None:
    """Whoever changes a command or an option writes the page anew; it is the same in any terminal."""
    written = tmp_path / "cli.md"
    docs = ["typer", "dspy_cachectl.cli.app", "utils", "docs", "--name", "dspy-cachectl", "--title", "The command line"]
    subprocess.run(
        [sys.executable, "-m", *docs, "--output", str(written)],
        env={**os.environ, "COLUMNS": columns, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=True,
    )
    if written.read_text(encoding="utf-8") != PAGE.read_text(encoding="utf-8"):
        pytest.fail("docs/cli.md is not what the commands say of themselves. Write it anew: make docs")
