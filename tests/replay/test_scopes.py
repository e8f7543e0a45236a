"""Where a cassette holds: nested, decorated, in async code, in other threads, and not a moment longer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.stores.disk import DiskStore
from tests.calls.support import MakeLM, assert_counted, qa
from tests.endpoint import Endpoint
from tests.limits import PATIENCE
from tests.replay.support import ask, left_over, recordings


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cassettes" / "answers.jsonl"


@pytest.fixture(autouse=True)
def _lm(lm: MakeLM) -> None:
    dspy.configure(lm=lm(temperature=1.0))


def kept(store: DiskStore) -> dict[str, bytes | None]:
    return {key: store.get(key) for key in store.keys()}  # noqa: SIM118 - a store is no dictionary


class TestNesting:
    def test_one_in_another(self, endpoint: Endpoint, tmp_path: Path) -> None:
        """The inner of two cassettes records and serves, and the outer one goes on behind it."""
        outer, inner = tmp_path / "outer.jsonl", tmp_path / "inner.jsonl"

        def program(mode: Any) -> list[str]:
            with cachectl.cassette(outer, mode):
                found = ask("one")
                with cachectl.cassette(inner, mode):
                    found += ask("two", "one")
                return found + ask("three", "one")

        recorded = program("record")
        assert recorded == program("replay")
        assert (3, 2) == (len(recordings(outer)), len(recordings(inner)))
        assert endpoint.requests == 5

    def test_in_a_phase(self, endpoint: Endpoint, path: Path) -> None:
        """Within a phase a cassette rules; the phase's own counters, and its run, are left alone."""

        def program(mode: Any) -> tuple[list[str], cachectl.PhaseRun]:
            with cachectl.phase("eval") as run:
                before = ask("before")
                with cachectl.cassette(path, mode):
                    found = ask("one", "one")
                assert cachectl.current_phase() is run
            return [*found, *(["before"] if before else [])], run

        recorded, run = program("record")
        assert_counted(run.stats, fresh=1, requests=1)
        replayed, run = program("replay")
        assert recorded == replayed
        assert_counted(run.stats, fresh=1, requests=1)
        assert endpoint.requests == 4

    def test_phases_in_it(self, endpoint: Endpoint, path: Path) -> None:
        """Phases within a cassette nest, have their own counters, and are what `current_phase` names."""

        def program(mode: Any) -> tuple[list[str], list[int]]:
            found, counts = [], []
            with cachectl.cassette(path, mode) as opened:
                assert cachectl.current_phase() is None
                with cachectl.phase("compile") as outer:
                    found += ask("one")
                    with cachectl.phase("eval") as inner:
                        assert cachectl.current_phase() is inner
                        found += ask("one", "one")
                    found += ask("one")
                counts += [outer.stats.calls, inner.stats.calls, opened.stats.calls]
                assert cachectl.last_phase() is outer
            return found, counts

        recorded = program("record")
        assert recorded == program("replay")
        assert (3, [2, 2, 4]) == (len(set(recorded[0])), recorded[1])
        assert endpoint.requests == 3

    def test_one_run_resumed_in_it(self, endpoint: Endpoint, path: Path) -> None:
        """A run that has an id is resumed within a cassette, and replays."""

        def program(mode: Any) -> list[list[str]]:
            with cachectl.cassette(path, mode):
                found = []
                for _ in range(2):
                    with cachectl.phase("eval", run_id="mine"):
                        found.append(ask("one", "one"))
                with cachectl.phase("check", cachectl.Policy.REPLAY, run_id="mine"):
                    found.append(ask("one", "one"))
            return found

        recorded = program("record")
        assert recorded[0] == recorded[1] == recorded[2]
        assert endpoint.requests == 2
        assert recorded == program("replay")

    def test_entered_twice(self, path: Path) -> None:
        """One object is one passage."""
        opened = cachectl.cassette(path, "record")
        with opened, pytest.raises(cachectl.ConfigurationError, match="is open already"), opened:
            pass

    def test_entered_again(self, endpoint: Endpoint, path: Path) -> None:
        """When it has ended it may be entered again."""
        opened = cachectl.cassette(path, "record")
        with opened:
            recorded = ask("one")
        with opened as again:
            assert recorded == ask("one")
        assert_counted(again.stats, replayed=1)
        assert endpoint.requests == 1


class TestFunctions:
    def test_decorated(self, endpoint: Endpoint, path: Path) -> None:
        """A decorated function plays its cassette each time it is called."""

        @cachectl.cassette(path, "record")
        def program(text: str) -> list[str]:
            """Ask."""
            return ask(text)

        assert [program("one")] * 2 == [program("one"), program("one")]
        assert endpoint.requests == 1
        assert ("program", "Ask.") == (program.__name__, program.__doc__)

    async def test_decorated_coroutine(self, endpoint: Endpoint, path: Path) -> None:
        """A decorated coroutine function too."""

        @cachectl.cassette(path, "record")
        async def program(text: str) -> list[Any]:
            return await asyncio.gather(*(dspy.settings.lm.acall(text) for _ in range(2)))

        first = await program("one")
        assert sorted(map(str, first)) == sorted(map(str, await program("one")))
        assert endpoint.requests == 2
        with pytest.raises(cachectl.CacheMissError):
            await program("two")

    async def test_asynchronous_block(self, endpoint: Endpoint, path: Path) -> None:
        """`async with` works as `with` does."""
        async with cachectl.cassette(path, "record"):
            recorded = await qa().acall(question="Q?")
        async with cachectl.cassette(path):
            assert recorded.answer == (await qa().acall(question="Q?")).answer
        assert endpoint.requests == 1

    def test_generators(self, path: Path) -> None:
        """A generator would leave its cassette at the first value, so it is refused."""

        def values() -> Iterator[int]:
            yield 1

        async def later() -> Any:
            yield 1

        for function in (values, later):
            with pytest.raises(cachectl.ConfigurationError, match="inside it"):
                cachectl.cassette(path)(function)


class TestBounds:
    def test_the_store_is_untouched(self, endpoint: Endpoint, path: Path, tmp_path: Path) -> None:
        """What is recorded or replayed neither reads nor changes the user's own store."""
        with cachectl.phase("compile"):
            stored = ask("one")
        store = DiskStore(tmp_path / "store")
        before = kept(store)

        def program(mode: Any) -> list[str]:
            with cachectl.cassette(path, mode):
                found = ask("one", "two")
                with cachectl.phase("compile"):
                    found += ask("one")
                with cachectl.phase("eval"):
                    return found + ask("one")

        recorded = program("record")
        assert stored[0] not in recorded
        assert endpoint.requests == 5
        assert recorded == program("replay")
        assert before == kept(store)
        with cachectl.phase("compile"):
            assert stored == ask("one")
        assert endpoint.requests == 5

    def test_outside_calls_go_on(self, endpoint: Endpoint, path: Path) -> None:
        """After a replay calls reach the provider again."""
        with cachectl.cassette(path, "record"):
            ask("one")
        with cachectl.cassette(path):
            ask("one")
        ask("one")
        assert endpoint.requests == 2

    @pytest.mark.parametrize("mode", ["record", "replay"])
    def test_stragglers(self, endpoint: Endpoint, path: Path, tmp_path: Path, mode: Any) -> None:
        """A call that is made in a cassette's thread when it is closed asks nobody, and finds no store."""
        ask("one", "two")
        with cachectl.cassette(path, "record"):
            ask("one")
        bought, store = endpoint.requests, DiskStore(tmp_path / "store")
        kept = set(store.keys())
        may_go, missed = threading.Event(), []

        def late() -> None:
            may_go.wait(PATIENCE)
            for text in ("one", "two"):
                with pytest.raises(cachectl.CacheMissError) as miss:
                    ask(text)
                missed.append(str(miss.value))

        with ThreadPoolExecutor(1) as pool:
            with cachectl.cassette(path, mode):
                future = pool.submit(cachectl.carry(late))
                if mode == "replay":
                    ask("one")
            may_go.set()
            future.result(30)
        assert ["which is closed"] * 2 == [text[text.find("which is closed") :][:15] for text in missed]
        assert bought == endpoint.requests
        assert kept == set(store.keys())

    def test_an_answer_that_comes_too_late(self, endpoint: Endpoint, path: Path) -> None:
        """An answer that was paid for and comes when the cassette is closed is in the next recording."""
        endpoint.hold("late")
        with ThreadPoolExecutor(1) as pool:
            with cachectl.cassette(path, "record"):
                early = ask("early")
                future = pool.submit(cachectl.carry(lambda: ask("late")))
                assert endpoint.wait_for(2)
            assert 1 == len(recordings(path))
            endpoint.release()
            late = future.result(30)
        assert 1 == len(left_over(path.parent))
        with cachectl.cassette(path, "new"):
            assert [*early, *late] == ask("early", "late")
        assert [] == left_over(path.parent)
        with cachectl.cassette(path):
            assert [*early, *late] == ask("early", "late")
        assert endpoint.requests == 2

    def test_plain_lms_without_cache(
        self, endpoint: Endpoint, path: Path, plain_lm: MakeLM, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A plain LM that does not use the cache cannot be recorded: that is said, and its replay is refused."""
        lm = plain_lm(cache=False)
        with cachectl.cassette(path, "record") as opened:
            lm("one")
        assert 0 == opened.recorded
        assert 1 == len([line for line in caplog.messages if "is not recorded in" in line])
        with pytest.raises(cachectl.CacheMissError, match="does not use DSPy's cache"), cachectl.cassette(path):
            lm("one")
        assert endpoint.requests == 1

    def test_threads_that_carry_nothing(self, endpoint: Endpoint, path: Path) -> None:
        """A bare thread's misses are the cassette's too."""
        with cachectl.cassette(path, "record"):
            pass

        def swallow() -> None:
            with pytest.raises(cachectl.CacheMissError):
                ask("one")

        with pytest.raises(cachectl.ReplayIncompleteError), cachectl.cassette(path), ThreadPoolExecutor(1) as pool:
            pool.submit(swallow).result()
        assert endpoint.requests == 0
