"""What no cache can get below: a hit of DSPy's whose cache costs nothing, and the parts of a lookup by themselves."""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import dspy
import orjson
import zstandard
from dspy.clients.cache import Cache

from benchmarks.bars import ENGINES
from benchmarks.figures import Figure, compared
from benchmarks.puts import COUNT as PUTS, New, putting
from benchmarks.rounds import Block, interleaved
from benchmarks.rows import row
from benchmarks.scene import Scene, Sides, asking, dspys_cache, dspys_in_place, prompts
from dspy_cachectl.boundary.packing import packed

COUNT = 50


class _Free(Cache):
    """A cache that has what is asked at once."""

    answer: Any = None

    def get(self, request: dict[str, Any], ignored_args_for_cache_key: list[str] | None = None) -> Any:  # noqa: ARG002
        return self.answer


@row("floor")
def floor(scene: Scene) -> Iterator[Figure]:
    """A plain `dspy.LM`, and a `Predict`, with a cache that costs nothing, by a hit from DSPy's memory."""
    questions, predict = prompts(COUNT), dspy.Predict("question -> answer")

    for engine in ENGINES:
        lm = scene.plain(engine)

        def predicting(lm: Any = lm) -> None:
            with dspy.context(lm=lm):
                for messages in questions:
                    predict(question=messages[0]["content"])
            predict.history.clear()

        for case, ask in (("lm", asking(lm, questions)), ("predict", predicting)):
            sides, free = Sides(scene, ask, lambda: None), _Free(True, False, str(scene.new_folder()))
            free.answer = next(iter(sides.cache.memory_cache.values()))

            @contextmanager
            def ours(free: Cache = free, ask: Block = ask) -> Iterator[Block]:
                with dspys_in_place(free):
                    ask()
                    yield ask

            taken = scene.hits({"theirs": sides.theirs(), "ours": ours})
            yield compared("floor", taken["ours"], taken["theirs"], case=engine, state=case, calls=COUNT)


@row("floor-get")
def floor_get(scene: Scene) -> Iterator[Figure]:
    """Key, lookup and JSON by themselves, of a dictionary and of SQLite with zstd, by `Cache.get` of DSPy's."""
    kept = scene.kept("native", prompts(COUNT))

    def getting() -> None:
        for request, value, ignored in kept:
            if dspy.cache.get(dict(request), ignored) is None:
                dspy.cache.put(dict(request), value, ignored)

    sides, requests = Sides(scene, getting, lambda: None), [request for request, _, _ in kept]
    encoded = {_key(request): orjson.dumps(value) for request, value, _ in kept}
    with closing(sqlite3.connect(scene.new_folder().with_suffix(".sqlite"))) as plain:
        memory, disk = _from_memory(requests, encoded), _from_disk(requests, encoded, plain)
        for case, block, from_disk in (("memory", memory, False), ("disk", disk, True)):
            taken = scene.hits({"theirs": sides.theirs(from_disk=from_disk), "ours": lambda block=block: _warm(block)})
            yield compared("floor-get", taken["ours"], taken["theirs"], case=case, calls=COUNT)


def _key(request: Any) -> bytes:
    return hashlib.sha256(orjson.dumps(request, option=orjson.OPT_SORT_KEYS)).digest()


def _from_memory(requests: list[Any], encoded: dict[bytes, bytes]) -> Block:
    def get() -> None:
        for request in requests:
            orjson.loads(encoded[_key(request)])

    return get


def _from_disk(requests: list[Any], encoded: dict[bytes, bytes], plain: sqlite3.Connection) -> Block:
    compress, decompress = zstandard.ZstdCompressor(1).compress, zstandard.ZstdDecompressor().decompress
    plain.execute("PRAGMA journal_mode = WAL")
    plain.execute("CREATE TABLE kept(key BLOB UNIQUE, value BLOB)")
    plain.executemany("INSERT INTO kept VALUES (?, ?)", [(key, compress(value)) for key, value in encoded.items()])
    plain.commit()

    def get() -> None:
        for request in requests:
            [value] = plain.execute("SELECT value FROM kept WHERE key = ?", (_key(request),)).fetchone()
            orjson.loads(decompress(value))

    return get


@contextmanager
def _warm(block: Block) -> Iterator[Block]:
    block()
    yield block


@row("floor-put")
def floor_put(scene: Scene) -> Iterator[Figure]:
    """The key, one pass over all texts, packing and a row of SQLite by themselves, by `Cache.put` of DSPy's."""
    new, cache, done = New(scene, "native"), dspys_cache(scene.new_folder()), itertools.count()
    with closing(sqlite3.connect(scene.new_folder().with_suffix(".sqlite"), isolation_level=None)) as plain:
        plain.execute("PRAGMA journal_mode = WAL")
        plain.execute("PRAGMA synchronous = NORMAL")
        plain.execute("CREATE TABLE kept(key BLOB UNIQUE, value BLOB)")

        def insert(texts: tuple[bytes, bytes]) -> None:
            value = texts[0][:2000] + texts[1][:3000]  # as much as a packed entry has
            plain.execute("INSERT INTO kept VALUES (?, ?)", (next(done).to_bytes(32, "big"), value))

        for case, part in (("key", _key_of), ("pass", _pass_over), ("packing", _pack), ("sqlite", insert)):

            @contextmanager
            def ours(part: Callable[[tuple[bytes, bytes]], object] = part) -> Iterator[Block]:
                first, *texts = [(orjson.dumps(request), orjson.dumps(value)) for request, value, _ in new(PUTS + 1)]
                part(first)
                yield lambda: [part(one) for one in texts]

            sides = {"theirs": lambda: putting(dspys_in_place(cache), new), "ours": ours}
            taken = interleaved(sides, scene.few)
            yield compared("floor-put", taken["ours"], taken["theirs"], case=case, calls=PUTS)


_TABLE = bytes(range(255, -1, -1))


def _key_of(texts: tuple[bytes, bytes]) -> bytes:
    return hashlib.sha256(texts[0]).digest()


def _pass_over(texts: tuple[bytes, bytes]) -> None:
    for text in texts:
        text.translate(_TABLE).find(b"\0\0")


def _pack(texts: tuple[bytes, bytes]) -> list[bytes]:
    return [packed(text) for text in texts]
