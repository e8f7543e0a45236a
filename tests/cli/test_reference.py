"""`docs/cli.md` is what the commands say of themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dspy_cachectl.cli.reference import COMMAND

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"


def written(columns: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "dspy_cachectl.cli.reference"],
        env={**os.environ, "COLUMNS": columns, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    ).stdout


def test_the_reference_page_is_up_to_date() -> None:
    """Whoever changes a command or an option writes the page anew."""
    if written("80") != PAGE.read_text(encoding="utf-8"):
        pytest.fail(f"docs/cli.md is not what the commands say of themselves. Write it anew: {COMMAND}")


def test_the_page_does_not_depend_on_the_terminal() -> None:
    """It is the same in a narrow terminal and a wide one."""
    assert written("40") == written("200")
