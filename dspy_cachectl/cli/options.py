"""The options with which a command says which entries it is about: declared once, so that they read alike.

A command takes them as `models: Models = None, ..., contains: Contains = None` and hands them to `selected`.
"""

from collections.abc import Sequence
from typing import Annotated, TypeAlias

import typer

from dspy_cachectl.cli.completion import names_of
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.manage.selection import Selection, parse_age


def age(text: str) -> float:
    """Return an age that people write in seconds: for `parser=`."""
    try:
        return parse_age(text)
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from error


Models: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        autocompletion=names_of("model"),
        help="Only of this model; a pattern such as 'openai/*' will do. Repeatable.",
    ),
]
Phases: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--phase",
        metavar="NAME",
        autocompletion=names_of("phase"),
        help="Only bought in this phase; '-' for outside phases. Repeatable.",
    ),
]
Runs: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--run",
        metavar="RUN",
        autocompletion=names_of("run_id"),
        help="Only draws of this run; '-' for what belongs to none. Repeatable.",
    ),
]
Roles: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--role",
        metavar="NAME",
        autocompletion=names_of("role"),
        help="Only of LMs with this role; '-' for those without. Repeatable.",
    ),
]
Kinds: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--kind",
        metavar="KIND",
        autocompletion=names_of("kind"),
        help="Only of this kind: lm, plain-lm, embedding. Repeatable.",
    ),
]
OlderThan: TypeAlias = Annotated[
    float | None,
    typer.Option("--older-than", metavar="AGE", parser=age, help="Only stored longer ago: 90s, 15m, 24h, 7d, 2w."),
]
NewerThan: TypeAlias = Annotated[
    float | None,
    typer.Option("--newer-than", metavar="AGE", parser=age, help="Only stored less long ago: 90s, 15m, 24h, 7d, 2w."),
]
Contains: TypeAlias = Annotated[
    str | None, typer.Option("--contains", metavar="TEXT", help="Only whose request contains this text, in any case.")
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def selected(
    *,
    models: Sequence[str] | None = None,
    phases: Sequence[str] | None = None,
    runs: Sequence[str] | None = None,
    roles: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
    older_than: float | None = None,
    newer_than: float | None = None,
    contains: str | None = None,
) -> Selection:
    """Return what the options select."""
    return Selection(
        models=tuple(models or ()),
        phases=tuple(phases or ()),
        runs=tuple(runs or ()),
        roles=tuple(roles or ()),
        kinds=tuple(kinds or ()),
        older_than=older_than,
        newer_than=newer_than,
        text=contains or None,
    )
