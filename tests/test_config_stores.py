"""Where entries live, as it is written: several stores at once, and those that machines share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import dspy_cachectl
from dspy_cachectl import config
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.manage.configuration import configuration
from tests.test_config import project

__all__ = ["project"]


@pytest.mark.parametrize("how", ["file", "variable", "code"])
def test_several_stores(project: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """One list names the stores of a program, the nearest first; memory is in front, and no password is shown."""
    written = ["memory://", "mine", "redis://me:hunter2@host"]
    if how == "file":
        (project / "pyproject.toml").write_text(f"[tool.dspy_cachectl]\nstore = {json.dumps(written)}")
        config.reload()
    elif how == "variable":
        monkeypatch.setenv("DSPY_CACHECTL_STORE", json.dumps(written))
        config.reload()
    else:
        config.configure(store=written)
    folder = project / "mine" if how == "file" else Path.cwd() / "mine"

    assert (str(folder), written[2]) == config.settings().store
    locations = [store.location for store in dspy_cachectl.install().tiers.stores]
    assert ["memory://", str(folder), "redis://host"] == locations
    assert "hunter2" not in str(configuration().settings)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"store": []}, "'store'.*nearest first"),
        ({"store": ["one", "other"]}, "'store'.*one may be a folder"),
        ({"store": ["redis://host", "folder"]}, "'store'.*before those that others share"),
        ({"store": ["folder", "folder"]}, "'store'.*each once"),
        ({"store": ["folder", 5]}, "'store'.*path"),
        ({"store": "redis://host/x"}, "'store'.*the database is a number"),
        ({"store": "redis://host?namspace=x"}, "'store'.*'namspace'.*namespace"),
        ({"store": "redis://host:port"}, "'store'.*a port is a number"),
        ({"store": "redis+sentinel://host"}, "'store'.*name the service"),
        ({"store": "redis+cluster://host/1"}, "'store'.*no databases"),
        ({"store": "redis://host?ssl_ca_certs=x"}, "'store'.*rediss"),
        ({"store": "unix://socket"}, "'store'.*unix:///path"),
        ({"store": "redis://host?ttl=soon"}, "'store'.*ttl is a number of seconds"),
        ({"store": "redis:/me:hunter2@host"}, r"'store'[^@]*two slashes.*'redis://host'$"),
        ({"store": ["folder", "valkeys+cluster:host"]}, "'store'.*two slashes"),
        ({"store": "redis//me:hunter2@host"}, r"'store'[^@]*begins with 'redis://'; write 'redis://host'$"),
        ({"store": "me:hunter2@host:6379"}, r"'store'[^@]*begins with 'redis://'; write 'redis://host'$"),
        ({"store": ":hunter2@host"}, r"'store'[^@]*write 'redis://host'$"),
        ({"store": "redis://me:hunter2@one,redis://me:hunter2@other"}, "'store'.*written as a list"),
        ({"store": "redis://one:1,other:2"}, r"'store'.*several hosts: write redis\+cluster://"),
        ({"store": "redis://host?pasword=hunter2"}, "'store'.*no option 'pasword'"),
        ({"store": ["folder", "rediss+sentinel://host/m?sentinel_pass=hunter2"]}, "'store'.*mean 'sentinel_password'"),
        ({"store": "redis://host?db=hunter2"}, "'store'.*the database is a number"),
        ({"store": "redis://host?ttl=hunter2"}, "'store'.*ttl is a number of seconds"),
        ({"predictions": "redis://host"}, "'predictions'.*a folder is needed"),
    ],
)
def test_what_cannot_be_used_is_named(project: Path, changes: dict[str, Any], says: str) -> None:
    """The error names the setting, and says what to write instead."""
    with pytest.raises(ConfigurationError, match=says) as raised:
        config.configure(**changes)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("written", ["redis://host?pasword=hunter2", "redis//me:hunter2@host", ":hunter2@host"])
def test_what_cannot_be_used_is_shown_without_secrets(
    project: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    """Where all settings are shown, so is one that cannot be used; but not what may be a password in it."""
    monkeypatch.setenv("DSPY_CACHECTL_STORE", written)
    assert "hunter2" not in str(configuration())
