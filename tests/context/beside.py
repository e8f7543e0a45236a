"""A program whose workers are older than what is open, come late, or are workers of workers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import dspy_cachectl as cachectl
from tests.context.workers import make_lm, pool

ASKED = 3


def asked(question: str) -> str:
    """In which phase it was answered, and how; or how it was refused."""
    lm = make_lm()
    try:
        lm(question)
    except Exception as error:  # noqa: BLE001 - as programs do
        return type(error).__name__
    found = lm.history[-1]["cachectl"]
    return f"{found['phase'] or 'outside'}: {found['outcome']}"


def asked_by_a_worker(kind: str, question: str) -> str:
    """The same in a worker of this process, to which nothing is handed."""
    with pool(kind, 1) as executor:
        return executor.submit(asked, question).result()


def in_child(work: Callable[[], str]) -> str:
    """What is done in a process that is forked by hand."""
    told, tell = os.pipe()
    if os.fork() == 0:
        os.write(tell, work().encode())
        os._exit(0)
    os.close(tell)
    os.wait()
    return os.read(told, 10_000).decode()


def in_thread(work: Callable[[], Any]) -> Any:
    """What is done in a thread that carries nothing."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


@contextlib.contextmanager
def now(what: str) -> Iterator[dict[str, Any]]:
    """What is open while the workers ask: a phase by the name of a policy, with what is said of its guard, or none."""
    name, _, guard = what.partition("-")
    found: dict[str, Any] = {}
    if name == "nothing":
        yield found
        return
    try:
        policy = getattr(cachectl.Policy, name)
        with cachectl.phase("now", policy, guard=None if not guard else guard == "guarded") as run:
            yield found
    except cachectl.ReplayIncompleteError as incomplete:
        found["error"] = incomplete.count
    found["stats"] = {key: n for key, n in run.stats.as_dict().items() if n and key in ("calls", "fresh", "missed")}


def older(kind: str, what: str, made: str) -> dict[str, Any]:
    """A worker that was made before what is open: in a phase that has ended since, in an outer one, or in none."""
    with contextlib.ExitStack() as outer, contextlib.ExitStack() as made_in:
        executor = pool(kind, 1)
        if made in ("within", "inner"):
            outer.enter_context(cachectl.phase("outer", cachectl.Policy.REUSE))
        if made in ("ended", "inner"):
            made_in.enter_context(cachectl.phase("ended", cachectl.Policy.FRESH))
        executor.submit(asked, "first").result()
        made_in.close()
        with now(what) as found:
            found["asked"] = [executor.submit(asked, f"question {n}").result() for n in range(ASKED)]
        executor.shutdown()
    return found


def nested(kind: str, what: str, made: str) -> dict[str, Any]:
    """A worker of a worker that has the phase, to which nothing is handed; or of one that is older than it."""
    executor = pool(kind, 1)
    if made == "nested-older":
        executor.submit(len, "").result()
    with now(what) as found:
        work = asked_by_a_worker if kind == "fork" or made == "nested-older" else cachectl.carry(asked_by_a_worker)
        # In a worker of loky's nothing else can be spawned.
        found["asked"] = [executor.submit(work, "loky" if kind == "loky" else "spawn", "question").result()]
    executor.shutdown()
    return found


def late(kind: str, what: str, made: str) -> dict[str, Any]:
    """A worker that a thread of the pool, or one that carries nothing, starts while the phase is open."""
    with now("REUSE"):
        make_lm()  # all is loaded: what another thread imports at a fork stays locked in the child
    with contextlib.ExitStack() as opened:
        workers = multiprocessing.get_context(kind).Pool(1, maxtasksperchild=1)
        with now(what) as found:
            if made == "replaced":
                workers.apply(len, ("",))  # its successor is started by the pool's own thread
                found["asked"] = [workers.apply(asked, ("question",)) for _ in range(ASKED)]
            else:
                executor = opened.enter_context(pool(kind, 1))
                found["asked"] = in_thread(lambda: [executor.submit(asked, "question").result() for _ in range(ASKED)])
        workers.terminate()
    return found


def forked(_: str, what: str, made: str) -> dict[str, Any]:
    """A process that is forked by hand in a phase that has ended since, or not, and asks later."""
    with contextlib.ExitStack() as opened:
        opened.enter_context(cachectl.phase("ended", cachectl.Policy.FRESH))
        start, started = os.pipe()
        told, tell = os.pipe()
        if os.fork() == 0:
            os.read(start, 1)
            os.write(tell, asked("question").encode())
            os._exit(0)
        if made == "forked-ended":
            opened.close()
        with now(what) as found:
            os.write(started, b".")
            found["asked"] = [os.read(told, 10_000).decode()]
        os.wait()
    return found


def bare(kind: str, what: str, made: str) -> dict[str, Any]:
    """A worker that is started in the phase, by the main thread or by another in which it was opened."""

    def work() -> dict[str, Any]:
        with now(what) as found, pool(kind, 1) as executor:
            found["asked"] = [executor.submit(asked, "question").result()]
        return found

    return in_thread(work) if made == "bare-thread" else work()


WAYS: dict[str, Callable[[str, str, str], dict[str, Any]]] = {
    **dict.fromkeys(("before", "ended", "within", "inner"), older),
    **dict.fromkeys(("nested", "nested-older"), nested),
    **dict.fromkeys(("replaced", "by-thread"), late),
    **dict.fromkeys(("forked-ended", "forked-outer"), forked),
    **dict.fromkeys(("bare", "bare-thread"), bare),
}
