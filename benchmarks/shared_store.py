"""What the commands take on a shared store with many entries, and what an entry takes of the server's memory.

`python -m benchmarks.shared_store [--entries N] [--labels N]` starts a Redis server of its own, fills it, asks it and
ends it. The time of the server is that of its processor, so what else runs on the machine matters little to it.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dspy_cachectl.manage import entries, listed_runs, removal, shared_store, store_usage
from dspy_cachectl.manage.selection import Selection
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.base import Filed
from dspy_cachectl.stores.redis.layout import tag_of
from dspy_cachectl.stores.redis.store import RedisStore
from tests.cli.commands import entry
from tests.stores.servers import Server

_GIVEN = 500
_RUN = "run-7"


def main() -> None:
    """Fill a server and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shared_store", description=__doc__)
    parser.add_argument("--entries", type=int, default=100_000, help="how many entries (100000)")
    parser.add_argument("--labels", type=int, default=1200, help="under how many labels (1200)")
    parser.add_argument("--verify", action="store_true", help="look at every entry, too: some minutes for a million")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        try:
            store = RedisStore(f"{server.url}?patience=60")
            _print_memory(store, _fill(store, options.entries, options.labels), options.entries)
            for name, asked in _questions(store, verifies=options.verify):
                _measure(store, name, asked)
        finally:
            server.kill()


def _fill(store: RedisStore, count: int, labels: int) -> int:
    """Store answers to small questions, with marks. Return how large one is, as the server has it."""
    chosen = random.Random(1)
    filed = [Label("lm", f"openai/m-{at % 7}", f"phase-{at % 5}", "", f"run-{at // 5}") for at in range(labels)]
    some: list[tuple[str, Filed, bool]] = []
    for at in range(count):
        key = hashlib.sha256(b"%d" % at).hexdigest()
        label = filed[chosen.randrange(labels)]
        value = entry(label, prompt=f"question {at} {key}", answer=f"answer {at}")
        some.append((key, Filed(value, label, f"{key[:16]}.{key[16:32]}"), True))
        if len(some) == _GIVEN or at == count - 1:
            store.give(some)
            some.clear()
    return len(store.client.run("read", tag_of(key), ("GET", store.names.entry(key))))


def _print_memory(store: RedisStore, size: int, count: int) -> None:
    used = int(store.client.info("memory")[0]["used_memory"])
    print(f"{count:,} entries: {used / count:,.0f} bytes each, of which the entry {size:,}", flush=True)


def _questions(store: RedisStore, *, verifies: bool) -> Iterator[tuple[str, Callable[[], Any]]]:
    now = time.time()

    def listed(reverse: bool = False, **selected: tuple[str, ...]) -> int:
        found = entries.list_entries(store, Selection(**selected), now=now, limit=50, reverse=reverse)
        return len(list(found))

    yield "stats", lambda: store_usage.store_usage(store).total.entries
    yield "ls of 50", listed
    yield "ls --model of 50", lambda: listed(models=("openai/m-3",))
    yield "ls --reverse of 50", lambda: listed(reverse=True)
    yield "runs", lambda: len(listed_runs.list_runs(store))
    yield "show", lambda: len(store.entries_beginning_with("1a2b3", limit=10))
    yield "clear --run", lambda: removal.remove(store, removal.plan(store, Selection(runs=(_RUN,))))
    if verifies:
        yield "verify", lambda: shared_store.verify(store).entries


def _measure(store: RedisStore, name: str, asked: Callable[[], Any]) -> None:
    before, began, started = _server_seconds(store), time.process_time(), time.monotonic()
    found = asked()
    own, wall = time.process_time() - began, time.monotonic() - started
    server = _server_seconds(store) - before
    print(f"{name:20} {own:6.2f} s here {server:6.2f} s there {wall:6.2f} s in all   {found:,}", flush=True)


def _server_seconds(store: RedisStore) -> float:
    found = store.client.info("cpu")[0]
    return float(found["used_cpu_user_main_thread"]) + float(found["used_cpu_sys_main_thread"])


if __name__ == "__main__":
    main()
