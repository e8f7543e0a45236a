"""A command in a terminal of so many columns, and what stands on its lines."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.cells import cell_len

from tests.cli.commands import SCRIPT
from tests.limits import PATIENCE

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Seen:
    """What somebody sees.

    Attributes:
        code: The exit code.
        text: What was printed, to both streams, without what steers a terminal.
    """

    code: int
    text: str

    @property
    def lines(self) -> list[str]:
        """The lines, each of them as it was last: a bar writes over itself."""
        return [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in self.text.split("\n")]

    def too_wide(self, columns: int) -> list[str]:
        """The lines that are wider; but a single word that is: a name stays one that can be copied."""
        return [line for line in self.lines if cell_len(line) > columns and " " in line.strip()]


def watched(arguments: Sequence[str | Path], columns: int, *, cwd: Path, typed: str = "", **variables: str) -> Seen:
    """Run the console script in a terminal, or Python with `-c` and a program. Type, where something is to be typed."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    unset = ("DSPY_CACHECTL_", "COLUMNS", "LINES")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(unset)}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TERM": "xterm-256color", **variables}
    begun = list(map(str, arguments)) if arguments[0] == "-c" else [str(SCRIPT), *map(str, arguments)]
    process = subprocess.Popen(
        [sys.executable, *begun], stdin=slave, stdout=slave, stderr=slave, cwd=cwd, env=environment
    )
    os.close(slave)
    if typed:
        os.write(master, f"{typed}\n".encode())
    said = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        said += part
    os.close(master)
    code = process.wait(timeout=PATIENCE)
    return Seen(code, _ESCAPES.sub("", said.decode("utf-8", "replace").replace("\r\n", "\n")))
