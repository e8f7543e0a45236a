"""Finds planted secrets in files: unpacked, in databases cell by cell, and however they are written."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

import zstandard

ZSTD, GZIP, SQLITE = b"\x28\xb5\x2f\xfd", b"\x1f\x8b", b"SQLite format 3\0"


def forms(secret: str) -> set[bytes]:
    """Return what a secret looks like as it is, escaped, in an address, and in Base64 wherever it stands there."""
    raw = secret.encode()
    texts = {secret, json.dumps(secret)[1:-1], json.dumps(json.dumps(secret))[3:-3], quote(secret, safe="")}
    found = {text.encode() for text in texts} | {secret.encode("utf-16-le")}
    for before in range(3):
        # The characters at both ends hold bits of their neighbours, and are left out.
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            whole = encode(b"\0" * before + raw)
            found.add(whole[(0, 2, 3)[before] : -4 if (before + len(raw)) % 3 else None])
    return found


def parts(data: bytes) -> Iterator[bytes]:
    """Yield bytes, and what is packed in them, wherever it begins."""
    yield data
    for at in _all(data, ZSTD):
        with contextlib.suppress(zstandard.ZstdError):
            yield from parts(zstandard.ZstdDecompressor().decompressobj().decompress(data[at:]))
    for at in _all(data, GZIP):
        with contextlib.suppress(zlib.error):
            yield from parts(zlib.decompressobj(31).decompress(data[at:]))


def _all(data: bytes, mark: bytes) -> Iterator[int]:
    at = data.find(mark)
    while at >= 0:
        yield at
        at = data.find(mark, at + 1)


def cells(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield where each cell of a database stands, and what is in it; its log is read with it."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        database.text_factory = bytes
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            rows = database.execute(f'SELECT * FROM "{table.decode()}"')
            names = [column[0] for column in rows.description]
            for row in rows:
                yield from (
                    (f"{table.decode()}.{name}", cell if isinstance(cell, bytes) else str(cell).encode())
                    for name, cell in zip(names, row, strict=True)
                )


def find(secrets: Iterable[str], *folders: Path) -> dict[str, set[str]]:
    """Return which secrets are found in the files of folders, and where."""
    written = {form: secret for secret in secrets for form in forms(secret)}
    found: dict[str, set[str]] = {}

    def look(where: str, data: bytes) -> None:
        for part in parts(data):
            for form, secret in written.items():
                if form in part:
                    found.setdefault(secret, set()).add(where)

    for path in sorted(file for folder in folders for file in folder.rglob("*") if file.is_file()):
        look(path.name, path.read_bytes())
        look("a name", str(path).encode())
        if path.open("rb").read(len(SQLITE)) == SQLITE:
            for where, cell in cells(path):
                look(f"{path.name}: {where}", cell)
    return found


def packed(data: bytes, how: str) -> bytes:
    """Return bytes as a file holds them."""
    return {"plain": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}[how](data)
