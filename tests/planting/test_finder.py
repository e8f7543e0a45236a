"""What looks for planted secrets finds one in each form and place."""

from __future__ import annotations

import base64
import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.planting.finder import find, packed

# Not whole in here, and with characters that each way of writing changes.
SECRET = 'q8"Zx/V3n' + "T7+pLw2RkY9"

FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "json": json.dumps,
    "json in json": lambda text: json.dumps(json.dumps(text)),
    "address": lambda text: quote(text, safe=""),
    **{
        f"base64 {before}": lambda text, before=before: base64.b64encode(f"{'x' * before}{text}yz".encode()).decode()  # type: ignore[misc]
        for before in range(3)
    },
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how", ["plain", "gzip", "zstd", "cell", "log", "zstd in a cell"])
def test_it_is_found(tmp_path: Path, form: str, how: str) -> None:
    """In a file and a cell, packed and not, and in a log that was not written back yet."""
    text = f"before {FORMS[form](SECRET)} after"
    path = tmp_path / "file"
    with contextlib.ExitStack() as stack:
        if how in {"plain", "gzip", "zstd"}:
            path.write_bytes(packed(text.encode(), how))
        else:
            database = stack.enter_context(contextlib.closing(sqlite3.connect(path)))
            if how == "log":
                database.execute("PRAGMA journal_mode = WAL")
            database.execute("CREATE TABLE kept (value)")
            database.execute("INSERT INTO kept VALUES (?)", (packed(text.encode(), "zstd") if "zstd" in how else text,))
            database.commit()
            assert how != "log" or SECRET[-8:].encode() not in path.read_bytes()
        assert {SECRET} == set(find([SECRET, "another-that-is-not-there"], tmp_path))
    assert {} == find(["another-that-is-not-there"], tmp_path)
