"""What is kept: a put, what of it is encoding, and what an entry takes on disk and in memory."""

from __future__ import annotations

import copy
import gc
import random
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import dspy

from benchmarks.bars import ENGINES
from benchmarks.figures import Figure, compared, counted
from benchmarks.rounds import Block, Round, interleaved, timed
from benchmarks.rows import row
from benchmarks.scene import (
    DISK_BYTES,
    MEMORY_BYTES,
    Scene,
    asking,
    dspys_cache,
    dspys_in_place,
    forget,
    ours_in_place,
    prompts,
    text,
)
from dspy_cachectl.calls import answering
from dspy_cachectl.stores import open_stores

COUNT = 100
ENTRIES = 1000
"""How many entries are kept to see what one takes."""

Puts = list[tuple[dict[str, Any], Any, list[str] | None]]


class New:
    """Makes what DSPy asks its cache to keep, each time of other questions and answers."""

    def __init__(self, scene: Scene, engine: str, size: int = 2000) -> None:
        [(self._request, self._value, self._ignored)] = scene.kept(engine, prompts(1, size))
        self._rng, self._size = random.Random(7), size

    def __call__(self, count: int) -> Puts:
        """Return so many."""
        return [self._one() for _ in range(count)]

    def _one(self) -> tuple[dict[str, Any], Any, list[str] | None]:
        [messages] = prompts(1, self._size, self._rng.random())
        answer, name = text(self._rng, 1000), f"chatcmpl-{self._rng.getrandbits(64):x}"
        value = copy.deepcopy(self._value)
        if isinstance(value, dict):
            known = value["responses"][0]
            value = _replaced(value, {known["message"]["parts"][0]["text"]: answer, known["id"]: name})
        else:
            value.id, value.choices[0].message.content = name, answer
        return {**self._request, "messages": messages}, value, self._ignored


def _replaced(value: Any, texts: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _replaced(item, texts) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_replaced(item, texts) for item in value)
    return texts.get(value, value) if isinstance(value, str) else value


@row("put")
def put(scene: Scene) -> Iterator[Figure]:
    """`Cache.put` of an answer, into memory and onto disk, by DSPy's."""
    for engine in ENGINES:
        new, cache = New(scene, engine), dspys_cache(scene.new_folder())
        stores = _stores(scene)
        sides = {
            "theirs": lambda new=new, cache=cache: putting(dspys_in_place(cache), new),
            "ours": lambda new=new, stores=stores: putting(ours_in_place(stores), new),
        }
        taken = interleaved(sides, scene.rounds)
        yield compared("put", taken["ours"], taken["theirs"], case=engine, calls=COUNT)


@row("put-encoding")
def put_encoding(scene: Scene) -> Iterator[Figure]:
    """What of a put is encoding."""
    encode, spent = answering.encode, [0.0]

    def counting(*arguments: Any, **options: Any) -> bytes:
        began = time.process_time()
        encoded = encode(*arguments, **options)
        spent[0] += time.process_time() - began
        return encoded

    for engine in ENGINES:
        new, stores, encoding, whole = New(scene, engine), _stores(scene), [], []
        for _ in range(scene.rounds):
            with putting(ours_in_place(stores), new) as block:
                whole.append(timed(block))
            answering.encode, spent[0] = counting, 0.0
            try:
                with putting(ours_in_place(stores), new) as block:
                    block()
            finally:
                answering.encode = encode
            encoding.append(Round(spent[0], 0.0))
        yield compared("put-encoding", encoding, whole, case=engine, calls=COUNT)


@contextmanager
def putting(place: AbstractContextManager[Any], new: New) -> Iterator[Block]:
    """Prepare `COUNT` puts into the cache that is in place."""
    puts, first = new(COUNT), new(1)

    def keep(puts: Puts) -> None:
        for request, value, ignored in puts:
            dspy.cache.put(request, value, ignored)

    with place:
        keep(first)  # opens what is not open
        yield lambda: keep(puts)


@row("bytes-disk")
def bytes_disk(scene: Scene) -> Iterator[Figure]:
    """Bytes of an entry on disk, its request of 4 kB included, by DSPy's, which keeps none."""
    for engine in ENGINES:
        puts = New(scene, engine, 1000)(ENTRIES)
        cache = dspys_cache(scene.new_folder())
        stores = open_stores(str(scene.new_folder()), memory_bytes=0, disk_bytes=DISK_BYTES)
        theirs = _grown(Path(str(cache.disk_cache_dir)), dspys_in_place(cache), puts, cache.disk_cache.close)
        ours = _grown(Path(stores[0].location), ours_in_place(stores), puts, lambda: None)
        yield counted("bytes-disk", ours, theirs, case=engine)


def _grown(folder: Path, place: AbstractContextManager[Any], puts: Puts, close: Callable[[], object]) -> float:
    """Return by how many bytes an entry a folder grows, beyond what the first of them makes."""
    with place:
        dspy.cache.put(*puts[0])
        before = _size(folder)
        for request, value, ignored in puts[1:]:
            dspy.cache.put(request, value, ignored)
    close()
    return (_size(folder) - before) / (len(puts) - 1)


def _size(folder: Path) -> int:
    # What a write-ahead log holds is moved into the database when that is closed, and is no entry's.
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(("-wal", "-shm")))
    return sum(path.stat().st_size for path in files)


@row("bytes-memory")
def bytes_memory(scene: Scene) -> Iterator[Figure]:
    """Bytes of an entry in the memory tier, by DSPy's. And objects of it that the garbage collector walks over."""
    for engine in ENGINES:
        ours, theirs, tracked, tracked_of_theirs = _in_memory(scene, engine)
        yield counted("bytes-memory", ours, theirs, case=engine)
        yield counted("bytes-memory", tracked, tracked_of_theirs, case=engine, state="tracked")


def _in_memory(scene: Scene, engine: str) -> tuple[float, float, float, float]:
    with ours_in_place(_stores(scene)):
        ours, tracked = _held(scene.governed(engine))
    with dspys_in_place(dspys_cache(scene.new_folder())):
        theirs, tracked_of_theirs = _held(scene.plain(engine))
    return ours, theirs, tracked, tracked_of_theirs


def _held(lm: Any) -> tuple[float, float]:
    """Return what an entry that is bought leaves in memory, beside the history: bytes, and tracked objects."""
    questions = prompts(ENTRIES // 4, 1000)
    asking(lm, prompts(20, 1000, seed=1))()  # loads what is not loaded
    forget()
    gc.collect()
    tracked = len(gc.get_objects())
    tracemalloc.start()
    asking(lm, questions)()
    forget()
    gc.collect()
    size, tracked = tracemalloc.get_traced_memory()[0], len(gc.get_objects()) - tracked
    tracemalloc.stop()
    return size / len(questions), tracked / len(questions)


def _stores(scene: Scene) -> Any:
    return open_stores(str(scene.new_folder()), memory_bytes=MEMORY_BYTES, disk_bytes=DISK_BYTES)
