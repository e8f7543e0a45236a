"""An estimate asks nobody, knows what is stored, and its range holds what the rest then costs."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.errors import MissingExtraError
from dspy_cachectl.estimating.dry_run import DryRun
from dspy_cachectl.estimating.history import Past
from dspy_cachectl.estimating.simulated import Missing, simulated
from tests.endpoint import Endpoint

PRICED = "openai/gpt-4o-mini"


class TwoSteps(dspy.Module):  # type: ignore[misc]
    """Plans and then answers."""

    def __init__(self) -> None:
        super().__init__()
        self.plan = dspy.Predict("question -> plan")
        self.answer = dspy.ChainOfThought("question, plan -> answer")

    def forward(self, question: str) -> Any:
        """Ask twice."""
        return self.answer(question=question, plan=self.plan(question=question).plan)


def one_step() -> Any:
    """A program of one predictor."""
    return dspy.ChainOfThought("question -> answer")


def agent() -> Any:
    """A program that asks as often as it likes."""

    def look_up(topic: str) -> str:
        """Look something up."""
        return f"all about {topic}"

    return dspy.ReAct("question -> answer", tools=[look_up])


def questions(number: int, first: int = 0) -> list[dspy.Example]:
    """Some questions."""
    return [
        dspy.Example(question=f"[{at:05}] What is it? {'word ' * (at % 7)}").with_inputs("question")
        for at in range(first, first + number)
    ]


@pytest.fixture
def library(tmp_path: Path) -> str:
    """Where predictions are kept."""
    return str(tmp_path / "kept")


@pytest.fixture(autouse=True)
def _lm(lm: Callable[..., Any]) -> None:
    dspy.configure(lm=lm(PRICED))


@pytest.fixture
def evaluate(library: str) -> Callable[..., cachectl.EvalReport]:
    """Evaluate a program."""

    def evaluate(program: Any, devset: Any, metric: Any = lambda *_: 1.0, **options: Any) -> cachectl.EvalReport:
        options = {"predictions": library, "num_threads": 8, **options}
        return cachectl.evaluate(program, devset, metric, display_progress=False, **options)

    return evaluate


def spent(asking: Callable[[], Any], endpoint: Endpoint) -> dict[str, float]:
    """What something cost, by the provider's requests and the phase's ledger."""
    before = endpoint.requests
    with cachectl.phase("eval") as run:
        asking()
    tokens = run.stats.prompt_tokens_spent + run.stats.completion_tokens_spent
    return {"requests": endpoint.requests - before, "tokens": tokens, "cost": run.stats.cost_spent}


def missed(estimate: cachectl.Estimate, truth: dict[str, float]) -> list[str]:
    """What of the truth its ranges do not hold."""
    ranges = {name: getattr(estimate, name) for name in truth}
    return [name for name, said in ranges.items() if not said.low - 1e-9 <= truth[name] <= said.high + 1e-9]


def test_nothing_is_known(endpoint: Endpoint, library: str) -> None:
    """Without a past it says that it does not know, and asks nobody."""
    estimate = cachectl.estimate(TwoSteps(), questions(5), predictions=library)
    assert 0 == endpoint.requests
    assert (None, None, None, None) == (estimate.requests, estimate.tokens, estimate.cost, estimate.seconds)
    assert (5, 5, 0, False) == (estimate.answers, estimate.missing, estimate.stored, estimate.is_known)
    assert "unknown" in str(estimate)
    assert not Path(library).exists()


@pytest.mark.parametrize("make", [one_step, TwoSteps, pytest.param(agent, marks=pytest.mark.exhaustive)])
def test_more_repeats(endpoint: Endpoint, library: str, evaluate: Callable[..., Any], make: Callable[[], Any]) -> None:
    """What is kept is not asked, and the rest costs what it says."""
    program, devset = make(), questions(30)
    evaluate(program, devset)
    before = endpoint.requests
    estimate = cachectl.estimate(program, devset, repeats=3, predictions=library)
    assert before == endpoint.requests
    assert (90, 30, 60) == (estimate.answers, estimate.stored, estimate.missing)
    again = cachectl.estimate(program, devset, predictions=library)
    assert (30, 0, (0, 0), (0, 0)) == (again.stored, again.missing, again.requests, again.cost)
    truth = spent(lambda: evaluate(program, devset, repeats=3, predictions=library, force_recompute=None), endpoint)
    assert before == endpoint.requests - truth["requests"]
    assert estimate.cost is not None


@pytest.mark.parametrize("kept", [False, True])
def test_what_was_sent_with_batches(endpoint: Endpoint, library: str, evaluate: Callable[..., Any], kept: bool) -> None:
    """Answers of batches cost half, and tell what they would cost at once; but not how long that would take."""
    options: dict[str, Any] = {"predictions": library if kept else False}
    by_batches = evaluate(TwoSteps(), questions(30, first=100), batch=True, **options)
    estimate = cachectl.estimate(TwoSteps(), questions(30), **options)
    assert estimate.seconds is None
    truth = spent(lambda: evaluate(TwoSteps(), questions(30), **options), endpoint)
    assert by_batches.provenance.counters["cost_spent"] < 0.75 * truth["cost"]
    assert [] == missed(estimate, truth)
    assert estimate.batch_cost is not None
    assert estimate.batch_cost.low <= truth["cost"] / 2 <= estimate.batch_cost.high
    assert cachectl.estimate(TwoSteps(), questions(30, first=200), **options).seconds is not None


@pytest.mark.parametrize("known", [1, 30])
def test_calls_that_are_all_alike(known: int) -> None:
    """Where the past tells the price of a written token apart from nothing, longer answers cost more all the same."""
    read, written = 0.15e-6, 0.6e-6
    past = [Past(requests=1, prompt=300, completion=30, cost=300 * read + 30 * written, seconds=1)] * known
    found = simulated([Missing(past, 60, is_of_others=True)])
    longer = found["completion"][2] - found["completion"][0]
    assert longer > 60 * 30
    assert found["cost"][2] - found["cost"][0] == pytest.approx(longer * written, rel=0.05)


def test_a_run_that_was_cut_short(endpoint: Endpoint, evaluate: Callable[..., Any]) -> None:
    """Of answers that were begun the stored calls are not asked again, and only the rest is priced."""
    program, devset = TwoSteps(), questions(20)
    evaluate(program, questions(30, first=100), predictions=False)
    endpoint.fail(status=400, match="[00015]", skip=1)
    evaluate(program, devset, run_id="cut", predictions=False, num_threads=1)
    endpoint.clear_faults()
    before = endpoint.requests
    estimate = cachectl.estimate(program, devset, run_id="cut", predictions=False)
    assert before == endpoint.requests
    assert (19, 1, 1) == (estimate.stored, estimate.missing, estimate.served)
    evaluate(program, devset, run_id="cut", predictions=False)
    assert 1 == endpoint.requests - before
    assert estimate.requests == (1, 1)


def test_other_questions_and_a_judge(
    endpoint: Endpoint, library: str, evaluate: Callable[..., Any], lm: Callable[..., Any]
) -> None:
    """By the program's past; with the judge of a metric, one call an answer."""
    judge = dspy.Predict("question, answer -> verdict: bool")
    judge.lm = lm("openai/gpt-4o", role="judge")

    def metric(example: Any, prediction: Any, trace: Any = None) -> float:
        return float(judge(question=example.question, answer=prediction.answer).verdict)

    program = one_step()
    evaluate(program, questions(50), metric)
    before = endpoint.requests
    estimate = cachectl.estimate(program, questions(30, first=100), metric, predictions=library)
    alone = cachectl.estimate(program, questions(30, first=100), predictions=library)
    assert before == endpoint.requests
    assert (60, 60) == estimate.requests
    assert (30, 30) == alone.requests
    truth = spent(lambda: evaluate(program, questions(30, first=100), metric), endpoint)
    assert [] == missed(estimate, truth)


def test_a_report_tells(endpoint: Endpoint, evaluate: Callable[..., Any]) -> None:
    """What a report's answers cost is taken for what these will."""
    report = evaluate(one_step(), questions(30), predictions=False)
    changed = dspy.ChainOfThought(dspy.Signature("question -> answer", "Answer in a word."))
    before = endpoint.requests
    estimate = cachectl.estimate(changed, questions(30, first=100), baseline=report, predictions=False)
    assert before == endpoint.requests
    assert "30 past answers" in estimate.basis
    truth = spent(lambda: evaluate(changed, questions(30, first=100), predictions=False), endpoint)
    assert "requests" not in missed(estimate, truth)


def test_a_limit_takes_time(lm: Callable[..., Any], evaluate: Callable[..., Any]) -> None:
    """Where requests are limited it takes as long as they do, and batches cost half."""
    evaluate(one_step(), questions(20), predictions=False)
    dspy.configure(lm=lm(PRICED, requests_per_minute=60))
    estimate = cachectl.estimate(one_step(), questions(60, first=100), predictions=False)
    assert estimate.seconds is not None
    assert 60 <= estimate.seconds.low <= estimate.seconds.high
    assert estimate.cost is not None
    assert estimate.batch_cost == (estimate.cost.low / 2, estimate.cost.high / 2)


def test_no_price(lm: Callable[..., Any], endpoint: Endpoint, evaluate: Callable[..., Any]) -> None:
    """A model without a price has tokens and requests, and no cost."""
    dspy.configure(lm=lm("openai/nobodys-model"))
    evaluate(one_step(), questions(20), predictions=False)
    before = endpoint.requests
    estimate = cachectl.estimate(one_step(), questions(20, first=100), predictions=False)
    assert before == endpoint.requests
    assert estimate.cost is None
    assert (20, 20) == estimate.requests
    assert "no price" in str(estimate)


def test_side_effects(endpoint: Endpoint, tmp_path: Path, evaluate: Callable[..., Any]) -> None:
    """It leaves no draw, no prediction and no run behind."""
    evaluate(one_step(), questions(12), predictions=False)
    cachectl.estimate(one_step(), questions(12, first=100), predictions=str(tmp_path / "kept"), run_id="estimated")
    from dspy_cachectl.calls.installation import installed

    cache = installed()
    assert cache is not None
    assert "estimated" not in {label.run for label in cache.tiers.labels()}
    assert not (tmp_path / "kept").exists()


def test_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install, before the program runs."""
    monkeypatch.setitem(sys.modules, "numpy", None)
    ran: list[str] = []

    with pytest.raises(MissingExtraError, match=r"estimate\(\) .* pip install 'dspy-cachectl\[stats\]'"):
        cachectl.estimate(ran.append, questions(1))

    assert not ran


def test_what_is_no_argument() -> None:
    """A wrong argument is refused as by `evaluate`."""
    with pytest.raises(cachectl.ConfigurationError, match="repeats must be 1 or more"):
        cachectl.estimate(one_step(), questions(2), repeats=0)
    with pytest.raises(cachectl.ConfigurationError, match="baseline is a report"):
        cachectl.estimate(one_step(), questions(2), baseline=3)  # type: ignore[arg-type]


def usages(rng: random.Random, numbers: Iterator[int], number: int, factor: float) -> tuple[list[Any], dict[str, Any]]:
    """Questions, and what answers to them use: as uneven as such are, and some of it from the provider's cache."""
    devset, used = questions(number, first=next(numbers) * 1000), {}
    for example in devset:
        prompt, written = rng.randint(120, 400), int(60 * factor * rng.lognormvariate(0, 0.7)) + 1
        cached = {"cached_tokens": prompt // 2} if rng.random() < 0.3 else {}
        used[example.question[:7]] = {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
            "prompt_tokens_details": cached,
        }
    return devset, used


@pytest.mark.parametrize("runs", [4, pytest.param(50, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("known", ["program", "model"])
def test_the_truth_is_in_the_range(
    endpoint: Endpoint, lm: Callable[..., Any], evaluate: Callable[..., Any], known: str, runs: int
) -> None:
    """In nine of ten tried runs and more; and the range is narrow: twice where the program is known, or five times."""
    rng, numbers, wrong, widths = random.Random(7), itertools.count(1), [], []
    for run in range(runs):
        program = dspy.ChainOfThought(dspy.Signature("question -> answer", f"Answer as number {run} does."))
        other = dspy.ChainOfThought(dspy.Signature("question -> answer", f"Reply as number {run} would."))
        dspy.configure(lm=lm(PRICED, endpoint=f"number {run}"))
        factor = rng.lognormvariate(0, 0.3)
        past, used = usages(rng, numbers, 50, 1.0 if known == "model" else factor)
        devset, to_use = usages(rng, numbers, 30, factor)
        endpoint.configure(usage={**used, **to_use})
        evaluate(program if known == "program" else other, past, predictions=False)
        before = endpoint.requests
        estimate = cachectl.estimate(program, devset, predictions=False)
        assert before == endpoint.requests
        truth = spent(lambda program=program, devset=devset: evaluate(program, devset, predictions=False), endpoint)
        wrong += missed(estimate, truth)
        assert estimate.cost is not None
        widths.append(estimate.cost.high / estimate.cost.low)
    assert {} == {name: wrong.count(name) for name in wrong if wrong.count(name) > runs / 10}
    assert median(widths) <= (2 if known == "program" else 5)


def test_what_is_on_its_way_in_a_batch(endpoint: Endpoint, evaluate: Callable[..., Any]) -> None:
    """It says what is sent and not answered; a dry run too, which knows what the waves before brought."""
    program, devset = TwoSteps(), questions(4)
    endpoint.configure(batch_looks=None)
    for wave in (1, 2):
        endpoint.finish_batches()
        with pytest.raises(cachectl.BatchPendingError) as pending:
            evaluate(program, devset, predictions=False, batch=cachectl.Batch(wait=False))
        with DryRun() as dry:
            evaluate(program, devset, predictions=False, batch=True)
        said = f"4 calls of it are on the way in a batch ({pending.value.batches[0]})"
        estimates = [cachectl.estimate(program, devset, predictions=False), *dry.estimates]
        assert all(any(note.startswith(said) for note in one.notes) for one in estimates)
        assert ([0, 4 * (wave - 1)], wave) == ([one.served for one in estimates], len(endpoint.batches()))
    endpoint.finish_batches()
    evaluate(program, devset, predictions=False, batch=True)
    assert not any("batch" in note for note in cachectl.estimate(program, devset, predictions=False).notes)
    assert 0 == endpoint.requests
