"""The command line, run as people run it: in a process of its own, and judged by what it prints and returns."""

import os
import sys
from pathlib import Path

import pytest

from dspy_cachectl._version import __version__
from tests.cli.commands import HEAVY, modules_loaded
from tests.cli.stores import COMPILED, filled
from tests.processes import COMMAND_MODULES, Finished, python

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
    "rekey",
    "doctor",
    "report",
    "changed",
    "merge",
    "gate",
    "explain",
    "run",
    "demo",
    "runs",
    "config",
    "predictions",
    "mlflow",
]


def cachectl(*arguments: str | Path, cwd: Path, **variables: str) -> Finished:
    """Run the command line where no setting of the developer's own reaches it."""
    return python("-m", "dspy_cachectl", *arguments, warm=COMMAND_MODULES, cwd=cwd, env=environment(**variables))


def environment(**variables: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("DSPY_CACHECTL_")}
    return {**own, **variables, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "COLUMNS": "100"}


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A store of ten entries."""
    folder = tmp_path / "full"
    filled(folder, [COMPILED] * 10)
    return folder


def test_help_lists_every_command(tmp_path: Path) -> None:
    """`--help` lists the commands and what they do, in whole sentences, and succeeds."""
    done = cachectl("--help", cwd=tmp_path)
    assert (0, "") == (done.returncode, done.stderr)
    lines = [line for line in done.stdout.partition("Commands:")[2].splitlines() if line.strip()]
    assert COMMANDS == [line.split()[0] for line in lines]
    assert not [line for line in lines if not line.endswith(".")] + [line for line in lines if line.endswith("...")]


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
        ["--store", "ftp://somewhere", "stats"],
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


@pytest.mark.parametrize(
    "arguments",
    [["path"], ["--version"], ["--help"], ["config", "show"], ["stats"], ["mlflow", "status"]],
    ids=" ".join,
)
def test_what_validates_nothing_asks_for_no_pydantic(arguments: list[str], full: Path, tmp_path: Path) -> None:
    """What a command needs of this package does without; typer asks for it where it reads an option."""
    script = (
        "import builtins, sys\n"
        "load, asking = builtins.__import__, set()\n"
        "def watched(name, globals=None, *others, **more):\n"
        "    if name.partition('.')[0] == 'pydantic':\n"
        "        asking.add((globals or {}).get('__name__', '').partition('.')[0])\n"
        "    return load(name, globals, *others, **more)\n"
        "builtins.__import__ = watched\n"
        "from dspy_cachectl.cli.app import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print('dspy_cachectl' in asking, file=sys.stderr)\n"
    )
    done = python("-c", script, "--store", full, *arguments, cwd=tmp_path, env=environment())
    assert (0, "False") == (done.returncode, done.stderr.strip())
