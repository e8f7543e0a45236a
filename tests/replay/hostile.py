"""Open a cassette within a limit of memory, and print how that ended: run as a script."""

from __future__ import annotations

import json
import resource
import sys
from typing import Any


def main(path: str, limit: str) -> None:
    """Print the error that opening raised, whether anything ran, and how much memory it took, in bytes."""
    ran: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in {"os.system", "subprocess.Popen", "pickle.find_class", "os.exec", "os.posix_spawn"}:
            ran.append(f"{event} {arguments}")

    from dspy_cachectl.replay import files

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.addaudithook(watch)
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()  # noqa: SIM115, PTH123
    resource.setrlimit(resource.RLIMIT_AS, (used + int(limit), resource.RLIM_INFINITY))
    try:
        from pathlib import Path

        files.read(Path(path))
        error = None
    except Exception as raised:  # noqa: BLE001 - whatever it is, the test judges it
        error = f"{type(raised).__name__}: {raised}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(json.dumps({"error": error, "ran": ran, "grown": grown}))
