"""Tables and variables whose names are nearly ours: no silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dspy_cachectl import config
from dspy_cachectl.errors import ConfigurationError
from tests.test_config import project, refused

__all__ = ["project", "refused"]


@pytest.mark.parametrize("name", ["dspy-cachectl", "dspy_cachctl", "DSPY_CACHECTL", "dspy.cachectl"])
def test_a_table_that_is_nearly_ours_is_named(project: Path, name: str) -> None:
    """The distribution's name, or a slip: not silence. A table of another tool is nobody's slip."""
    (project / "pyproject.toml").write_text("[tool.dspy_tools]\nx = 1\n[tool.cachecontrol]\nx = 1\n")
    config.reload()
    assert config.settings().policy
    (project / "pyproject.toml").write_text(f'[tool.{name}]\nstore = "x"\n')
    config.reload()
    with pytest.raises(ConfigurationError, match=rf"\[tool.{name}\] in .*did you mean \[tool.dspy_cachectl\]"):
        config.settings()


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("use_prediction_cache", "predictions"),
        ("cache_predictions_dir", "predictions"),
        ("cache_max_age_days", "predictions_max_age"),
        ("compress_predictions", "predictions_compress"),
    ],
)
def test_what_others_call_a_setting_is_answered_with_its_name(
    refused: Callable[..., str], name: str, ours: str
) -> None:
    """In pyproject.toml, in the environment and in code: one sentence, with what to write."""
    in_file = refused(f"[tool.dspy_cachectl]\n{name} = 7")
    assert in_file.startswith(f"there is no setting {name!r} (in ")
    assert f"pyproject.toml): write {ours!r} (" in in_file
    variable = f"DSPY_CACHECTL_{name.upper()}"
    in_environment = refused("", **{variable: "7"})
    assert f"(in the environment variable {variable}): write 'DSPY_CACHECTL_{ours.upper()}' (" in in_environment
    with pytest.raises(ConfigurationError, match=rf"\(in configure\(\)\): write '{ours}' \("):
        config.configure(**{name: 7})


@pytest.mark.parametrize("header", ["dspy_cachectl", "tools.dspy_cachectl", "Tool.dspy_cachectl"])
def test_our_table_in_a_wrong_place_is_named(refused: Callable[..., str], header: str) -> None:
    """Nothing would come of it."""
    assert f"[{header}] in" in refused(f'[{header}]\nstore = "x"')


@pytest.mark.parametrize("name", ["DSPY_CACHECTL", "DSPYCACHECTL_STORE", "DSPY_CACHE_CTL_STORE", "dspy_cachectlstore"])
def test_a_variable_that_is_nearly_ours_is_named(refused: Callable[..., str], name: str) -> None:
    """It would be set, and nothing would come of it."""
    message = refused(**{name: "x"})
    assert f"in the environment variable {name}" in message
    assert "begin with DSPY_CACHECTL_" in message


def test_a_phase_that_is_named_like_another_is_said_once(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It may be the user's own, and is more often misspelt."""
    (project / "pyproject.toml").write_text("[tool.dspy_cachectl.phases]\nevl.max_age = 9\neval-2.max_age = 9\n")
    for _ in range(2):
        config.reload()
        assert {"evl", "eval-2"} == {*config.settings().phases}
    (said,) = caplog.messages
    assert "'phases.evl' in " in said
    assert "no phase is called so but by phase('evl'): did you mean 'eval'?" in said
