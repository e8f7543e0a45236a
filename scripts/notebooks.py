"""Run the notebooks from top to bottom, and keep what they show: `python scripts/notebooks.py [NAME...]`.

They run offline, each in an empty folder. Clock times and the names of runs, which are others each time and say nothing
of a result, are left out of what is kept.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
SECONDS = 600
"""The longest that a cell may take, or the start."""

_TIMES = (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"), re.compile(r"(?<=eval-)\d{8}-\d{6}-[0-9a-f]{8}"))


def run(path: Path) -> Any:
    """Run a notebook; return it with what it shows.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell of it fails.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        # Of a program that has its own settings there is nothing to see in a notebook for everybody.
        own = {name: value for name, value in os.environ.items() if not name.startswith("DSPY_CACHECTL_")}
        environment = {**own, "DSPY_CACHECTL_STORE": f"{folder}/store", "DSPY_CACHECTL_STATE": f"{folder}/state"}
        python_path = os.pathsep.join(filter(None, [str(ROOT), own.get("PYTHONPATH", "")]))
        NotebookClient(
            notebook,
            timeout=SECONDS,
            startup_timeout=SECONDS,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": folder}},
        ).execute(env={**environment, "PYTHONPATH": python_path})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


def without_times(text: str) -> str:
    """Return what a notebook shows without clock times and names of runs."""
    for pattern in _TIMES:
        text = pattern.sub("…", text)
    return text


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which, without the ending; else all")
    parser.add_argument("--output", type=Path, default=NOTEBOOKS, help="where to; else they are written over")
    options = parser.parse_args()
    for path in [NOTEBOOKS / f"{name}.ipynb" for name in options.names] or sorted(NOTEBOOKS.glob("*.ipynb")):
        text = without_times(nbformat.writes(run(path)))
        (options.output / path.name).write_text(text.rstrip("\n") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
