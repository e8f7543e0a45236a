"""The reference page of the command line, made of the commands' own help.

`python -m dspy_cachectl.cli.reference > docs/cli.md` writes it anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

COMMAND = "python -m dspy_cachectl.cli.reference > docs/cli.md"
"""What writes the page anew."""

_WIDTH = 100
_HEAD = f"""# The command line

Every command with its options, as `--help` prints them. What the commands promise is in
[managing a store](managing.md). `{COMMAND}` writes this page anew.

Exit codes: 0 done, 1 failed, 2 the command was not given as it has to be, 3 `verify` found damage. `run` exits as the
script does.
"""


def page() -> str:
    """Return the page, in Markdown. It is the same in any terminal."""
    from dspy_cachectl.cli.app import app

    root = typer.main.get_command(app)
    return "\n".join([_HEAD, *_sections(root, _context(root, "dspy-cachectl", None))])


def _sections(command: Any, context: typer.Context) -> Iterator[str]:
    path = context.command_path
    yield f"## {path}\n\n```text\n{_help(command, context)}\n```\n"
    for name in getattr(command, "commands", {}):
        inner = command.get_command(context, name)
        if not inner.hidden:
            yield from _sections(inner, _context(inner, name, context))


def _context(command: Any, name: str, parent: typer.Context | None) -> typer.Context:
    settings = {"terminal_width": _WIDTH, "max_content_width": _WIDTH, **command.context_settings}
    return typer.Context(command, info_name=name, parent=parent, **settings)


def _help(command: Any, context: typer.Context) -> str:
    return "\n".join(line.rstrip() for line in command.get_help(context).splitlines())


if __name__ == "__main__":
    print(page(), end="")
