"""How a store behaves as it grows: reading, missing, writing and opening, and commands on a million entries."""

from __future__ import annotations

import itertools
import random
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.figures import Figure, compared
from benchmarks.rounds import Block, Side, interleaved
from benchmarks.rows import row
from benchmarks.scene import Scene, asking, ours_in_place, prompts
from benchmarks.starts import process
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.disk import DiskStore

SIZES = (1_000, 100_000, 1_000_000)
COUNT, RUNS = 300, 50

COMMANDS = (
    ("ls",),
    ("ls", "--run", "run-3"),
    ("ls", "--phase", "eval"),
    ("ls", "--sort", "served"),
    ("ls", "--plot"),
    ("runs",),
    ("stats",),
    ("stats", "--json"),
)


@row("store")
def store(scene: Scene) -> Iterator[Figure]:
    """A store of 100,000 and of a million entries, by one of 1,000: get, miss, put, open. And a get by bare SQL."""
    folders = {size: filled(scene, size) for size in SIZES}
    for case, making in (("get", _getting), ("miss", _missing), ("put", _putting), ("open", _opening)):
        sides = {str(size): _opened(folder, making) for size, folder in folders.items()}
        taken = interleaved(sides, scene.rounds)
        for size in SIZES[1:]:
            calls = 1 if case == "open" else COUNT
            yield compared("store", taken[str(size)], taken[str(SIZES[0])], case=case, state=f"{size:,}", calls=calls)
    million = folders[SIZES[-1]]
    taken = interleaved({"ours": _opened(million, _getting), "theirs": lambda: _selecting(million)}, scene.rounds)
    yield compared("store", taken["ours"], taken["theirs"], case="get", state="by-SELECT", calls=COUNT)


@row("million", is_long=True)
def million(scene: Scene) -> Iterator[Figure]:
    """Commands on a store of a million entries, start included, by the clock, by the same on an empty one."""
    full, empty = filled(scene, SIZES[-1]), filled(scene, 0)
    for command in COMMANDS:
        ours, theirs = (
            process([sys.executable, "-m", "dspy_cachectl", "--store", str(folder), *command])
            for folder in (full, empty)
        )
        taken = interleaved({"ours": ours, "theirs": theirs}, scene.few)
        yield compared("million", taken["ours"], taken["theirs"], case=" ".join(command), clock="wall")


def filled(scene: Scene, entries: int) -> Path:
    """Return a folder with a store of so many copies of one entry, of several labels, stored over a month."""
    folder = scene.new_folder()
    with ours_in_place(str(folder)):
        asking(scene.governed("native"), prompts(1, 250))()
    labels = [
        Label("lm", f"openai/model-{at % 4}", "eval" if at % 2 else "compile", "", f"run-{at}" if at % 2 else "")
        for at in range(2 * RUNS)
    ]
    with closing(sqlite3.connect(folder / "cache.db")) as plain, plain:
        made = plain.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE type = 'trigger' OR (type = 'index' AND sql IS NOT NULL)"
        ).fetchall()
        plain.execute("PRAGMA synchronous = OFF")
        for kind, name, _ in made:
            plain.execute(f"DROP {kind} {name}")
        [(bought,)] = plain.execute("SELECT rowid FROM Cache ORDER BY length(value) DESC LIMIT 1")
        columns = [name for _, name, *_ in plain.execute("PRAGMA table_info(Cache)") if name != "rowid"]
        taken = {
            "key": "CASE typeof(bought.key) WHEN 'text' THEN lower(hex(randomblob(32))) ELSE randomblob(32) END",
            "store_time": ":now - 2592000.0 * (:entries - i) / :entries",
            "access_count": "abs(random()) % 5",
            "tag": "label.tag",
        }
        plain.execute("CREATE TEMP TABLE label(id INTEGER PRIMARY KEY, tag)")
        plain.executemany("INSERT INTO label VALUES (?, ?)", enumerate(label.encode() for label in labels))
        plain.execute(
            "WITH RECURSIVE n(i) AS (SELECT 0 WHERE :entries > 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :entries)"
            f" INSERT INTO Cache({', '.join(columns)})"
            f" SELECT {', '.join(taken.get(name, f'bought.{name}') for name in columns)}"
            " FROM n JOIN label ON label.id = n.i * 7919 % :labels JOIN Cache AS bought ON bought.rowid = :bought",
            {"entries": entries, "now": time.time(), "bought": bought, "labels": len(labels)},
        )
        if not entries:
            plain.execute("DELETE FROM Cache")
        for _, _, statement in made:
            plain.execute(statement)
    return folder


def _keys(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "cache.db")) as plain:
        [(last,)] = plain.execute("SELECT max(rowid) FROM Cache")
        rng = random.Random(0)
        rows = ", ".join(str(rng.randrange(last // 2, last)) for _ in range(COUNT))
        keys = [key for (key,) in plain.execute(f"SELECT key FROM Cache WHERE rowid IN ({rows})")]
    rng.shuffle(keys)
    return [key if isinstance(key, str) else key.hex() for key in keys]


def _opened(folder: Path, making: Callable[[DiskStore, Path], Block]) -> Side:
    @contextmanager
    def side() -> Iterator[Block]:
        with closing(DiskStore(folder)) as opened:
            block = making(opened, folder)
            yield block

    return side


def _getting(opened: DiskStore, folder: Path) -> Block:
    keys = _keys(folder)

    def get() -> None:
        for key in keys:
            if opened.get(key) is None:
                raise RuntimeError(f"no entry {key}")

    get()
    return get


def _missing(opened: DiskStore, folder: Path) -> Block:
    del folder
    rng = random.Random(1)
    keys = [f"{rng.getrandbits(256):064x}" for _ in range(COUNT)]

    def miss() -> None:
        for key in keys:
            opened.get(key)

    miss()
    return miss


_PUT = itertools.count()


def _putting(opened: DiskStore, folder: Path) -> Block:
    value = opened.get(_keys(folder)[0]) or b""
    rng, label = random.Random(f"put {next(_PUT)}"), Label("lm", "openai/model", "compile")
    keys = [f"{rng.getrandbits(256):064x}" for _ in range(COUNT + 1)]
    opened.put(keys.pop(), value, label)

    def put() -> None:
        for key in keys:
            opened.put(key, value, label)

    return put


def _opening(opened: DiskStore, folder: Path) -> Block:
    del opened
    key = _keys(folder)[0]

    def open_and_get() -> None:
        with closing(DiskStore(folder)) as new:
            new.get(key)

    return open_and_get


@contextmanager
def _selecting(folder: Path) -> Iterator[Block]:
    keys = _keys(folder)
    with closing(sqlite3.connect(folder / "cache.db")) as plain:
        [(kind,)] = plain.execute("SELECT typeof(key) FROM Cache LIMIT 1")
        asked = [key if kind == "text" else bytes.fromhex(key) for key in keys]

        def select() -> None:
            for key in asked:
                plain.execute("SELECT value FROM Cache WHERE key = ?", (key,)).fetchone()

        select()
        yield select
