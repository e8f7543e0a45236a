"""A page as a script: each of its blocks does what its reader would do with it, in the page's order."""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

NOT_RUN = re.compile(r"^<!-- not run: (.+) -->$")
"""What stands above a block that cannot run here, with the reason."""
SHOWN = {"text", "console", "gitattributes", "html", "markdown"}
"""Languages of what a page shows and nobody runs."""
ELSEWHERE = re.compile(r"^ *(pip|git|make) .*$\n?", flags=re.MULTILINE)
"""Lines of a shell that are about the machine of the reader."""
_FENCE = re.compile(r"^```(\w*)(?: title=\"(.+)\")?$")
_BEFORE = "from tests.docs.before import *; from tests.docs.running import shell, written"


@dataclass(frozen=True)
class Block:
    """One block of a page.

    Attributes:
        line: The line of its first fence, from 1.
        language: The language, "" where none is named.
        title: The file that it is the text of, "" if it is none.
        code: What stands in it.
        reason: Why it is not run, "" if it is.
    """

    line: int
    language: str
    title: str
    code: str
    reason: str


def blocks_of(text: str) -> list[Block]:
    """Return the blocks of a page, in their order."""
    found: list[Block] = []
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        fence = _FENCE.match(lines[at])
        if fence is not None:
            end = lines.index("```", at + 1)
            above = NOT_RUN.match(lines[at - 1]) if at else None
            code = "\n".join(lines[at + 1 : end]) + "\n"
            found.append(Block(at + 1, fence[1], fence[2] or "", code, above[1] if above else ""))
            at = end
        at += 1
    return found


def script_of(text: str) -> str:
    """Return a page as a script, "" where there is nothing to run.

    Each block of Python stands on the lines that it has on the page: what fails is found there.
    """
    lines = [""] * (len(text.splitlines()) + 1)
    lines[0] = _BEFORE
    to_run = [block for block in blocks_of(text) if not block.reason and block.language not in SHOWN]
    for block in to_run:
        if block.title or block.language == "toml":
            lines[block.line - 1] = f"written({block.title or 'pyproject.toml'!r}, {block.code!r})"
        elif block.language == "bash":
            lines[block.line - 1] = f"shell({block.code!r})"
        elif block.language == "python":
            code = block.code.splitlines()
            lines[block.line : block.line + len(code)] = code
        else:
            raise AssertionError(f"line {block.line}: nothing is known of {block.language!r}; say how it is run")
    if re.search(r"local_model\(", text):
        # What starts processes of its own imports the script in them: all of it is the program's.
        lines[1:] = ["if __name__ == '__main__':", *(textwrap.indent(line, "    ") for line in lines[2:])]
    return "\n".join(lines) + "\n" if to_run else ""


def written(name: str, code: str) -> None:
    """Write a file that a page shows, and read it as what it is."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code, encoding="utf-8")
    if path.name == "pyproject.toml":
        shell("dspy-cachectl config show")
    if path.suffix == ".json":
        json.loads(code)
    if path.suffix == ".yml":
        import yaml

        yaml.safe_load(code)


def shell(code: str) -> None:
    """Run what a page shows for a shell, but for what is about the machine of its reader."""
    import os
    import subprocess
    import sys

    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", ELSEWHERE.sub("", code)],
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout, done.stderr)
    if done.returncode:
        raise AssertionError(f"exit code {done.returncode} of\n{code}")
