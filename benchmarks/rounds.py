"""Timing two things or more in turn, in one process, and what a round of each took.

Times of one machine on one day say little, and those of a busy machine nothing. How two things compare that take turns
within one process says much more: what else the machine does strikes both.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

Block = Callable[[], object]
"""What is timed. It may return a `Round` of its own, where it was measured elsewhere: in a child process, say."""

Side = Callable[[], AbstractContextManager[Block]]
"""Prepares a round, which takes no time, gives the block to be timed, and tidies up."""


@dataclass(frozen=True)
class Round:
    """What one round of one side took.

    Attributes:
        cpu: Seconds of the processor, of all threads of the process.
        wall: Seconds by the clock.
    """

    cpu: float
    wall: float


def timed(block: Block) -> Round:
    """Return what a block takes. What others left behind is collected before."""
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    measured = block()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return measured if isinstance(measured, Round) else Round(cpu, wall)


def interleaved(sides: Mapping[str, Side], rounds: int) -> dict[str, list[Round]]:
    """Time each side once in every round.

    Args:
        sides: The sides by name.
        rounds: How many rounds. Who begins changes from round to round, so that none is always timed after the same.

    Returns:
        The rounds of each side, in order: those with one index were timed one after another.
    """
    taken: dict[str, list[Round]] = {name: [] for name in sides}
    names = list(sides)
    for at in range(rounds):
        for name in names[at % len(names) :] + names[: at % len(names)]:
            with sides[name]() as block:
                taken[name].append(timed(block))
    return taken
