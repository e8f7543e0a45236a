"""Compressed snapshots are treated as plain ones are, and a small file never becomes a large one."""

from __future__ import annotations

import io
import json
import logging
import random
import time
import tracemalloc
from pathlib import Path

import orjson
import pytest
import zstandard

from dspy_cachectl.boundary import reading
from dspy_cachectl.boundary.ownership import PACKED_SNAPSHOT_HEAD, SNAPSHOT_HEAD
from dspy_cachectl.errors import CorruptEntryError
from dspy_cachectl.manage import snapshots, tables
from dspy_cachectl.manage.verification import Kind, verify
from dspy_cachectl.predictions.library import Library
from dspy_cachectl.predictions.rows import PredictionRow, encode
from dspy_cachectl.predictions.snapshot import FORMAT_VERSION, open_snapshot, write_snapshot
from tests.predictions.support import evaluate, examples

MB = 1_000_000


def unpacked(path: Path) -> bytes:
    stream = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(path.read_bytes()), read_across_frames=True)
    return stream.read()


@pytest.mark.parametrize("compress", [False, True])
def test_both_forms_are_served_alike(tmp_path: Path, compress: bool) -> None:
    """Either is read whatever the library writes, and more answers go into the file that is there."""
    evaluate(Library(tmp_path, compress=compress), examples(50))
    other = Library(tmp_path, compress=not compress)

    assert "loaded" == evaluate(other, examples(50)).status
    assert "extended" == evaluate(other, examples(50), repeats=2).status
    assert [(".zst" if compress else ".json", 100)] == [(info.path.suffix, info.rows) for info in other.snapshots()]


def test_a_compressed_snapshot_is_the_same_file_made_small(tmp_path: Path) -> None:
    """Whatever unpacks zstd gives the JSON of a plain one."""
    library = Library(tmp_path, compress=True)
    path = evaluate(library, examples(100)).path
    content = unpacked(path)

    assert path.name.endswith(".json.zst")
    assert ["metadata", "predictions", "metrics"] == list(json.loads(content))
    assert path.stat().st_size == library.usage() < len(content) / 3


def test_both_forms_are_looked_at_alike(tmp_path: Path) -> None:
    """Listed, scored, checked, exported and found damaged, plain or compressed."""
    root = tmp_path / "library"
    for compress in (False, True):
        evaluate(Library(root, compress=compress), examples(3, start=10 * compress))
    packed, plain = snapshots.snapshots_in(root)

    assert [".zst", ".json"] == [packed.path.suffix, plain.path.suffix]
    assert {"score": 1.0} == snapshots.scores_of(packed) == snapshots.scores_of(plain)
    assert (3, 3) == (snapshots.diff(plain, packed).only_before, snapshots.diff(plain, packed).only_after)
    tables.export(list(snapshots.read_rows(snapshots.find(root, packed.path.name).path)), tmp_path / "table.csv")
    assert 4 == len((tmp_path / "table.csv").read_text().splitlines())
    assert [] == verify(tmp_path / "none", predictions=root).flaws
    packed.path.write_bytes(packed.path.read_bytes()[:-20])
    flaws = verify(tmp_path / "none", predictions=root).flaws
    assert [(Kind.SNAPSHOT, packed.path.name)] == [(flaw.kind, flaw.where) for flaw in flaws]
    assert {} == snapshots.metrics_of(packed.path)


def test_both_forms_are_removed_alike(tmp_path: Path) -> None:
    """What is over the library's size, what was set aside, and what is to be cleared."""
    plain = evaluate(Library(tmp_path), examples(3)).path
    packed = evaluate(Library(tmp_path, compress=True), examples(3, start=9)).path
    damaged = packed.with_name(f"{packed.name}.damaged")
    damaged.write_bytes(packed.read_bytes())

    assert {plain, packed, damaged} == set(Library(tmp_path, max_bytes=1).expired())
    assert [packed] == Library(tmp_path).clear(lambda info: info.path == packed)
    assert {plain, damaged} == set(Library(tmp_path).clear())


def test_a_file_that_was_cut_anywhere_is_damaged(tmp_path: Path) -> None:
    """It is named as that, wherever it ends."""
    path = tmp_path / "x.json.zst"
    noise = random.Random(0)
    write_snapshot(path, {}, [encode(PredictionRow(noise.randbytes(9_000).hex())) for _ in range(50)], {"score": 0.5})
    whole = path.read_bytes()
    for length in (*range(0, len(whole), 3_001), *range(len(whole) - 100, len(whole))):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptEntryError, match=r"x\.json\.zst is damaged"), open_snapshot(path) as reader:
            list(reader.rows())


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b'},\n"predictions": [\n', b"x" * 100 * MB),
        (b',"x":"', b"x" * 100 * MB),
        (b',"x":[', b"[]," * 33 * MB),
        (b'},\n"predictions": [\n', b"\n" * 100 * MB),
    ],
    ids=["row", "metadata", "many parts", "empty rows"],
)
def test_a_small_file_that_unpacks_to_ten_gigabytes(
    tmp_path: Path, begin: bytes, piece: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named and set aside in bounded memory, and the evaluation goes on."""
    library = Library(tmp_path, compress=True)
    path = evaluate(library, examples(3), run_id="one").path
    facts = {**json.loads(unpacked(path))["metadata"], "saved": time.time(), "format": FORMAT_VERSION}
    facts.pop("kind")
    head = SNAPSHOT_HEAD + orjson.dumps(facts)[1:-1] + begin
    path.write_bytes(PACKED_SNAPSHOT_HEAD + zstandard.compress(head) + 100 * zstandard.compress(piece, 1))
    assert path.stat().st_size < MB
    assert {} == snapshots.metrics_of(path)
    tracemalloc.start()
    try:
        with caplog.at_level(logging.WARNING, "dspy_cachectl"):
            again = evaluate(library, examples(3), run_id="one")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert ("computed", 3) == (again.status, again.computed)
    assert peak < 100 * MB
    assert path.with_name(f"{path.name}.damaged").exists()
    assert 1 == len([one for one in caplog.messages if path.name in one and "set aside" in one])


def test_a_file_of_endless_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file of very many rows is set aside, though each of them is whole."""
    library = Library(tmp_path, compress=True)
    session = evaluate(library, examples(3), run_id="one")
    facts = {**session.header, "rows": 30_000, "oldest": time.time(), "saved": time.time()}
    write_snapshot(session.path, facts, [encode(PredictionRow("x", created=1.0))] * 30_000, {})
    monkeypatch.setattr(reading, "AND_MORE", MB)

    assert 3 == evaluate(library, examples(3), run_id="one").computed
    assert session.path.with_name(f"{session.path.name}.damaged").exists()


def test_metrics_of_what_are_no_rows(tmp_path: Path) -> None:
    """Their lines are not read to the end, of which there could be very many."""
    path = tmp_path / "x.json.zst"
    write_snapshot(path, {}, [b"{}"] * 3, {"score": 1.0})

    assert {} == snapshots.metrics_of(path)


def test_what_packs_well_is_written_so_that_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document that is asked about again and again packs better than the reader believes of others."""
    monkeypatch.setattr(reading, "AND_MORE", MB)
    path = tmp_path / "x.json.zst"
    lines = [encode(PredictionRow(f"{number}", inputs={"document": "word " * 2_000})) for number in range(3_000)]
    write_snapshot(path, {}, lines, {})

    with open_snapshot(path) as reader:
        assert lines == list(reader.rows())
    assert path.stat().st_size < MB


def test_a_frame_that_wants_much_memory(tmp_path: Path) -> None:
    """Its window is larger than that of any file of ours: it is not unpacked."""
    library = Library(tmp_path, compress=True)
    path = evaluate(library, examples(3), run_id="one").path
    content = unpacked(path)
    parameters = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=False)
    packed = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path.write_bytes(PACKED_SNAPSHOT_HEAD + packed.compress(content) + packed.flush())

    assert 3 == evaluate(library, examples(3), run_id="one").computed
    assert path.with_name(f"{path.name}.damaged").exists()
