"""Repositories of a user, in which two branches record."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import dspy_cachectl as cachectl
from tests.replay.support import ask


class Repository:
    """A real repository, in which two branches record."""

    def __init__(self, folder: Path, name: str = "answers.jsonl") -> None:
        self.folder = folder
        self.path = folder / name
        self.git("init", "-q", "-b", "main")
        for key, value in (("user.name", "n"), ("user.email", "n@example.com"), ("commit.gpgsign", "false")):
            self.git("config", key, value)
        self.commit("begin")

    def git(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(["git", *arguments], cwd=self.folder, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def attributes(self, text: str) -> None:
        """Say to git how it merges."""
        (self.folder / ".gitattributes").write_text(text, encoding="utf-8")
        self.commit("attributes")

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "-q", "--allow-empty", "-m", message)

    def record(self, mode: Any, *texts: str) -> list[str]:
        """Record, and commit what was recorded."""
        with cachectl.cassette(self.path, mode):
            answers = ask(*texts)
        self.commit("record")
        return answers

    def branches(self, mode: Any, ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[list[str], list[str]]:
        """Record on two branches, and come to the first."""
        self.git("checkout", "-q", "-b", "theirs")
        found = self.record(mode, *theirs)
        self.git("checkout", "-q", "main")
        return self.record(mode, *ours), found

    def merge(self) -> bool:
        """Merge the other branch. Tell whether that went without a conflict."""
        return self.git("merge", "theirs", "-m", "merge", check=False).returncode == 0
