"""Commands on a store of a million entries against the same on an empty one."""

from __future__ import annotations

import random
import sqlite3
import statistics
import subprocess
import sys
import time
from pathlib import Path

from dspy_cachectl.accounting.ledger import Tally
from dspy_cachectl.accounting.usage import Usage
from dspy_cachectl.entries import draws, records
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.tiers import Tiers

ENTRIES, RUNS, ROUNDS = 1_000_000, 50, 5
COMMANDS = (
    ["ls"],
    ["ls", "--run", "run-3"],
    ["ls", "--phase", "eval"],
    ["ls", "--sort", "served"],
    ["ls", "--plot"],
    ["runs"],
    ["stats"],
    ["stats", "--json"],
)


def timed_commands(folder: Path) -> list[tuple[list[str], float, float]]:
    """Return each command with its seconds on a million entries and on none, start included."""
    full, empty = folder / "million", folder / "none"
    fill(full, ENTRIES)
    fill(empty, 0)
    return [(command, _median(full, command), _median(empty, command)) for command in COMMANDS]


def fill(folder: Path, entries: int) -> None:
    """Make a store of copies of one entry of 1 kB, of several labels, stored over a month."""
    store = DiskStore(folder, max_bytes=10**12)
    labels = [
        Label("lm", f"openai/model-{at % 4}", "eval" if at % 2 else "compile", "", f"run-{at}" if at % 2 else "")
        for at in range(2 * RUNS)
    ]
    usage = Usage(Tiers([store], on_fault=print), on_fault=print)
    for label in labels:
        usage.record((label.kind, label.model, label.phase, label.role, label.run), Tally(calls=9, reused=8), None)
    usage.flush(ended=True)
    store.close()
    with sqlite3.connect(folder / "cache.db") as plain:
        made = plain.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE type = 'trigger' OR (type = 'index' AND sql IS NOT NULL)"
        ).fetchall()
        plain.execute("PRAGMA synchronous = OFF")
        for kind, name, _ in made:
            plain.execute(f"DROP {kind} {name}")
        plain.execute("CREATE TEMP TABLE label(id INTEGER PRIMARY KEY, tag)")
        plain.executemany("INSERT INTO label VALUES (?, ?)", enumerate(label.encode() for label in labels))
        plain.execute(
            "WITH RECURSIVE n(i) AS (SELECT 0 WHERE ?1 > 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)"
            " INSERT INTO Cache(key, raw, store_time, access_time, access_count, tag, size, mode, value)"
            " SELECT lower(hex(randomblob(32))), 1, ?2 - 2592000.0 * (?1 - i) / ?1, ?2, abs(random()) % 5, tag,"
            " 0, 1, ?3"
            " FROM n JOIN label ON label.id = n.i * 7919 % ?4",
            (entries, time.time(), _entry(), len(labels)),
        )
        for _, _, statement in made:
            plain.execute(statement)
        plain.execute("UPDATE Settings SET value = (SELECT COUNT(*) FROM Cache) WHERE key = 'count'")
    plain.close()


def _entry() -> bytes:
    noise = random.Random(0)
    words = [" ".join(f"{noise.getrandbits(40):x}" for _ in range(count)) for count in (45, 20)]
    request = {"model": "openai/model", "messages": [{"role": "user", "content": f"What is this? {words[0]}"}]}
    origin = records.Origin(kind="lm", model="openai/model", phase="compile", created=time.time())
    return records.encode(origin, {"outputs": [words[1]]}, draws.plain_text({"request": request}))


def _median(store: Path, command: list[str]) -> float:
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        program = [sys.executable, "-m", "dspy_cachectl", "--store", str(store), *command]
        subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
        rounds.append(time.perf_counter() - began)
    return statistics.median(rounds)
