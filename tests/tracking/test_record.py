"""Records: what is written of results and what is not; and where they go, found in memory and without a request."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from hypothesis import given, strategies as st

from dspy_cachectl.boundary.secrets import scrub, without_credentials
from dspy_cachectl.errors import CorruptEntryError
from dspy_cachectl.tracking import installed
from dspy_cachectl.tracking.record import Point, Record
from dspy_cachectl.tracking.resolve import absolute, resolve
from tests.tracking import servers

_names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@given(
    points=st.lists(st.builds(Point, _names, st.floats(allow_nan=False), st.integers(0, 2**50), st.integers(0, 9))),
    tags=st.dictionaries(_names, _names),
    run_id=st.none() | _names,
    failed=st.booleans(),
)
def test_a_record_comes_back_as_it_went_in(
    points: list[Point], tags: dict[str, str], run_id: str | None, failed: bool
) -> None:
    """JSON and back is the same record."""
    record = Record("a" * 32, 1, 2, "http://host", run_id, "3", "name", "eval", failed, tuple(points), tags, tags)
    assert Record.from_json(record.to_json()) == record


def test_metrics_that_are_not_finite_are_dropped() -> None:
    """A server would refuse them or store something else."""
    points = tuple(Point("m", value, 1) for value in (math.nan, math.inf, -math.inf, 1.5))
    assert Record("u", 1, 2, metrics=points).metrics == (Point("m", 1.5, 1),)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://me:se:cret@host:5000/x?a=1#f", "http://host:5000/x?a=1#f"),
        ("https://token@host", "https://host"),
        ("https://host/x?token=abc&a=1", "https://host/x?a=1"),
        ("https://host/x?a=1&api_key=abc", "https://host/x?a=1"),
        ("postgresql://me:p%40ss@db.example:5432/mlflow", "postgresql://db.example:5432/mlflow"),
        ("mysql+pymysql://me:p@ss@db/mlflow?password=x", "mysql+pymysql://db/mlflow"),
        ("databricks://My-Profile", "databricks://My-Profile"),
        ("databricks", "databricks"),
        ("sqlite:////data/me@work/mlflow.db", "sqlite:////data/me@work/mlflow.db"),
    ],
)
def test_an_address_is_kept_without_what_opens_it(uri: str, expected: str) -> None:
    """Users, passwords and secret parameters go; everything else stays."""
    assert without_credentials(uri) == expected
    assert Record("u", 1, 2, tracking_uri=uri).tracking_uri == expected


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdefghijklmnop1234",
        "dapi0123456789abcdef0123456789abcdef",
        "hf_abcdefghijklmnopqrstuv",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "Authorization: Bearer abcdef123456",
        "authorization='Basic dXNlcjpwYXNzd29yZA=='",
        "{'api_key': 'hunter2hunter2'}",
        "OPENAI_API_KEY=hunter2hunter2",
        "token: hunter2hunter2",
        "x-auth-token=hunter2hunter2",
        "password=hunter2hunter2",
        "http://me:hunter2hunter2@host/path",
        "https://host/x?access_token=hunter2hunter2&a=1",
    ],
)
def test_no_secret_stays_in_a_text(secret: str) -> None:
    """Keys, tokens, headers and passwords that can be told by their look are taken out of tags and messages."""
    text = scrub(f"before {secret} after")
    for part in ("abcdef", "dXNlc", "hunter2", "0123456789"):
        assert part not in text
    assert text.startswith("before ")
    assert text.endswith("after")


@pytest.mark.parametrize("text", ["max_tokens=100", "the basic understanding", "prompt_tokens: 7", "eval/baseline"])
def test_what_is_no_secret_stays(text: str) -> None:
    """Ordinary words are left alone."""
    assert scrub(text) == text


def test_a_tag_with_the_name_of_a_secret_is_left_out() -> None:
    """Whatever its value looks like."""
    assert Record("u", 1, 2, tags={"api_key": "plain", "a": "b"}).tags == {"a": "b"}


def test_a_damaged_record_is_said_to_be() -> None:
    """It is not guessed at."""
    wrong = b'{"uid": "u", "started": 1, "ended": "soon"}'
    for damaged in (b"", b"[]", b"{}", wrong, Record("u", 1, 2).to_json()[:-9], b"\xff"):
        with pytest.raises(CorruptEntryError):
            Record.from_json(damaged)


@pytest.fixture
def nobody(state: Path) -> Iterator[str]:
    """MLflow is set to a server that never answers: a request would hang the test."""
    with servers.hanging() as url:
        mlflow.set_tracking_uri(url)
        yield url
        mlflow.set_tracking_uri(None)


def _activate(monkeypatch: pytest.MonkeyPatch, run_id: str) -> None:
    info = type("Info", (), {"run_id": run_id})
    monkeypatch.setattr(mlflow, "active_run", lambda: type("Run", (), {"info": info}))


@pytest.mark.parametrize(
    ("named", "captured", "expected"), [("named", "seen", "named"), (None, "seen", "seen"), (None, None, "active")]
)
def test_the_run_nearest_to_the_caller_wins(
    nobody: str, monkeypatch: pytest.MonkeyPatch, named: str | None, captured: str | None, expected: str
) -> None:
    """Named, captured, active: in this order."""
    monkeypatch.setenv("MLFLOW_RUN_ID", "environment")
    _activate(monkeypatch, "active")
    target = resolve(run_id=named).of(captured)
    assert target.run_id == expected
    assert target.tracking_uri == nobody


def test_without_an_active_run_the_environment_names_it(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`MLFLOW_RUN_ID`, unless an experiment is asked for; then a run of its own."""
    monkeypatch.setenv("MLFLOW_RUN_ID", "environment")
    assert resolve().run_id == "environment"
    assert resolve(experiment="x").run_id is None
    monkeypatch.delenv("MLFLOW_RUN_ID")
    assert resolve().run_id is None


def test_the_experiment_is_mlflows_own(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The id that `set_experiment` leaves, or the name of the environment; the named one over both."""
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "by name")
    assert (resolve().experiment_id, resolve().experiment) == (None, "by name")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    assert (resolve().experiment_id, resolve().experiment) == ("7", None)
    assert (resolve(experiment="x").experiment_id, resolve(experiment="x").experiment) == (None, "x")


def test_it_needs_no_mlflow(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without importing it, they go where the environment says, or else where MLflow would take them by itself."""
    defaults = [mlflow.get_tracking_uri()]
    old = state.parent / "mlruns" / "0" / "meta.yaml"
    old.parent.mkdir(parents=True)
    old.touch()
    defaults.append(mlflow.get_tracking_uri())
    monkeypatch.delitem(sys.modules, "mlflow")
    found = [resolve().tracking_uri]
    old.unlink()
    assert [resolve().tracking_uri, *found] == defaults
    monkeypatch.setattr(installed, "folder", lambda: None)
    assert resolve().tracking_uri is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    monkeypatch.setenv("MLFLOW_RUN_ID", "environment")
    assert (resolve().tracking_uri, resolve().run_id) == ("http://host:5000", "environment")


def test_an_address_means_the_same_from_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Paths are made absolute when they are recorded; everything else is left as it is."""
    monkeypatch.chdir(tmp_path)
    here = tmp_path.as_posix()
    assert absolute("sqlite:///mlflow.db") == f"sqlite:///{here}/mlflow.db"
    assert absolute("sqlite:///mlflow.db?timeout=3") == f"sqlite:///{here}/mlflow.db?timeout=3"
    assert absolute("mlruns") == (tmp_path / "mlruns").as_uri()
    for same in (
        "sqlite:////a/b.db",
        "sqlite:///:memory:",
        "sqlite:///file:a?uri=true",
        "http://h",
        "databricks",
        "databricks://p",
        "file:///a",
    ):
        assert absolute(same) == same
