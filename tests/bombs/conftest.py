"""The process that opens what was planted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.bombs.payloads import MB

Opened: TypeAlias = Callable[[str, Path], Any]

MOST_MEMORY = 300 * MB
MOST_SECONDS = 30.0
_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def _opening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A process that has nothing of this one's environment, and everything imported: that takes seconds."""
    home = tmp_path_factory.mktemp("home")
    call = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from tests.bombs.opening import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", call],
        cwd=home,
        env={"HOME": str(home)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        yield process


@pytest.fixture
def opened(_opening: subprocess.Popen[str]) -> Opened:
    """Opens what was planted in a process of its own. Returns how that ended, where it stayed within the limits."""

    def opened(place: str, folder: Path) -> Any:
        for path in folder.rglob("*"):
            assert path.is_dir() or path.stat().st_size <= MB, f"{path} is larger than 1 MB"
        assert _opening.stdin is not None
        assert _opening.stdout is not None
        print(json.dumps([place, str(folder)]), file=_opening.stdin, flush=True)
        found = json.loads(_opening.stdout.readline())
        assert found["grown"] <= MOST_MEMORY, found
        assert found["seconds"] <= MOST_SECONDS, found
        return found["outcome"]

    return opened
