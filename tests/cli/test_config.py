"""`dspy-cachectl config show`: every setting, and where it comes from."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from dspy_cachectl.config import Settings
from tests.cli.commands import command

SECRET = "hunter2hunter2"


def shown(*, cwd: Path, store: Path | None = None, **variables: str) -> dict[str, tuple[object, str]]:
    done = command("config", "show", "--json", cwd=cwd, store=store, **variables)
    assert (0, "") == (done.returncode, done.stderr)
    return {item["name"]: (item["value"], item["origin"]) for item in json.loads(done.stdout)["settings"]}


def test_every_setting_is_shown(tmp_path: Path) -> None:
    """Where nothing is said, all of them are defaults."""
    found = shown(cwd=tmp_path)
    assert {field.name for field in fields(Settings)} - {"phases"} <= found.keys()
    assert {"default"} == {origin for _, origin in found.values()}
    assert (30 * 10**9, "default") == found["disk_bytes"]


def test_later_over_earlier(tmp_path: Path) -> None:
    """The option is over the environment, over pyproject.toml, over the default; phases one by one."""
    file = tmp_path / "pyproject.toml"
    file.write_text(
        '[tool.dspy_cachectl]\nstore = "from-file"\npolicy = "OFF"\nmemory_bytes = 7\n'
        '[tool.dspy_cachectl.phases.eval]\ntemperature = 0.5\nmax_age = 60\nroles = { judge = "REUSE" }\n'
    )
    variables = {
        "DSPY_CACHECTL_STORE": "from-variable",
        "DSPY_CACHECTL_MEMORY_BYTES": "8",
        "DSPY_CACHECTL_PHASES__EVAL__MAX_AGE": "90",
    }
    (tmp_path / "inner").mkdir()
    found = shown(cwd=tmp_path / "inner", **variables)
    assert (str(tmp_path / "inner" / "from-variable"), "DSPY_CACHECTL_STORE") == found["store"]
    assert ("OFF", str(file)) == found["policy"]
    assert (8, "DSPY_CACHECTL_MEMORY_BYTES") == found["memory_bytes"]
    assert (30 * 10**9, "default") == found["disk_bytes"]
    assert (0.5, str(file)) == found["phases.eval.temperature"]
    assert (90.0, "DSPY_CACHECTL_PHASES__EVAL__MAX_AGE") == found["phases.eval.max_age"]
    assert ("REUSE", str(file)) == found["phases.eval.roles.judge"]
    assert (None, "default") == found["phases.eval.policy"]
    named = shown(cwd=tmp_path, store=Path("by-option"), **variables)
    assert (str(tmp_path / "by-option"), "--store") == named["store"]


def test_phases_as_json_in_one_variable(tmp_path: Path) -> None:
    """A variable that holds several settings is named for each of them."""
    found = shown(cwd=tmp_path, DSPY_CACHECTL_PHASES='{"mine": {"policy": "REFRESH"}}')
    assert ("REFRESH", "DSPY_CACHECTL_PHASES") == found["phases.mine.policy"]


@pytest.mark.parametrize(
    ("text", "variables", "named"),
    [
        ("disk_bytes = -1", {}, ["disk_bytes", "pyproject.toml"]),
        ("disk_bytes = 5", {"DSPY_CACHECTL_DISK_BYTES": "none"}, ["disk_bytes", "DSPY_CACHECTL_DISK_BYTES"]),
        ('storr = "typo"', {}, ["storr", "pyproject.toml", "did you mean 'store'"]),
        ("", {"DSPY_CACHECTL_POLICY": "NONSENSE"}, ["NONSENSE", "REUSE"]),
        ("", {"DSPY_CACHECTL_PHASES__EVAL__POLICY": "NONSENSE"}, ["NONSENSE", "REUSE"]),
        ("not = = toml", {}, ["cannot be read", "pyproject.toml", "line 2"]),
        ("", {"DSPY_CACHECTL_PHASES": "{not json"}, ["cannot be read", "DSPY_CACHECTL_PHASES"]),
        ("", {"DSPY_CACHECTL_STROE": "x"}, ["DSPY_CACHECTL_STROE", "DSPY_CACHECTL_STORE"]),
    ],
)
def test_what_cannot_be_used_is_shown_with_its_origin(
    tmp_path: Path, text: str, variables: dict[str, str], named: list[str]
) -> None:
    """A bad setting is one message and exit code 1, and no trace."""
    (tmp_path / "pyproject.toml").write_text(f"[tool.dspy_cachectl]\n{text}\n")
    done = command("config", "show", cwd=tmp_path, **variables)
    assert 1 == done.returncode
    assert "Traceback" not in done.stderr
    for part in named:
        assert part in done.stderr


def test_no_secret_is_shown(tmp_path: Path) -> None:
    """Credentials in a store's address, and what has the name of a secret, are left out."""
    (tmp_path / "pyproject.toml").write_text(
        f'[tool.dspy_cachectl.phases.eval]\nscope = {{ api_key = "{SECRET}", team = "blue" }}\n'
    )
    variables = {"DSPY_CACHECTL_STORE": f"redis://user:{SECRET}@host/0?password={SECRET}"}
    good = command("config", "show", cwd=tmp_path)
    bad = command("config", "show", "--json", cwd=tmp_path, **variables, DSPY_CACHECTL_DISK_BYTES=f"password={SECRET}")
    assert (0, 1) == (good.returncode, bad.returncode)
    for done in (good, bad):
        assert SECRET not in done.stdout + done.stderr
        assert "blue" in done.stdout
    for said in ("(30.0 GB)", "(268.4 MB)", "(30 days)", "(outputs/cache/predictions)"):
        assert said in good.stdout
