"""Secrets planted wherever one may come in are in nothing that is written."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.cli.commands import data
from tests.endpoint import Endpoint
from tests.planting.places import Places

MakeLM = Callable[..., Any]


@pytest.fixture
def logged(tmp_path: Path) -> Any:
    """All that is logged goes to a file among what is looked through."""
    handler = logging.FileHandler(tmp_path / "program.log")
    handler.setLevel(logging.INFO)
    ours = logging.getLogger("dspy_cachectl")
    before = ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.DEBUG)
    yield
    ours.removeHandler(handler)
    ours.setLevel(before)
    handler.close()


def _asked(places: Places, lm: MakeLM, endpoint: Endpoint, tmp_path: Path) -> None:
    """Ask in the store, in a run, and for a cassette, which is exported as well."""
    for engine in ("auto", "litellm"):
        asking = lm(engine=engine, **places.options())
        for name in ("compile", "eval"):
            with cachectl.phase(name):
                asking(messages=places.messages())
    with cachectl.cassette(tmp_path / "tape.jsonl", "record"):
        asking(messages=places.messages())
    with cachectl.cassette(tmp_path / "packed.jsonl.zst", "record"):
        asking(messages=places.messages())
    assert 5 == endpoint.requests  # both engines ask the same in compile


def _program(
    places: Places, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, list[dspy.Example], Any]:
    """A program, its questions and its metric, with keys in demos, rows, labels, feedback, errors and variables."""
    monkeypatch.setenv("SOME_GATEWAY_API_KEY", places.value("environment"))

    class Failing(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ask = dspy.Predict("question -> answer")
            self.ask.demos = [dspy.Example(question=places.key("demo"), answer=places.key("demo answer"))]

        def forward(self, question: str) -> Any:
            if "fails" in question:
                raise RuntimeError(f"401: Incorrect API key provided: {places.key('exception')}; {question}")
            return self.ask(question=question)

    devset = [
        dspy.Example(
            question=f"colour {number} of {places.key(f'row {number}')} {places.planted['environment']}",
            answer=places.key(f"label {number}"),
        ).with_inputs("question")
        for number in range(8)
    ] + [dspy.Example(question=f"it fails {places.key('failing row')}", answer="").with_inputs("question")]

    def metric(example: Any, prediction: Any, trace: Any = None) -> Any:
        if example.question.startswith("colour 1"):
            raise ValueError(f"the judge refused {places.key('metric error')}")
        return dspy.Prediction(score=1.0, feedback=f"see {places.key('feedback')}")

    endpoint.fail(status=401, match="refused", message=f"Incorrect API key provided: {places.key('provider')}")
    devset.append(dspy.Example(question="refused", answer="").with_inputs("question"))
    return Failing(), devset, metric


@pytest.mark.usefixtures("logged", "state")
@pytest.mark.filterwarnings("ignore:Passing OpenAI-style message")
@pytest.mark.parametrize(
    "whole", [False, pytest.param(True, marks=pytest.mark.exhaustive)], ids=["one of each kind", "300, with a server"]
)
def test_no_secret_is_written(
    lm: MakeLM,
    endpoint: Endpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    whole: bool,
) -> None:
    """None is in the store, predictions, cassettes, exports, a report, the outbox, MLflow's database or a log."""
    folders = [tmp_path]
    if whole:
        folders.append(request.getfixturevalue("server").folder)
        request.getfixturevalue("mlflow_set")
    places = Places(most=None if whole else 1)
    _asked(places, lm, endpoint, tmp_path)
    program, devset, metric = _program(places, endpoint, monkeypatch)
    dspy.configure(lm=lm(api_key=places.value("program's key")))
    report = cachectl.evaluate(
        program,
        devset,
        metric,
        repeats=2,
        predictions=tmp_path / "predictions",
        display_progress=False,
        max_errors=100,
        clusters=[places.key(f"cluster {number % 2}") for number in range(len(devset))],
        name=f"try {places.key('report name')}",
    )
    assert "Incorrect API key provided: [removed]" in str(report.questions[-1].draws[0].failed)
    assert 2 == len({question.cluster for question in report.questions})
    report.save(tmp_path / "report.json")
    (tmp_path / "report.txt").write_text(f"{report}\n{report.to_pandas().to_csv()}")
    if whole:
        assert "logged" == cachectl.log_to_mlflow(report, timeout=60).status
    address = f"http://me:{places.value('tracking login')}@127.0.0.1:9/?token={places.value('tracking token')}"
    assert "pending" == cachectl.log_to_mlflow(report, tracking_uri=address, timeout=0).status
    data("export", tmp_path / "exported.jsonl", store=tmp_path / "store")

    assert len(places.planted) >= (300 if whole else 30)
    assert {} == places.found_in(*folders)
