"""Settings from pyproject.toml, the environment and code; later over earlier."""

from __future__ import annotations

from pathlib import Path

import pytest

from dspy_cachectl import config
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.policy import Policy

PYPROJECT = """
[tool.dspy_cachectl]
store = "from-file"
memory_bytes = 1000

[tool.dspy_cachectl.phases.eval]
temperature = 0.7
roles = { judge = "reuse" }

[tool.dspy_cachectl.phases.nightly]
policy = "refresh"
max_age = 60
"""


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


def test_pyproject_is_found_from_below(project: Path) -> None:
    """A script in a subfolder gets the project's settings."""
    assert "from-file" == config.settings().store
    assert 1000 == config.settings().memory_bytes


def test_the_environment_is_over_the_file_and_code_over_both(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later sources win, setting by setting."""
    monkeypatch.setenv("DSPY_CACHECTL_STORE", "from-env")
    monkeypatch.setenv("DSPY_CACHECTL_PHASES__EVAL__TEMPERATURE", "0.3")
    config.reload()
    assert "from-env" == config.settings().store
    assert 1000 == config.settings().memory_bytes
    assert 0.3 == config.settings().phase_policy("eval")[0].temperature
    config.configure(store=Path("from-code"))
    assert "from-code" == config.settings().store


def test_phases_are_configured_by_name(project: Path) -> None:
    """A known phase keeps its policy where the file names none; a new one is known from then on."""
    policy, roles = config.settings().phase_policy("eval")
    assert (Policy.FRESH.with_overrides(temperature=0.7), {"judge": Policy.REUSE}) == (policy, roles)
    assert Policy.REFRESH.with_overrides(max_age=60) == config.settings().phase_policy("nightly")[0]


def test_an_unknown_phase_lists_the_known_ones(project: Path) -> None:
    """A misspelt phase is an error, not a new phase."""
    with pytest.raises(ConfigurationError, match="'compile', 'eval', 'nightly'"):
        config.settings().phase_policy("evla")


def test_configure_in_a_with_block_is_undone_at_its_end() -> None:
    """Every switch works as a plain call and in a block, and puts back what was."""
    config.configure(memory_bytes=5)
    with config.configure(memory_bytes=7) as inside:
        assert 7 == inside.memory_bytes
    assert 5 == config.settings().memory_bytes


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"stoer": "x"}, "'stoer'.*the settings are: store, memory_bytes"),
        ({"memory_bytes": -1}, "'memory_bytes'"),
        ({"policy": "stale"}, "unknown policy 'stale'"),
        ({"phases": {"eval": {"temprature": 1}}}, "temprature"),
        ({"phases": {"eval": {"policy": "stale"}}}, "unknown policy 'stale'"),
    ],
)
def test_a_bad_setting_says_which_and_changes_nothing(changes: dict[str, object], says: str) -> None:
    """An unknown name or a bad value is an error at once, with the names there are."""
    before = config.settings()
    with pytest.raises(ConfigurationError, match=says):
        config.configure(**changes)
    assert before == config.settings()
