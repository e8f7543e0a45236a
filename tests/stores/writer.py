"""One of several processes that put entries into one store: `python -m tests.stores.writer FOLDER NUMBER COUNT`.

It says `ready`, begins when it is told to, and says how many faults it saw.
"""

from __future__ import annotations

import hashlib
import sys

from dspy_cachectl.errors import StoreError
from dspy_cachectl.stores import Label, open_stores
from dspy_cachectl.stores.tiers import Tiers

SIZE = 2000


def key(process: int, at: int) -> str:
    """The key of entry number `at` of a process."""
    return hashlib.sha256(b"%d %d" % (process, at)).hexdigest()


def value(process: int, at: int) -> bytes:
    """The value of that entry: 2 kB that do not compress."""
    return hashlib.shake_256(b"%d %d" % (process, at)).digest(SIZE)


def label(process: int) -> Label:
    """The label of the entries of a process."""
    return Label(kind="lm", model="openai/test-model", phase="compile", role=f"process-{process}")


def main() -> None:
    """Put the entries."""
    folder, process, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    faults: list[str] = []

    def note(doing: str, error: StoreError) -> None:
        faults.append(f"{doing}: {error}")

    stores = Tiers(open_stores(folder, memory_bytes=2**20, disk_bytes=2**30), on_fault=note)
    print("ready", flush=True)
    sys.stdin.readline()
    for at in range(count):
        stores.put(key(process, at), value(process, at), label(process))
    print(len(faults), *faults[:1], flush=True)


if __name__ == "__main__":
    main()
