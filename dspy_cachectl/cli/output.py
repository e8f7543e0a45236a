"""How commands print: JSON for programs, tables for people, and no stored text that could steer a terminal."""

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def plain(text: str) -> str:
    """Return text that a terminal only shows: control characters and what cannot be printed are escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def print_json(data: Any) -> None:
    """Print data as JSON, in ASCII so that it survives any pipe and any terminal."""
    print(json.dumps(data, indent=2))


def console() -> "Console":
    """Return a console that writes whole lines where nobody watches: nothing is cut to a width in a pipe."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 1000)
