"""What every store promises. The tests of a store derive from `StoreContract` and say how to make one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dspy_cachectl.errors import StoreError
from dspy_cachectl.stores import KnowingStore, Label, Store
from dspy_cachectl.stores.base import Put

COMPILED = Label(kind="lm", model="openai/gpt-4o-mini", phase="compile", role="generator")
DRAWN = Label(kind="lm", model="openai/gpt-4o-mini", phase="eval", role="judge", run="run-1")
VECTOR = Label(kind="embedding", model="openai/text-embedding-3-small", phase="compile")


class StoreContract:
    """The promises; each is kept by every store."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        raise NotImplementedError

    def test_is_a_store(self, store: Store) -> None:
        """It has the methods that the rest of the package uses."""
        assert isinstance(store, Store)
        assert isinstance(store.location, str)

    @pytest.mark.parametrize("size", [0, 1, 2000, 40_000, 1_500_000])
    def test_gives_back_what_was_put(self, store: Store, size: int) -> None:
        """A value of any size comes back byte by byte."""
        value = bytes(at % 251 for at in range(size))

        store.put("key", value, COMPILED)

        assert value == store.get("key")

    def test_knows_nothing_of_other_keys(self, store: Store) -> None:
        """A key is found under its exact spelling only."""
        store.put("run:baseline", b"1", COMPILED)

        assert [None] * 4 == [store.get(key) for key in ("run:Baseline", "run:baseline ", "run:%", "run_baseline")]

    @pytest.mark.parametrize("key", ["a'b", 'a"b', "run:größe ☃", "x" * 5000, " "])
    def test_takes_any_text_as_key(self, store: Store, key: str) -> None:
        """A key may hold quotes, any script, and thousands of characters."""
        store.put(key, b"value", COMPILED)

        assert b"value" == store.get(key)
        assert [key] == list(store.keys())

    def test_a_second_put_takes_the_place_of_the_first(self, store: Store) -> None:
        """There is one entry for a key, with the value and the label that it was put with last."""
        store.put("key", b"long" * 100_000, COMPILED)
        store.put("key", b"new", DRAWN)

        assert b"new" == store.get("key")
        assert {DRAWN: 1} == store.labels()

    def test_delete_tells_whether_it_was_there(self, store: Store) -> None:
        """A deleted key is gone; deleting it again is no error."""
        store.put("key", b"value", COMPILED)

        assert [True, False] == [store.delete("key"), store.delete("key")]
        assert store.get("key") is None
        assert {} == store.labels()

    def test_keys_come_newest_first(self, store: Store) -> None:
        """What was put last comes first, also where it took the place of something older."""
        for key in ("a", "b", "c"):
            store.put(key, b"value", COMPILED)
        store.put("a", b"again", COMPILED)

        assert ["a", "c", "b"] == list(store.keys())

    def test_keys_of_one_kind(self, store: Store) -> None:
        """Where a kind is named, only the keys filed under it come, and not those of a kind that begins alike."""
        longer = Label(kind="lm-batch")
        for key, label in {"a": COMPILED, "b": VECTOR, "c": DRAWN, "d": longer, "e": Label()}.items():
            store.put(key, b"value", label)

        assert ["c", "a"] == list(store.keys("lm"))
        assert ["b"] == list(store.keys("embedding"))
        assert [] == list(store.keys("run"))
        assert ["e", "d", "c", "b", "a"] == list(store.keys())

    def test_labels_are_counted(self, store: Store) -> None:
        """How many entries there are under each label, without reading them."""
        for at in range(5):
            store.put(f"compiled-{at}", b"value", COMPILED)
        store.put("drawn", b"value", DRAWN)

        assert {COMPILED: 5, DRAWN: 1} == store.labels()

    def test_clear_removes_everything(self, store: Store) -> None:
        """After clearing there is nothing, and it says how much there was."""
        for at in range(120):
            store.put(f"key-{at}", b"value" * (70_000 if at == 0 else 1), COMPILED)

        assert 120 == store.clear()
        assert 0 == store.clear()
        assert [] == list(store.keys())
        assert store.get("key-0") is None

    def test_works_after_close(self, store: Store) -> None:
        """Closing lets go of files; the next use opens them again."""
        store.close()
        store.put("key", b"value", COMPILED)
        store.close()
        store.close()

        assert b"value" == store.get("key")

    def test_many_threads(self, store: Store) -> None:
        """What many threads put at once is all there, and each reads what it put."""

        def work(thread: int) -> list[str]:
            wrong = []
            for at in range(40):
                key, value = f"{thread}-{at}", f"value {thread} {at}".encode() * 20
                store.put(key, value, COMPILED)
                if store.get(key) != value:
                    wrong.append(key)
            return wrong

        assert [] == in_threads(16, work)
        assert {COMPILED: 640} == store.labels()

    def test_many_threads_on_one_key(self, store: Store) -> None:
        """A reader sees one whole value or another, never a mixture or nothing, also where values are large."""
        values = {bytes([letter]) * size for letter in b"abcd" for size in (10, 400_000)}
        ordered = sorted(values)
        store.put("key", ordered[0], COMPILED)

        def work(thread: int) -> list[object]:
            if thread % 2:
                for at in range(15):
                    store.put("key", ordered[(thread + at) % len(ordered)], COMPILED)
                return []
            return [type(seen) for seen in (store.get("key") for _ in range(60)) if seen not in values]

        assert [] == in_threads(8, work)
        assert {COMPILED: 1} == store.labels()


class KnowingContract(StoreContract):
    """What a store promises that knows answers again, beside all the others."""

    @pytest.fixture
    def knowing(self, store: Store) -> KnowingStore:
        """The store."""
        assert isinstance(store, KnowingStore)
        return store

    def test_knows_by_the_mark_under_which_key_it_came_first(self, knowing: KnowingStore) -> None:
        """The first is nobody's before; who comes later is told of the first, and so is who only asks."""
        found = [knowing.put_marked(key, b"value", DRAWN, "name.rest").marks for key in ("b", "a", "c")]

        assert [{}, {"name.rest": "b"}, {"name.rest": "b"}] == found
        assert {"name.rest": "b"} == knowing.marked("name")

    def test_tells_that_a_name_has_two_rests(self, knowing: KnowingStore) -> None:
        """Two marks of a name are told, and never more; a name that only begins alike is another."""
        for at in range(4):
            knowing.put_marked(f"key-{at}", b"value", DRAWN, f"name.{at}")
        knowing.put_marked("longer", b"value", DRAWN, "name2.0")
        knowing.put_marked("empty", b"value", DRAWN, "=name.")

        assert 2 == len(knowing.marked("name"))
        assert {f"name.{at}": f"key-{at}" for at in range(4)}.items() >= knowing.marked("name").items()
        assert [{"name2.0": "longer"}, {"=name.": "empty"}] == [knowing.marked(name) for name in ("name2", "=name")]
        assert [{}] * 4 == [knowing.marked(name) for name in ("nam", "", "%", "name.0")]

    def test_tells_marks_of_hashes_apart(self, knowing: KnowingStore) -> None:
        """Names that differ in what stands before their hash are others, and a rest may be anything."""
        names = [f"{kind}{digits}" for kind in ("", "~", "=") for digits in ("0" * 16, "f" * 15 + "e", "f" * 16)]
        rests = ["", "ff" * 8, "0" * 16, "F" * 16, "g" * 16, "rest.rest", "größe"]
        for at, name in enumerate(names):
            knowing.put_marked(f"first-{at}", b"value", DRAWN, f"{name}.{rests[at % 7]}")
            knowing.put_marked(f"second-{at}", b"value", DRAWN, f"{name}.{rests[at % 7]}")
            knowing.put_marked(f"other-{at}", b"value", DRAWN, f"{name}.{rests[(at + 1) % 7]}")

        told = [knowing.marked(name) for name in names]
        assert told == [
            {f"{name}.{rests[at % 7]}": f"first-{at}", f"{name}.{rests[(at + 1) % 7]}": f"other-{at}"}
            for at, name in enumerate(names)
        ]
        assert [{}] * 3 == [knowing.marked(name) for name in ("0" * 15, "+" + "0" * 16, "F" * 16)]

    def test_a_mark_goes_with_its_entry(self, knowing: KnowingStore) -> None:
        """What is deleted, cleared, or replaced by something else is not known any more; the next key is the first."""
        for key in ("a", "b", "c"):
            knowing.put_marked(key, b"value", DRAWN, "name.rest")
        knowing.delete("a")
        assert {"name.rest": "b"} == knowing.marked("name")
        knowing.put("b", b"unmarked", DRAWN)
        assert {"name.rest": "c"} == knowing.marked("name")
        knowing.put_marked("c", b"other", DRAWN, "other.rest")
        assert [{}, {"other.rest": "c"}] == [knowing.marked(name) for name in ("name", "other")]
        knowing.clear()
        assert {} == knowing.marked("other")

    def test_a_key_that_is_put_again_is_told_of_itself(self, knowing: KnowingStore) -> None:
        """The same answer under the same key is no other entry."""
        knowing.put_marked("key", b"value", DRAWN, "name.rest")

        assert {"name.rest": "key"} == knowing.put_marked("key", b"again", DRAWN, "name.rest").marks
        assert {DRAWN: 1} == knowing.labels()

    def test_without_a_mark_nothing_is_known(self, knowing: KnowingStore) -> None:
        """An entry without a mark, or with an empty one, is an entry like others."""
        knowing.put("a", b"value", DRAWN)

        assert {} == knowing.put_marked("b", b"value", DRAWN, "").marks
        assert {} == knowing.marked("")
        assert b"value" == knowing.get("b")

    def test_one_of_many_threads_is_first(self, knowing: KnowingStore) -> None:
        """Of all who put one answer at once, under keys of their own, exactly one is told that nobody had it."""

        def work(thread: int) -> list[object]:
            put = {at: knowing.put_marked(f"{thread} {at}", b"", DRAWN, f"n{at}.rest") for at in range(10)}
            return [f"{at}" for at, found in put.items() if not found.marks]

        assert sorted(map(str, range(10))) == sorted(map(str, in_threads(8, work)))

    def test_the_first_stays(self, knowing: KnowingStore) -> None:
        """Who puts first is told of nothing; who comes later is given what is there, and nothing of its own is kept."""
        assert Put(None, {}) == knowing.put_first("key", b"first", COMPILED, "a.1")

        assert Put(b"first", {}) == knowing.put_first("key", b"second", DRAWN, "b.1")
        assert Put(b"first", {"a.1": "key"}) == knowing.put_first("key", b"first", DRAWN, "a.1")
        assert (b"first", {COMPILED: 1}) == (knowing.get("key"), knowing.labels())
        assert {} == knowing.marked("b")

    def test_what_was_turned_down_goes(self, knowing: KnowingStore) -> None:
        """What a reader turned down makes room for what it bought, unless it has gone for another's meanwhile."""
        knowing.put_marked("key", b"too old", COMPILED, "old.1")

        assert Put(b"too old", {}) == knowing.put_first("key", b"new", DRAWN, "new.1", instead_of=b"another")
        assert Put(None, {}) == knowing.put_first("key", b"new", DRAWN, "new.1", instead_of=b"too old")
        assert Put(b"new", {}) == knowing.put_first("key", b"newer", DRAWN, "newer.1", instead_of=b"too old")
        assert ({}, {"new.1": "key"}) == (knowing.marked("old"), knowing.marked("new"))

    def test_of_many_threads_one_is_first(self, knowing: KnowingStore) -> None:
        """Of eight that put at once one is kept, and all the others are given that one."""
        with ThreadPoolExecutor(8) as pool:
            for at in range(20):
                key = f"key-{at}"
                put = [pool.submit(knowing.put_first, key, b"%d" % n, DRAWN, "", instead_of=None) for n in range(8)]
                given = [future.result().there for future in put]
                kept = knowing.get(key)
                assert (1, 7) == (given.count(None), given.count(kept))
                assert kept == b"%d" % given.index(None)


def in_threads(count: int, work: Callable[[int], list[object]] | Callable[[int], list[str]]) -> list[object]:
    """Run `work` with 0, 1, ... in as many threads at once; what they returned, joined, errors of stores included."""

    def guarded(thread: int) -> list[object]:
        try:
            return list(work(thread))
        except StoreError as error:
            return [error]

    with ThreadPoolExecutor(count) as pool:
        return [item for found in pool.map(guarded, range(count)) for item in found]
