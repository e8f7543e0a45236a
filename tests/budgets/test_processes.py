"""One budget over threads of several processes, and on several machines."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import Budget, BudgetExceededError
from tests.budgets.support import ask_in_threads, exceeding
from tests.endpoint import Endpoint
from tests.processes import Finished
from tests.stores.servers import Server, running

LMs = Callable[..., Any]

_ASK = """
    import os, sys
    import dspy_cachectl as cachectl
    from tests.budgets.support import ask_in_threads

    limit, count, number = map(int, sys.argv[1:4])
    lm = cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="sk", temperature=number / 100)
    try:
        with cachectl.phase("compile", budget=cachectl.Budget(requests=limit, name="shared")):
            print("not made:", ask_in_threads(lm, count, 8))
    except cachectl.BudgetExceededError as error:
        print("spent:", int(error.spent["requests"]))
"""


def _ask(lm: Any, number: int) -> bool:
    try:
        lm(f"question {number}")
    except BudgetExceededError:
        return False
    return True


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.exhaustive)])
def test_workers_of_a_phase_share_its_budget(context: str, lm: LMs, endpoint: Endpoint) -> None:
    """What workers ask that a phase was carried to is of its budget, and the phase says what they did not ask."""
    pool = ProcessPoolExecutor(3, mp_context=multiprocessing.get_context(context))
    with pool, exceeding(Budget(requests=10)) as seen:
        ask_in_threads(lm(), 4, 2)
        asked = lm(temperature=0.5)
        made = list(pool.map(cachectl.carry(_ask), [asked] * 12, range(12)))
        assert sum(made) == 6
    assert endpoint.requests == 10
    assert seen.error.refused == 6


def test_a_fork_shares_it_by_itself(lm: LMs, endpoint: Endpoint) -> None:
    """A child that is forked within the block, with nothing carried by hand, has its part in the same counts."""
    with exceeding(Budget(requests=5)):
        ask_in_threads(lm(), 3, 1)
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
            asked = lm(temperature=0.5)
            assert sum(pool.map(_ask, [asked] * 6, range(6))) == 2
    assert endpoint.requests == 5


@pytest.mark.parametrize("place", ["folder", pytest.param("redis", marks=pytest.mark.exhaustive)])
def test_processes_share_a_budget_with_a_name(
    place: str, tmp_path: Path, endpoint: Endpoint, child: Callable[..., Finished]
) -> None:
    """Of processes of eight threads, in a folder or on a server, all together buy what the budget allows."""
    processes, each = (3, 20) if place == "folder" else (8, 30)
    for skip in range(5, 100, 10):
        endpoint.fail(status=500, retry_after=0, skip=skip, times=1)
    with ThreadPoolExecutor(processes) as pool, ExitStack() as held:
        location = str(tmp_path / "shared")
        if place == "redis":
            location = f"{held.enter_context(running(tmp_path / 'server', 'redis')).url}?patience=60"
        given = {"DSPY_CACHECTL_STORE": location}
        ended = list(pool.map(lambda at: child(_ASK, "50", str(each), str(at), env=given), range(processes)))
    assert endpoint.requests == 50
    assert any("spent: 50" in one.output for one in ended)


def test_a_larger_budget_of_the_name_buys_the_rest(lm: LMs, endpoint: Endpoint) -> None:
    """What was spent under the name counts: it goes on with what a larger one allows, and not before."""
    with exceeding(Budget(requests=3, name="nightly")):
        ask_in_threads(lm(), 10, 1)
    with exceeding(Budget(requests=3, name="nightly")):
        ask_in_threads(lm(), 10, 1)
    assert endpoint.requests == 3
    with cachectl.phase("compile", budget=Budget(requests=10, name="nightly")):
        assert ask_in_threads(lm(), 10, 1) == 0
    assert endpoint.requests == 10


def test_a_counter_that_is_away_refuses(
    tmp_path: Path, lm: LMs, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the counter cannot be reached nothing more is bought, and what is stored is served."""
    server = Server(tmp_path / "server")
    cachectl.configure(store=["memory://", f"{server.url}?patience=1"])
    with exceeding(Budget(requests=9, name="away")) as seen:
        lm()("question 0")
        server.kill()
        assert ask_in_threads(lm(), 3, 1) == 2
    assert endpoint.requests == 1
    assert "cannot be reached" in str(seen.error)


def test_a_server_that_forgets_is_told_again(tmp_path: Path, lm: LMs, endpoint: Endpoint) -> None:
    """What others spent and were refused counts on where a server is started again, empty."""
    server = Server(tmp_path / "server")
    cachectl.configure(store=["memory://", f"{server.url}?patience=60"])
    with exceeding(Budget(requests=3, name="nightly")):
        assert ask_in_threads(lm(), 8, 1) == 5
    with exceeding(Budget(requests=5, name="nightly")) as seen:
        server.kill()
        server.start()
        assert ask_in_threads(lm(temperature=0.5), 4, 1) == 2
    server.kill()
    assert endpoint.requests == 5
    assert (seen.error.refused, seen.error.spent["requests"]) == (2, 5)


def test_without_its_process_nothing_is_bought(tmp_path: Path, lm: LMs, endpoint: Endpoint) -> None:
    """A budget that came from a process that has ended allows nothing."""
    with cachectl.phase("compile", budget=Budget(requests=9)) as run:
        assert run.budget is not None
        taken = pickle.dumps(run.budget)
        run.budget.record = "another"  # as in another process, where it is not open
        arrived = pickle.loads(taken)
        assert arrived is not run.budget
        run.budget.register.path.unlink()  # type: ignore[attr-defined]
        assert arrived.error("").spent["requests"] == 0
        from dspy_cachectl.budgets.counts import Need

        with pytest.raises(BudgetExceededError, match="give the budget a name"):
            arrived.take(Need({"requests": 1}, {}))
