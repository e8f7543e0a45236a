"""The command line, run as people run it: in a process of its own, and judged by what it prints and returns."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dspy_cachectl._version import __version__
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.disk import DiskStore
from tests.processes import COMMAND_MODULES, Finished, python

HEAVY = {"dspy", "litellm", "mlflow"}
COMMANDS = [
    "path",
    "ls",
    "show",
    "diff",
    "stats",
    "clear",
    "prune",
    "verify",
    "export",
    "import",
    "doctor",
    "explain",
    "run",
    "demo",
    "runs",
    "config",
    "predictions",
    "mlflow",
]

COMPILED = Label(kind="lm", model="openai/gpt-4o-mini", phase="compile")
EMBEDDED = Label(kind="embedding", model="openai/text-embedding-3-small", phase="compile")
DRAWN = [
    Label(kind="lm", model="openai/gpt-4o-mini", phase="eval", role="judge", run_id="baseline"),
    Label(kind="lm", model="openai/gpt-4o-mini", phase="eval", role="judge", run_id="again"),
]


def cachectl(*arguments: str | Path, cwd: Path, **variables: str) -> Finished:
    """Run the command line where no setting of the developer's own reaches it."""
    return python("-m", "dspy_cachectl", *arguments, warm=COMMAND_MODULES, cwd=cwd, env=environment(**variables))


def environment(**variables: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("DSPY_CACHECTL_")}
    return {**own, **variables, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "COLUMNS": "100"}


def modules_loaded(done: subprocess.CompletedProcess[str]) -> set[str]:
    """Return the top-level packages in the report of `-X importtime`."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A store of ten entries: three compiled, two embedded, five drawn in two runs."""
    folder = tmp_path / "full"
    store = DiskStore(folder)
    labels = [COMPILED] * 3 + [EMBEDDED] * 2 + [DRAWN[0]] * 4 + [DRAWN[1]]
    for number, label in enumerate(labels):
        store.put(f"key-{number}", b"answer", label)
    store.close()
    return folder


@pytest.fixture
def empty(full: Path, tmp_path: Path) -> Path:
    """A store that was used, and then cleared."""
    folder = tmp_path / "empty"
    store = DiskStore(folder)
    store.put("key", b"answer", COMPILED)
    store.clear()
    store.close()
    return folder


def test_help_lists_every_command(tmp_path: Path) -> None:
    """`--help` lists the commands and what they do, and succeeds."""
    done = cachectl("--help", cwd=tmp_path)
    assert (0, "") == (done.returncode, done.stderr)
    listed = [line.split()[0] for line in done.stdout.partition("Commands:")[2].splitlines() if line.strip()]
    assert COMMANDS == listed


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, tmp_path: Path) -> None:
    """Each command explains itself."""
    done = cachectl(command, "--help", cwd=tmp_path)
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.startswith(f"Usage: dspy-cachectl {command}")


def test_version(tmp_path: Path) -> None:
    """`--version` prints the package's version."""
    done = cachectl("--version", cwd=tmp_path)
    assert (0, f"dspy-cachectl {__version__}\n") == (done.returncode, done.stdout)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--no-such-option", "stats"],
        ["stats", "--no-such-option"],
        ["no-such-command"],
        ["--store", "redis://somewhere", "stats"],
        ["--store", "memory://", "stats"],
        ["--store", __file__, "stats"],
        ["demo", "--endpoint", "http://127.0.0.1:1/v1"],
        ["demo", "--model", "some-model"],
        ["demo", "--api-key-env", "SOME_KEY"],
        ["demo", "--endpoint", "127.0.0.1:1/v1", "--model", "some-model"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], tmp_path: Path) -> None:
    """What cannot be meant is refused with exit code 2 and a message, and prints no trace."""
    done = cachectl(*arguments, cwd=tmp_path)
    assert (2, "") == (done.returncode, done.stdout)
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_path_is_the_option_before_the_environment_before_pyproject(tmp_path: Path) -> None:
    """`--store` wins over DSPY_CACHECTL_STORE, which wins over pyproject.toml."""
    (tmp_path / "pyproject.toml").write_text('[tool.dspy_cachectl]\nstore = "from-pyproject"\n')
    by_option = cachectl("--store", "by-option", "path", cwd=tmp_path, DSPY_CACHECTL_STORE="by-environment")
    by_environment = cachectl("path", cwd=tmp_path, DSPY_CACHECTL_STORE="by-environment")
    from_pyproject = cachectl("path", cwd=tmp_path)
    assert f"{tmp_path / 'by-option'}\n" == by_option.stdout
    assert f"{tmp_path / 'by-environment'}\n" == by_environment.stdout
    assert f"{tmp_path / 'from-pyproject'}\n" == from_pyproject.stdout
    assert ["pyproject.toml"] == [entry.name for entry in tmp_path.iterdir()]


def test_a_setting_that_cannot_be_used_fails_with_a_message(tmp_path: Path) -> None:
    """A configuration error is one message and exit code 1, not a trace."""
    (tmp_path / "pyproject.toml").write_text('[tool.dspy_cachectl]\nstorr = "typo"\n')
    done = cachectl("path", cwd=tmp_path)
    assert (1, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith("dspy-cachectl: ")
    assert "'storr'" in done.stderr
    assert "Traceback" not in done.stderr


def test_stats_counts_every_entry_once(full: Path, tmp_path: Path) -> None:
    """The sums by each field are those of the entries that were put."""
    done = cachectl("--store", full, "stats", "--json", cwd=tmp_path)
    assert (0, "") == (done.returncode, done.stderr)
    shown = json.loads(done.stdout)
    assert (str(full), True, 10) == (shown["store"], shown["exists"], shown["entries"])
    assert shown["bytes"] > 0
    by = {name: {value: line["entries"] for value, line in lines.items()} for name, lines in shown["by"].items()}
    assert {"lm": 8, "embedding": 2} == by["kind"]
    assert {"openai/gpt-4o-mini": 8, "openai/text-embedding-3-small": 2} == by["model"]
    assert {"compile": 5, "eval": 5} == by["phase"]
    assert {"": 5, "judge": 5} == by["role"]
    assert {"": 5, "baseline": 4, "again": 1} == by["run_id"]
    assert [2, 3, 1, 4] == [row["entries"] for row in shown["labels"]]


def test_stats_is_a_table_for_people(full: Path, tmp_path: Path) -> None:
    """Without `--json`, one line for each kind, phase, role and model, the largest first."""
    done = cachectl("--store", full, "stats", cwd=tmp_path)
    assert (0, "") == (done.returncode, done.stderr)
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith((" lm", " embedding"))]
    uncalled = ["-"] * 6
    expected = [
        ["lm", "eval", "judge", "openai/gpt-4o-mini", "2", "5", *uncalled],
        ["lm", "compile", "-", "openai/gpt-4o-mini", "-", "3", *uncalled],
        ["embedding", "compile", "-", "openai/text-embedding-3-small", "-", "2", *uncalled],
    ]
    assert expected == rows
    assert [str(full), "10 entries,"] == [done.stdout.splitlines()[0], done.stdout.splitlines()[1][:11]]


def test_stats_of_an_empty_store(empty: Path, tmp_path: Path) -> None:
    """A store without entries is fine."""
    done = cachectl("--store", empty, "stats", cwd=tmp_path)
    assert (0, "") == (done.returncode, done.stderr)
    assert [str(empty), "Nothing is stored yet."] == done.stdout.splitlines()


def test_stats_of_a_missing_store_does_not_make_it(tmp_path: Path) -> None:
    """A folder that is not there is an empty store, and stays missing."""
    missing = tmp_path / "missing"
    people = cachectl("--store", missing, "stats", cwd=tmp_path)
    programs = cachectl("--store", missing, "stats", "--json", cwd=tmp_path)
    assert (0, [str(missing), "Nothing is stored yet."]) == (people.returncode, people.stdout.splitlines())
    shown = json.loads(programs.stdout)
    assert (0, False, 0, 0, []) == (
        programs.returncode,
        shown["exists"],
        shown["entries"],
        shown["bytes"],
        shown["labels"],
    )
    assert not missing.exists()


def test_a_damaged_store_fails_with_a_message(full: Path, tmp_path: Path) -> None:
    """A store that cannot be read is one message and exit code 1."""
    (full / "cache.db").write_bytes(b"not a database" * 1000)
    done = cachectl("--store", full, "stats", cwd=tmp_path)
    assert (1, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith("dspy-cachectl: could not use ")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may look at everything")
def test_a_store_that_may_not_be_seen_fails_with_a_message(full: Path, tmp_path: Path) -> None:
    """A folder of another user's is one message and exit code 1."""
    closed = tmp_path / "closed"
    closed.mkdir()
    full.rename(closed / "full")
    closed.chmod(0)
    try:
        done = cachectl("--store", closed / "full", "stats", cwd=tmp_path)
    finally:
        closed.chmod(0o700)
    assert (1, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith("dspy-cachectl: could not look at the store")
    assert "Traceback" not in done.stderr


def test_stored_text_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """A model's name with control characters is shown escaped, and whole in JSON."""
    name = "evil\x1b[2J\x07\u202emodel"
    folder = tmp_path / "store"
    store = DiskStore(folder)
    store.put("key", b"answer", Label(kind="lm", model=name))
    store.close()
    people = cachectl("--store", folder, "stats", cwd=tmp_path)
    programs = cachectl("--store", folder, "stats", "--json", cwd=tmp_path)
    assert r"evil\x1b[2J\x07\u202emodel" in people.stdout
    assert programs.stdout.isascii()
    assert [name] == list(json.loads(programs.stdout)["by"]["model"])


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["stats"], ["stats", "--json"], ["path"]])
def test_a_reader_that_has_seen_enough_hears_no_complaint(
    arguments: list[str], unbuffered: str, full: Path, tmp_path: Path
) -> None:
    """Output into a pipe that nobody reads any more ends without a word, whenever that is noticed."""
    script = (
        "import os, subprocess, sys\n"
        "reading, writing = os.pipe()\n"
        "os.close(reading)\n"
        "done = subprocess.run([sys.executable, *sys.argv[1:]], stdout=writing, stderr=subprocess.PIPE)\n"
        "print(done.returncode, done.stderr)\n"
    )
    command = ["-m", "dspy_cachectl", "--store", full, *arguments]
    done = python("-c", script, *command, cwd=tmp_path, env=environment(PYTHONUNBUFFERED=unbuffered))
    assert "1 b''\n" == done.stdout


def test_importing_the_package_loads_nothing_heavy(tmp_path: Path) -> None:
    """`import dspy_cachectl` loads neither dspy, litellm nor mlflow."""
    done = python("-X", "importtime", "-c", "import dspy_cachectl", cwd=tmp_path, env=environment())
    assert 0 == done.returncode
    loaded = modules_loaded(done)
    assert "dspy_cachectl" in loaded
    assert set() == loaded & HEAVY


@pytest.mark.parametrize("arguments", [["stats"], ["stats", "--json"], ["path"], ["--help"], ["demo", "--help"]])
def test_the_command_line_loads_nothing_heavy(arguments: list[str], full: Path, tmp_path: Path) -> None:
    """The command line loads neither dspy, litellm nor mlflow, whichever way it learns where the store is."""
    (tmp_path / "pyproject.toml").write_text(f"[tool.dspy_cachectl]\nstore = {json.dumps(str(full))}\n")
    started = ("-X", "importtime", "-m", "dspy_cachectl")
    named = python(*started, "--store", full, *arguments, cwd=tmp_path, env=environment())
    configured = python(*started, *arguments, cwd=tmp_path, env=environment())
    assert (0, 0) == (named.returncode, configured.returncode)
    assert "typer" in modules_loaded(named)
    assert set() == (modules_loaded(named) | modules_loaded(configured)) & HEAVY
