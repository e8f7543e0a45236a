"""Settings from pyproject.toml, the environment and code; later over earlier, and wrong ones named."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

import dspy_cachectl
from dspy_cachectl import config
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.policy import Policy
from tests.cli.commands import modules_loaded
from tests.processes import ROOT, python

PYPROJECT = """
[tool.dspy_cachectl]
store = "from-file"
memory_bytes = 1000

[tool.dspy_cachectl.phases.eval]
temperature = 0.7
roles = { judge = "reuse" }

[tool.dspy_cachectl.phases.Nightly]
policy = "refresh"
max_age = 60
"""
SECRET = "hunter2hunter2"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a pyproject.toml; the work goes on in a folder below it."""
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    below = tmp_path / "src" / "app"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    monkeypatch.delenv("DSPY_CACHECTL_STORE")
    config.reload()
    return tmp_path


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Read a pyproject.toml and variables that cannot be used, and return the message, in one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DSPY_CACHECTL_STORE")

    def read(text: str | None = None, **variables: str) -> str:
        if text is not None:
            (tmp_path / "pyproject.toml").write_text(text)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        config.reload()
        with pytest.raises(ConfigurationError) as caught:
            config.settings()
        for name in variables:
            monkeypatch.delenv(name)
        return str(caught.value)

    return read


def test_pyproject_is_found_from_below(project: Path) -> None:
    """A script in a subfolder gets the project's settings, and the folder beside them."""
    assert str(project / "from-file") == config.settings().store
    assert 1000 == config.settings().memory_bytes


def test_the_environment_is_over_the_file_and_code_over_both(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later sources win, setting by setting, and what is relative there is so to the working directory."""
    monkeypatch.setenv("DSPY_CACHECTL_STORE", "from-env")
    monkeypatch.setenv("DSPY_CACHECTL_PHASES__EVAL__TEMPERATURE", "0.3")
    config.reload()
    assert str(Path.cwd() / "from-env") == config.settings().store
    assert 1000 == config.settings().memory_bytes
    assert 0.3 == config.settings().phase_policy("eval")[0].temperature
    config.configure(store=Path("from-code"))
    assert str(Path.cwd() / "from-code") == config.settings().store


def test_a_folder_stays_where_it_was_meant(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory that changes later moves no store."""
    monkeypatch.setenv("DSPY_CACHECTL_STATE", "state")
    config.configure(store="from-code")
    before = config.settings()
    monkeypatch.chdir("/")
    config.configure(memory_bytes=5)
    assert (before.store, before.state) == (config.settings().store, config.settings().state)
    assert before.state == config.setting_now("state")


@pytest.mark.parametrize("blank", ["", "  ", "\t"])
def test_what_is_empty_is_not_set(project: Path, monkeypatch: pytest.MonkeyPatch, blank: str) -> None:
    """An empty variable leaves what the file says, and an empty text in the file what is usual."""
    for name in ("STORE", "MEMORY_BYTES", "POLICY", "PHASES", "MLFLOW", "STATE", "NO_SETTING"):
        monkeypatch.setenv(f"DSPY_CACHECTL_{name}", blank)
    config.reload()
    assert (str(project / "from-file"), 1000) == (config.settings().store, config.settings().memory_bytes)
    config.configure(store=blank)
    assert str(project / "from-file") == config.settings().store
    (project / "pyproject.toml").write_text(f'[tool.dspy_cachectl]\nstore = """{blank}"""')
    config.reload()
    assert "dspy_cachectl" == Path(config.settings().store).name
    assert dspy_cachectl.install(blank).tiers.stores[-1].location == config.settings().store
    assert [] == list(Path.cwd().iterdir())


def test_a_users_home_is_found(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` is the user's, wherever it is written."""
    monkeypatch.setenv("HOME", str(project))
    monkeypatch.setenv("DSPY_CACHECTL_STORE", " ~/mine ")
    config.reload()
    assert str(project / "mine") == config.settings().store


def test_phases_are_configured_by_name(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A known phase keeps its policy where the file names none; a new one is known from then on."""
    policy, roles = config.settings().phase_policy("eval")
    assert (Policy.FRESH.with_overrides(temperature=0.7), {"judge": Policy.REUSE}) == (policy, roles)
    assert Policy.REFRESH.with_overrides(max_age=60) == config.settings().phase_policy("Nightly")[0]
    # A variable is in capitals, whatever the phase's name is.
    monkeypatch.setenv("DSPY_CACHECTL_PHASES__NIGHTLY__MAX_AGE", "90")
    config.reload()
    assert 90 == config.settings().phase_policy("Nightly")[0].max_age
    assert {"eval", "Nightly"} == set(config.settings().phases)


def test_an_unknown_phase_lists_the_known_ones(project: Path) -> None:
    """A misspelt phase is an error, not a new phase."""
    with pytest.raises(ConfigurationError, match="'Nightly', 'compile', 'eval'"):
        config.settings().phase_policy("evla")


def test_configure_in_a_with_block_is_undone_at_its_end() -> None:
    """Every switch works as a plain call and in a block, and puts back what was."""
    config.configure(memory_bytes=5)
    with config.configure(memory_bytes=7) as inside:
        assert 7 == inside.memory_bytes
    assert 5 == config.settings().memory_bytes


def test_a_block_takes_back_what_it_changed_and_nothing_else() -> None:
    """Blocks of several threads end in any order, and what was said by a plain call within one stays."""
    usual = config.settings()
    one, other = config.configure(memory_bytes=1), config.configure(memory_bytes=2, policy="OFF")
    one.__enter__()
    other.__enter__()
    config.configure(force_recompute=True)
    one.__exit__(None, None, None)
    assert (2, "OFF") == (config.settings().memory_bytes, config.settings().policy)
    other.__exit__(None, None, None)
    assert (usual.memory_bytes, "REUSE") == (config.settings().memory_bytes, config.settings().policy)
    assert config.settings().force_recompute


def test_calls_that_nobody_takes_back_take_no_room() -> None:
    """A server may call `configure` for ever."""
    with config.configure(memory_bytes=1):
        for size in range(100):
            config.configure(disk_bytes=10**6 + size)
        gc.collect()
        config.configure(policy="OFF")
        assert len(config.current._CURRENT.layers) <= 3
        assert (1, 10**6 + 99) == (config.settings().memory_bytes, config.settings().disk_bytes)
    assert 10**6 + 99 == config.settings().disk_bytes


class _Unwritable:
    def __repr__(self) -> str:
        raise RuntimeError("no words for it")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"stoer": "x"}, r"no setting 'stoer' \(in configure\(\)\): did you mean 'store'\?.*: store, memory_bytes"),
        ({"memory_bytes": -1}, r"'memory_bytes' in configure\(\) cannot be -1"),
        ({"memory_bytes": True}, "'memory_bytes'.*cannot be True: write a whole number"),
        ({"disk_bytes": 5000}, "'disk_bytes'.*nothing fits.*100000"),
        ({"disk_bytes": 1e9}, "'disk_bytes'.*such as 1000000000"),
        ({"disk_bytes": 10**30}, "'disk_bytes'.*at most"),
        ({"store": 5}, "'store'.*path"),
        ({"store": "a\0b"}, "'store'.*name a folder"),
        ({"store": "~nobody-here/x"}, "'store'.*no user's home"),
        ({"store": "x" * 5000}, "'store'.*name a folder"),
        ({"store": "\ud83d"}, "'store'.*name a folder"),
        ({"store": "s3://bucket"}, "'store'.*unknown store 's3://bucket'"),
        ({"store": "memory://", "memory_bytes": 0}, "nothing fits"),
        ({"state": "memory://"}, "'state'.*folder"),
        ({"policy": "stale"}, "'policy'.*'stale': unknown policy; write one of REUSE"),
        ({"force_recompute": "perhaps"}, "'force_recompute'.*true or false"),
        ({"phases": "eval"}, "'phases'.*it is a table"),
        ({"phases": {"eval": {"temprature": 1}}}, "did you mean 'phases.eval.temperature'"),
        ({"phases": {"eval": {"max_age": float("nan")}}}, "'phases.eval.max_age'.*not negative"),
        ({"phases": {"eval": {"max_age": 10**400}}}, "'phases.eval.max_age'.*number of seconds"),
        ({"phases": {"eval": {"temperature": 10**5000}}}, "'phases.eval.temperature'.*cannot be this int"),
        ({"memory_bytes": Fraction(10**500, 3)}, "'memory_bytes'.*whole number"),
        ({"policy": _Unwritable()}, "'policy'.*cannot be this _Unwritable"),
        ({"phases": {5: {}}}, "a name in 'phases' in configure.*cannot be 5"),
        ({"phases": {"eval": {"roles": {" ": "REUSE"}}}}, "a name in 'phases.eval.roles'.*cannot be ' '"),
        ({"phases": {"e" * 5000: 5}}, r"^setting 'phases\.e{60,80}\.\.\. in configure"),
        ({"state": "a\0b"}, "'state'.*there is a NUL"),
        ({"state": 5}, "'state'.*write a folder's path between quotes$"),
        ({"store": "file://machine/folder"}, "'store'.*unknown store"),
        ({"phases": {"eval": {"policy": "stale"}}}, "'phases.eval.policy'.*unknown policy"),
        ({"phases": {"eval": {"roles": {"judge": "stale"}}}}, "'phases.eval.roles.judge'.*unknown policy"),
        ({"phases": {"compile": {"temperature": 1}}}, "'phases.compile.temperature' in configure.*lends a temperature"),
    ],
)
def test_a_bad_setting_says_which_and_changes_nothing(changes: dict[str, object], says: str) -> None:
    """An unknown name or a bad value is an error at once, with the names there are and what to write."""
    before = config.settings()
    with pytest.raises(ConfigurationError, match=says):
        config.configure(**changes)
    assert before == config.settings()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[tool]\ndspy_cachectl = "x"', ["tool.dspy_cachectl = 'x'", "[tool.dspy_cachectl]"]),
        ("tool = 5", ["tool = 5"]),
        ("[tool.dspy_cachectl]\nnot = = toml", ["line 2, column 7"]),
        ("[tool.dspy_cachectl.phases.eval]\nmax_age = -1", ["'phases.eval.max_age'", "-1"]),
        ('[tool.dspy_cachectl]\nphases = ["eval"]', ["'phases'", "table"]),
        ("[tool.dspy_cachectl.phases]\neval = 5", ["'phases.eval'", "table"]),
        ("[tool.dspy_cachectl.store]\nx = 1", ["'store'", "path"]),
        ("[tool.dspy_cachectl]\ndisk_bytes = 1e9", ["'disk_bytes'", "1000000000"]),
        ("[tool.dspy_cachectl]\nmemory_bytes = true", ["'memory_bytes'", "whole number"]),
        ('[tool.dspy_cachectl]\nmemory-bytes = "1"', ["'memory-bytes'", "did you mean 'memory_bytes'"]),
        ('[tool.dspy_cachectl]\nstore = "/dev/null/x"', ["'store'", "'/dev/null' is no folder"]),
        ('[tool.dspy_cachectl]\nstore = "pyproject.toml"', ["'store'", "is a file; name a folder"]),
        ('[[tool.dspy_cachectl]]\nstore = "x"', ["tool.dspy_cachectl = [{", "write a table"]),
        ("[tool.dspy_cachectl.phases.eval]\ntemperature = 0" + "9" * 5000, []),
        ("[tool.dspy_cachectl.phases.eval]\ntemperature = " + "9" * 400, ["'phases.eval.temperature'", "not negative"]),
        ("[tool.dspy_cachectl]\nmemory_bytes = " + "9" * 5000, ["a number in them has too many digits"]),
        ('[tool.dspy_cachectl.phases.""]\npolicy = "REUSE"', ["a name in 'phases'", "not empty"]),
        ("[tool.dspy_cachectl]\nstate = 'a\0'", ["save it as UTF-8"]),
        ("a = " + "[" * 5_000, ["nested too deeply"]),
        ("a." * 100_000 + "a = 1", []),
        ("a = 0" + "9" * 10_000, []),
    ],
)
def test_what_is_wrong_in_a_file_names_the_file(
    refused: Callable[..., str], tmp_path: Path, text: str, says: list[str]
) -> None:
    """The file, the setting or the place in it, and what to write."""
    message = refused(text)
    for part in [str(tmp_path / "pyproject.toml"), *says]:
        assert part in message


def test_a_file_eight_folders_up(refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read from there, and named where it cannot be."""
    below = tmp_path.joinpath(*"abcdefgh")
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert str(tmp_path / "pyproject.toml") in refused("a = = b")
    monkeypatch.chdir(below.parent)
    (below / "i").mkdir()
    monkeypatch.chdir(below / "i")
    config.reload()
    config.settings()  # nine folders up is another project's


def _folder(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _nowhere(path: Path) -> None:
    path.symlink_to("missing")


def _latin(path: Path) -> None:
    path.write_bytes('name = "caf\xe9"'.encode("latin-1"))


def _utf16(path: Path) -> None:
    path.write_bytes("[tool.dspy_cachectl]".encode("utf-16-le"))


def _large(path: Path) -> None:
    path.write_bytes(b"[tool.dspy_cachectl]\n" + b"#" * 3_000_000)


@pytest.mark.parametrize("make", [_folder, _pipe, _device, _nowhere, _latin, _utf16, _large])
def test_what_is_no_file_of_settings_is_named(
    refused: Callable[..., str], tmp_path: Path, make: Callable[[Path], None]
) -> None:
    """Nothing is waited for, and nothing is read without an end."""
    make(tmp_path / "pyproject.toml")
    assert str(tmp_path / "pyproject.toml") in refused()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("STROE", "x", "did you mean 'DSPY_CACHECTL_STORE'"),
        ("PHASES__EVAL__TEMPRATURE", "1", "did you mean 'DSPY_CACHECTL_PHASES__EVAL__TEMPERATURE'"),
        ("STORE__FOLDER", "x", "no setting 'store.folder'"),
        ("NOTHING_LIKE_IT", "x", "the settings are: store, memory_bytes"),
        ("", "x", "no setting ''"),
        ("PHASES__", "{}", "a name in 'phases'"),
        ("PHASES____TEMPERATURE", "1", "a name in 'phases'"),
        ("PHASES__EVAL__ROLES__", "REUSE", "a name in 'phases.eval.roles'"),
        ("MEMORY_BYTES", "1e9", "such as 1000000000"),
        ("MEMORY_BYTES", "lots", "whole number"),
        ("DISK_BYTES", "9" * 5000, "whole number"),
        ("PHASES", "{not json", "write an object such as"),
        ("PHASES", "[" * 5000, "write an object such as"),
        ("PHASES__EVAL__SCOPE", "5", "'phases.eval.scope'"),
        ("MLFLOW", "maybe", "true or false"),
        ("POLICY", "\x1b[2J", r"'\x1b[2J': unknown policy"),
    ],
)
def test_what_is_wrong_in_the_environment_names_the_variable(
    refused: Callable[..., str], name: str, value: str, says: str
) -> None:
    """Every variable that looks like one of ours is one, or is named."""
    message = refused(**{f"DSPY_CACHECTL_{name}": value})
    assert f"in the environment variable DSPY_CACHECTL_{name}" in message
    assert says in message
    assert message.isprintable()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DSPY_CACHEDIR", "~nobody-here/x"),
        ("DSPY_CACHEDIR", "x" * 5000),
        ("DSPY_CACHE_LIMIT", "5"),
        ("DSPY_CACHE_LIMIT", "9" * 40),
        ("DSPY_CACHE_LIMIT", "9" * 5000),
    ],
)
def test_what_is_wrong_in_dspys_own_variables_names_them(refused: Callable[..., str], name: str, value: str) -> None:
    """They are settings of ours where nothing else is said."""
    assert f"the environment variable {name}" in refused(**{name: value})


def test_a_mark_before_the_text_is_no_part_of_it(project: Path) -> None:
    """Editors of Windows put it there."""
    (project / "pyproject.toml").write_bytes(b"\xef\xbb\xbf[tool.dspy_cachectl]\nmemory_bytes = 7\n")
    config.reload()
    assert 7 == config.settings().memory_bytes


def test_no_password_is_in_a_message(refused: Callable[..., str]) -> None:
    """What is wrong is shown, and what is secret in it is not."""
    message = refused(DSPY_CACHECTL_STORE=f"redis://me:{SECRET}@host/0?password={SECRET}")
    assert "redis://" in message
    assert SECRET not in message
    assert SECRET not in refused(f'[tool.dspy_cachectl.phases.eval.scope]\napi_key = ["{SECRET}"]')


def test_settings_are_read_without_what_takes_long(tmp_path: Path) -> None:
    """Neither pydantic nor DSPy is needed to know where the store is."""
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    script = "from dspy_cachectl.config import settings; print(settings().store)"
    done = python(
        "-X", "importtime", "-c", script, cwd=tmp_path, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    )
    assert (0, str(tmp_path / "from-file")) == (done.returncode, done.stdout.strip())
    assert not modules_loaded(done) & {"pydantic", "pydantic_settings", "dspy", "rich", "typer"}


def test_a_setting_that_is_wrong_costs_nothing(tmp_path: Path) -> None:
    """It is said where an LM is made, before anything is asked."""
    script = "import dspy_cachectl; dspy_cachectl.LM('openai/x')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DSPY_CACHECTL_STROE": "x"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 1 == done.returncode
    assert "ConfigurationError: there is no setting 'stroe'" in done.stderr
