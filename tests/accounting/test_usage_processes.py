"""The statistics of use of processes that end in every way, and of their children."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dspy_cachectl.stores.disk import DiskStore
from tests.limits import PATIENCE
from tests.processes import Finished
from tests.stores.counting import calls, served

EXITS = """
    import os, sys
    import dspy_cachectl as cachectl

    lm = cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="sk-test")
    for _ in range(3):
        lm("What?")
    if sys.argv[1] == "error":
        raise ValueError("the program failed")
    if sys.argv[1] == "exit":
        sys.exit(3)
    if sys.argv[1] == "uninstall":
        cachectl.uninstall()
"""


@pytest.mark.parametrize("end", ["well", "error", "exit", "uninstall"])
def test_a_process_that_ends(child: Callable[..., Finished], tmp_path: Path, end: str) -> None:
    """Calls outside of phases are written at the end, however it comes, and a later process adds to them."""
    for times in (1, 2):
        child(EXITS, end, check=False)
        store = DiskStore(tmp_path / "store")
        assert 3 * times == calls(store)
    assert [(5, True)] == list(served(store).values())


FORKS = """
    import multiprocessing, os, sys
    import dspy_cachectl as cachectl

    lm = cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="sk-test")

    def ask(times):
        for _ in range(times):
            lm("What?")

    if __name__ == "__main__":
        ask(2)
        if sys.argv[1] == "os":
            for times in (3, 4):
                child = os.fork()
                if not child:
                    with cachectl.phase("compile"):
                        ask(times)
                    os._exit(0)
                os.waitpid(child, 0)
        else:
            context = multiprocessing.get_context(sys.argv[1])
            children = [context.Process(target=ask, args=(times,)) for times in (3, 4)]
            for child in children:
                child.start()
            for child in children:
                child.join()
                assert child.exitcode == 0
        ask(1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("way", ["os", "fork", "spawn", "forkserver"])
def test_a_child_counts_for_itself(child: Callable[..., Finished], tmp_path: Path, way: str) -> None:
    """What the parent counted before a fork is counted once, and what a child counts is not lost at its end."""
    child(FORKS, way)
    store = DiskStore(tmp_path / "store")
    assert 10 == calls(store)
    assert [(9, True)] == list(served(store).values())


def test_a_fork_while_another_thread_counts(child: Callable[..., Finished], tmp_path: Path) -> None:
    """A lock that a thread of the parent held does not stop the child."""
    child(
        """
        import os, sys, threading
        from pathlib import Path
        from dspy_cachectl.accounting.ledger import Tally
        from dspy_cachectl.stores.disk import DiskStore
        from dspy_cachectl.stores.tiers import Tiers
        from dspy_cachectl.accounting.usage import Usage

        def fault(doing, error):
            raise AssertionError(error)

        usage = Usage(Tiers([DiskStore(Path(sys.argv[1]))], on_fault=fault), on_fault=fault)
        held, release = threading.Event(), threading.Event()

        def hold():
            with usage._lock, usage._writing:
                held.set()
                release.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        child = os.fork()
        if not child:
            usage.record(("lm", "m", "p", "", ""), Tally(calls=1), None)
            usage.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        release.set()
        thread.join()
        assert status == 0
        """,
        str(tmp_path / "store"),
        timeout=PATIENCE,
    )
    assert 1 == calls(DiskStore(tmp_path / "store"))
