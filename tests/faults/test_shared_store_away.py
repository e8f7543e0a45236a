"""A server that goes while a program compiles and evaluates: each answer is right, paid once, and shared in the end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.errors import StoreError
from dspy_cachectl.stores import MemoryStore
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.redis.store import RedisStore
from tests.endpoint import Endpoint
from tests.stores.servers import Server, program, until

THREADS, QUESTIONS = 8, 48


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    program("redis")
    made = Server(tmp_path / "server")
    yield made
    made.kill()


def shared(server: Server, patience: float) -> RedisStore:
    return RedisStore(f"redis://127.0.0.1:{server.port}?patience={patience}")


def asked(lm: Any, name: str, *, at: Callable[[int], None] = lambda _: None, run: str | None = None) -> list[str]:
    """Ask some questions in some threads of a phase; what was answered."""
    with cachectl.phase(name, run_id=run):

        def ask(number: int) -> str:
            at(number)
            return str(lm(f"question {number}", cache=True)[0])

        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(cachectl.carry(ask), range(QUESTIONS)))


@pytest.mark.parametrize("fault", ["killed", pytest.param("stopped", marks=pytest.mark.exhaustive)])
def test_nothing_is_lost_or_paid_twice(
    server: Server, tmp_path: Path, endpoint: Endpoint, lm: Callable[..., Any], fault: str
) -> None:
    """Killed, or stopped, in the middle of both phases: each question is asked once, and afterwards all are shared."""
    cachectl.install([MemoryStore(), DiskStore(tmp_path / "mine"), shared(server, 0.5)])

    def break_it(number: int) -> None:
        if number == QUESTIONS // 3:
            server.kill() if fault == "killed" else server.signal(signal.SIGSTOP)

    model = lm()
    compiled = asked(model, "compile", at=break_it)
    drawn = asked(model, "eval", run="run-1")
    assert 2 * QUESTIONS == endpoint.requests
    server.start() if fault == "killed" else server.signal(signal.SIGCONT)

    for _ in until("all answers in the server"):
        store = shared(server, 60)
        try:
            if 2 * QUESTIONS == sum(count for label, count in store.labels().items() if label.is_answer):
                break
        except StoreError:
            continue
        finally:
            store.close()

    cachectl.install([MemoryStore(), shared(server, 60)])  # as another machine would
    assert compiled == asked(model, "compile")
    assert drawn == asked(model, "eval", run="run-1")
    assert 2 * QUESTIONS == endpoint.requests
