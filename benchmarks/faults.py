"""What a broken server costs those who share a store on it: the delay of a thread in a minute of each fault."""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from benchmarks.figures import Figure, counted
from benchmarks.rows import row
from benchmarks.scene import Scene
from dspy_cachectl.errors import StoreError
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.redis.store import RedisStore
from tests.stores.faulty import Faulty
from tests.stores.servers import Server

ALLOWED, MINUTE, BEFORE, THREADS = 0.75, 60.0, 2.0, 8
PAUSE = 0.05
"""What a program does between two commands, in seconds: all faults are measured at once."""
VALUE, LABEL = bytes(range(256)) * 12, Label("lm", "openai/model", "eval", "", "run")


class Shared:
    """A server, the way to it, and a store that uses it."""

    def __init__(self, folder: Path) -> None:
        self.server = Server(folder)
        self.way = Faulty(self.server.port)
        self.store = RedisStore(f"redis://127.0.0.1:{self.way.port}")

    def close(self) -> None:
        """End all of them."""
        self.store.close()
        self.way.close()
        self.server.kill()


FAULTS: dict[str, Callable[[Shared], object]] = {
    "killed": lambda shared: shared.server.kill(),
    "stopped": lambda shared: shared.server.signal(signal.SIGSTOP),
    "full": lambda shared: shared.server.say("CONFIG", "SET", "maxmemory", 1),
    "read-only": lambda shared: shared.server.say("REPLICAOF", "127.0.0.1", 1),
    "silent": lambda shared: shared.way.begin("silent"),
    "slow": lambda shared: shared.way.begin("slow"),
    "cut": lambda shared: shared.way.begin("cut"),
    "drip": lambda shared: shared.way.begin("drip"),
    "garbage": lambda shared: shared.way.begin("garbage"),
}


@row("fault")
def fault(scene: Scene) -> Iterator[Figure]:
    """The longest that one of 8 threads is delayed by a minute of a fault of Redis, by 0.75 s, by the clock."""
    with ThreadPoolExecutor(len(FAULTS)) as pool:
        delays = pool.map(lambda begin: _delay(scene, begin), FAULTS.values())
        for name, delay in zip(FAULTS, delays, strict=True):
            yield counted("fault", delay, ALLOWED, case=name)


def _delay(scene: Scene, begin: Callable[[Shared], object]) -> float:
    with closing(Shared(scene.new_folder())) as shared:
        usual = statistics.median(_taken(shared.store, BEFORE, "before")[0])
        begin(shared)
        late = [[max(0.0, one - usual) for one in took] for took in _taken(shared.store, MINUTE, "during")]
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
