"""What a hostile file holds: texts of JSON, streams of zstd, pickles and settings, each of 1 MB at most."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import zstandard

from dspy_cachectl.boundary.reading import MOST_VALUES

MB = 1024 * 1024
LARGEST = 1_000_000
_DEEP = 200_000
_JUST_FEW = MOST_VALUES * 29 // 30


def _times(piece: bytes, size: int, *, begin: bytes = b"[", end: bytes = b"0]") -> bytes:
    return begin + piece * ((size - len(begin) - len(end)) // len(piece)) + end


def _response(name: str, fields: bytes) -> bytes:
    return b'{"$":"response","of":"%s","cost":null,"v":{%s}}' % (name.encode(), fields)


VALUES: dict[str, Callable[[int], bytes]] = {
    "lists": lambda size: _times(b"[],", size),
    "objects": lambda size: _times(b'{"a":1},', size),
    "objects in objects": lambda size: _times(b'{"a":{"b":{}}},', size),
    "numbers": lambda size: _times(b"1.5,", size),
    "texts": lambda size: _times(b'"\xc3\xa9",', size),
    "just few enough": lambda size: _times(b'{"a":1},', min(size, _JUST_FEW // 5 * 8)),
    "just few enough lists": lambda size: _times(b"[1],", min(size, _JUST_FEW // 5 * 4)),
    "just few enough texts": lambda size: _times(b'"\xf0\x9f\x98\x80",', min(size, _JUST_FEW * 7)),
    "deep lists": lambda size: b"[" * (size // 2) + b"]" * (size // 2),
    "deep objects": lambda size: b'{"a":' * min(_DEEP, size // 6) + b"1" + b"}" * min(_DEEP, size // 6),
    "rather deep": lambda size: b'{"a":' * 900 + b"1" + b"}" * 900,
    "deep tags": lambda size: b'{"$":"tuple","v":[' * 300 + b"1" + b"]}" * 300,
    "a long number": lambda size: b"9" * size,
    "a long fraction": lambda size: b"0." + b"9" * (size - 2),
    "a long power": lambda size: b"1e" + b"9" * (size - 2),
    "a tagged number": lambda size: b'{"$":"int","v":"0x%s"}' % (b"f" * (size - 24)),
    "a tagged fraction": lambda size: b'{"$":"float","v":"%s"}' % (b"9" * (size - 24)),
    "deep text": lambda size: b'"%s"' % (b"[" * (size - 2)),
    "wide text": lambda size: b'"\xf0\x9f\x98\x80%s"' % (b"a" * (size - 6)),
    "escapes": lambda size: _times(b"\\u0041", size, begin=b'"', end=b'"'),
    "backslashes": lambda size: _times(b"\\\\", size, begin=b'"', end=b'"'),
    "quotation marks": lambda size: _times(b'\\"', size, begin=b'"', end=b'"'),
    "a text without end": lambda size: b'"' + b'\\"' * (size // 2),
    "the same name": lambda size: _times(b'"a":[],', size, begin=b"{", end=b'"a":0}'),
    "many names": lambda size: b"{" + b",".join(b'"%d":0' % number for number in range(size // 10)) + b"}",
    "an array of nothing": lambda size: b'{"$":"array","dtype":"|S0","shape":[10000000000],"v":""}',
    "an array of less": lambda size: b'{"$":"array","dtype":"<f8","shape":[-1],"v":""}',
    "an array of many": lambda size: b'{"$":"array","dtype":"<f8","shape":[%s1],"v":""}' % (b"9," * (size // 3)),
    "a huge element": lambda size: b'{"$":"array","dtype":"<U999999999","shape":[0],"v":""}',
    "choices": lambda size: _response("ModelResponse", b'"choices":' + _times(b"{},", size, end=b"{}]")),
    "just few enough choices": lambda size: _response(
        "ModelResponse", b'"choices":' + _times(b"{},", min(size, 49_000 * 3), end=b"{}]")
    ),
    "just few enough outputs": lambda size: _response(
        "ResponsesAPIResponse", b'"id":"x","created_at":1,"output":' + _times(b"{},", min(size, 49_000 * 3), end=b"{}]")
    ),
    "a map of many": lambda size: b'{"$":"map","v":' + _times(b"[1,1],", size, end=b"[1,1]]") + b"}",
    "equal hashes": lambda size: (
        b'{"$":"map","v":[%s]}'
        % b",".join(b"[%d,1]" % (number * (2**61 - 1)) for number in range(min(size // 25, 5000)))
    ),
    "no JSON": lambda size: b"\xff" * size,
    "zeros": bytes,
    "nothing": lambda size: b"",
    "a word": lambda size: b'"word"',
}
"""Texts of JSON of up to a size, by what is bad about them."""

FEW = ("objects", "deep lists")
"""What the quick suite has of them: what is wide, and what is deep."""


def _streamed(pieces: int, piece: bytes, *, head: bytes = b"", **options: object) -> bytes:
    compressor = zstandard.ZstdCompressor(level=1, **options)
    made = compressor.compressobj()
    out = [made.compress(head)]
    while pieces and sum(map(len, out)) < LARGEST - 200:
        out.append(made.compress(piece))
        pieces -= 1
    return b"".join([*out, made.flush()])[:LARGEST]


def _wide_window(head: bytes) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=False)
    made = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return made.compress(head) + made.flush()


STREAMS: dict[str, Callable[[bytes], bytes]] = {
    "zeros": lambda head: _streamed(8192, bytes(MB), head=head),
    "line feeds": lambda head: _streamed(1024, b"\n" * MB, head=head),
    "short lines": lambda head: _streamed(1024, b"{}\n" * (MB // 3), head=head),
    "lines": lambda head: _streamed(1024, (b"x" * 200 + b"\n") * (MB // 201), head=head),
    "long lines": lambda head: _streamed(1024, (b"x" * (MB - 1) + b"\n"), head=head),
    "many frames": lambda head: zstandard.compress(head) + zstandard.compress(b"x") * 90_000,
    "empty frames": lambda head: zstandard.compress(head) + zstandard.compress(b"") * 100_000,
    "skipped frames": lambda head: zstandard.compress(head) + b"\x50\x2a\x4d\x18\0\0\0\0" * 120_000,
    "a large window": _wide_window,
    "a claim": lambda head: b"\x28\xb5\x2f\xfd\xe0" + (2**62).to_bytes(8, "little") + zstandard.compress(head)[6:],
    "no zstd": lambda head: head + b"x" * 900_000,
    "half a frame": lambda head: zstandard.compress(head + bytes(range(256)) * 3000)[:-40],
}
"""Compressed files that begin with a head, by what is bad about them."""


def _doubling() -> bytes:
    """A list that holds another twice, which holds another twice, and so on: 2 ** 40 values in 300 bytes."""
    made: list[object] = []
    for _ in range(40):
        made = [made, made]
    return pickle.dumps(made)


PICKLES: dict[str, Callable[[], bytes]] = {
    "doubling": _doubling,
    "deep": lambda: b"\x80\x04" + b"(" * 400_000 + b".",
    "deep lists": lambda: b"\x80\x04" + b"]" * 300_000 + b"a" * 299_999 + b".",
    "a huge text": lambda: b"\x80\x04\x8d" + (2**40).to_bytes(8, "little") + b"x.",
    "a large text": lambda: b"\x80\x04\x8d" + (2**28).to_bytes(8, "little") + b"x.",
    "a long number": lambda: b"\x80\x02\x8b" + (900_000).to_bytes(4, "little") + b"\x7f" * 900_000 + b".",
    "a long decimal": lambda: b"I" + b"9" * 900_000 + b"\n.",
    "a call": lambda: b"cos\nsystem\n(S'touch pwned'\ntR.",
    "many memos": lambda: b"\x80\x04r" + (2**31 - 1).to_bytes(4, "little") + b".",
    "many values": lambda: pickle.dumps([[] for _ in range(400_000)]),
    "equal hashes": lambda: pickle.dumps({number * (2**61 - 1): 1 for number in range(20_000)}),
    "zeros": lambda: bytes(900_000),
}
"""Pickles, by what is bad about them."""

SETTINGS: dict[str, Callable[[], str]] = {
    "a dotted key": lambda: "a." * 490_000 + "b = 1",
    "a dotted table": lambda: "[" + "a." * 490_000 + "b]",
    "dotted keys": lambda: "".join(f"a{number}.{'b.' * 90}c = 1\n" for number in range(5000)),
    "deep lists": lambda: "a = " + "[" * 900_000,
    "deep tables": lambda: "a = " + "{a = " * 180_000,
    "many tables": lambda: "".join(f"[t{number}]\n" for number in range(90_000)),
    "few enough tables": lambda: "".join(f"[t{number}]\n" for number in range(29_000)),
    "many elements": lambda: "a = [" + "1," * 480_000 + "]",
    "tables of tables": lambda: "[[a]]\n" * 160_000,
    "a long number": lambda: "[tool.dspy_cachectl]\ndisk_bytes = " + "9" * 900_000,
    "a long hexadecimal number": lambda: "[tool.dspy_cachectl]\ndisk_bytes = 0x" + "f" * 900_000,
    "a long text": lambda: '[tool.dspy_cachectl]\nstore = "' + "\\u0041" * 150_000 + '"',
    "a long policy": lambda: '[tool.dspy_cachectl]\npolicy = "' + "a" * 900_000 + '"',
    "many phases": lambda: "".join(f"[tool.dspy_cachectl.phases.p{number}]\n" for number in range(9_000)),
    "unknown settings": lambda: "[tool.dspy_cachectl]\n" + "".join(f"a{number} = 1\n" for number in range(80_000)),
    "an unfinished text": lambda: 'a = """' + "\\\n" * 400_000,
    "comments": lambda: "#\n" * 490_000,
    "no text": lambda: "\udcff" * 300_000,
}
"""Settings in TOML, by what is bad about them."""
