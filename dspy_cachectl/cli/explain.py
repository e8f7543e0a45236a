"""`dspy-cachectl explain`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dspy_cachectl.cli.consent import progress
from dspy_cachectl.cli.options import AsJson
from dspy_cachectl.cli.output import console, plain, print_json
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.stores.reader import FolderReader

if TYPE_CHECKING:
    from dspy_cachectl.manage.explanation import Explanation


def explain_miss(
    context: typer.Context,
    *,
    key: Annotated[
        str | None, typer.Argument(metavar="KEY", help="The key of an entry, or how it begins.", show_default=False)
    ] = None,
    request: Annotated[
        Path | None,
        typer.Option("--request", metavar="FILE", help="A request as JSON; '-' reads it from the standard input."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say why a request was bought, though others are stored: the nearest one, and what differs.

    With a KEY: why that entry was bought, in the light of what was stored before it. With --request: whether the
    answer is stored, and what is nearest to it where it is not. A request is {"model": ..., "messages": [...]} with
    the options of the call, or what `show --json` prints under "request".
    """
    if (key is None) == (request is None):
        raise typer.BadParameter("name the KEY of an entry, or a --request", param_hint="KEY")
    reader = FolderReader(context.obj.folder())

    from dspy_cachectl.manage import explanation

    try:
        with progress("Searching") as advance:
            found = (
                explanation.explain_entry(reader, key, advance=advance)
                if key is not None
                else explanation.explain_request(reader, _read(request or Path("-")), advance=advance)
            )
    except ConfigurationError as error:
        raise typer.BadParameter(str(error), param_hint="KEY" if key is not None else "--request") from error
    if as_json:
        print_json(found.as_dict())
    else:
        _print(found)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        data = json.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{str(path)!r} cannot be read as JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigurationError(f"{str(path)!r} holds no JSON object")
    return data


def _print(found: "Explanation") -> None:
    from rich.text import Text

    out = console()
    lines = [f"key: {found.key}", f"{'stored' if found.stored else 'not stored'}: {found.reason}"]
    if found.nearest is not None:
        lines.append(f"nearest of {found.searched:,} entries: {found.nearest}")
        lines += [f"  - {line}" for line in found.differences] or ["  - nothing differs"]
    for line in lines:
        out.print(Text(plain(line)), soft_wrap=True)
