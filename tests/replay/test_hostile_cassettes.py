"""A cassette comes from anywhere: it may be made to harm. It is refused with a clear error, or shown harmlessly."""

from __future__ import annotations

import base64
import json
import os
import pickle
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import dspy
import pytest
import zstandard

import dspy_cachectl as cachectl
from dspy_cachectl.boundary.reading import LARGEST_VALUE
from dspy_cachectl.entries import records
from dspy_cachectl.manage import exchange
from dspy_cachectl.replay import choice, files, summary
from dspy_cachectl.replay.open_test_cassette import OpenTestCassette
from dspy_cachectl.replay.summary import Note
from dspy_cachectl.stores.memory import MemoryStore
from tests.bombs.test_bombs import PACKED, entry, texts
from tests.calls.support import MakeLM
from tests.endpoint import Endpoint
from tests.replay.bare import bare
from tests.replay.support import lines, write

MB = 1024 * 1024
HEADER = b'{"cassette":3}\n'


@pytest.fixture
def path(tmp_path: Path, lm: MakeLM) -> Path:
    """A cassette with one recording."""
    dspy.configure(lm=lm())
    path = tmp_path / "answers.jsonl"
    with cachectl.cassette(path, "record"):
        dspy.settings.lm("one")
    return path


def planted(path: Path, **changes: Any) -> None:
    """Change the only recording of a cassette."""
    head, one = lines(path)
    write(path, [head, {**one, **changes}])


def replay(path: Path) -> Any:
    with cachectl.cassette(path):
        return dspy.settings.lm("one")


class TestNames:
    @pytest.mark.parametrize("key", ["../../x", "/etc/passwd", "a" * 63, "A" * 64, "a" * 64 + "\n", "", "\x00" * 64])
    @pytest.mark.parametrize("field", ["key", "asked"])
    def test_a_key_that_leads_elsewhere(self, path: Path, field: str, key: str) -> None:
        """A key is 64 hexadecimal digits and nothing else, above all no path."""
        planted(path, **{field: key})
        before = sorted(path.parent.rglob("*"))
        with pytest.raises(cachectl.CorruptEntryError, match="hexadecimal"):
            replay(path)
        assert before == sorted(path.parent.rglob("*"))

    def test_a_link_in_the_place_of_the_new_file(self, endpoint: Endpoint, path: Path, tmp_path: Path) -> None:
        """A link that somebody planted where the file is written first is not followed."""
        victim = tmp_path / "victim"
        victim.write_text("precious")
        path.with_name(f".{path.name}.new").symlink_to(victim)
        with cachectl.cassette(path, "new"):
            dspy.settings.lm("two")
        assert "precious" == victim.read_text()
        assert not path.is_symlink()
        assert 3 == len(lines(path))

    def test_a_file_in_the_place_of_the_lock(
        self, endpoint: Endpoint, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who takes a lock empties its file, so one that is none is named and left as it is."""
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        with cachectl.cassette(path, "new"):
            dspy.settings.lm("two")
        (lock,) = tmp_path.glob("dspy-cachectl-*/*.lock")
        lock.write_text("precious")
        with pytest.raises(cachectl.StoreUnavailableError, match="is not a lock"), cachectl.cassette(path, "new"):
            dspy.settings.lm("three")
        assert "precious" == lock.read_text()
        lock.unlink()
        with cachectl.cassette(path, "new"):
            dspy.settings.lm("three")
        assert 3 == endpoint.requests

    @pytest.mark.parametrize("mode", ["record", "new", "all"])
    def test_a_file_of_somebody_elses_in_the_place_of_the_cassette(
        self, endpoint: Endpoint, path: Path, mode: Any
    ) -> None:
        """A name is not enough to be written over: what has not our head stays."""
        for text in (b"precious", b'{"precious": 1}\n', b""):
            path.write_bytes(text)
            with pytest.raises(cachectl.CorruptEntryError), cachectl.cassette(path, mode):
                dspy.settings.lm("two")
            assert text == path.read_bytes()
        assert 1 == endpoint.requests

    def test_modes_of_files(self, endpoint: Endpoint, path: Path, tmp_path: Path) -> None:
        """A new cassette may be read by whom the umask says, one that was there keeps its mode, a link stays one."""
        before = os.umask(0o027)
        try:
            with cachectl.cassette(tmp_path / "new.jsonl", "record"):
                dspy.settings.lm("two")
            path.chmod(0o600)
            (tmp_path / "link.jsonl").symlink_to(path)
            with cachectl.cassette(tmp_path / "link.jsonl", "new"):
                dspy.settings.lm("two")
        finally:
            os.umask(before)
        assert [0o640, 0o600] == [one.stat().st_mode & 0o777 for one in (tmp_path / "new.jsonl", path)]
        assert (tmp_path / "link.jsonl").is_symlink()
        assert 3 == len(lines(path))


class TestSizes:
    def test_a_line_without_end(self, tmp_path: Path) -> None:
        """Of a line of 2 GB no more is read than a line may be long."""
        path = tmp_path / "answers.jsonl"
        with path.open("wb") as file:
            file.write(HEADER)
            file.truncate(2 * 1024 * MB)  # a sparse file: it takes no room on the disk
        found = bare("tests.replay.hostile", path, str(300 * MB), cwd=tmp_path)
        assert "line 2: the line is longer than" in found["error"]
        assert found["grown"] < 250 * MB

    @pytest.mark.parametrize("sized", [True, False])
    @pytest.mark.parametrize("content", ["zeros", "blank lines", "recordings"])
    def test_a_compressed_bomb(self, tmp_path: Path, content: str, sized: bool) -> None:
        """A small file that unfolds to 2 GB is refused, in bounded memory, whether it says its size or not."""
        path = tmp_path / "answers.jsonl.zst"
        piece = {
            "zeros": bytes(MB),
            "blank lines": b"\n" * MB,
            "recordings": (_recording(answer="a" * 200_000) + b"\n") * 5,
        }[content]
        pieces = 2 * 1024 * MB // len(piece)
        options = {"size": len(HEADER) + pieces * len(piece)} if sized else {}
        with path.open("wb") as file, zstandard.ZstdCompressor().stream_writer(file, **options) as writer:
            writer.write(HEADER)
            for _ in range(pieces):
                writer.write(piece)
        assert path.stat().st_size < 2 * MB
        found = bare("tests.replay.hostile", path, str(400 * MB), cwd=tmp_path)
        assert found["error"].startswith("CorruptEntryError: ")
        assert found["grown"] < 300 * MB

    @pytest.mark.parametrize("piece", ["[],", '{"a":[]},', "1.5,"])
    def test_a_line_of_small_values(self, tmp_path: Path, piece: str) -> None:
        """A file of 6 kB whose line is a long list of next to nothing is refused before a value is made of it."""
        path = tmp_path / "answers.jsonl.zst"
        line = _recording(answer="LIST").replace(b'"LIST"', b"[%s1]" % (piece.encode() * (12 * MB // len(piece))))
        path.write_bytes(zstandard.compress(HEADER + line))
        assert path.stat().st_size < 8_000
        found = bare("tests.replay.hostile", path, str(400 * MB), cwd=tmp_path)
        assert f"{path}, line 2: the JSON cannot be decoded: it holds more than 1,000,000 values" in found["error"]
        assert found["grown"] < 250 * MB

    def test_many_short_lines(self, tmp_path: Path) -> None:
        """A small file of 100 million lines is given up after some: an import would be busy for minutes."""
        path = tmp_path / "answers.jsonl.zst"
        with path.open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as writer:
            writer.write(HEADER)
            for _ in range(200):
                writer.write(b"{}\n" * 500_000)
        with pytest.raises(cachectl.CorruptEntryError, match=r"line 1001: it is too short for a recording"):
            exchange.import_file(MemoryStore(), path)

    def test_a_large_window(self, tmp_path: Path) -> None:
        """A frame that wants gigabytes to be decompressed is refused."""
        path = tmp_path / "answers.jsonl.zst"
        parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=False)
        compressor = zstandard.ZstdCompressor(compression_params=parameters)
        with path.open("wb") as file, compressor.stream_writer(file) as writer:
            writer.write(HEADER)
            writer.write(b"\n" * 100)
        found = bare("tests.replay.hostile", path, str(400 * MB), cwd=tmp_path)
        assert "cannot be decompressed" in found["error"]

    @pytest.mark.parametrize("claims", ["much", "little", "nothing"])
    def test_a_bomb_in_an_entry(self, claims: str) -> None:
        """A compressed block of an entry unfolds no further than it says, and may not say much."""
        content = bytes(LARGEST_VALUE + 1)
        if claims == "much":
            block = zstandard.ZstdCompressor().compress(content)
        elif claims == "nothing":
            block = zstandard.ZstdCompressor(write_content_size=False).compress(content)
        else:
            block = zstandard.ZstdCompressor(write_content_size=True).compress(bytes(100_000))
            assert zstandard.frame_content_size(block) == 100_000
            # The frame's own header: two bytes of flags and size, in front of 4 bytes of size.
            block = block.replace(struct.pack("<I", 100_000), struct.pack("<I", 1_000), 1)
        data = entry(texts({}), b"", b"", PACKED, block=block)
        with pytest.raises(cachectl.CorruptEntryError, match=r"claims|decompressed|does not say"):
            records.decode(data)

    @pytest.mark.parametrize("depth", [300, 900, 100_000])
    @pytest.mark.parametrize("field", ["answer", "request", "origin"])
    def test_nested_deeply(self, path: Path, field: str, depth: int) -> None:
        """What is nested a thousand times is refused, and does not exhaust the stack."""
        head, one = path.read_bytes().splitlines()
        parts = json.loads(one)
        parts[field] = "DEEP"
        nested = b'{"a":' * depth + b"1" + b"}" * depth
        path.write_bytes(head + b"\n" + json.dumps(parts).encode().replace(b'"DEEP"', nested) + b"\n")
        if field == "origin" and depth < 1000:
            with pytest.raises(cachectl.CorruptEntryError, match="origin"):
                replay(path)
            return
        with pytest.raises(cachectl.CorruptEntryError, match=r"line 2: .*(deep|JSON)"):
            replay(path)


class TestValues:
    @pytest.mark.parametrize(
        "answer",
        [
            {"$": "response", "of": "os.system", "v": {"command": "touch {0}"}, "cost": None},
            {"$": "response", "of": "system", "v": {"command": "touch {0}"}, "cost": None},
            {"$": "response", "of": ["ModelResponse"], "v": {}, "cost": None},
            {"$": "response", "of": "ModelResponse", "v": [1], "cost": None},
            {"$": "object", "v": "touch {0}"},
            {"$": "pickle", "v": "PICKLE"},
            {"$": ["tuple"], "v": []},
            {"$": "array", "v": "PICKLE", "dtype": "|O", "shape": [1]},
            {"$": "array", "v": "", "dtype": "<f8", "shape": [2**40]},
            {"$": "array", "v": "AAAA", "dtype": "V", "shape": [1]},
            {"$": "array", "v": "AAAA", "dtype": "__import__('os')", "shape": [1]},
            {"$": "int", "v": "zz"},
            {"$": "map", "v": [[[1], 2]]},
            {"$": "map", "v": 5},
            {"$": "tuple"},
        ],
    )
    def test_tags(
        self, endpoint: Endpoint, path: Path, tmp_path: Path, answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No tag makes anything but plain data: an unknown one is a miss, and nothing is run or unpickled."""
        flag = tmp_path / "ran"

        class Evil:
            def __reduce__(self) -> Any:
                return subprocess.call, (["touch", str(flag)],)

        payload = base64.b64encode(pickle.dumps(Evil())).decode()
        text = json.dumps(answer).replace("PICKLE", payload).replace("{0}", str(flag))
        for name in ("load", "loads", "Unpickler"):
            monkeypatch.setattr(pickle, name, None)
        planted(path, answer=json.loads(text), tagged=True)
        with pytest.raises(cachectl.CacheMissError) as miss:
            replay(path)
        assert "decoded" in str(miss.value) or "unknown kind" in str(miss.value) or "never stored" in str(miss.value)
        assert not flag.exists()
        assert endpoint.requests == 1

    def test_a_pickle_as_text(self, path: Path) -> None:
        """A planted pickle is the text that it is written as."""
        payload = base64.b64encode(pickle.dumps({"a": 1})).decode()
        answer = {"_dspy_format": "dspy-lm15-result-v1", "outputs": [payload], "responses": [], "raw": None}
        planted(path, answer={**answer, "cost": None, "response_model": "test-model"})
        with cachectl.cassette(path) as opened:
            assert [payload] == dspy.settings.lm("one")
        assert 1 == opened.stats.replayed

    @pytest.mark.parametrize("text", ["\x1b[2J\x1b]0;owned\x07", "\r\nfake line", "\u202egnp.exe", "\x00"])
    def test_control_characters(self, path: Path, text: str) -> None:
        """What a message shows of a recording cannot steer a terminal."""
        head, one = lines(path)
        one["request"]["request"]["messages"][0]["content"] = f"one {text}"
        one["request"]["request"]["model"] = f"openai/{text}"
        one["request"]["endpoint"] = text
        write(path, [{**head, "mood": text}, one])
        with pytest.raises(cachectl.CacheMissError) as miss, cachectl.cassette(path):
            dspy.settings.lm("one, and more")
        shown = str(miss.value)
        assert [] == [character for character in shown if not character.isprintable() and character != "\n"]
        assert "fake line" not in [line.strip() for line in shown.splitlines()]

    def test_control_characters_in_the_summary_of_a_test_session(self) -> None:
        """Nor can what pytest prints of recordings that are not used: whose they are, and what they answer."""
        note = Note("answers.jsonl", unused=[("a" * 64, "test_it\x1b[2J", "one\x9b2J\r")])
        shown = "".join(summary.lines([note], Path.cwd()))
        assert "test_it" in shown
        assert shown.isprintable()

    @pytest.mark.parametrize("request_", ["text", ["messages"], {"messages": "text"}, {"messages": [5]}])
    def test_a_request_that_is_none(self, path: Path, request_: Any) -> None:
        """What was not used is told in a few words, whatever it was asked with."""
        planted(path, scope="test_it", request={"request": request_})
        chosen = choice.TestCassette(path, "", "test_it", "replay", None, "this test", "test_it")
        note = OpenTestCassette(chosen).close(passed=True, ended=True, left=[])
        (told,) = note.unused
        assert "test_it" == told[1]
        assert f"  test_it: {told[2]}" in summary.lines([note], path.parent)

    def test_control_characters_in_a_damaged_line(self, path: Path) -> None:
        """Nor can what an error shows."""
        planted(path, origin={"kind": "lm", "model": "m", "cost": "\x1b[2J"})
        with pytest.raises(cachectl.CorruptEntryError) as error:
            replay(path)
        assert "\x1b" not in str(error.value)


def _recording(**changes: Any) -> bytes:
    parts = {"key": "a" * 64, "asked": "a" * 64, "origin": {"kind": "lm", "model": "m"}, "request": {}, "answer": 1}
    return json.dumps({**parts, **changes}).encode()


def test_limits_are_those_of_real_cassettes(tmp_path: Path) -> None:
    """What is refused as too large is larger than what is written: the two ends agree."""
    path = tmp_path / "answers.jsonl"
    large = files.from_line(_recording(answer="a" * (10 * MB)))
    files.write(path, [large], before=files.CassetteFile())
    assert [large.data] == [one.data for one in files.read(path).recordings.values()]


def test_an_answer_that_is_too_large(
    endpoint: Endpoint, lm: MakeLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that could not be read again reaches the program, is not written, and the end says so."""
    endpoint.configure(answers={"large": ["word " * 20_000]})
    monkeypatch.setattr(files, "LARGEST_LINE", 50_000)
    path = tmp_path / "answers.jsonl"
    with (
        pytest.raises(cachectl.ConfigurationError, match=r"1 answer is not in the cassette .*too large"),
        cachectl.cassette(path, "record"),
    ):
        recorded, large = [lm()(text)[0] for text in ("small", "large")]
    assert "word " * 20_000 == large
    with cachectl.cassette(path):
        assert [recorded] == lm()("small")
