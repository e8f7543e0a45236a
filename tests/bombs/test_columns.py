"""Whatever stands in a column of our small databases: it is damaged, the rest is served, and no command fails."""

from __future__ import annotations

import contextlib
import gzip
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from dspy_cachectl.predictions.journal import Journal
from dspy_cachectl.predictions.library import Library
from dspy_cachectl.tracking import outbox as outboxes
from dspy_cachectl.tracking.outbox import Outbox
from dspy_cachectl.tracking.record import Record
from tests.bombs.conftest import Opened
from tests.bombs.payloads import MB
from tests.bombs.test_bombs import _opening
from tests.predictions.support import evaluate, examples

SMALL: tuple[Any, ...] = (
    *(None, 0, 5, -1, 2**63 - 1, -(2**63), 1e300, -1e300, float("inf"), 0.5),
    *(
        "",
        "x",
        "\0\x1b[2J",
        "NaN",
        "Infinity",
        "-1",
        "[" * 2000,
        "../../x",
        b"",
        b"x",
        b"\xff\0",
        b"NaN",
        b"null",
        b"5",
    ),
    *(b'"\\ud800"', b"[]", b"{}", b'{"a":' * 900 + b"1" + b"}" * 900, gzip.compress(bytes(1000))),
)
SIZE = 450_000
"""Two of it fit into a file of 1 MB: what stands in a key stands in its index, too."""
LARGE: dict[str, Callable[[], Any]] = {
    "text": lambda: "x" * SIZE,
    "bytes": lambda: bytes(SIZE),
    "zstd": lambda: zstandard.compress(bytes(400 * MB)),
    "gzip": lambda: gzip.compress(bytes(200 * MB)),
    "deep": lambda: b"[" * SIZE,
    "wide": lambda: b"[" + b"[]," * (SIZE // 3) + b"0]",
}
RECORDS = (
    *("uid", "owner", "written", "tracking_uri", "run_id", "phase", "record", "sha256"),
    *("taken_by", "lease", "tries", "reason"),
)
FILES = ("uid", "path", "sent_to", "data", "sha256")
JOURNAL = {
    "sessions": ("id", "owner", "started", "header"),
    "rows": ("session", "example", "occurrence", "repeat", "row"),
}
OWN = {"files": "path", "rows": "repeat"}
"""The column that tells a row from the others of the same record or session."""
GOOD = "a" * 32


@contextlib.contextmanager
def planting(database: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(database)) as planted:
        yield planted
        planted.commit()
        planted.execute("PRAGMA journal_mode = DELETE")


def plant(connection: sqlite3.Connection, table: str, column: str, values: Any) -> None:
    """Add a copy of the first row for each value, in which the value stands in a column."""
    names = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
    row = dict(zip(names, connection.execute(f"SELECT * FROM {table}").fetchone(), strict=True))
    own = OWN.get(table, names[0])
    for number, value in enumerate(values):
        changed = {**row, own: number + 1 if own == "repeat" else f"{row[own]}{number}"[-32:], column: value}
        if table == "records" and column not in {"sha256", "taken_by", "lease", "tries", "reason"}:
            # As if whoever wrote it had sealed it.
            changed["sha256"] = outboxes._sha256_of([changed[name] for name in RECORDS[:7]])
        with contextlib.suppress(sqlite3.IntegrityError):  # what the table itself refuses
            connection.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(names))})", tuple(changed.values()))


def outbox_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Outbox:
    monkeypatch.setenv("DSPY_CACHECTL_STATE", str(folder / "state"))
    outbox = Outbox()
    record = Record(
        uid=GOOD, started=1, ended=2, artifacts=("dspy_cachectl/x.json",), tracking_uri="http://127.0.0.1:9"
    )
    outbox.put(record, {"dspy_cachectl/x.json": b"{}"})
    return outbox


def some(columns: Any, quick: str) -> list[Any]:
    return [pytest.param(name, marks=[] if name == quick else pytest.mark.exhaustive) for name in columns]


@pytest.mark.parametrize(
    ("table", "column"),
    [
        *(
            pytest.param("records", c, marks=[] if c in {"record", "written"} else pytest.mark.exhaustive)
            for c in RECORDS
        ),
        *(pytest.param("files", c, marks=[] if c == "data" else pytest.mark.exhaustive) for c in FILES),
    ],
)
@pytest.mark.parametrize("what", ["small", *some(LARGE, "")])
def test_the_outbox(
    tmp_path: Path, opened: Opened, table: str, column: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records are listed, called damaged and discarded, and the good one among them waits."""
    outbox = outbox_in(tmp_path, monkeypatch)
    with planting(outbox.path) as connection:
        plant(connection, table, column, SMALL if what == "small" else [LARGE[what]()])
    assert [] == opened("outbox", tmp_path)
    waiting = outbox.waiting()
    assert GOOD in {one.uid for one in waiting if not one.is_damaged}
    for one in waiting:
        if one.uid != GOOD:
            outbox.discard(one.uid)
    assert [GOOD] == [one.uid for one in outbox.waiting()]


@pytest.mark.parametrize(
    ("table", "column"),
    [
        pytest.param(table, column, marks=[] if column in {"header", "started"} else pytest.mark.exhaustive)
        for table, columns in JOURNAL.items()
        for column in columns
    ],
)
@pytest.mark.parametrize("what", ["small", *some(LARGE, "")])
def test_the_journal(tmp_path: Path, opened: Opened, table: str, column: str, what: str) -> None:
    """What killed evaluations left is taken over or left out, and the next evaluation goes on."""
    library = Library(tmp_path / "kept")
    session = library.open(*_opening())
    journal = Journal(tmp_path / "kept")
    with journal._database.change() as sql:
        sql("INSERT INTO sessions VALUES (?, ?, ?, ?)", "s", "0" * 32, 1.0, b"{}")
        sql("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", "s", "x", 0, 0, b"{}")
    session.close()
    with planting(journal.path) as connection:
        plant(connection, table, column, SMALL if what == "small" else [LARGE[what]()])
    assert [] == opened("predictions", tmp_path)
    assert evaluate(library, examples(3), run_id="two").path.exists()
