"""Real shells complete the names that a store holds, and run none of them."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dspy_cachectl.stores import Label
from tests.cli.commands import SCRIPT, entry, fill, key_of
from tests.limits import PATIENCE

USUAL = ["openai/gpt-4o-mini", "ollama/llama3:8b", "single", "a:b:c", "pct%20x", "plus+x", "comma,x", "été/modèle"]
HOSTILE = [
    "q1$(touch x)",
    "q2`touch x`",
    "q3;touch x",
    "q4\ntouch x",
    "q5'\";touch x;'\"",
    'q6"; touch x; "',
    "-rf",
    "q7\x1b]0;title\x07",
    "q8\u202eabc",
    "q9 x",
    "[q]1",
    "~root/x",
    "q10*",
    "q11!!",
    "q12${IFS}x",
    "q13\\",
    "q14NOT-UTF-8",
    "q15&touch x",
    "q16|touch x",
    "q17>x",
    "q18\u2028x",
    "q19\x9b2J",
    "q20#x",
    "q21{a,b}",
    "q22\u200bx",
    'q23")) ; touch x ; (("',
    "=touch",
]
_SETTINGS = {
    "bash": ["bash", "--noprofile", "--norc", "-i"],
    "zsh": ["zsh", "-f", "-i"],
}
_START = {
    "bash": "bind 'set show-all-if-ambiguous on'; bind 'set completion-query-items 0'; bind 'set page-completions off'",
    "zsh": "autoload -U compinit; compinit -u -D; LISTMAX=9999; zstyle ':completion:*' list-prompt ''",
}


class Terminal:
    """A shell in a terminal of its own, where `dspy-cachectl` completes, and only tells what it is given."""

    def __init__(self, shell: str, home: Path, store: Path) -> None:
        self.folder = home / "here"
        self.folder.mkdir()
        self._told = home / "told"
        self._told.touch()
        program = home / "bin" / "dspy-cachectl"
        program.parent.mkdir()
        script = [sys.executable, str(SCRIPT)]
        paths = os.pathsep.join(filter(None, sys.path))
        program.write_text(
            f"#!{sys.executable}\n"
            "import json, os, sys\n"
            "if '_DSPY_CACHECTL_COMPLETE' in os.environ:\n"
            f"    os.environ['PYTHONPATH'] = {paths!r}\n"
            f"    os.execv({script[0]!r}, [*{script!r}, *sys.argv[1:]])\n"
            f"with open({str(self._told)!r}, 'a') as told:\n"
            "    told.write(json.dumps(sys.argv[1:]) + '\\n')\n",
            encoding="utf-8",
        )
        program.chmod(0o755)
        environment = {
            "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "TERM": "dumb",
            "LANG": "C.UTF-8",
            "DSPY_CACHECTL_STORE": str(store),
        }
        asks = {**environment, "PYTHONPATH": paths, "_DSPY_CACHECTL_COMPLETE": f"source_{shell}"}
        completion = subprocess.run(script, env=asks, capture_output=True, text=True, check=True).stdout
        (home / "completion").write_text(completion, encoding="utf-8")
        self._terminal, inside = pty.openpty()
        self._shell = subprocess.Popen(
            _SETTINGS[shell],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            cwd=self.folder,
            env=environment,
            start_new_session=True,
        )
        os.close(inside)
        self.output = b""
        self.type(f"{_START[shell]}; source {home / 'completion'}; dspy-cachectl ready")

    def type(self, line: str) -> tuple[list[str], str]:
        """Type a line, and return what the program was given at last, and what was shown meanwhile."""
        before, shown = self._told.read_bytes().count(b"\n"), len(self.output)
        os.write(self._terminal, f"{line}\n".encode())
        until = time.monotonic() + PATIENCE
        while self._told.read_bytes().count(b"\n") == before:
            assert time.monotonic() < until, self.output
            if select.select([self._terminal], [], [], 0.02)[0]:
                self.output += os.read(self._terminal, 65_536)
        given: list[str] = json.loads(self._told.read_text().splitlines()[-1])
        return given, self.output[shown:].decode(errors="surrogateescape")

    def close(self) -> None:
        """Leave, and wait until the shell has ended."""
        self._shell.kill()
        self._shell.wait()
        os.close(self._terminal)


@pytest.mark.parametrize("shell", ["bash", pytest.param("zsh", marks=pytest.mark.exhaustive)])
def test_a_shell_runs_no_name_that_it_completes(shell: str, tmp_path: Path) -> None:
    """Usual names are offered and arrive as they are stored; those that a shell would obey are left out."""
    if shutil.which(shell) is None:
        assert os.environ.get("CI", "").lower() != "true", f"CI has no {shell}, which this test needs"
        pytest.skip(f"needs {shell}")
    labels = [Label("lm", name, name, name, name) for name in [*USUAL, *HOSTILE]]
    store = fill(tmp_path / "store", {key_of(at): (label, entry(label)) for at, label in enumerate(labels)})
    with sqlite3.connect(store / "cache.db") as plain:
        plain.execute(
            "UPDATE Cache SET tag = CAST(replace(CAST(tag AS TEXT), 'NOT-UTF-8', CAST(x'ff9b' AS TEXT)) AS TEXT)"
        )
    plain.close()
    terminal = Terminal(shell, tmp_path, store)
    try:
        for option in ("--model", "--run"):
            given, shown = terminal.type(f"dspy-cachectl ls {option} \t")
            assert ["ls", option] == given
            assert [] == [name for name in USUAL if name not in shown]
            assert [] == [name for name in HOSTILE if name in shown]
            assert "touch" not in shown
        for name in USUAL:
            # For bash, what follows a colon is a word of its own.
            beginning = name[: len(name) // 2].partition(":")[0]
            assert ["ls", "--model", name] == terminal.type(f"dspy-cachectl ls --model {beginning}\t")[0]
        for beginning in ("q1$", "q2", "q3"):
            assert "touch" not in terminal.type(f"dspy-cachectl ls --model '{beginning}\t'")[1]
    finally:
        terminal.close()
    assert [] == list(terminal.folder.iterdir())
    assert [] == [
        planted for planted in ("]0;title", "\u202e", "\u200b", "\u2028") if planted.encode() in terminal.output
    ]
