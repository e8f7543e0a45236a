"""A damaged cassette is refused with the line and what to do, and it is left as it is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest
import zstandard

import dspy_cachectl as cachectl
from tests.calls.support import MakeLM
from tests.endpoint import Endpoint
from tests.replay.support import lines, write

Damage = Callable[[list[bytes]], bytes]


def joined(parts: list[bytes]) -> bytes:
    return b"\n".join(parts) + b"\n"


def with_part(**changes: Any) -> Damage:
    """Set parts of the first recording; None takes one away."""

    def damage(parts: list[bytes]) -> bytes:
        import json

        one = json.loads(parts[1])
        for name, value in changes.items():
            if value is None:
                del one[name]
            else:
                one[name] = value
        return joined([parts[0], json.dumps(one).encode(), *parts[2:]])

    return damage


DAMAGES: dict[str, tuple[Damage, str]] = {
    "empty": (lambda _: b"", "is empty"),
    "only blank": (lambda _: b"\n\n", "is empty"),
    "not JSON": (lambda parts: joined([*parts[:1], b"not json", *parts[2:]]), "line 2: the JSON cannot be decoded"),
    "cut line": (lambda parts: joined(parts)[:-40], "line 3: the JSON cannot be decoded"),
    "merge conflict": (
        lambda parts: joined([parts[0], b"<<<<<<< HEAD", parts[1], b"=======", parts[2], b">>>>>>> other"]),
        "line 2: version control left a conflict here (<<<<<<< HEAD)",
    ),
    "no header": (lambda parts: joined(parts[1:]), "its first line is no header"),
    "two headers": (lambda parts: joined([parts[0], *parts]), "line 2: the line is no recording"),
    "header of something else": (lambda parts: joined([b'{"version": 1}', *parts[1:]]), "is no header"),
    "header that is a list": (lambda parts: joined([b"[1]", *parts[1:]]), "is no header"),
    "format of no version": (lambda parts: joined([b'{"cassette": "x"}', *parts[1:]]), "claims the format 'x'"),
    "format that is true": (lambda parts: joined([b'{"cassette": true}', *parts[1:]]), "claims the format True"),
    "keys of no kind": (lambda parts: joined([b'{"cassette": 3, "keys": {}}', *parts[1:]]), "its keys are those of {}"),
    "a list": (lambda parts: joined([parts[0], b"[1, 2]"]), "line 2: the line is no recording"),
    "no answer": (with_part(answer=None), "line 2: the line is no recording"),
    "key that is none": (with_part(key="abc"), "its key is not 64 hexadecimal digits"),
    "asked that is none": (with_part(asked=5), "its asked is not 64 hexadecimal digits"),
    "origin that is none": (with_part(origin="lm"), "its origin and its request have to be objects"),
    "origin of no kind": (with_part(origin={"model": "m"}), "origin cannot be decoded"),
    "price that is a text": (with_part(origin={"kind": "lm", "model": "m", "cost": "1"}), "valid number"),
    "request that is none": (with_part(request=[1]), "its origin and its request have to be objects"),
    "not UTF-8": (
        lambda parts: joined([parts[0], parts[1].replace(b"one", b"\xff\xfe")]),
        "line 2: the JSON cannot be decoded",
    ),
    "zeros": (lambda parts: joined(parts)[:-40] + bytes(40), "line 3: the JSON cannot be decoded"),
}


@pytest.fixture
def path(tmp_path: Path, lm: MakeLM) -> Path:
    """A cassette with two recordings."""
    dspy.configure(lm=lm())
    path = tmp_path / "answers.jsonl"
    with cachectl.cassette(path, "record"):
        dspy.settings.lm("one")
        dspy.settings.lm("two")
    return path


@pytest.mark.parametrize(
    ("name", "mode"),
    [*((name, "replay") for name in DAMAGES), *(("merge conflict", mode) for mode in ("record", "new"))],
)
def test_refused(endpoint: Endpoint, path: Path, name: str, mode: Any) -> None:
    """Each kind of damage is one clear error that names the file; nothing is asked and nothing is written."""
    damage, message = DAMAGES[name]
    damaged = damage(path.read_bytes().splitlines())
    path.write_bytes(damaged)
    with pytest.raises(cachectl.CorruptEntryError) as error, cachectl.cassette(path, mode):
        raise AssertionError("it opened")
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert damaged == path.read_bytes()
    assert endpoint.requests == 2
    # It has not stayed open.
    dspy.settings.lm("three")
    assert endpoint.requests == 3


@pytest.mark.parametrize(("version", "said"), [(99, "Upgrade dspy-cachectl"), (2, "older dspy-cachectl")])
@pytest.mark.parametrize("mode", ["replay", "record", "new", "all"])
def test_another_format(path: Path, mode: Any, version: int, said: str) -> None:
    """A cassette of another version is not guessed at."""
    head, *rest = lines(path)
    write(path, [{**head, "cassette": version}, *rest])
    with pytest.raises(cachectl.FormatVersionError, match=said), cachectl.cassette(path, mode):
        pass


def test_a_mark_of_an_editor(path: Path) -> None:
    """What some editors put in front of a text in UTF-8 is none of the header."""
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    with cachectl.cassette(path) as opened:
        dspy.settings.lm("one")
    assert 1 == opened.stats.replayed


def test_a_header_with_more_in_it(path: Path) -> None:
    """What a later version adds to the header, or to a line, is passed over."""
    head, *rest = lines(path)
    write(path, [{**head, "mood": "good"}, *({**one, "mood": "good"} for one in rest)])
    with cachectl.cassette(path) as opened:
        dspy.settings.lm("one")
    assert 1 == opened.stats.replayed


@pytest.mark.parametrize("damage", ["cut", "no zstd", "flipped"])
def test_compressed(tmp_path: Path, lm: MakeLM, damage: str) -> None:
    """A compressed cassette that is damaged is refused as well."""
    path = tmp_path / "answers.jsonl.zst"
    with cachectl.cassette(path, "record"):
        lm()("one")
    data = path.read_bytes()
    assert zstandard.decompress(data).startswith(b'{"cassette":3')
    changed = {"cut": data[:-20], "no zstd": b"text", "flipped": data[:30] + bytes([data[30] ^ 255]) + data[31:]}
    path.write_bytes(changed[damage])
    with pytest.raises(cachectl.CorruptEntryError, match=r"answers\.jsonl\.zst"), cachectl.cassette(path):
        pass


def test_an_answer_that_cannot_be_decoded(endpoint: Endpoint, path: Path) -> None:
    """A recording whose answer is of no known kind is a miss that says why."""
    head, *rest = lines(path)
    write(path, [head, *({**one, "answer": {"$": "mystery", "v": 1}, "tagged": True} for one in rest)])
    with pytest.raises(cachectl.CacheMissError, match="unknown kind 'mystery'"), cachectl.cassette(path):
        dspy.settings.lm("one")
    assert endpoint.requests == 2


def test_what_is_no_file(tmp_path: Path) -> None:
    """A folder or a named pipe in the place of the file is said to be unreadable, and nobody waits for it."""
    folder, pipe = tmp_path / "folder", tmp_path / "pipe"
    folder.mkdir()
    os.mkfifo(pipe)
    for path in (folder, pipe):
        with pytest.raises(cachectl.StoreUnavailableError, match="cannot be read"), cachectl.cassette(path, "new"):
            pass


def test_a_leftover_of_a_killed_write(endpoint: Endpoint, path: Path) -> None:
    """What a process that was killed while it wrote has left is removed, but no file that only has such a name."""
    mine = path.with_name(f".{path.name}.20260101.new")
    mine.write_bytes(b"precious")
    path.with_name(f".{path.name}.01234567.new").write_bytes(path.read_bytes()[:50])
    with cachectl.cassette(path, "new"):
        dspy.settings.lm("three")
    assert [mine, path] == sorted(path.parent.glob("*answers*"))
    assert b"precious" == mine.read_bytes()
    assert 4 == len(lines(path))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("responses", 0, "usage", "input_tokens"), [[]]),
        (("responses", 0, "message"), None),
        (("responses", 0, "message", "parts", 0, "type"), "mood"),
        (("responses", 0), {"a": 1}),
        (("outputs",), 7),
    ],
)
def test_an_answer_that_dspy_cannot_make(
    path: Path, endpoint: Endpoint, place: tuple[str | int, ...], value: Any
) -> None:
    """It is a miss that says why, and no error of DSPy's."""
    head, *rest = lines(path)
    for line in rest:
        part: Any = line["answer"]
        for name in place[:-1]:
            part = part[name]
        part[place[-1]] = value
    write(path, [head, *rest])
    before = endpoint.requests
    why = "DSPy makes no answer of what the entry holds"
    with (
        pytest.raises(cachectl.ReplayIncompleteError, match=why),
        cachectl.cassette(path),
        contextlib.suppress(cachectl.CacheMissError),
    ):
        dspy.settings.lm("one")
    assert before == endpoint.requests
