"""What a broken server costs those who share a store on it: the delay of a thread in a minute of each fault."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from benchmarks.figures import Figure, counted
from benchmarks.rows import row
from benchmarks.scene import Scene
from dspy_cachectl.errors import StoreError
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.redis.store import RedisStore
from tests.stores.faulty import FAULTS, Broken

ALLOWED, MINUTE, BEFORE, THREADS = 0.75, 60.0, 2.0, 8
PAUSE = 0.05
"""What a program does between two commands, in seconds: all faults are measured at once."""
VALUE, LABEL = bytes(range(256)) * 12, Label("lm", "openai/model", "eval", "", "run")


@row("fault")
def fault(scene: Scene) -> Iterator[Figure]:
    """The longest that one of 8 threads is delayed by a minute of a fault of Redis, by 0.75 s, by the clock."""
    with ThreadPoolExecutor(len(FAULTS)) as pool:
        delays = pool.map(lambda begin: _delay(scene, begin), FAULTS.values())
        for name, delay in zip(FAULTS, delays, strict=True):
            yield counted("fault", delay, ALLOWED, case=name)


def _delay(scene: Scene, begin: Callable[[Broken], object]) -> float:
    with closing(Broken(scene.new_folder())) as broken:
        usual = statistics.median(_taken(broken.store, BEFORE, "before")[0])
        begin(broken)
        late = [[max(0.0, one - usual) for one in took] for took in _taken(broken.store, MINUTE, "during")]
        return max(map(sum, late))


def _taken(store: RedisStore, seconds: float, name: str) -> list[list[float]]:
    """Return how long the commands of each thread take, which put and get for a while."""
    end = time.monotonic() + seconds

    def work(thread: int) -> list[float]:
        took: list[float] = []
        while time.monotonic() < end:
            key, began = f"{name}-{thread}-{len(took)}", time.perf_counter()
            for command in (lambda key=key: store.put(key, VALUE, LABEL), lambda key=key: store.get(key)):
                try:
                    command()
                except StoreError:  # the caller goes on without
                    continue
            took.append(time.perf_counter() - began)
            time.sleep(PAUSE)
        return took

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, range(THREADS)))
