"""`dspy-cachectl run --dry-run`: a script is told what it would ask, and nobody is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.estimating.dry_run import DryRun
from dspy_cachectl.gating.gate import gate
from dspy_cachectl.showing.stand_in import StandIn
from tests.endpoint import Endpoint
from tests.processes import Finished

SCRIPT = """
import os
import dspy
import dspy_cachectl as cachectl

dspy.configure(lm=cachectl.LM("openai/gpt-4o-mini", api_base=os.environ["ENDPOINT_URL"], api_key="x"))
devset = [dspy.Example(question=f"Question {at}?").with_inputs("question") for at in range(12)]
program = dspy.ChainOfThought("question -> answer")
metric = lambda example, prediction, trace=None: 1.0

before = cachectl.evaluate(program, devset, metric, name="before", display_progress=False)
print(f"score {before.score:.3f}")
with cachectl.phase("compile"):
    compiled = dspy.BootstrapFewShot(metric=metric, max_bootstrapped_demos=2).compile(program, trainset=devset[:4])
after = cachectl.evaluate(compiled, devset, metric, repeats=2, name="after", display_progress=False)
print(before.compare(after))
with cachectl.phase("eval"):
    print(dspy.Evaluate(devset=devset, metric=metric, num_threads=4)(program))
"""

WAYS = """
import threading


def in_phase(name, policy):
    with cachectl.phase(name, policy):
        return program(question="3")


def in_thread():
    thread = threading.Thread(target=program, kwargs={"question": "4"})
    thread.start()
    thread.join()


address = os.environ["ENDPOINT_URL"]
for way in (
    lambda: program(question="1", config={"cache": False}),
    lambda: dspy.LM("openai/gpt-4o-mini", api_base=address, api_key="x", cache=False)("2"),
    lambda: in_phase("off", cachectl.Policy.OFF),
    lambda: in_phase("anew", cachectl.Policy.REFRESH),
    in_thread,
):
    try:
        way()
    except Exception as error:
        print(type(error).__name__)
"""

RUN = """
import sys
from dspy_cachectl.cli.app import main

sys.argv = ["dspy-cachectl", "run", *sys.argv[1:]]
main()
"""


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep predictions in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(child: Callable[..., Finished], tmp_path: Path) -> Callable[..., Finished]:
    """Run the script, or another, by the command."""

    def run(*options: str, script: str = SCRIPT, check: bool = True) -> Finished:
        path = tmp_path / "script.py"
        path.write_text(script, encoding="utf-8")
        return child(RUN, *options, str(path), check=check)

    return run


def test_a_script_before_and_after(run: Callable[..., Finished], endpoint: Endpoint) -> None:
    """Nothing is known, nobody is asked; afterwards all is stored that is kept, and the rest has its price."""
    first = run("--dry-run")
    assert 0 == endpoint.requests
    assert 5 == first.output.count("Estimate for ")
    assert "score (dry run)" in first.output
    assert "BootstrapFewShot of ChainOfThought" in first.output
    assert "12 answers of 12 would be asked for, for a cost that is unknown" in first.output

    run()
    asked = endpoint.requests
    again = run("--dry-run")
    assert asked == endpoint.requests
    assert "all of 12 answers are stored" in again.output
    assert "all of 24 answers are stored" in again.output
    assert "BootstrapFewShot" not in again.output  # its calls are stored, so it runs as it is
    assert "12 answers of 48 would be asked for, for $" in again.output


def test_a_call_of_the_script_itself(run: Callable[..., Finished], endpoint: Endpoint) -> None:
    """What is no evaluation ends the script where it is not stored, and that is said."""
    script = SCRIPT.replace("before = ", 'program(question="by itself")\nbefore = ')
    finished = run("--dry-run", script=script, check=False)
    assert (0, 1) == (endpoint.requests, finished.returncode)
    assert "at least 1 call of its own" in finished.output
    assert "it goes no further than what is stored" in finished.output


@pytest.mark.exhaustive
def test_no_way_around_it(run: Callable[..., Finished], endpoint: Endpoint) -> None:
    """Neither caching off, nor a phase that always asks, nor a bare thread reaches the provider."""
    script = SCRIPT.partition("before = ")[0] + WAYS
    finished = run("--dry-run", script=script, check=False)
    assert 0 == endpoint.requests, finished.output
    assert 4 == finished.output.count("CacheMissError\n")


QUESTIONS = [dspy.Example(question=f"Question {at}?").with_inputs("question") for at in range(30)]
OTHERS = [dspy.Example(question=f"Another {at}?").with_inputs("question") for at in range(5)]
PROGRAM, OTHER = dspy.Predict("question -> answer"), dspy.ChainOfThought("question -> answer")
ASKED = {
    "settle": (lambda: cachectl.settle(PROGRAM, OTHER, QUESTIONS, score, repeats=2), [60, 60], "at most"),
    "race": (lambda: cachectl.race({"one": PROGRAM, "other": OTHER}, QUESTIONS, score, budget=20), [20, 20], "at most"),
    "race of finalists": (lambda: cachectl.race(PROGRAM, QUESTIONS, score, finalists=3), [30, 30, 30], "at most"),
    "until": (lambda: cachectl.evaluate(PROGRAM, QUESTIONS, score, until=0.1), [30], "at most"),
    "models": (lambda: cachectl.evaluate(PROGRAM, QUESTIONS, score, lms=[dspy.settings.lm] * 2), [30, 30], "openai"),
    "holdout": (lambda: cachectl.evaluate(PROGRAM, QUESTIONS, score, holdout=OTHERS), [30, 5], "Predict"),
    "batches": (lambda: cachectl.evaluate(PROGRAM, QUESTIONS, score, batch=True), [30], "Predict"),
    "awaited": (lambda: asyncio.run(cachectl.aevaluate(PROGRAM, QUESTIONS, score)), [30], "Predict"),
    "judge": (lambda: cachectl.check_judge(judged, [(one, dspy.Prediction()) for one in OTHERS]), [15], "judged"),
    "a report's judge": (lambda: cachectl.check_judge(judged, StandIn(), devset=OTHERS), [15], "judged"),
}


IN_SHORT = {"settle", "holdout", "judge"}


def judged(example: Any, prediction: Any, trace: Any = None) -> float:
    """A metric that asks."""
    return float(bool(OTHER(question=f"Is {prediction} right?")))


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=() if way in IN_SHORT else pytest.mark.exhaustive) for way in ASKED]
)
def test_whatever_evaluates(way: str, lm: Callable[..., Any], endpoint: Endpoint) -> None:
    """Each way to evaluate is estimated, and says so where it may ask less; nobody is asked."""
    dspy.configure(lm=lm("openai/gpt-4o-mini"))
    evaluate, answers, named = ASKED[way]
    with DryRun() as dry:
        found = evaluate()
    assert 0 == endpoint.requests
    assert isinstance(found, StandIn)
    assert (answers, 0) == ([one.answers for one in dry.estimates], dry.others)
    assert all(named in one.name for one in dry.estimates)


def test_an_estimate_in_a_dry_run(lm: Callable[..., Any], endpoint: Endpoint) -> None:
    """What a script estimates itself is what it would be without, and is nothing that it would ask."""
    dspy.configure(lm=lm("openai/gpt-4o-mini"))
    cachectl.evaluate(PROGRAM, OTHERS, score, display_progress=False)
    asked = endpoint.requests
    with DryRun() as dry:
        estimate = cachectl.estimate(PROGRAM, [*OTHERS, *QUESTIONS])
    assert (5, 30) == (estimate.stored, estimate.missing)
    assert ([], 0, asked) == (dry.estimates, dry.others, endpoint.requests)


@pytest.mark.parametrize("history", [False, True])
def test_a_judge_that_nobody_asked_before(history: bool, lm: Callable[..., Any], endpoint: Endpoint) -> None:
    """What judges cost is in it, whoever evaluates; where nothing tells that, the cost is unknown, and that is said."""
    dspy.configure(lm=lm("openai/gpt-4o-mini"))
    judge = lm("openai/gpt-4o")

    def metric(example: Any, prediction: Any, trace: Any = None) -> float:
        return float(bool(judge(f"{example.question}: {prediction.answer}")))

    cachectl.evaluate(PROGRAM, OTHERS, metric if history else score, display_progress=False)
    asked = endpoint.requests
    with DryRun() as dry:
        cachectl.evaluate(PROGRAM, QUESTIONS, metric)
        dspy.Evaluate(devset=QUESTIONS, metric=metric)(PROGRAM)
        dspy.BootstrapFewShot(metric=metric).compile(PROGRAM, trainset=QUESTIONS)
        cachectl.evaluate(PROGRAM, OTHERS, metric)
    assert asked == endpoint.requests
    assert [30, 30, 30, 0 if history else 5] == [one.judged for one in dry.estimates]
    for estimate in dry.estimates[:3]:
        assert history == estimate.is_known
        assert history == (not any("judges cost. Without its judges it is $" in note for note in estimate.notes))
    assert history == ("would be judged, for a cost that is unknown" not in str(dry.estimates[3]))


def test_what_takes_reports(lm: Callable[..., Any]) -> None:
    """Whatever is done with reports is done with what stands for one, beside one that was made before, too."""
    dspy.configure(lm=lm("openai/gpt-4o-mini"))
    report = cachectl.evaluate(PROGRAM, OTHERS, score, display_progress=False)
    with DryRun() as dry:
        found: Any = cachectl.evaluate(PROGRAM, OTHERS, score, baseline=StandIn())  # type: ignore[arg-type]
        assert cachectl.last_report() is found
    assert 1 == len(dry.estimates)
    for standing in (
        cachectl.compare({"before": report, "after": found}),
        report.compare(found),
        cachectl.EvalReport.merge([found, found]),
        cachectl.log_to_mlflow(found),
        gate(report, found, not_worse_by=0.1),
    ):
        assert isinstance(standing, StandIn)


def test_together_with_a_cassette(run: Callable[..., Finished]) -> None:
    """A cassette records or serves: the two do not go together."""
    finished = run("--dry-run", "--cassette", "some.jsonl", check=False)
    assert 2 == finished.returncode
    assert "--dry-run" in finished.output


def test_what_stands_in() -> None:
    """A report that is none answers to whatever a script does with one."""
    found = StandIn()
    assert "(dry run)" == str(found.compare(found).interval.low) == f"{found.score:.2f}" == f"{found['score'] - 1:>7}"
    assert [] == list(found.questions)
    assert not found.score > 0.5
    assert (0, 0, "(dry run)") == (len(found), int(found), str(round(-abs(found.score), 2)))
    assert found


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "BootstrapFewShot": lambda: dspy.BootstrapFewShot(metric=score, max_rounds=2),
    "SIMBA": lambda: dspy.SIMBA(metric=score, bsize=4, num_candidates=2, max_steps=2, max_demos=1, num_threads=1),
    "BootstrapFewShotWithRandomSearch": lambda: dspy.BootstrapFewShotWithRandomSearch(
        metric=score, num_candidate_programs=2, num_threads=1
    ),
}


def score(example: Any, prediction: Any, trace: Any = None) -> float:
    """A metric."""
    return float(len(prediction.answer) % 2)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "BootstrapFewShot" else pytest.mark.exhaustive) for name in OPTIMIZERS],
)
def test_an_optimizer_asks_no_more(lm: Callable[..., Any], endpoint: Endpoint, name: str) -> None:
    """What is told of one is an upper bound for the answers of the program."""
    student = lm("openai/gpt-4o-mini")
    dspy.configure(lm=student)
    devset = [dspy.Example(question=f"Question {at}?").with_inputs("question") for at in range(8)]
    program = dspy.Predict("question -> answer")
    cachectl.evaluate(program, devset * 2, score, predictions=False, display_progress=False)
    before = endpoint.requests
    optimizer = OPTIMIZERS[name]()
    estimate = cachectl.estimate(program, devset, score, optimizer=optimizer)
    assert before == endpoint.requests
    assert estimate.requests is not None
    assert estimate.cost is not None
    with cachectl.phase("compile", cachectl.Policy.REFRESH):
        optimizer.compile(program, trainset=devset)
    assert 0 < endpoint.requests - before <= estimate.requests.high + 8  # its own prompts come on top
    assert "upper bound" in str(estimate)


def test_no_optimizer(lm: Callable[..., Any]) -> None:
    """What compiles nothing is refused, and one of somebody's own has no bound."""
    dspy.configure(lm=lm())

    class Own(dspy.teleprompt.Teleprompter):  # type: ignore[misc]
        def compile(self, student: Any, **_: Any) -> Any:
            return student

    program = dspy.Predict("question -> answer")
    devset = [dspy.Example(question="Question?").with_inputs("question")]
    with pytest.raises(cachectl.ConfigurationError, match="optimizer is one of DSPy's"):
        cachectl.estimate(program, devset, optimizer=3)
    estimate = cachectl.estimate(program, devset, optimizer=Own(), predictions=False)
    assert not estimate.is_known
    assert "does not say" in str(estimate)
