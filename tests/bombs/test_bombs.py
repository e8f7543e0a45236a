"""No file of 1 MB, in any place that is read, takes much memory or time; it is named, and the work goes on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diskcache
import pytest
import zstandard

from dspy_cachectl.entries import records
from dspy_cachectl.predictions.journal import Journal
from dspy_cachectl.predictions.library import Library
from dspy_cachectl.predictions.rows import LONGEST
from dspy_cachectl.replay.unsaved import Unsaved
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.disk import DiskStore
from tests.bombs.conftest import Opened
from tests.bombs.payloads import FEW, MB, PICKLES, SETTINGS, STREAMS, VALUES
from tests.predictions.support import evaluate, examples

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs /proc to measure")

KEY = "a" * 64
UNPACKED = 13_500_000
"""How large a value is once it is unpacked: just within what is believed of one."""
PLAIN = 900_000
TEXTS: dict[str, Any] = dict.fromkeys(("kind", "model", "endpoint", "phase", "role", "run_id", "content", "rollout_id"))
TEXTS |= {"kind": "lm", "model": "m", "phase": "", "content": ""}
TEXTS |= {name: [] for name in ("response_ids", "answered_by", "system_fingerprints")}
NUMBERS = struct.pack(">B3x4d7q", 0, 1.0, 0.1, 0.0, 0.0, 1, *[0] * 6)
TAGGED, PACKED, PACKED_REQUEST = 1, 2, 4


def some(names: Any, *quick: str) -> list[Any]:
    """Return names as parameters: those named in the quick suite, the others in the exhaustive one."""
    return [pytest.param(name, marks=[] if name in quick else pytest.mark.exhaustive) for name in names]


def packed(value: bytes) -> bytes:
    made = zstandard.ZstdCompressor(level=19 if len(set(value[:4000])) > 40 else 3).compress(value)
    return made if len(made) <= PLAIN else zstandard.compress(b"[" + value[:1000] + b"]")


def texts(origin: Mapping[str, Any]) -> bytes:
    """Return the texts of an origin in an entry, whatever they are."""
    return json.dumps([origin.get(name, said) for name, said in TEXTS.items()]).encode()


def entry(origin: bytes, answer: bytes, request: bytes, flags: int, *, block: bytes = b"") -> bytes:
    said = NUMBERS + origin + answer
    block = block or (packed(said) if flags & PACKED else said)
    rest = struct.pack(">BBHIII", 2, flags, 0, len(origin), len(block), len(request)) + block + request
    return b"CCTL" + struct.pack(">I", zlib.crc32(rest)) + rest


def stored(folder: Path, data: bytes, *, kind: str = "lm", key: str = KEY) -> None:
    store = DiskStore(folder / "store")
    store.put(key, data, Label(kind, "m", "eval", "", "run-1"))
    store.close()


class TestEntries:
    def test_what_is_planted_is_read(self) -> None:
        """These are entries of today's format: a bomb in one is not refused for its version."""
        data = entry(texts({"run_id": "run-1"}), b'"a"', packed(b'{"x":1}'), PACKED | PACKED_REQUEST)
        assert "a" == records.decode(data).answer
        assert "run-1" == records.decode_origin(data).run_id

    @pytest.mark.parametrize("place", ["store", "answers"])
    @pytest.mark.parametrize("name", some(VALUES, *FEW))
    @pytest.mark.parametrize("block", ["answer", pytest.param("request", marks=pytest.mark.exhaustive)])
    def test_a_packed_block(self, tmp_path: Path, opened: Opened, block: str, name: str, place: str) -> None:
        """An entry of some kilobytes that unpacks to 13 MB of whatever is refused, or served in bounded memory."""
        bad, origin = VALUES[name](UNPACKED), texts({"run_id": "run-1"})
        if block == "answer":
            data = entry(origin, bad, b'{"request":{"model":"m","prompt":"word"}}', TAGGED | PACKED)
        else:
            data = entry(origin, b'"a"', packed(bad), PACKED_REQUEST)
        stored(tmp_path, data)
        assert [] == opened(place, tmp_path)

    @pytest.mark.exhaustive
    @pytest.mark.parametrize("name", VALUES)
    def test_a_request_within_its_shape(self, tmp_path: Path, opened: Opened, name: str) -> None:
        """What stands where a message, an option or an output is expected is shown, whatever it is."""
        bad = VALUES[name](PLAIN // 3)
        request = packed(b'{"request":{"model":"m","messages":[{"role":%s,"content":%s}],"x":%s}}' % (bad, bad, bad))
        flags = TAGGED | PACKED | PACKED_REQUEST
        stored(tmp_path, entry(texts({}), b'{"outputs":[%s]}' % bad, request, flags))
        assert [] == opened("store", tmp_path)

    @pytest.mark.parametrize("name", some(VALUES, *FEW))
    def test_an_origin(self, tmp_path: Path, opened: Opened, name: str) -> None:
        """What an answer came from may be anything, and in any of its fields."""
        bad = VALUES[name](PLAIN)
        stored(tmp_path, entry(texts({"rollout_id": "bad"}).replace(b'"bad"', bad), b'"a"', b"", 0))
        described = entry(texts({"kind": "run", "model": ""}), bad, b"", PACKED)
        stored(tmp_path, described, kind="run", key="run:run-1")
        assert [] == opened("store", tmp_path)

    @pytest.mark.parametrize("size", [2**30, 400 * MB])
    def test_a_claim(self, tmp_path: Path, opened: Opened, size: int) -> None:
        """What a block says it holds is believed up to a limit, whether or not it is true."""
        true = zstandard.ZstdCompressor(level=3).compress(bytes(400 * MB))
        block = true if size == 400 * MB else b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", size) + true[9:]
        stored(tmp_path, entry(texts({}), b"", b"", PACKED, block=block))
        assert [] == opened("store", tmp_path)

    @pytest.mark.exhaustive
    def test_very_many_entries(self, tmp_path: Path, opened: Opened) -> None:
        """A store of 1 MB with as many rows and labels as fit in is listed."""
        store = DiskStore(tmp_path / "store")
        store.put("first", b"", Label())
        store.close()
        with contextlib.closing(sqlite3.connect(tmp_path / "store" / "cache.db")) as planted:
            rows = ((str(number), f"lm\x1frun-{number}\x1fm\x1f\x1f", b"x") for number in range(5000))
            planted.executemany(
                "INSERT INTO Cache (key, raw, store_time, mode, tag, value) VALUES (?, 1, 1, 1, ?, ?)", rows
            )
            planted.commit()
            planted.execute("PRAGMA journal_mode = DELETE")
        assert [] == opened("store", tmp_path)


def line(answer: bytes, *, origin: bytes = b'{"kind":"lm","model":"m"}', request: bytes = b"{}") -> bytes:
    """Return a line of a cassette."""
    parts = (KEY.encode(), KEY.encode(), origin, request, answer)
    return b'{"key":"%s","asked":"%s","origin":%s,"request":%s,"answer":%s,"tagged":true}\n' % parts


class TestCassettes:
    @pytest.mark.parametrize("name", some(VALUES, *FEW))
    @pytest.mark.parametrize(
        "field", ["answer", *(pytest.param(n, marks=pytest.mark.exhaustive) for n in ("origin", "request"))]
    )
    def test_a_packed_line(self, tmp_path: Path, opened: Opened, field: str, name: str) -> None:
        """A compressed cassette whose lines are of 13 MB each is refused, or read in bounded memory."""
        bad = VALUES[name](UNPACKED)
        one = line(bad) if field == "answer" else line(b'"a"', **{field: bad})
        (tmp_path / "answers.jsonl.zst").write_bytes(packed(b'{"cassette":3}\n' + one))
        assert [] == opened("cassette", tmp_path)

    @pytest.mark.exhaustive
    @pytest.mark.parametrize("name", VALUES)
    def test_a_plain_line(self, tmp_path: Path, opened: Opened, name: str) -> None:
        """So is one that is not compressed."""
        (tmp_path / "answers.jsonl").write_bytes(b'{"cassette":3}\n' + line(VALUES[name](PLAIN)))
        assert [] == opened("cassette", tmp_path)

    @pytest.mark.parametrize("head", [b"", b'{"cassette":3,"keys":"store"}\n'], ids=["bare", "with a header"])
    @pytest.mark.parametrize("name", some(STREAMS, "short lines", "empty frames"))
    def test_a_stream(self, tmp_path: Path, opened: Opened, name: str, head: bytes) -> None:
        """A stream is not read further than a cassette of its size could be long."""
        (tmp_path / "answers.jsonl.zst").write_bytes(STREAMS[name](head))
        assert [] == opened("cassette", tmp_path)

    @pytest.mark.parametrize("size", [150, pytest.param(2000, marks=pytest.mark.exhaustive)])
    def test_very_many_recordings(self, tmp_path: Path, opened: Opened, size: int) -> None:
        """As many recordings as go into 1 MB, each of them whole, neither fill the memory nor take long."""
        made = zstandard.ZstdCompressor(level=3).compressobj()
        out = [made.compress(b'{"cassette":3,"keys":"store"}\n')]
        text, size_packed = b'"%s"' % (b"x" * (size - 150)), 0
        for number in range(600_000):
            out.append(made.compress(line(text).replace(b"a" * 64, b"%064x" % number)))
            size_packed += len(out[-1])
            if size_packed > PLAIN:
                break
        (tmp_path / "answers.jsonl.zst").write_bytes(b"".join([*out, made.flush()]))
        assert [] == opened("cassette", tmp_path)

    @pytest.mark.exhaustive
    @pytest.mark.parametrize("name", VALUES)
    def test_a_header(self, tmp_path: Path, opened: Opened, name: str) -> None:
        """The first line may be anything."""
        (tmp_path / "answers.jsonl").write_bytes(b'{"cassette":%s}\n' % VALUES[name](PLAIN))
        assert [] == opened("cassette", tmp_path)

    @pytest.mark.parametrize("name", some(VALUES, *FEW))
    def test_what_a_killed_recording_left(self, tmp_path: Path, opened: Opened, name: str) -> None:
        """So may what is taken over from a recording that was cut."""
        (tmp_path / "answers.jsonl").write_bytes(b'{"cassette":3}\n')
        unsaved = Unsaved(tmp_path / "answers.jsonl")
        with unsaved._database.change() as sql:
            sql("INSERT INTO recordings VALUES (?, ?, ?)", KEY, "0" * 32, line(VALUES[name](PLAIN)))
        unsaved.close(keep=True)
        assert [] == opened("unsaved", tmp_path)


def snapshot(folder: Path, name: str, *, packed_: bool) -> tuple[Path, bytes]:
    """Make a snapshot. Return its path and what is in it."""
    session = evaluate(Library(folder / "kept", compress=packed_), examples(3), run_id="one")
    content = session.path.read_bytes()
    if packed_:
        reader = zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True)
        content = reader.read()
    return session.path, content


def sealed(content: bytes) -> bytes:
    """Return a snapshot's content with the checksum that it should have."""
    mark = content.rindex(b',"sha256":"')
    return content[:mark] + b',"sha256":"%s"}}\n}\n' % hashlib.sha256(content[:mark]).hexdigest().encode()


SKIPPED = b"\x50\x2a\x4d\x18\x19\0\0\0dspy_cachectl.predictions"


class TestPredictions:
    @pytest.mark.parametrize("name", some(VALUES, *FEW))
    @pytest.mark.parametrize(
        "where", ["row", *(pytest.param(n, marks=pytest.mark.exhaustive) for n in ("metadata", "metrics", "inputs"))]
    )
    @pytest.mark.parametrize("is_packed", [True, pytest.param(False, marks=pytest.mark.exhaustive)])
    def test_a_part(self, tmp_path: Path, opened: Opened, where: str, name: str, is_packed: bool) -> None:
        """Whatever a snapshot of kept predictions holds, it is set aside or served, and the evaluation goes on."""
        path, content = snapshot(tmp_path, name, packed_=is_packed)
        bad = VALUES[name](LONGEST - MB if is_packed else PLAIN)
        before, after = {
            "row": (b'"prediction":{', b'"prediction":{"bad":%s,'),
            "inputs": (b'"inputs":{', b'"inputs":{"bad":%s,'),
            "metadata": (b'"forced":', b'"bad":%s,"forced":'),
            "metrics": (b'"metrics": {', b'"metrics": {"bad":%s,'),
        }[where]
        content = sealed(content.replace(before, after % bad, 1))
        path.write_bytes(SKIPPED + packed(content) if is_packed else content)
        assert [] == opened("predictions", tmp_path)

    @pytest.mark.parametrize("name", some(STREAMS, "short lines", "long lines"))
    @pytest.mark.parametrize("begins", ["at once", "with its rows"])
    def test_a_stream(self, tmp_path: Path, opened: Opened, name: str, begins: str) -> None:
        """A stream is not read further than a snapshot of its size could be long."""
        path, content = snapshot(tmp_path, name, packed_=True)
        head = (
            b"" if begins == "at once" else content[: content.index(b'"predictions": [') + len(b'"predictions": [\n')]
        )
        path.write_bytes(SKIPPED + STREAMS[name](head))
        assert [] == opened("predictions", tmp_path)

    @pytest.mark.exhaustive
    def test_very_many_rows(self, tmp_path: Path, opened: Opened) -> None:
        """As many whole rows as go into 1 MB neither fill the memory nor take long."""
        path, content = snapshot(tmp_path, "rows", packed_=True)
        start = content.index(b'"predictions": [') + len(b'"predictions": [\n')
        row = content[start : content.index(b"\n", start)].rstrip(b",") + b",\n"
        path.write_bytes(SKIPPED + zstandard.compress(content[:start] + row * (400 * MB // len(row))))
        assert [] == opened("predictions", tmp_path)

    @pytest.mark.parametrize("name", some(VALUES, *FEW))
    @pytest.mark.parametrize("where", ["row", pytest.param("header", marks=pytest.mark.exhaustive)])
    def test_a_journal(self, tmp_path: Path, opened: Opened, where: str, name: str) -> None:
        """So it is with what an evaluation that was killed had finished."""
        session = Library(tmp_path / "kept").open(*_opening())
        journal = Journal(tmp_path / "kept")
        bad = VALUES[name](PLAIN)
        header = json.dumps(session.header).encode() if where == "row" else b'{"base":%s}' % bad
        row = b'{"example_key":"x","prediction":{"bad":%s}}' % (bad if where == "row" else b"1")
        with journal._database.change() as sql:
            sql("INSERT INTO sessions VALUES (?, ?, ?, ?)", "s", "0" * 32, 1.0, header)
            sql("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", "s", "x", 0, 0, row)
        session.close()
        assert [] == opened("predictions", tmp_path)

    @pytest.mark.exhaustive
    def test_a_journal_of_many_rows(self, tmp_path: Path, opened: Opened) -> None:
        """Nor do very many rows, of very many sessions."""
        session = Library(tmp_path / "kept").open(*_opening())
        with Journal(tmp_path / "kept")._database.change() as sql:
            for number in range(4000):
                sql("INSERT INTO sessions VALUES (?, ?, ?, ?)", str(number), "0" * 32, 1.0, b"{}")
                sql("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", str(number), "x", 0, 0, b"{}")
        session.close()
        assert [] == opened("predictions", tmp_path)


def _opening() -> tuple[Any, Any]:
    from dspy_cachectl.fingerprints.data import questions_of
    from tests.predictions.support import key_of

    return key_of(examples(3)), questions_of(examples(3))


class TestElsewhere:
    @pytest.mark.parametrize("name", some(VALUES, *FEW))
    def test_the_outbox(self, tmp_path: Path, opened: Opened, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """What waits for a tracking server is shown, or called damaged."""
        from dspy_cachectl.tracking.outbox import Outbox
        from dspy_cachectl.tracking.record import Record

        monkeypatch.setenv("DSPY_CACHECTL_STATE", str(tmp_path / "state"))
        outbox = Outbox()
        outbox.put(Record(uid="a" * 32, started=1, ended=2))
        data = outbox.waiting()[0]._data.replace(b'"metrics":[]', b'"metrics":%s' % VALUES[name](PLAIN))
        with outbox._database.change() as sql:
            sql("UPDATE records SET record = ?, sha256 = ?", data, hashlib.sha256(data).hexdigest())
        assert [] == opened("outbox", tmp_path)

    @pytest.mark.parametrize("name", some(VALUES, *FEW))
    @pytest.mark.parametrize("place", ["report", "request"])
    def test_a_file_that_is_named(self, tmp_path: Path, opened: Opened, place: str, name: str) -> None:
        """A report that is loaded, and a request that is explained, may be anything."""
        value = VALUES[name](PLAIN)
        (tmp_path / "request.json").write_bytes(b'{"model":"m","messages":%s}' % value)
        (tmp_path / "report.json").write_bytes(b'{"format":1,"questions":%s}' % value)
        assert opened(place, tmp_path) in (None, [])

    @pytest.mark.parametrize("name", some(PICKLES, "doubling", "a large text"))
    @pytest.mark.parametrize("how", ["a row", pytest.param("many rows", marks=pytest.mark.exhaustive)])
    def test_dspys_own_cache(self, tmp_path: Path, opened: Opened, name: str, how: str) -> None:
        """Its pickles are read by another process, which is as bounded."""
        data, count = PICKLES[name](), 1
        if how == "many rows" and len(data) < 1000:
            count = 1000
        cache = diskcache.Cache(tmp_path / "dspy", disk_min_file_size=MB)
        cache.close()
        with contextlib.closing(sqlite3.connect(tmp_path / "dspy" / "cache.db")) as planted:
            planted.executemany(
                "INSERT INTO Cache (key, raw, store_time, mode, value) VALUES (?, 1, 1, 4, ?)",
                ((f"{number:064x}", data) for number in range(count)),
            )
            planted.commit()
            planted.execute("PRAGMA journal_mode = DELETE")
        assert [] == opened("dspy", tmp_path)
        assert not (tmp_path / "pwned").exists()

    @pytest.mark.parametrize("name", some(SETTINGS, "a dotted key", "deep lists", "a long hexadecimal number"))
    def test_settings(self, tmp_path: Path, opened: Opened, name: str) -> None:
        """A pyproject.toml is read, or refused with its name."""
        text = SETTINGS[name]().encode("utf-8", "surrogateescape")
        (tmp_path / "pyproject.toml").write_bytes(b"# dspy_cachectl\n" + text)
        assert [] == opened("settings", tmp_path)
