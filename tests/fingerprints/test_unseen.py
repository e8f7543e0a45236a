"""What code reads that is not in it: each way of reading is found, and what is seen or written is not."""

from __future__ import annotations

import functools
import io
import json
import os
import pathlib
import socket
import sqlite3
import sys
import urllib.request
from collections.abc import Callable
from os import environ, getenv
from pathlib import Path
from typing import Any

import dspy
import pytest

from dspy_cachectl.demo.task import Classifier, right_label
from dspy_cachectl.fingerprints.unseen import unseen_by

DATABASE = sqlite3.connect(":memory:", check_same_thread=False)
RUBRIC = Path(__file__).read_text(encoding="utf-8")
PLACE = Path("rubric.md")
WORDS = {"yes": 1.0}


def _load(name: str) -> str:
    with open(name, encoding="utf-8") as file:  # noqa: PTH123 - what is tested
        return file.read()


@functools.cache
def _loaded_once() -> str:
    return Path("rubric.md").read_text()


def _by_open(example: Any, prediction: Any) -> float:
    return float(prediction.answer in open("rubric.md").read())  # noqa: PTH123 - what is tested


def _by_helper(example: Any, prediction: Any) -> float:
    return float(prediction.answer in _load("rubric.md"))


def _by_cache(example: Any, prediction: Any) -> float:
    return float(prediction.answer in _loaded_once())


def _by_json(example: Any, prediction: Any) -> float:
    with io.open(pathlib.Path("a") / "b", "rb") as file:  # noqa: UP020 - another name of the same
        return float(json.load(file))


def _by_path(example: Any, prediction: Any) -> float:
    with (Path("a") / "b").open() as file:
        return float(json.load(file))


def _by_constant_path(example: Any, prediction: Any) -> float:
    with PLACE.open() as file:
        return float(json.load(file))


def _by_environment(example: Any, prediction: Any) -> float:
    return float(os.environ["STRICT"])


def _by_its_imported_name(example: Any, prediction: Any) -> float:
    return float(environ.get("STRICT", "0"))


def _by_getenv(example: Any, prediction: Any) -> float:
    return float(getenv("STRICT", "0"))


def _by_database(example: Any, prediction: Any) -> float:
    return float(DATABASE.execute("select 1").fetchone()[0])


def _by_connecting(example: Any, prediction: Any) -> float:
    return float(sqlite3.connect("gold.db").execute("select 1").fetchone()[0])


def _by_network(example: Any, prediction: Any) -> float:
    return float(urllib.request.urlopen("http://127.0.0.1/").status == 200)


def _by_socket(example: Any, prediction: Any) -> float:
    with socket.create_connection(("127.0.0.1", 1)) as connection:
        return float(len(connection.recv(1)))


def _within(example: Any, prediction: Any) -> float:
    def strict() -> bool:
        return os.getenv("STRICT") == "1"

    return float(all(strict() for _ in range(2)))


def _by_own_import(example: Any, prediction: Any) -> float:
    import os as system
    import shelve

    with shelve.open("gold") as gold:
        return float(gold[prediction.answer]) + len(system.environb)


def _by_part_of_own_import(example: Any, prediction: Any) -> float:
    from gzip import open as unpack
    from os import path

    return float(len(unpack(path.join("a", "b.gz")).read()))  # noqa: PTH118 - what is tested


def _by_what_is_not_loaded(example: Any, prediction: Any) -> float:
    from dbm import open as look_in

    return float(len(look_in("gold.db").keys()))


class _Judge:
    """An object whose property reads."""

    @functools.cached_property
    def rubric(self) -> str:
        return _load("rubric.md")

    def __call__(self, example: Any, prediction: Any) -> float:
        return float(prediction.answer in self.rubric)


def _closed_over() -> Callable[..., float]:
    connection = sqlite3.connect(":memory:")
    return lambda example, prediction: float(connection.total_changes)


READING = {
    _by_open: "_by_open() reads a file (open)",
    _by_helper: "_load() reads a file (open)",
    _by_cache: "_loaded_once() reads a file (.read_text)",
    _by_json: "_by_json() reads a file (open)",
    _by_path: "_by_path() reads a file (.open)",
    _by_constant_path: "_by_constant_path() reads a file (.open)",
    _by_environment: "_by_environment() reads the environment (os.environ)",
    _by_its_imported_name: "_by_its_imported_name() reads the environment (os.environ)",
    _by_getenv: "_by_getenv() reads the environment (os.getenv)",
    _by_database: "DATABASE is a database (sqlite3.Connection)",
    _by_connecting: "_by_connecting() reads a database (sqlite3.connect)",
    _by_network: "_by_network() reads the network (urllib.request.urlopen)",
    _by_socket: "_by_socket() reads the network (socket.create_connection)",
    _by_part_of_own_import: "_by_part_of_own_import() reads a file (gzip.open)",
    _by_what_is_not_loaded: "_by_what_is_not_loaded() reads a database (dbm.open)",
    _within: "_within() reads the environment (os.getenv)",
    _Judge(): "_load() reads a file (open)",
    _closed_over(): "connection is a database (sqlite3.Connection)",
    functools.partial(_by_open, None): "_by_open() reads a file (open)",
}


@pytest.mark.parametrize("metric", READING, ids=lambda metric: getattr(metric, "__name__", type(metric).__name__))
def test_what_a_metric_reads_is_named(metric: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function that reads, what it reads and by what, though it may never have run in this process."""
    monkeypatch.delitem(sys.modules, "dbm", raising=False)
    assert unseen_by(metric) == (READING[metric],)


def _look_up(topic: str) -> str:
    return str(Path(topic).read_bytes())


class Reading(dspy.Module):
    """A program that reads its prompt anew for each question."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.Predict("question -> answer")

    def forward(self, question: str) -> Any:
        """Ask with what is in the file."""
        return self.answer(question=f"{_load('prompt.md')} {question}")


class Outer(dspy.Module):
    """A program with such a one in it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = [Reading()]

    def forward(self, question: str) -> Any:
        """Ask it."""
        return self.inner[0](question=question)


class Holding(dspy.Module):
    """A program with a database open."""

    def __init__(self) -> None:
        super().__init__()
        self.database = sqlite3.connect(":memory:")

    def forward(self, question: str) -> Any:
        """Look it up."""
        return dspy.Prediction(answer=str(self.database.total_changes))


def test_everything_that_a_function_reads_is_named() -> None:
    """Two things that a function imports by itself."""
    assert unseen_by(_by_own_import) == (
        "_by_own_import() reads a file (shelve.open)",
        "_by_own_import() reads the environment (os.environb)",
    )


def test_what_a_program_reads_is_named() -> None:
    """In a method, in a module within, and by an attribute."""
    assert unseen_by(Reading()) == ("_load() reads a file (open)",)
    assert unseen_by(Outer()) == ("_load() reads a file (open)",)
    agent = dspy.ReAct("question -> answer", tools=[_look_up])
    assert unseen_by(agent) == ("_look_up() reads a file (.read_bytes)",)
    assert unseen_by(Holding()) == ("an attribute is a database (sqlite3.Connection)",)


class Seen(dspy.Module):
    """A program that reads its prompt once, into an attribute, and whose key comes from the environment."""

    def __init__(self) -> None:
        super().__init__()
        self.prompt = _load(__file__)
        self.answer = dspy.ChainOfThought("question -> answer")

    def forward(self, question: str) -> Any:
        """Ask, and write down what was asked."""
        with open("asked.txt", "a", encoding="utf-8") as file:  # noqa: PTH123 - what is tested
            file.write(question)
        with Path("more.txt").open("w") as file:
            file.write(question)
        Path("last.txt").write_text(question)
        lm = dspy.LM("openai/m", api_key=os.environ["OPENAI_API_KEY"])
        return self.answer(question=f"{self.prompt} {question}", lm=lm, config={"n": len(os.sep)})


def _plain(example: Any, prediction: Any) -> float:
    buffer = io.StringIO()
    json.dump({"a": RUBRIC, "w": prediction.answer}, buffer)
    return WORDS.get(prediction.answer, float(example.open == prediction.answer))


def test_what_is_seen_or_written_is_not_named() -> None:
    """Values that were read before, files that are written, keys, and what has such a name by chance."""
    assert unseen_by(Seen()) == ()
    assert unseen_by(_plain) == ()


def test_ordinary_programs_stay_silent() -> None:
    """DSPy's own modules and metrics, and those of the demo."""
    reward = dspy.evaluate.answer_exact_match
    for program in (
        Classifier(),
        dspy.Predict("question -> answer"),
        dspy.ChainOfThought("question -> answer"),
        dspy.ReAct("question -> answer", tools=[_plain]),
        dspy.ProgramOfThought("question -> answer"),
        dspy.CodeAct("question -> answer", tools=[_plain]),
        dspy.MultiChainComparison("question -> answer"),
        dspy.BestOfN(dspy.ChainOfThought("question -> answer"), N=2, reward_fn=reward, threshold=1.0),
        dspy.Refine(dspy.ChainOfThought("question -> answer"), N=2, reward_fn=reward, threshold=1.0),
    ):
        assert unseen_by(program) == (), program
    for metric in (
        reward,
        right_label,
        dspy.evaluate.answer_passage_match,
        dspy.evaluate.SemanticF1(),
        dspy.evaluate.normalize_text,
    ):
        assert unseen_by(metric) == (), metric
