"""`docs/reference/cli.md` is what the commands say of themselves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer

from dspy_cachectl.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "cli.md"


def _is_locked() -> bool:
    locked = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return re.search(rf"^typer=={re.escape(version('typer'))} ", locked, flags=re.MULTILINE) is not None


# How usage, choices and types are written is typer's, and differs by its release.
@pytest.mark.skipif(not _is_locked(), reason="the page is written by the typer of constraints.txt")
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
        pytest.fail("docs/reference/cli.md is not what the commands say of themselves. Write it anew: make docs")


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    yield name, command
    for sub, each in getattr(command, "commands", {}).items():
        yield from _commands(each, f"{name} {sub}")


def _sections() -> dict[str, str]:
    top, *rest = re.split(r"^##+ `(.+)`$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {"dspy-cachectl": top, **dict(zip(rest[::2], rest[1::2], strict=True))}


def _spelt(param: Any) -> str:
    spelt = sorted(param.opts, key=lambda one: one.startswith("--"))
    return param.metavar if param.param_type_name == "argument" else ", ".join(spelt)


def test_the_reference_page_says_what_there_is() -> None:
    """Whatever the typer: each command, its arguments and options in their order, and in full what each is for."""
    commands = dict(_commands(typer.main.get_command(app), "dspy-cachectl"))
    sections = _sections()
    assert list(commands) == list(sections)
    for name, command in commands.items():
        assert " ".join(command.help.split()) in " ".join(sections[name].split())
        params = sorted(command.params, key=lambda param: param.param_type_name)
        assert all(param.help for param in params)
        wanted = [*((_spelt(param), param.help) for param in params), ("--help", "Show this message and exit.")]
        items = re.findall(r"^\* `(.+?)`(?:: (.*))?$", sections[name].split("**Commands**")[0], flags=re.MULTILINE)
        assert len(wanted) == len(items), name
        for (spelt, says), (head, text) in zip(wanted, items, strict=True):
            assert head.startswith(spelt), name
            assert text.startswith(says), name


SHOWN = [
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs/**/*.md", "examples/**/*.md"),
    *("notebooks/*.ipynb", "dspy_cachectl/**/*.py"),
]


def _shown() -> Iterator[tuple[str, list[str]]]:
    """What follows `dspy-cachectl` wherever a command is shown, and in which file."""
    for path in sorted({path for pattern in SHOWN for path in ROOT.glob(pattern)} - {PAGE}):
        text = path.read_text(encoding="utf-8")
        for line in re.findall(r"(?:`|^|\$ |- run: )dspy-cachectl( [^`#\n|\"]+)", text, flags=re.MULTILINE):
            yield path.relative_to(ROOT).as_posix(), line.split()


def test_what_is_shown_of_a_command_is_there() -> None:
    """Wherever it is shown: in a block, within a sentence, in a message or a docstring."""
    top = typer.main.get_command(app)
    wrong = []
    for path, words in _shown():
        command, known = top, {option for param in top.params for option in param.opts}
        for word in words:
            if word in getattr(command, "commands", {}):
                command = command.commands[word]
                known |= {option for param in command.params for option in param.opts} | {"--help"}
            elif word.endswith(".py"):
                break
            elif word.startswith("--") and word.partition("=")[0] not in known:
                wrong.append(f"{path}: dspy-cachectl {' '.join(words)}")
    assert [] == wrong
