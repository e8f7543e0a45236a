"""Kept predictions as settings say: whether, where, how old, compressed; and what is logged of them meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import config
from dspy_cachectl.errors import ConfigurationError
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import program, questions, run

__all__ = ["program"]

Say = Callable[[str, object], None]

DEFAULT = Path("outputs/cache/predictions")


@pytest.fixture(
    params=["file", *(pytest.param(place, marks=pytest.mark.exhaustive) for place in ("environment", "code"))]
)
def say(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Set something, in one of the three places where it can be set."""

    def in_file(name: str, value: object) -> None:
        text = str(value).lower() if isinstance(value, bool | float) else f'"{value}"'
        (tmp_path / "pyproject.toml").write_text(f"[tool.dspy_cachectl]\n{name} = {text}\n")
        config.reload()

    def in_environment(name: str, value: object) -> None:
        monkeypatch.setenv(f"DSPY_CACHECTL_{name.upper()}", str(value))
        config.reload()

    def in_code(name: str, value: object) -> None:
        cachectl.configure(**{name: value})

    return {"file": in_file, "environment": in_environment, "code": in_code}[request.param]


def kept(folder: Path | str = DEFAULT) -> list[str]:
    return sorted(path.name for path in Path(folder).glob("*.json*"))


def test_the_folder_is_set(say: Say, program: dspy.Module, endpoint: Endpoint, tmp_path: Path) -> None:
    """Predictions are there, are served from there, and nowhere else; an argument is over it."""
    say("predictions", "mine")
    first = run(program, questions(4))
    assert tmp_path / "mine" == Path(str(first.path)).parent
    for given in (None, True, "on"):
        assert "loaded" == run(program, questions(4), predictions=given).provenance.predictions
    assert (4, 1, []) == (endpoint.requests, len(kept("mine")), kept())
    assert "computed" == run(program, questions(4), predictions="other").provenance.predictions
    assert "off" == run(program, questions(4), predictions=False).provenance.predictions
    assert (12, 1, 1) == (endpoint.requests, len(kept("mine")), len(kept("other")))


@pytest.mark.parametrize("off", ["off", False])
def test_they_are_switched_off(say: Say, off: object, program: dspy.Module, endpoint: Endpoint) -> None:
    """Nothing is kept, but where an argument says so."""
    say("predictions", off)
    for _ in range(2):
        assert "off" == run(program, questions(3)).provenance.predictions
    assert (6, [], False) == (endpoint.requests, kept(), DEFAULT.exists())
    run(program, questions(3), predictions=True)
    assert (9, 1) == (endpoint.requests, len(kept()))
    for given in ("off", "no", False):
        assert "off" == run(program, questions(3), predictions=given).provenance.predictions
    assert not Path("off").exists()


def test_what_is_too_old_is_asked_again_and_stays(say: Say, program: dspy.Module, endpoint: Endpoint) -> None:
    """The answers of before lie where they lay; an argument, and a library of one's own, are over the setting."""
    say("predictions_max_age", 0.0)
    first = run(program, questions(3))
    again = run(program, questions(3))
    assert (6, 2) == (endpoint.requests, len(kept()))
    (said,) = again.provenance.changes
    assert said.startswith("age: the predictions are ")
    assert first.run_id != again.run_id
    assert "loaded" == run(program, questions(3), max_age=3600.0).provenance.predictions
    from dspy_cachectl.predictions.library import Library

    assert "loaded" == run(program, questions(3), predictions=Library(DEFAULT)).provenance.predictions
    assert (6, 2) == (endpoint.requests, len(kept()))


def test_they_are_compressed(say: Say, program: dspy.Module, endpoint: Endpoint) -> None:
    """And read again; what was plain before stays so."""
    plain = run(program, questions(2))
    say("predictions_compress", True)
    assert plain.path == run(program, questions(2)).path
    packed = run(program, questions(3), predictions="packed")
    assert str(packed.path).endswith(".json.zst")
    assert "loaded" == run(program, questions(3), predictions="packed").provenance.predictions
    assert endpoint.requests == 5


def test_an_argument_is_over_the_setting_to_recompute(say: Say, program: dspy.Module, endpoint: Endpoint) -> None:
    """The setting draws anew, and False does not."""
    run(program, questions(3))
    say("force_recompute", True)
    assert "loaded" == run(program, questions(3), force_recompute=False).provenance.predictions
    assert endpoint.requests == 3
    assert "computed" == run(program, questions(3)).provenance.predictions
    assert endpoint.requests == 6


def test_a_cassette_records_calls_whatever_is_set(program: dspy.Module, endpoint: Endpoint) -> None:
    """Kept predictions would make none; a folder that is named there is meant."""
    cachectl.configure(predictions="mine")
    with cachectl.cassette("tape.jsonl", mode="record") as tape:
        assert "off" == run(program, questions(2)).provenance.predictions
        assert "off" == run(program, questions(2), predictions=True).provenance.predictions
    assert (4, []) == (tape.recorded, kept("mine"))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("predictions", 5, 'write "on", "off", or a folder'),
        ("predictions", "memory://", "they are kept in files"),
        ("predictions", "tape.jsonl/x", "is a file; name a folder"),
        ("predictions_max_age", "30d", "write a number of seconds"),
        ("predictions_max_age", -1, "write a number of seconds"),
        ("predictions_compress", "perhaps", "write true or false"),
    ],
)
def test_what_cannot_be_set_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any, said: str
) -> None:
    """With the name of the setting, and what to write."""
    monkeypatch.chdir(tmp_path)
    Path("tape.jsonl").touch()
    with pytest.raises(ConfigurationError, match=said) as caught:
        cachectl.configure(**{name: value})
    assert f"setting {name!r} in configure()" in str(caught.value)


def test_the_log_says_what_happens_when_it_does(
    program: dspy.Module, endpoint: Endpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is loaded and made before anything is asked, and what is saved after that, each with numbers and where."""
    said: list[tuple[int, str]] = []

    class Noting(logging.Handler):
        """Notes how many requests had been made by then."""

        def emit(self, record: logging.LogRecord) -> None:
            """Note it."""
            if record.levelno == logging.INFO:
                said.append((endpoint.requests, record.getMessage()))

    package = logging.getLogger("dspy_cachectl")
    caplog.set_level(logging.INFO, package.name)
    handler = Noting()
    package.addHandler(handler)
    try:
        first = run(program, questions(3), repeats=2)
        run(program, questions(3), repeats=2)
        run(program, questions(4), repeats=2)
        run(program, questions(1), predictions=False)
    finally:
        package.removeHandler(handler)
    whole = tmp_path / DEFAULT
    (second,) = set(kept()) - {Path(str(first.path)).name}
    assert [
        (0, "generating 6 of 6 predictions"),
        (6, f"saved 6 predictions to {first.path}"),
        (6, f"loading 6 of 6 predictions from {first.path}"),
        (6, f"loading 6 of 8 predictions from {first.path}"),
        (6, "generating 2 of 8 predictions (data: 1 of 4 questions are new or edited)"),
        (8, f"saved 8 predictions to {whole / second}"),
        (8, "generating 1 of 1 prediction (none are kept)"),
    ] == said
