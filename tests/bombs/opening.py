"""Open hostile files as people's programs and commands do, and print what that took: run as a script.

What is measured is the memory of a process, at its highest, over what it had when everything was imported.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from tests.limits import PATIENCE


def main() -> None:
    """Import everything once, and open what each line of standard input names, each in a process forked for it.

    A line is a place and a folder in JSON. What is printed for it is how opening ended, how much memory it took, in
    bytes, here and in any process that this one began, and how long, in seconds of work: other tests may be at it, too.
    """
    _import_all()
    for line in sys.stdin:
        receiving, sending = os.pipe()
        process = os.fork()
        if not process:
            _open_one(*json.loads(line), sending)
        os.close(sending)
        with os.fdopen(receiving, encoding="utf-8") as pipe:
            said = pipe.read()
        _, status = os.waitpid(process, 0)
        print(said or json.dumps({"outcome": f"ended with {status}", "grown": 0, "seconds": 0}), flush=True)


def _open_one(place: str, folder: str, sending: int) -> NoReturn:
    try:
        os.environ["HOME"] = folder
        os.chdir(folder)
        # A peak of before this does not hide one of afterwards.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before, started = _memory(), sum(os.times()[:4])
        signal.alarm(int(PATIENCE))
        outcome: Any
        try:
            outcome = PLACES[place](Path(folder))
        except Exception as error:  # noqa: BLE001 - the test judges it
            outcome = f"{type(error).__name__}: {str(error)[:300]}"
        seconds = sum(os.times()[:4]) - started
        peak = max(_memory(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
        said = {"outcome": outcome, "grown": peak - before, "seconds": seconds}
        os.write(sending, json.dumps(said).encode())
    finally:
        os._exit(0)


def _memory() -> int:
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) * 1024


def _import_all() -> None:
    import litellm  # noqa: F401

    import dspy_cachectl
    from dspy_cachectl import manage
    from dspy_cachectl.cli import app, checking, looking, predictions, transfer  # noqa: F401
    from dspy_cachectl.manage import exchange  # noqa: F401
    from tests.predictions import support  # noqa: F401

    dspy_cachectl.stats()
    manage.verification.Report(exists=False)


@contextlib.contextmanager
def _noting(bad: list[str], *, allowed: type[Exception]) -> Iterator[None]:
    """Note what is raised in the block, but for errors that are as they should be."""
    try:
        yield
    except allowed:
        pass
    except Exception as error:  # noqa: BLE001 - the test judges it
        bad.append(f"{type(error).__name__}: {str(error)[:200]}")


def _commands(*commands: list[str]) -> list[str]:
    """Run commands one after the other. Return how each ended that did not end as a command may."""
    from dspy_cachectl.cli import main as run

    ended = []
    for command in commands:
        sys.argv = ["dspy-cachectl", *command]
        out, err = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                run()
        except SystemExit as end:
            if end.code not in {0, 1, 2, 3}:
                ended.append(f"{command}: {end.code}")
        except BaseException as error:  # noqa: BLE001 - a traceback, which is what is looked for
            ended.append(f"{command}: {type(error).__name__}: {str(error)[:200]}")
    return ended


def _store(folder: Path) -> list[str]:
    """Look at the entries of a store with every command that reads one."""
    from dspy_cachectl.stores.disk import DiskStore

    keys = [str(key) for key in DiskStore(folder / "store").keys()][:3]  # noqa: SIM118 - not a mapping
    at = ["--store", str(folder / "store")]
    shown = [[*at, *command, *json_] for json_ in ([], ["--json"]) for command in (["ls"], ["runs"], ["stats"])]
    shown += [[*at, "show", key, *json_] for json_ in ([], ["--json"]) for key in keys]
    shown += [[*at, "ls", "--contains", "word"], [*at, "verify"]]
    shown += [[*at, "export", str(folder / "out.jsonl"), "--force"], [*at, "prune", "--yes"]]
    shown += [[*at, "explain", key] for key in keys[:1]]
    return _commands(*shown)


def _answers(folder: Path) -> list[str]:
    """Have the entries of a store served, as calls do."""
    from dspy_cachectl.entries import records
    from dspy_cachectl.errors import StoreError
    from dspy_cachectl.stores.disk import DiskStore

    store = DiskStore(folder / "store")
    bad: list[str] = []
    for key in store.keys():  # noqa: SIM118 - not a mapping
        with _noting(bad, allowed=StoreError):
            records.decode(store.get(str(key)) or b"")
    return bad


def _cassette(folder: Path) -> list[str]:
    """Replay a cassette, look at it, and import it."""
    import dspy_cachectl as cachectl

    (path,) = folder.glob("answers.jsonl*")
    bad: list[str] = []
    with _noting(bad, allowed=cachectl.StoreError), cachectl.cassette(path):
        pass
    at = ["--store", str(folder / "store")]
    return bad + _commands([*at, "import", str(path)], [*at, "ls"], [*at, "verify"])


def _predictions(folder: Path) -> list[str]:
    """Evaluate over kept predictions, and look at them with every command."""
    import logging

    from dspy_cachectl.predictions.library import Library
    from tests.predictions.support import evaluate, examples

    logging.disable(logging.CRITICAL)
    at = ["--predictions", str(folder / "kept")]
    names = [path.name for path in (folder / "kept").glob("*.json*")]
    commands = [
        ["predictions", "ls", *at],
        ["predictions", "ls", *at, "--json"],
        ["verify", "--predictions", str(folder / "kept")],
    ]
    commands += [["predictions", "show", name, *at] for name in names]
    commands += [["predictions", "export", name, str(folder / "out.csv"), *at, "--force"] for name in names]
    ended = _commands(*commands)
    session = evaluate(Library(folder / "kept"), examples(3), run_id="one")
    return ended + ([] if session.path.exists() else ["the evaluation did not go on"])


def _outbox(folder: Path) -> list[str]:
    """Look at what waits for a tracking server."""
    os.environ["DSPY_CACHECTL_STATE"] = str(folder / "state")
    return _commands(["mlflow", "status"], ["mlflow", "status", "--json"], ["mlflow", "sync", "--dry-run"])


def _dspys_cache(folder: Path) -> list[str]:
    """Import what DSPy's own cache holds."""
    at = ["--store", str(folder / "store")]
    return _commands([*at, "import", str(folder / "dspy"), "--from-dspy"], [*at, "ls"])


def _settings(folder: Path) -> list[str]:
    """Read the settings, as programs and commands do."""
    from dspy_cachectl.config import settings
    from dspy_cachectl.errors import ConfigurationError

    with contextlib.suppress(ConfigurationError):
        settings()
    return _commands(["config", "show"], ["ls"], ["stats"])


def _report(folder: Path) -> None:
    """Load a report."""
    import dspy_cachectl as cachectl

    with contextlib.suppress(cachectl.CachectlError):
        str(cachectl.EvalReport.load(folder / "report.json"))


def _request(folder: Path) -> list[str]:
    """Explain a request in a file."""
    return _commands(["--store", str(folder / "store"), "explain", "--request", str(folder / "request.json")])


def _unsaved(folder: Path) -> list[str]:
    """Go on with a recording that was cut."""
    import dspy_cachectl as cachectl

    with contextlib.suppress(cachectl.CachectlError), cachectl.cassette(folder / "answers.jsonl", "new"):
        pass
    return []


PLACES: dict[str, Callable[[Path], Any]] = {
    "store": _store,
    "answers": _answers,
    "cassette": _cassette,
    "predictions": _predictions,
    "outbox": _outbox,
    "dspy": _dspys_cache,
    "settings": _settings,
    "report": _report,
    "request": _request,
    "unsaved": _unsaved,
}
