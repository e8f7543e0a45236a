"""A phase in processes of one's own: it goes along with its run and counters, or calls are refused or said."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.endpoint import Endpoint
from tests.limits import PATIENCE
from tests.processes import DSPY_MODULES, ROOT, python

QUICK = {
    ("fork", "program-carried-new"),
    ("spawn", "lm-carried-new"),
    ("fork", "lm-bare-new"),
    ("loky", "evaluate-6-2"),
}


def some(*cases: tuple[str, str]) -> list[Any]:
    """Cases of a start and a way, those that take long only in the whole suite."""
    return [pytest.param(*case, marks=[] if case in QUICK else [pytest.mark.exhaustive]) for case in cases]


STARTS = ("fork", "spawn", "loky")
HAND_OVER = some(
    *[(kind, f"{what}-carried-{age}") for kind in STARTS for what in ("lm", "program") for age in ("new", "older")],
    ("fork", "lm-bare-new"),
    ("fork", "program-bare-new"),
)


def run(endpoint: Endpoint, *arguments: str) -> tuple[dict[str, Any], str]:
    """What the script of `workers` prints, and what it says."""
    environment = {**os.environ, "ENDPOINT_URL": endpoint.url}
    done = python("-m", "tests.context.workers", *arguments, warm=DSPY_MODULES, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    return done.data, done.stderr


@pytest.mark.parametrize(("kind", "how"), HAND_OVER)
def test_workers_share_the_run(endpoint: Endpoint, kind: str, how: str) -> None:
    """The same request in four workers is as many draws as askings, counted in the parent, and resumed anywhere."""
    first, _ = run(endpoint, kind, how, "shared")

    calls = len(first["answers"]) * (3 if how.startswith("program") else 1)
    assert calls == endpoint.requests == first["stats"]["requests"] == first["stats"]["fresh"]
    assert len(set(first["answers"])) == len(first["answers"])
    again, _ = run(endpoint, "fork" if how.endswith("new") else kind, how, "shared")
    assert (calls, again["answers"]) == (again["stats"]["resumed"], first["answers"])
    assert calls == endpoint.requests


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        pytest.param("fork", "lm-bare-older"),
        *[
            pytest.param(*one, marks=pytest.mark.exhaustive)
            for one in (("spawn", "lm-bare-new"), ("loky", "lm-bare-new"))
        ],
    ],
)
def test_workers_that_were_handed_nothing_say_so(endpoint: Endpoint, kind: str, how: str) -> None:
    """A worker that the phase did not reach answers as outside of it and says what to write; in a replay it refuses."""
    found, said = run(endpoint, kind, how, "unreached")
    assert 1 == len(set(found["answers"]))  # and whoever asked at the same time was given the first
    assert endpoint.requests <= 4
    assert "phase 'eval' is open in the process that started this worker, and did not come along" in said
    assert "cachectl.carry(function)" in said

    endpoint.reset_counts()
    found, said = run(endpoint, kind, how.replace("lm", "swallowing"), "replay")
    assert 0 == endpoint.requests
    assert "calls are refused as in its replay" in said


def test_a_miss_in_a_worker_ends_the_replay(endpoint: Endpoint) -> None:
    """A worker's program swallows that there is no answer: the phase says so in the parent, and nothing was asked."""
    found, _ = run(endpoint, "fork", "swallowing-carried-new", "replay")

    assert 0 == endpoint.requests
    assert 12 == found["stats"]["missed"]
    assert "12" in found["error"]
    assert all(answer.startswith("CacheMissError") for answer in found["answers"])


def test_counters_of_a_phase_that_reuses_come_home(endpoint: Endpoint) -> None:
    """In a phase that reuses, workers share one answer, and what each of them did is counted in the parent."""
    found, _ = run(endpoint, "fork", "lm-carried-new", "reuse")

    assert 1 == len(set(found["answers"]))
    assert 12 == found["stats"]["calls"]
    served = sum(found["stats"].get(outcome, 0) for outcome in ("reused", "coalesced"))
    assert endpoint.requests == found["stats"]["requests"] == 12 - served


@pytest.mark.parametrize(
    ("kind", "how"), some(*[(kind, f"evaluate-{size}") for kind in STARTS for size in ("6-2", "40-3")])
)
def test_an_evaluation_is_the_same_in_a_worker(endpoint: Endpoint, kind: str, how: str) -> None:
    """Made whole in one worker of a pool, with a judge of its own LM, it is the same to the digit in threads."""
    first, _ = run(endpoint, kind, how, "whole")

    questions, repeats = (int(number) for number in how.split("-")[1:])
    assert questions * repeats * 4 == endpoint.requests
    assert [("openai/test-model", questions * repeats * 3)] == [(one["model"], one["calls"]) for one in first["models"]]
    for other in ("threads", *([] if (kind, how) in QUICK else STARTS)):
        assert first == run(endpoint, other, how, "whole")[0]
    assert questions * repeats * 4 == endpoint.requests


ORPHANED = """
    import os, pickle, sys, dspy_cachectl as cachectl
    from tests.context.workers import ask, make_lm
    if sys.argv[1] == "hand":
        with cachectl.phase("eval", getattr(cachectl.Policy, sys.argv[2])):
            open("carried.bin", "wb").write(pickle.dumps(cachectl.carry(ask)))
    else:
        print(pickle.load(open("carried.bin", "rb"))(make_lm()))
"""


def test_a_phase_whose_process_has_ended_makes_no_draws(child: Any, endpoint: Endpoint) -> None:
    """What was handed over and is called after the end of the process that opened the phase is refused, with advice."""
    child(ORPHANED, "hand", "FRESH")
    late = child(ORPHANED, "call", "FRESH", check=False)

    assert late.returncode != 0
    assert "the process that opened this phase has ended" in late.stderr
    assert 0 == endpoint.requests


FORKS = """
    import json, os, sys, threading, dspy, dspy_cachectl as cachectl
    from tests.context.workers import ask, make_lm

    def in_child(work):
        told, tell = os.pipe()
        if os.fork() == 0:
            try:
                said = work()
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
            os.write(tell, said.encode())
            os._exit(0)
        os.close(tell)
        os.wait()
        return os.read(told, 10_000).decode()
"""

RECORDS = (
    FORKS
    + """
    with cachectl.cassette("tape.jsonl", mode=sys.argv[1]):
        if sys.argv[1] == "record":
            ask(make_lm())
        print(in_child(lambda: ask(make_lm())))
"""
)


def test_a_cassette_records_in_its_own_process_only(child: Any, endpoint: Endpoint) -> None:
    """What a forked child asks would be on no tape: it is refused; a replay answers it from the tape."""
    refused = child(RECORDS, "record").stdout
    assert "ConfigurationError" in refused
    assert "it is within a cassette" in refused
    assert 1 == endpoint.requests

    replayed = child(RECORDS, "replay").stdout
    assert "Error" not in replayed
    assert 1 == endpoint.requests


HELD = (
    FORKS
    + """
    from dspy_cachectl.stores.disk import DiskStore
    DiskStore.lease = lambda self, name: None  # it would wait for its parent as for any other process
    with cachectl.phase("compile"):
        leader = threading.Thread(target=cachectl.carry(ask), args=(make_lm(),))
        leader.start()
        sys.stdin.readline()
        print(in_child(lambda: ask(make_lm())), flush=True)
        leader.join()
"""
)


def test_a_child_waits_for_no_thread_of_its_parent(child: Any, endpoint: Endpoint, tmp_path: Path) -> None:
    """Forked while a thread waits for an answer: the child asks the same for itself, since nobody answers it there."""
    script = tmp_path / "held.py"
    script.write_text(textwrap.dedent(HELD))
    endpoint.hold()
    with subprocess.Popen(
        [sys.executable, script],
        cwd=ROOT,
        env={**os.environ, "ENDPOINT_URL": endpoint.url, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert endpoint.wait_for(1)
        assert running.stdin is not None
        running.stdin.write("go\n")
        running.stdin.flush()
        assert endpoint.wait_for(2, timeout=60)
        endpoint.release()
        assert running.communicate(timeout=PATIENCE)[0].strip()
    assert 2 == endpoint.requests


def test_what_a_killed_process_has_announced_goes(child: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The next process that opens a phase removes it, and at its own end what it said itself."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    opens = """
        import os, signal, sys, dspy_cachectl as cachectl
        with cachectl.phase("eval"):
            found = [sum(len(names) for folder, _, names in os.walk(os.environ["TMPDIR"]) if "-open-" in folder)]
            if sys.argv[1] == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            print(found)
    """
    child(opens, "killed", check=False)
    assert [1] == child(opens, "ends").data
    assert [] == [path for folder in tmp_path.glob("dspy-cachectl-open-*") for path in folder.iterdir()]
