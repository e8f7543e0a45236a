"""Asking before something is removed, on stderr: stdout is for the result."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, TypeAlias

import typer

from dspy_cachectl.cli.output import print_line

Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")]


@dataclass(frozen=True)
class Consent:
    """How far a command that changes something may go.

    Attributes:
        yes: Whether it need not ask.
        dry_run: Whether it only shows what it would do.
        as_json: Whether it prints JSON at its end, and nothing before.

    Raises:
        typer.BadParameter: If it would have to ask, and the standard input is no terminal.
    """

    yes: bool
    dry_run: bool
    as_json: bool

    def __post_init__(self) -> None:
        if not self.yes and not self.dry_run and not _is_watched():
            raise typer.BadParameter(
                "there is no terminal to ask on, so nothing was changed. Add --yes to do it, or --dry-run to see what "
                "would be done",
                param_hint="--yes",
            )

    def given(self, question: str, *, refused: int = 1) -> bool:
        """Ask, unless there is a yes already; a dry run has none. Only the word `yes` is one.

        Args:
            question: The question.
            refused: The exit code where the answer is another.

        Raises:
            typer.Exit: If the answer is another.
        """
        if self.yes or self.dry_run:
            return not self.dry_run
        print(f'{question} Type "yes" to go on: ', end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() != "yes":
            print("Nothing was changed.", file=sys.stderr)
            raise typer.Exit(refused)
        return True

    def say(self, text: str) -> None:
        """Print a line for people."""
        if not self.as_json:
            print_line(text)


def _is_watched() -> bool:
    try:
        return sys.stdin is not None and sys.stdin.isatty()
    except ValueError:  # it is closed
        return False
