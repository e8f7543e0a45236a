"""`dspy-cachectl run`: somebody's script under a policy, judged by what the provider was asked and what is stored."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.endpoint import Endpoint
from tests.processes import DSPY_MODULES, Finished, python

SCRIPT = """\
import json, os, sys
import dspy
import dspy_cachectl as cachectl

lm = cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="sk-test-secret")
dspy.configure(lm=lm)
answers = [lm("hello"), dspy.Predict("question -> answer")(question="Q?").answer]
print(json.dumps({"argv": sys.argv, "name": __name__, "file": os.path.basename(__file__), "answers": answers}))
if "fail" in sys.argv:
    raise ValueError("the script failed")
if "exit" in sys.argv:
    sys.exit(7)
if "say" in sys.argv:
    sys.exit("the script gave up")
"""

Run = Callable[..., Finished]


@pytest.fixture
def run(tmp_path: Path, endpoint: Endpoint) -> Run:
    """Run `dspy-cachectl run` in a folder that holds the script and a module of the same content.

    It is a fork of what has imported DSPy; with `fresh=True` it is a new interpreter, which begins when it is started.
    """
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "tool.py").write_text(SCRIPT, encoding="utf-8")

    def run_it(*arguments: str, fresh: bool = False, **variables: str) -> Finished:
        environment = {**os.environ, "ENDPOINT_URL": endpoint.url, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
        warm = () if fresh else DSPY_MODULES
        return python("-m", "dspy_cachectl", "run", *arguments, warm=warm, cwd=tmp_path, env=environment)

    return run_it


def said(done: Finished) -> dict[str, object]:
    """Return what the script printed."""
    data: dict[str, object] = json.loads(done.stdout.splitlines()[0])
    return data


def test_as_python_runs_it(run: Run) -> None:
    """The script is `__main__`, has its own arguments, options among them, and its output is its own."""
    done = run("script.py", "--phase", "x", "-m", "--", "y")
    assert (0, 1) == (done.returncode, len(done.stdout.splitlines()))
    facts = said(done)
    assert ["script.py", "--phase", "x", "-m", "--", "y"] == facts["argv"]
    assert ("__main__", "script.py") == (facts["name"], facts["file"])


def test_a_module(run: Run) -> None:
    """`-m` finds a module from the current folder, as Python does."""
    facts = said(run("-m", "package.tool", "a"))
    assert ("__main__", "tool.py", "a") == (facts["name"], facts["file"], list(facts["argv"])[1])  # type: ignore[call-overload]


def test_without_a_policy(run: Run, endpoint: Endpoint) -> None:
    """The store is in place, as it is for the script by itself."""
    first, second = run("script.py"), run("script.py")
    assert said(first)["answers"] == said(second)["answers"]
    assert endpoint.requests == 2
    assert "2 calls, 0 requests; 2 reused" in second.stderr


def test_a_phase(run: Run, endpoint: Endpoint) -> None:
    """The phase holds for the whole script; its run is named, and can be gone on with."""
    first, second = run("--phase", "eval", "script.py"), run("--phase", "eval", "script.py")
    assert endpoint.requests == 4
    run_id = first.stderr.partition("run: ")[2].split(" ")[0]
    again = run("--run-id", run_id, "script.py")
    assert said(first)["answers"] == said(again)["answers"] != said(second)["answers"]
    assert endpoint.requests == 4
    assert "2 resumed" in again.stderr


def test_a_policy(run: Run, endpoint: Endpoint) -> None:
    """A policy needs no phase's name. A replay that misses fails, and says what is missing."""
    missed = run("--policy", "replay", "script.py")
    assert (1, 0) == (missed.returncode, endpoint.requests)
    assert "no stored answer for a call to 'openai/test-model'" in missed.stderr
    run("script.py")
    replayed = run("--policy", "REPLAY", "script.py")
    assert (0, 2) == (replayed.returncode, endpoint.requests)


def test_force_recompute(run: Run, endpoint: Endpoint) -> None:
    """What is stored is not served, and what is bought takes its place; within the script it is bought once."""
    first = run("script.py")
    forced = run("--force-recompute", "--phase", "compile", "script.py", fresh=True)
    assert endpoint.requests == 4
    after = run("script.py")
    assert said(first)["answers"] != said(forced)["answers"] == said(after)["answers"]
    assert endpoint.requests == 4


def test_force_recompute_in_child_processes(run: Run, endpoint: Endpoint, tmp_path: Path) -> None:
    """What the script starts recomputes as well."""
    run("script.py")
    (tmp_path / "parent.py").write_text(
        "import subprocess, sys; subprocess.run([sys.executable, 'script.py'], check=True)", encoding="utf-8"
    )
    run("--force-recompute", "parent.py")
    assert endpoint.requests == 4


def test_a_cassette_of_a_script_that_failed(run: Run, endpoint: Endpoint, tmp_path: Path) -> None:
    """Its recording is cut short, and gone on with; one that ended well is only replayed."""
    (tmp_path / "half.py").write_text(SCRIPT + "lm('more')\n", encoding="utf-8")
    options = ("--cassette", "answers.jsonl", "--mode", "record", "half.py")
    done = [run(*options, ending) for ending in ("fail", "exit", "say", "")]
    assert [1, 7, 1, 0] == [one.returncode for one in done]
    assert 3 == endpoint.requests
    assert (0, 3) == (run(*options).returncode, endpoint.requests)


def test_a_cassette(run: Run, endpoint: Endpoint, tmp_path: Path) -> None:
    """It is recorded once and replayed without the provider, and the store is left alone."""
    recorded = run("--cassette", "answers.jsonl", "--mode", "record", "script.py")
    assert endpoint.requests == 2
    assert "answers.jsonl: 2 recorded" in recorded.stderr
    replayed = run("--cassette", "answers.jsonl", "script.py", ENDPOINT_URL="http://127.0.0.1:9/v1")
    assert said(recorded)["answers"] == said(replayed)["answers"]
    assert 0 == replayed.returncode
    run("script.py")
    assert endpoint.requests == 4


def test_how_a_script_ends(run: Run) -> None:
    """Exit codes and messages are the script's; a traceback begins with its first line."""
    failed = run("script.py", "fail")
    assert 1 == failed.returncode
    assert "ValueError: the script failed" in failed.stderr
    assert ["script.py"] == [
        Path(line.split('"')[1]).name for line in failed.stderr.splitlines() if line.startswith('  File "')
    ]
    assert 7 == run("script.py", "exit").returncode
    gave_up = run("script.py", "say")
    assert (1, True) == (gave_up.returncode, "the script gave up" in gave_up.stderr)


def test_the_store_that_is_named(tmp_path: Path, endpoint: Endpoint) -> None:
    """`--store` is the script's store, and that of the processes that it starts."""
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    environment = {**os.environ, "ENDPOINT_URL": endpoint.url, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "dspy_cachectl", "--store", "elsewhere", "run", "script.py"]
    subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert (tmp_path / "elsewhere" / "cache.db").is_file()
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.py"], 1, "there is no script 'missing.py'; a module is run with -m"),
        (["--phase", "unknown", "script.py"], 2, "no phase is called 'unknown'"),
        (["--policy", "SOMETIMES", "script.py"], 2, "unknown policy 'SOMETIMES'; the presets are: REUSE"),
        (["--mode", "new", "script.py"], 2, "name one with --cassette"),
        (["--mode", "sometimes", "--cassette", "x", "script.py"], 2, "is none of replay, record, new, all"),
        (["--cassette", "none.jsonl", "script.py"], 1, "there is no cassette none.jsonl to replay"),
        ([], 2, "Missing argument"),
    ],
)
def test_what_cannot_be_used(run: Run, endpoint: Endpoint, arguments: list[str], code: int, message: str) -> None:
    """A wrong option is one message, before the script has begun."""
    done = run(*arguments)
    assert (code, "") == (done.returncode, done.stdout)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert endpoint.requests == 0
