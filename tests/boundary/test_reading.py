"""What is read has limits, and what is written keeps to them."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import orjson
import pytest
import zstandard

from dspy_cachectl.boundary import reading
from dspy_cachectl.errors import ConfigurationError, CorruptEntryError, StoreUnavailableError

MB = reading.MB


class TestJson:
    @pytest.mark.parametrize("piece", ["[],", "{},", '{"a":1},', "1,", '"",', '[[],{"a":{}}],'])
    def test_very_many_values(self, piece: str) -> None:
        """Megabytes of next to nothing are refused before anything is made of them."""
        with pytest.raises(CorruptEntryError, match="more than 1,000,000 values"):
            reading.parsed(b"[" + piece.encode() * (16 * MB // len(piece)) + b"1]")

    @pytest.mark.parametrize("text", ["[[1, 2], {}],", '\\"[[[', "\\\\", '\\\\\\"{,', '"', "\\"], ids=repr)
    def test_what_stands_in_a_text_is_no_value(self, text: str) -> None:
        """A table that a program was asked about is one text, however many brackets it has, and whatever is escaped."""
        value = {"text": text * (4 * MB // len(text)), "more": ["a", text]}
        assert value == reading.parsed(orjson.dumps(value))

    @pytest.mark.parametrize("text", [b"{", b"\xff", b'"\\ud800"', b"NaN", b"[" * 5000 + b"]" * 5000, b""])
    def test_what_is_no_json(self, text: bytes) -> None:
        """It is damaged, and no error of a library comes through."""
        with pytest.raises(CorruptEntryError, match="cannot be decoded"):
            reading.parsed(text)

    @pytest.mark.parametrize(
        "text", [b"[" * 300 + b"]" * 300, b'{"a":' * 900 + b"1" + b"}" * 900], ids=["lists", "objects"]
    )
    def test_deeper_than_what_is_written(self, text: bytes) -> None:
        """It is damaged: whoever walked over it would run out of stack."""
        with pytest.raises(CorruptEntryError, match="cannot be decoded: it is nested more deeply"):
            reading.parsed(text)


class TestFiles:
    @pytest.mark.parametrize("kind", ["fifo", "folder", "device", "missing", "nul"])
    def test_only_regular_files_are_opened(self, tmp_path: Path, kind: str) -> None:
        """Nothing else is waited for, or read without end."""
        path = {"device": Path("/dev/zero"), "nul": Path("a\0b")}.get(kind, tmp_path / "file")
        if kind == "fifo":
            os.mkfifo(path)
        if kind == "folder":
            path.mkdir()
        with pytest.raises(StoreUnavailableError, match=r"the file .* cannot be read"):
            reading.read_file(path, what="the file")

    def test_a_file_that_is_too_large(self, tmp_path: Path) -> None:
        """It is named, and so is the limit."""
        (tmp_path / "file").write_bytes(bytes(11))
        assert bytes(11) == reading.read_file(tmp_path / "file", what="the file", most=11)
        with pytest.raises(CorruptEntryError, match=r"the file .*file is longer than 10 bytes"):
            reading.read_file(tmp_path / "file", what="the file", most=10)

    @pytest.mark.parametrize("given", [None, io.StringIO("typed")], ids=["closed", "replaced"])
    def test_no_file_needs_standard_input(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: io.StringIO | None
    ) -> None:
        """A service may have been started without one; only who asks for it is told."""
        (tmp_path / "file").write_bytes(b"read")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "stdin", given)
        assert b"read" == reading.read_file(tmp_path / "file", what="the file")
        with pytest.raises(StoreUnavailableError, match="the request - cannot be read"):
            reading.read_file(Path("-"), what="the request")


def lines_of(path: Path, **options: object) -> list[bytes]:
    with reading.LineReader(path, what="the file", **options) as reader:  # type: ignore[arg-type]
        return list(iter(reader.line, b""))


class TestLines:
    def test_what_is_believed_of_a_compressed_file(self, tmp_path: Path) -> None:
        """It may unpack to many times its size, unless its writer vouches for more by making it as large."""
        path = tmp_path / "file"
        content = b"word\n" * 100_000
        packed = zstandard.compress(content)
        path.write_bytes(packed)
        with pytest.raises(CorruptEntryError, match=r"line \d+: the file holds more, or more lines"):
            lines_of(path, packed=True)
        more = reading.padding(unpacked_bytes=len(content), lines=100_000, packed_bytes=len(packed))
        path.write_bytes(packed + more)
        assert content == b"".join(lines_of(path, packed=True))
        assert len(more) < 2 * MB

    def test_no_padding_where_none_is_needed(self) -> None:
        """Nearly every file is believed as it is."""
        assert b"" == reading.padding(unpacked_bytes=20 * MB, lines=1000, packed_bytes=1)

    def test_a_plain_file_of_short_lines(self, tmp_path: Path) -> None:
        """What is not compressed is no larger than it is, whatever its lines."""
        path = tmp_path / "file"
        path.write_bytes(b"0123456789abcdef\n" * 100_000)
        assert 100_000 == len(lines_of(path))

    def test_a_file_that_was_cut(self, tmp_path: Path) -> None:
        """What says how much it holds, and holds less, was cut short."""
        path = tmp_path / "file"
        path.write_bytes(zstandard.compress(os.urandom(MB).hex().encode())[: MB // 2])
        with pytest.raises(CorruptEntryError, match="cut short"):
            lines_of(path, packed=True)

    def test_a_line_that_is_too_long(self, tmp_path: Path) -> None:
        """A line may have as many bytes as are said, beside its end."""
        path = tmp_path / "file"
        path.write_bytes(b"12345\n12345\r\n123456\n")
        with pytest.raises(CorruptEntryError, match="line 3: the line is longer than 5 bytes"):
            lines_of(path, longest=5)


class TestToml:
    @pytest.mark.parametrize(
        "text",
        [
            "a." * 10_000 + "b = 1",
            "[" + "a." * 10_000 + "b]",
            "a = " + "[" * 20_000,
            "a = " + "{a = " * 20_000,
            "a = " + "9" * 100_000,
            "".join(f"a{number}.b.c.d = 1\n" for number in range(20_000)),
            "a = [" + "{}," * 40_000 + "]",
            "#" + "x" * MB,
            "a = \xff",
        ],
        ids=["key", "table", "lists", "tables", "number", "keys", "elements", "size", "bytes"],
    )
    def test_settings_that_are_a_bomb(self, tmp_path: Path, text: str) -> None:
        """They are refused with the name of the file: a dotted key of 1 MB would take 10 GB and half a minute."""
        path = tmp_path / "pyproject.toml"
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(ConfigurationError, match=r"pyproject\.toml"):
            reading.read_toml(path)

    def test_settings(self, tmp_path: Path) -> None:
        """What can be read is."""
        path = tmp_path / "pyproject.toml"
        path.write_text("[tool.our_table]\nstore = 'x'")
        assert {"tool": {"our_table": {"store": "x"}}} == reading.read_toml(path)
