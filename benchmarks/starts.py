"""What it takes to import the package, and to run a command: the processor's seconds of a new process."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.figures import Figure, compared
from benchmarks.rounds import Block, Side, interleaved
from benchmarks.rows import row
from benchmarks.scene import Scene, asking, ours_in_place, prompts
from benchmarks.timed_process import timed_process
from dspy_cachectl.stores import open_stores

BARE = [sys.executable, "-c", "pass"]


@row("import")
def importing(scene: Scene) -> Iterator[Figure]:
    """`import dspy_cachectl`, by bare Python's start."""
    yield from _started(scene, "import", "", [sys.executable, "-c", "import dspy_cachectl"])


@row("command")
def command(scene: Scene) -> Iterator[Figure]:
    """A command of `dspy-cachectl` on a store of 100 entries, start included, by bare Python's start."""
    stores = open_stores(str(scene.new_folder()), memory_bytes=0, disk_bytes=10**9)
    with ours_in_place(stores):
        asking(scene.governed("native"), prompts(100, 500))()
    for name in ("path", "stats"):
        ours = [sys.executable, "-m", "dspy_cachectl", "--store", stores[0].location, name]
        yield from _started(scene, "command", name, ours)


def _started(scene: Scene, name: str, case: str, ours: Sequence[str]) -> Iterator[Figure]:
    taken = interleaved({"theirs": process(BARE), "ours": process(ours)}, scene.rounds)
    yield compared(name, taken["ours"], taken["theirs"], case=case)


def process(command: Sequence[str]) -> Side:
    """Return the side of a process that is started and waited for."""

    @contextmanager
    def side() -> Iterator[Block]:
        yield lambda: timed_process(command)

    return side
