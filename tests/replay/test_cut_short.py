"""A recording that was cut short is gone on with: what it has bought is not bought again, and the rest is."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.calls.support import MakeLM, question
from tests.endpoint import Endpoint
from tests.limits import PATIENCE
from tests.processes import ROOT
from tests.replay.support import left_over, recordings, unfinished

CALLS, BOUGHT = 25, 10
RECORD = """
import signal, sys, dspy
import dspy_cachectl as cachectl
from tests.calls.support import question

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes from what it runs in the background
lm = cachectl.LM("openai/test-model", api_base=sys.argv[1], api_key="sk-test", temperature=1.0)
with cachectl.cassette(sys.argv[2], sys.argv[3]):
    print([lm(question(number))[0] for number in range(25)])
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


@pytest.fixture(autouse=True)
def _lm(lm: MakeLM) -> None:
    dspy.configure(lm=lm(temperature=1.0))


def program(ending: BaseException | None = None, after: int = BOUGHT) -> list[str]:
    """Ask 25 questions, or end after ten of them."""
    found = []
    for number in range(CALLS):
        if ending is not None and number == after:
            raise ending
        found.append(dspy.settings.lm(question(number))[0])
    return found


def in_a_block(path: Path, ending: BaseException | None) -> list[str]:
    with cachectl.cassette(path, "record"):
        return program(ending)


def decorated(path: Path, ending: BaseException | None) -> list[str]:
    return cachectl.cassette(path, "record")(program)(ending)


def in_an_async_block(path: Path, ending: BaseException | None) -> list[str]:
    async def run() -> list[str]:
        async with cachectl.cassette(path, "record"):
            return program(ending)

    return asyncio.run(run())


def in_a_decorated_coroutine(path: Path, ending: BaseException | None) -> list[str]:
    @cachectl.cassette(path, "record")
    async def run() -> list[str]:
        return program(ending)

    return asyncio.run(run())


WAYS = [in_a_block, decorated, in_an_async_block, in_a_decorated_coroutine]
ENDINGS = [KeyboardInterrupt(), AssertionError("wrong"), SystemExit(1), SystemExit("usage"), GeneratorExit()]


@pytest.mark.parametrize(
    ("way", "ending"),
    [
        (in_a_block, KeyboardInterrupt()),
        (in_an_async_block, AssertionError("wrong")),
        *(pytest.param(way, ending, marks=pytest.mark.exhaustive) for way in WAYS for ending in ENDINGS),
    ],
)
def test_ten_of_25_calls(endpoint: Endpoint, path: Path, way: Any, ending: BaseException) -> None:
    """Whatever ends it: 10 answers are kept, the same again buys the other 15, and what is recorded then is whole."""
    with pytest.raises(type(ending)):
        way(path, ending)
    assert (BOUGHT, BOUGHT, [""]) == (endpoint.requests, len(recordings(path)), unfinished(path))
    answers = way(path, None)
    assert (CALLS, CALLS, []) == (endpoint.requests, len(recordings(path)), unfinished(path))
    assert answers == way(path, None)
    with cachectl.cassette(path) as replayed:
        assert answers == program()
    assert (CALLS, []) == (endpoint.requests, replayed.unused)
    assert [] == left_over(path.parent)


def test_cut_short_again_and_again(endpoint: Endpoint, path: Path) -> None:
    """It stays unfinished until the block has come to its end, also where nothing more was bought."""
    for after in (5, 5, 3, 12):
        with pytest.raises(KeyboardInterrupt), cachectl.cassette(path, "record"):
            program(KeyboardInterrupt(), after)
        assert [""] == unfinished(path)
    with cachectl.cassette(path, "record"):
        program()
    assert (CALLS, []) == (endpoint.requests, unfinished(path))
    with pytest.raises(cachectl.CacheMissError), cachectl.cassette(path, "record"):
        dspy.settings.lm("one more")


def test_before_the_first_answer(endpoint: Endpoint, path: Path) -> None:
    """Where nothing was bought there is no file that would pass for the recording of a block without calls."""
    with pytest.raises(KeyboardInterrupt), cachectl.cassette(path, "record"):
        program(KeyboardInterrupt(), 0)
    assert not path.exists()
    with cachectl.cassette(path, "record"):
        program()
    assert CALLS == endpoint.requests


def test_a_script_that_exits_with_success(endpoint: Endpoint, path: Path) -> None:
    """`sys.exit(0)` is how many a program ends: its recording is whole."""
    for ending in (SystemExit(0), SystemExit()):
        with pytest.raises(SystemExit), cachectl.cassette(path, "all"):
            program(ending)
        assert [] == unfinished(path)


def test_a_call_that_failed(endpoint: Endpoint, path: Path) -> None:
    """Where the program goes on without an answer the recording lacks one, and the next time it is asked for."""

    def ask() -> list[str]:
        found = []
        for word in ("one", "two", "three"):
            try:
                found += dspy.settings.lm(word)
            except Exception:  # noqa: BLE001 - as `Evaluate` does
                found.append("failed")
        return found

    endpoint.fail("status", status=400, match="two")
    with cachectl.cassette(path, "record"):
        first = ask()
    assert ("failed", 2, [""]) == (first[1], len(recordings(path)), unfinished(path))
    endpoint.reset()
    with cachectl.cassette(path, "record"):
        second = ask()
    assert (1, []) == (endpoint.requests, unfinished(path))
    assert [first[0], first[2]] == [second[0], second[2]]
    with cachectl.cassette(path):
        assert second == ask()


def test_new_and_all(endpoint: Endpoint, path: Path) -> None:
    """`new` that was cut short is gone on with by itself and by `record`; `all` begins again, and loses nothing."""
    with cachectl.cassette(path, "record"):
        dspy.settings.lm(question(0))
    with pytest.raises(KeyboardInterrupt), cachectl.cassette(path, "new"):
        program(KeyboardInterrupt())
    assert (BOUGHT, [""]) == (endpoint.requests, unfinished(path))
    with cachectl.cassette(path, "record"):
        before = program()
    assert (CALLS, []) == (endpoint.requests, unfinished(path))

    with pytest.raises(KeyboardInterrupt), cachectl.cassette(path, "all"):
        program(KeyboardInterrupt())
    with cachectl.cassette(path, "record"):
        after = program()
    assert CALLS + BOUGHT == endpoint.requests
    assert before[BOUGHT:] == after[BOUGHT:]
    assert before[:BOUGHT] != after[:BOUGHT]
    with pytest.raises(KeyboardInterrupt), cachectl.cassette(path, "all"):
        program(KeyboardInterrupt())
    with cachectl.cassette(path, "all"):
        program()
    assert 2 * CALLS + 2 * BOUGHT == endpoint.requests
    assert [] == unfinished(path)


def test_it_is_said(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where it is cut short, and where a replay lacks what was not recorded any more."""
    with pytest.raises(KeyboardInterrupt), cachectl.cassette(path, "record"):
        program(KeyboardInterrupt())
    assert 1 == len(
        [line for line in caplog.messages if 'the 10 answers that were bought are kept, and the mode "record"' in line]
    )
    with pytest.raises(cachectl.CacheMissError, match='cut short; the mode "record" goes on'), cachectl.cassette(path):
        program()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are another thing there")
@pytest.mark.parametrize(
    "signals",
    [
        [signal.SIGKILL, signal.SIGINT],
        pytest.param([signal.SIGINT], marks=pytest.mark.exhaustive),
        pytest.param([signal.SIGKILL, signal.SIGKILL], marks=pytest.mark.exhaustive),
    ],
)
def test_signals(endpoint: Endpoint, path: Path, signals: list[signal.Signals]) -> None:
    """A real Ctrl-C, a killed process, and one that is killed again before it has bought anything more."""
    for number, sent in enumerate(signals, start=1):
        endpoint.reset()
        endpoint.fail("hang", match=question(5 * number))
        process = subprocess.Popen(
            [sys.executable, "-c", RECORD, endpoint.url, str(path), "record"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.DEVNULL,
        )
        assert endpoint.wait_for(6)
        process.send_signal(sent)
        process.wait(PATIENCE)
    endpoint.reset()
    with cachectl.cassette(path, "record"):
        program()
    assert CALLS - 5 * len(signals) == endpoint.requests
    assert [] == unfinished(path) == left_over(path.parent)


def test_killed_while_nothing_more_is_bought(endpoint: Endpoint, path: Path, child: Callable[..., Any]) -> None:
    """What the next process has taken over of the one that was killed is still unfinished when that is killed too."""
    script = """
        import os, sys, dspy
        import dspy_cachectl as cachectl
        from tests.calls.support import question

        lm = cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="sk-test", temperature=1.0)
        with cachectl.cassette(sys.argv[1], "record"):
            for number in range(10):
                lm(question(number))
            os._exit(9)
    """
    for _ in range(2):
        child(script, str(path), check=False)
        assert BOUGHT == endpoint.requests
    with cachectl.cassette(path, "record"):
        program()
    assert CALLS == endpoint.requests
