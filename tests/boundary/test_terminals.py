"""Nothing of others' steers a terminal, whichever way it gets there."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from dspy_cachectl.replay.summary import Note, lines
from tests.cli.commands import NASTY, SCRIPT, command
from tests.endpoint import Endpoint
from tests.limits import PATIENCE
from tests.processes import python

WAYS = {
    "a log": "logging.getLogger('dspy_cachectl.x').warning('%s', 1)\nlogger_for('dspy_cachectl.x').warning('%s', BAD)",
    "a log with a trace": (
        "try:\n    raise ValueError(BAD) from KeyError(BAD)\n"
        "except ValueError:\n    logger_for('dspy_cachectl').exception('failed: %s', BAD)"
    ),
    "an error that cannot be said": (
        "class Mute(Exception):\n    def __str__(self):\n        raise RuntimeError(BAD)\n"
        "logger_for('dspy_cachectl').warning('it failed: %s', Mute())"
    ),
    "something said once": "from dspy_cachectl.context.process import state\nstate.say_once('t', BAD)",
    "an error": "raise cachectl.ConfigurationError(f'{BAD}\\n{BAD}')",
    "an error of a store": "print(cachectl.StoreUnavailableError(BAD))\nraise cachectl.CorruptEntryError(BAD)",
    "an extra": "raise cachectl.MissingExtraError(BAD, extra=BAD, detail=BAD)",
    "a miss": (
        "miss = cachectl.CacheMissError(BAD, key=BAD, model=BAD, phase=BAD, nearest=BAD, differences=[BAD])\n"
        "print(repr(miss))\nraise cachectl.ReplayIncompleteError(BAD, 2, [miss]) from miss"
    ),
    "stats": (
        "from dspy_cachectl.accounting.ledger import Row, Stats, Tally\n"
        "stats = Stats.of([(Row(BAD, BAD, BAD), Tally(calls=1)), (Row('p', None, 'm'), Tally(calls=1))])\n"
        "print(stats, repr(stats), stats.by)"
    ),
    "MLflow's limits": (
        "os.environ['MLFLOW_HTTP_REQUEST_TIMEOUT'] = BAD.replace('\\0', '')\n"
        "print(cachectl.protect_mlflow(), repr(cachectl.protect_mlflow()))"
    ),
    "an outcome": (
        "from dspy_cachectl.tracking.delivery import LogOutcome\n"
        "import inspect\n"
        "facts = {name: BAD for name in inspect.signature(LogOutcome).parameters}\n"
        "print(LogOutcome(**facts))"
    ),
    "a policy": ("policy = cachectl.Policy.REUSE\nprint(policy, repr(policy))\nprint(cachectl.Policy.named(BAD))"),
    "a setting": "cachectl.configure(**{BAD: BAD})",
    "a setting's value": "cachectl.configure(store=BAD.replace('\\0', '') + '\\0')",
}


def obeyed(text: str) -> list[str]:
    """The characters of a text that a terminal might obey."""
    return [one for one in text if unicodedata.category(one) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and one != "\n"]


@pytest.mark.parametrize("way", WAYS)
def test_a_text_that_is_printed_or_logged_steers_nothing(way: str) -> None:
    """Loggers, traces, the texts of errors, and what objects say of themselves."""
    names = "import logging, os, dspy_cachectl as cachectl\nfrom dspy_cachectl.boundary.shown import logger_for"
    done = python("-c", f"{names}\nBAD = {NASTY!r}\n{WAYS[way]}")
    said = done.stdout + done.stderr
    assert [] == obeyed(said)
    assert ("it failed" if way == "an error that cannot be said" else r"\x1b[2J") in said


def test_a_phase_and_what_runs_in_it_steer_nothing(endpoint: Endpoint) -> None:
    """The name of an evaluation, of a phase, of a role and of a run, on a bar, in a summary, and in what they say."""
    program = f"""
import dspy, dspy_cachectl as cachectl
BAD = {NASTY!r}
lm = cachectl.LM("openai/test", api_base={endpoint.url!r}, api_key="k", role=BAD)
dspy.configure(lm=lm)
with cachectl.phase(BAD, cachectl.Policy.FRESH, run_id="r") as run:
    lm("one?")
print(run, repr(run), run.stats, cachectl.stats(), cachectl.current_phase(), cachectl.last_phase(), lm)
report = cachectl.evaluate(
    dspy.Predict("q -> answer"), [dspy.Example(q=BAD, answer=BAD).with_inputs("q")],
    metric=lambda *_: 1.0, name=BAD, display_progress=True,
)
print(report, repr(report), report.compare(report) if hasattr(report, "compare") else "")
"""
    done = python("-c", program)
    assert 0 == done.returncode, done.stderr
    assert [] == obeyed(done.stdout + done.stderr)


@pytest.mark.parametrize("arguments", [["run", "-m", f"no{NASTY}"], ["run", "script.py"], ["run", "exits.py"]])
def test_a_script_that_fails_steers_nothing(arguments: list[str], tmp_path: Path) -> None:
    """A module's name, a script's error with its cause, and a script's last words, are shown and not obeyed."""
    (tmp_path / "script.py").write_text(f"raise ValueError({NASTY!r}) from KeyError({NASTY!r})", encoding="utf-8")
    (tmp_path / "exits.py").write_text(f"import sys\nsys.exit({NASTY!r})", encoding="utf-8")
    done = command(*arguments, cwd=tmp_path)
    assert (1, []) == (done.returncode, obeyed(done.stdout + done.stderr))
    assert r"\x1b[2J" in done.stderr


def test_a_folder_is_exact_for_programs_and_harmless_for_people(tmp_path: Path) -> None:
    """`path` in a pipe is what `cd` can use; on a terminal it steers nothing."""
    folder = tmp_path / NASTY.replace("/", "").replace("\r", "")
    piped = command("path", store=folder)
    assert f"{folder}\n" == piped.stdout
    terminal, inside = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    asked = [sys.executable, str(SCRIPT), "--store", str(folder), "path"]
    done = subprocess.run(asked, stdout=inside, env=environment, check=True, timeout=PATIENCE)
    os.close(inside)
    shown = os.read(terminal, 65_536).decode().replace("\r\n", "\n")
    os.close(terminal)
    assert (0, []) == (done.returncode, obeyed(shown))
    assert r"\x1b[2J" in shown


def test_the_plugin_steers_nothing(pytester: pytest.Pytester) -> None:
    """What a test asked for and did not find, and the cassettes whose recordings are not used or cut short."""
    pytester.makepyfile(
        "import dspy_cachectl, pytest\n"
        "@pytest.mark.cachectl\n"
        "def test_it():\n"
        "    try:\n"
        f"        dspy_cachectl.LM('openai/' + {NASTY!a}, api_key='k')({NASTY!a})\n"
        "    except Exception:\n"
        f"        raise ValueError({NASTY!a}) from None\n"
    )
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--color=no", "--tb=short")
    assert pytest.ExitCode.TESTS_FAILED == done.ret
    said = done.stdout.str() + done.stderr.str()
    assert [] == obeyed(said)
    assert "Nothing is recorded for" in said
    note = Note(f"{pytester.path}/{NASTY}.jsonl", unused=[("key", NASTY, NASTY)], unfinished=NASTY)
    assert [] == obeyed("\n".join(lines([note], pytester.path)))
