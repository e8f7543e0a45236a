"""Child processes that have nothing of this one's: no environment, another folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.limits import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


def bare(module: str, *arguments: str | Path, cwd: Path, timeout: float = PATIENCE, **variables: str) -> Any:
    """Run a module of the tests with an empty environment but for what is named. Return its last line, decoded."""
    call = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from {module} import main; main(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", call, *map(str, arguments)],
        cwd=cwd,
        env=variables,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"the child ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])
