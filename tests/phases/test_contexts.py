"""A phase that is entered in one context and left in another, and servers with a phase a request."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import Policy
from tests.calls.support import MakeLM, evaluate, examples, qa
from tests.endpoint import Endpoint
from tests.limits import PATIENCE

fastapi = pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")


def fresh() -> Iterator[cachectl.PhaseRun]:
    """A dependency that is no coroutine: it is run in threads."""
    with cachectl.phase("eval") as run:
        yield run


async def fresh_async() -> AsyncIterator[cachectl.PhaseRun]:
    """A dependency that is a coroutine."""
    async with cachectl.phase("eval") as run:
        yield run


def replaying() -> Iterator[cachectl.PhaseRun]:
    """A dependency under which nothing is asked."""
    with cachectl.phase("check", Policy.REPLAY) as run:
        yield run


def app_with(dependency: Callable[[], Any] | None, program: Any) -> Any:
    """Return an application that asks in a phase, sync and async, and in none."""
    app = fastapi.FastAPI()
    app.state.runs = []
    depends = () if dependency is None else (fastapi.Depends(dependency),)

    def told() -> dict[str, Any]:
        run = cachectl.current_phase()
        if run is not None:
            app.state.runs.append(run)
        return {"phase": None if run is None else run.name}

    @app.get("/sync", dependencies=depends)
    def sync() -> dict[str, Any]:
        program(question="Q?")
        return told()

    @app.get("/async", dependencies=depends)
    async def asynchronous() -> dict[str, Any]:
        await program.acall(question="Q?")
        return told()

    @app.get("/parallel", dependencies=depends)
    def parallel() -> dict[str, Any]:
        dspy.Parallel(num_threads=2, disable_progress_bar=True)([(program, {"question": "Q?"})] * 2)
        return told()

    @app.get("/none")
    def none() -> dict[str, Any]:
        program(question="Other?")
        return told()

    @app.get("/none-async")
    async def none_async() -> dict[str, Any]:
        await program.acall(question="Other?")
        return told()

    return app


async def asked(app: Any, *paths: str) -> list[Any]:
    """Send requests to an application all at once. Return what came back, errors too."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app", timeout=PATIENCE) as client:
        answers = await asyncio.gather(*(client.get(path) for path in paths), return_exceptions=True)
    return [one if isinstance(one, BaseException) else one.json()["phase"] for one in answers]


@pytest.mark.parametrize("dependency", [fresh, fresh_async])
def test_a_dependency_is_a_phase(endpoint: Endpoint, lm: MakeLM, dependency: Callable[[], Any]) -> None:
    """Each request draws afresh in a run of its own, which is closed after it; the requests beside it do not notice."""
    dspy.configure(lm=lm(temperature=1.0))
    app = app_with(dependency, qa())
    assert asyncio.run(asked(app, *["/sync", "/async", "/none", "/none-async"] * 4)) == ["eval", "eval", None, None] * 4
    # By itself: two executors of DSPy's at once trip over each other's progress bars.
    assert asyncio.run(asked(app, "/parallel")) == ["eval"]
    assert len({run.run_id for run in app.state.runs}) == 9
    assert sorted(run.stats.fresh for run in app.state.runs) == [1] * 8 + [2]
    assert all(run.closed and run.stats.stray == 0 for run in app.state.runs)
    # Of eight: the first of a thread may not wait for the first of a coroutine.
    assert sum(count for text, count in endpoint.counts().items() if "Other?" in text) in {1, 2}
    assert cachectl.current_phase() is None
    assert cachectl.stats().stray == 0


def test_a_request_in_a_replay_stops_no_other(endpoint: Endpoint, lm: MakeLM) -> None:
    """It says what it missed, and makes no request; the others ask."""
    dspy.configure(lm=lm(temperature=1.0))
    app = app_with(replaying, qa())
    found = asyncio.run(asked(app, "/sync", "/none", "/async", "/none-async"))
    assert [found[1], found[3]] == [None, None]
    assert isinstance(found[0], cachectl.CachectlError)
    assert isinstance(found[2], cachectl.CachectlError)
    assert all("Other?" in text for text in endpoint.counts())


def test_a_phase_within_a_request(endpoint: Endpoint, lm: MakeLM) -> None:
    """A dependency's phase is around a block in the request, and rules again after it."""
    dspy.configure(lm=lm(temperature=1.0))
    app, seen = fastapi.FastAPI(), []

    @app.get("/", dependencies=[fastapi.Depends(fresh)])
    def answer() -> dict[str, Any]:
        for name in ("compile", "eval"):
            with cachectl.phase(name):
                seen.append(cachectl.current_phase())
        run = cachectl.current_phase()
        return {"phase": None if run is None else run.name}

    assert asyncio.run(asked(app, "/")) == ["eval"]
    assert [run.name for run in seen] == ["compile", "eval"]


@contextlib.contextmanager
def _fixture(name: str, **options: Any) -> Iterator[cachectl.PhaseRun]:
    with cachectl.phase(name, **options) as run:
        yield run


@pytest.mark.parametrize("left_in", ["another context", "another thread", "another task"])
@pytest.mark.parametrize("entered_in", ["another context", "this context", "another task"])
def test_left_in_another_context(endpoint: Endpoint, lm: MakeLM, entered_in: str, left_in: str) -> None:
    """The phase rules where it was entered, and its end says what was missed; nothing of it is left behind."""
    model = lm(temperature=1.0)
    block = _fixture("eval")

    async def in_a_task(function: Callable[..., Any], *arguments: Any) -> Any:
        async def run() -> Any:
            return function(*arguments)

        return await asyncio.create_task(run())

    async def do(where: str, function: Callable[..., Any], *arguments: Any) -> Any:
        if where == "another task":
            return await in_a_task(function, *arguments)
        if where == "another thread":
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(function, *arguments).result()
        return (
            contextvars.copy_context().run(function, *arguments) if where == "another context" else function(*arguments)
        )

    async def story() -> cachectl.PhaseRun:
        run: cachectl.PhaseRun = await do(entered_in, block.__enter__)
        if entered_in != "another task":  # of a task that has ended nothing is left to tell what it was for
            assert cachectl.current_phase() is run
        model("hello")
        await do(left_in, block.__exit__, None, None, None)
        assert cachectl.current_phase() is None
        return run

    run = asyncio.run(story())
    assert run.closed
    assert run.stats.fresh == (entered_in != "another task")
    model("after")
    model("after")
    assert endpoint.counts()["after"] == 1
    assert run.stats.late == 0


@pytest.mark.parametrize("how", ["said", "set", "by itself"])
def test_a_phase_without_a_guard(endpoint: Endpoint, lm: MakeLM, how: str) -> None:
    """What carries no phase asks as if there were none, and is not counted as strayed."""
    model = lm()

    def bare(ask: Callable[[], Any]) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(ask).result()

    def story() -> cachectl.PhaseRun:
        with cachectl.phase("check", Policy.REPLAY, **({"guard": False} if how == "said" else {})) as run:
            bare(lambda: model("bare"))
        return run

    with cachectl.configure(guard=how != "set"):
        run = bare(story) if how == "by itself" else story()
    assert endpoint.counts() == {"bare": 1}
    assert (run.stats.stray, run.stats.missed) == (0, 0)


def test_a_guard_leaves_other_tasks_alone(endpoint: Endpoint, lm: MakeLM) -> None:
    """A task that was not started inside the phase asks; one that was, and a bare thread, are refused in a replay."""
    model = lm()

    async def other(opened: asyncio.Event, over: asyncio.Event) -> None:
        await opened.wait()
        await model.acall("other")
        over.set()

    async def story() -> None:
        opened, over = asyncio.Event(), asyncio.Event()
        beside = asyncio.create_task(other(opened, over))
        with cachectl.phase("check", Policy.REPLAY):
            opened.set()
            await over.wait()
            await beside
            with pytest.raises(cachectl.CacheMissError):
                await asyncio.create_task(model.acall("inside"))
            with ThreadPoolExecutor(1) as pool, pytest.raises(cachectl.CacheMissError):
                pool.submit(model, "bare").result()

    with pytest.raises(cachectl.ReplayIncompleteError):
        asyncio.run(story())
    run = cachectl.last_phase()
    assert run is not None
    assert endpoint.counts() == {"other": 1}
    assert (run.stats.stray, run.stats.missed) == (1, 2)


async def _parallel(program: Any) -> None:
    dspy.Parallel(num_threads=2, disable_progress_bar=True)([(program, {"question": "Q?"})])


async def _batch(program: Any) -> None:
    await asyncio.to_thread(program.batch, examples(1), num_threads=2, disable_progress_bar=True)


async def _evaluation(program: Any) -> None:
    evaluate(program, examples(1))


async def _thread(program: Any) -> None:
    await asyncio.to_thread(program, question="Q?")


async def _nested(program: Any) -> None:
    await asyncio.to_thread(lambda: asyncio.run(_parallel(program)))


async def _asyncified(program: Any) -> None:
    await dspy.asyncify(program)(question="Q?")


WAYS = (_parallel, _batch, _evaluation, _thread, _nested, _asyncified)


@pytest.mark.parametrize("policy", [Policy.REPLAY, pytest.param(Policy.FRESH, marks=pytest.mark.exhaustive)])
def test_a_guard_leaves_the_threads_of_other_tasks_alone(endpoint: Endpoint, lm: MakeLM, policy: Policy) -> None:
    """What another task lets threads do is asked as if there were no phase, and strays from none."""
    dspy.configure(lm=lm())
    program = qa()

    async def other(opened: asyncio.Event, over: asyncio.Event, found: list[int]) -> None:
        await opened.wait()
        try:
            for ask in WAYS:
                endpoint.reset_counts()
                with dspy.context(lm=lm(version=ask.__name__)):
                    await ask(program)
                found.append(endpoint.requests)
        finally:
            over.set()

    async def story() -> tuple[cachectl.PhaseRun, list[int]]:
        opened, over, found = asyncio.Event(), asyncio.Event(), list[int]()
        beside = asyncio.create_task(other(opened, over, found))
        with cachectl.phase("check", policy) as run:
            opened.set()
            await over.wait()
        await beside
        return run, found

    run, found = asyncio.run(story())
    assert found == [1] * len(WAYS)
    assert (run.stats.calls, run.stats.stray) == (0, 0)


def test_a_guard_holds_for_what_a_bare_thread_lets_threads_do(endpoint: Endpoint, lm: MakeLM) -> None:
    """A pool of DSPy's that a bare thread starts belongs to nobody, as that thread does."""
    dspy.configure(lm=lm())
    program = qa()

    async def story() -> None:
        with cachectl.phase("check", Policy.REPLAY), ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: asyncio.run(_parallel(program))).result()

    with pytest.raises(cachectl.ReplayIncompleteError):
        asyncio.run(story())
    assert endpoint.requests == 0


class _Server:
    """An application behind uvicorn in the main thread, and what a client in a thread asks it."""

    def __init__(self, app: Any, client: Callable[[str], None]) -> None:
        uvicorn = pytest.importorskip("uvicorn")
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        self._client = client

    def run(self) -> None:
        """Serve until the client is done, whose error is raised here."""
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(self._ask)
            self._server.run(sockets=[self._listening])
            done.result()

    def _ask(self) -> None:
        try:
            self._client(f"http://127.0.0.1:{self._listening.getsockname()[1]}")
        finally:
            self._server.should_exit = True


def _add_ways(app: Any, program: Any, lm: MakeLM) -> list[str]:
    """Let an application ask in all ways, in coroutines and in threads of the server. Return the addresses."""
    paths = []
    for way in WAYS:

        async def asynchronous(way: Callable[[Any], Any]) -> None:
            with dspy.context(lm=lm(version=f"async {way.__name__}")):
                await way(program)

        def synchronous(way: Callable[[Any], Any]) -> None:
            with dspy.context(lm=lm(version=f"sync {way.__name__}")):
                asyncio.run(way(program))

        for answer in (asynchronous, synchronous):
            paths.append(f"/{answer.__name__}{way.__name__}")
            app.add_api_route(paths[-1], functools.partial(answer, way))
    return paths


@pytest.mark.exhaustive
def test_a_server_in_the_main_thread(endpoint: Endpoint, lm: MakeLM) -> None:
    """While one request is in a replay, all others ask, in whatever threads."""
    dspy.configure(lm=lm())
    app, entered, left = fastapi.FastAPI(), threading.Event(), threading.Event()
    paths, found = _add_ways(app, qa(), lm), []

    async def replay() -> AsyncIterator[None]:
        with cachectl.phase("check", Policy.REPLAY):
            yield

    @app.get("/replay", dependencies=[fastapi.Depends(replay)])
    async def replayed() -> None:
        entered.set()
        while not left.is_set():
            await asyncio.sleep(0.01)

    def client(url: str) -> None:
        with ThreadPoolExecutor(1) as pool:
            beside = pool.submit(httpx.get, f"{url}/replay", timeout=PATIENCE)
            entered.wait()
            try:
                for path in paths:
                    with endpoint.counting() as asked:
                        status = httpx.get(url + path, timeout=PATIENCE).status_code
                    found.append((status, asked.requests))
            finally:
                left.set()
            assert beside.result().status_code == 200

    _Server(app, client).run()
    assert found == [(200, 1)] * len(paths)
