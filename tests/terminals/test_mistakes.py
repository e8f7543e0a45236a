"""What people get wrong on the command line: one clear sentence, with what was probably meant, and nothing is done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dspy_cachectl.stores import Label
from tests.cli.commands import command, entry, fill, key_of
from tests.cli.stores import keys_in

PHI = Label("lm", "openai/Phi-4", "eval", "judge", "eval-20261127-023448-1a2b3c4d")
MINI = Label("lm", "openai/gpt-4o-mini-2024-07-18", "compile")
MINI_TOO = Label("lm", "openai/gpt-4o-mini-2024-07-18-ft", "compile")
PYTHON = ("Policy.", "phase(", "cachectl.", 'mode="', "Traceback", "pydantic", "Value error")
"""What has no place in a shell."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = [PHI, MINI, MINI_TOO]
    return fill(
        tmp_path_factory.mktemp("mistakes") / "store",
        {key_of(at): (label, entry(label)) for at, label in enumerate(labels)},
    )


SELECTORS = [
    (["clear", "--run", "nope"], "there are 'eval-20261127-023448-1a2b3c4d'"),
    (["clear", "--model", "Phi-4"], "did you mean 'openai/Phi-4'?"),
    (["clear", "--model", "openai/phi-4", "--yes"], "did you mean 'openai/Phi-4'?"),
    (["clear", "--role", "jugde", "--dry-run"], "did you mean 'judge'?"),
    (["clear", "--phase", "evl"], "did you mean 'eval'?"),
    (["clear", "--kind", "embeding"], "there are 'lm'"),
    (["clear", "--older-than", "52w"], "Nothing that is stored fits."),
    (["ls", "--model", "Phi-4"], "did you mean 'openai/Phi-4'?"),
    (["ls", "--run", "eval-20261127-023448-1a2b3c4e"], "did you mean 'eval-20261127-023448-1a2b3c4d'?"),
]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [pytest.param(*one, marks=[] if at < 2 else pytest.mark.exhaustive) for at, one in enumerate(SELECTORS)],
)
def test_a_selector_that_nothing_fits_is_answered(arguments: list[str], says: str, store: Path) -> None:
    """That nothing fits, and which name was probably meant; nobody has to be asked, and nothing is removed."""
    before = keys_in(store)
    done = command(*arguments, store=store)
    assert (0, "") == (done.returncode, done.stderr)
    assert "Nothing that is stored fits" in done.stdout
    assert says in " ".join(done.stdout.split())
    assert before == keys_in(store)


def test_a_name_among_others_that_nothing_has_is_said(store: Path) -> None:
    """What fits is shown, and what does not is said beside it; JSON stays JSON."""
    done = command("ls", "--model", "openai/Phi-4", "--model", "gpt-4o-mini", "--json", store=store)
    assert 1 == len(json.loads(done.stdout))
    assert "none has the model 'gpt-4o-mini'; did you mean 'openai/gpt-4o-mini-2024-07-18'" in done.stderr


def test_a_name_is_taken_as_a_narrow_terminal_shows_it(store: Path) -> None:
    """With its middle left out; where that may be two, both are named, and nothing is done."""
    found = command("ls", "--run", "eval-2026…1a2b3c4d", "--json", store=store)
    assert [key_of(0)] == [row["key"] for row in json.loads(found.stdout)]
    shown = command("show", f"{key_of(1)[:16]}…{key_of(1)[-15:]}", "--json", store=store)
    assert key_of(1) == json.loads(shown.stdout)["key"]
    before = keys_in(store)
    several = command("clear", "--model", "openai/gpt…", "--yes", store=store)
    assert (2, True) == (several.returncode, "may be any of" in several.stderr)
    assert before == keys_in(store)


RUNS = [
    (["run", "--phase", "evil", "s.py"], 2, ["no phase is called 'evil'", "did you mean 'eval'?", "--policy"]),
    (["run", "--policy", "FRSH", "s.py"], 2, ["'FRSH'", "did you mean 'FRESH'"]),
    (["run", "--phase", "compile", "--run-id", "x", "s.py"], 2, ["no draws of its own", "--policy FRESH"]),
    (["run", "--cassette", "none.jsonl", "s.py"], 1, ["there is no cassette none.jsonl", '"record"']),
    (["run", "--cassette", "c.jsonl", "--mode", "nw", "s.py"], 2, ["'nw'", "did you mean 'new'?"]),
    (["stats", "--by", "rolle"], 2, ["'rolle'", "did you mean 'role'?"]),
    (["ls", "--sort", "sze"], 2, ["'sze'", "did you mean 'size'?"]),
    (["predictions", "ls"], 0, ["There is no folder", "outputs/cache/predictions", "--predictions"]),
    (["predictions", "ls", "--predictions", "."], 0, ["No predictions are kept in /"]),
    (["predictions", "clear", "nope"], 1, ["there is no snapshot 'nope'", "outputs/cache/predictions"]),
    (["runs", "rm", "eval-20261127-023448-1a2b3c4"], 1, ["did you mean 'eval-20261127-023448-1a2b3c4d'?"]),
]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [pytest.param(*one, marks=[] if at in {0, 7} else pytest.mark.exhaustive) for at, one in enumerate(RUNS)],
)
def test_a_mistake_is_told_in_the_words_of_the_shell(
    arguments: list[str], code: int, says: list[str], store: Path, tmp_path: Path
) -> None:
    """What is wrong, and what was probably meant; no Python, and no library's text. The script is not run."""
    (tmp_path / "s.py").write_text("print('it ran')")
    done = command(*arguments, store=store, cwd=tmp_path)
    said = " ".join((done.stdout + done.stderr).split())
    assert code == done.returncode, said
    assert [] == [part for part in says if part not in said], said
    assert [] == [part for part in (*PYTHON, "it ran") if part in said], said


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("STROE", "x", "did you mean 'DSPY_CACHECTL_STORE'?"),
        pytest.param(
            "PHASES__EVAL__POLCY", "FRESH", "DSPY_CACHECTL_PHASES__EVAL__POLICY", marks=pytest.mark.exhaustive
        ),
        pytest.param("POLICY", "FRSH", "did you mean 'FRESH'", marks=pytest.mark.exhaustive),
        pytest.param("GUARD", "maybe", "write true or false", marks=pytest.mark.exhaustive),
    ],
)
def test_a_setting_that_is_misspelt_is_told(variable: str, value: str, says: str, tmp_path: Path) -> None:
    """The variable, and what was probably meant."""
    done = command("stats", cwd=tmp_path, **{f"DSPY_CACHECTL_{variable}": value})
    assert (1, "") == (done.returncode, done.stdout)
    assert says in done.stderr
    assert [] == [part for part in PYTHON if part in done.stderr]
