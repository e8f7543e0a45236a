"""Processes that ask the same at once: `python -m tests.context.turns` forks one for each line of its input.

A line is JSON: `name`, `prompts`, and where they are not as usual `threads`, `how` and `lasts`. Each process
prints JSON lines: that it asks, that it waits for another one, and what it was answered.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy_cachectl as cachectl
from dspy_cachectl.calls.installation import uninstall
from dspy_cachectl.stores import leases
from tests.limits import PATIENCE
from tests.processes import ROOT


class Nursery:
    """The process that forks, and what its children say."""

    def __init__(self, url: str, store: str) -> None:
        environment = {**os.environ, "ENDPOINT_URL": url, "DSPY_CACHECTL_STORE": store, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.context.turns"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.said: list[dict[str, Any]] = []
        self._rest = b""

    def ask(self, name: str, *prompts: str, **options: Any) -> None:
        """Fork a process that asks."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"name": name, "prompts": prompts, **options}).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self, what: str, name: str) -> dict[str, Any]:
        """What a process says of something, when it does."""
        assert self.process.stdout is not None
        while True:
            for one in self.said:
                if (one["says"], one["name"]) == (what, name):
                    return one
            if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
                raise AssertionError(f"{name} never says {what}, but only {self.said}")
            *lines, self._rest = (self._rest + os.read(self.process.stdout.fileno(), 65536)).split(b"\n")
            self.said += map(json.loads, lines)

    def end(self) -> None:
        """End it."""
        self.process.communicate(timeout=PATIENCE)


def say(**what: Any) -> None:
    """Print a line, in one piece."""
    os.write(1, (json.dumps({**what, "pid": os.getpid()}) + "\n").encode())


def said_to_wait(name: str) -> None:
    """Say when a call begins to wait for another process."""
    pauses = leases.Turn.pauses

    def saying(self: leases.Turn) -> Iterator[float]:
        for number, pause in enumerate(pauses(self)):
            if not number:
                say(says="waits", name=name)
            yield pause

    leases.Turn.pauses = saying  # type: ignore[method-assign]


def answers(lm: Any, prompts: list[str], threads: int, how: str) -> list[str]:
    """What is answered to each prompt, asked by each thread, or coroutine."""

    def ask(prompt: str) -> str:
        try:
            return str(lm(prompt)[0])
        except Exception as error:  # noqa: BLE001 - it is told
            return type(error).__name__

    async def ask_all() -> list[str]:
        return [str(one[0]) for one in await asyncio.gather(*(lm.acall(one) for one in prompts * threads))]

    if how == "async":
        return asyncio.run(ask_all())
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(cachectl.carry(ask), prompts * threads))


def asks(name: str, prompts: list[str], threads: int = 1, how: str = "threads", lasts: float = 10.0) -> None:
    """Ask, and say what was answered."""
    leases.LASTS = lasts
    say(says="asks", name=name)
    said_to_wait(name)
    lm = cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="sk-x", num_retries=0)
    with cachectl.phase("compile") as run:
        found = answers(lm, prompts, threads, how)
    counted = {name: count for name, count in run.stats.as_dict().items() if count and isinstance(count, int)}
    say(says="done", name=name, answers=found, stats=counted)
    uninstall()


def main() -> None:
    """Fork a process for each line."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while line := os.read(0, 65536):
        for one in line.splitlines():
            if os.fork() == 0:
                try:
                    asks(**json.loads(one))
                finally:
                    os._exit(0)


if __name__ == "__main__":
    main()
