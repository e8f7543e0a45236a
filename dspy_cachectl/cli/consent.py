"""Asking before something is removed, and how far along it is. Both on stderr: stdout is for the result."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, TypeAlias

import typer

Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")]


def must_be_able_to_ask(*, yes: bool, dry_run: bool) -> None:
    """Refuse a command that would have to ask where nobody can answer.

    Raises:
        typer.BadParameter: If nothing says yes, and the standard input is no terminal.
    """
    if not yes and not dry_run and not _is_watched():
        raise typer.BadParameter(
            "there is no terminal to ask on, so nothing was changed. Add --yes to do it, or --dry-run to see what "
            "would be done",
            param_hint="--yes",
        )


def agreed(question: str, *, yes: bool) -> bool:
    """Ask, unless there is a yes already. Only the word `yes` is one."""
    if yes:
        return True
    print(f'{question} Type "yes" to go on: ', end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if answer.strip().lower() == "yes":
        return True
    print("Nothing was changed.", file=sys.stderr)
    return False


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function that shows how much is done, and of how much; it does nothing where nobody watches."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(title, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def _is_watched() -> bool:
    try:
        return sys.stdin is not None and sys.stdin.isatty()
    except ValueError:  # it is closed
        return False
