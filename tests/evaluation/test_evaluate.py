"""`evaluate()`: fresh draws, repeats, and nothing asked twice. The provider's request counter is the oracle."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.endpoint import Endpoint

MakeLM = Callable[..., cachectl.LM]


def questions(count: int, first: int = 0) -> list[dspy.Example]:
    """Different questions, all with the answer yes."""
    return [
        dspy.Example(question=f"question {number} ?", answer="yes").with_inputs("question")
        for number in range(first, first + count)
    ]


def exact(example: dspy.Example, prediction: Any, trace: Any = None) -> bool:
    """Whether the answer is the expected one."""
    return bool(example.answer == prediction.answer)


class Judge:
    """A metric that counts its calls; the count is no part of what it is."""

    calls = itertools.count()

    def __call__(self, example: dspy.Example, prediction: Any) -> float:
        """Always the same."""
        next(type(self).calls)
        return 0.25


@pytest.fixture
def program(lm: MakeLM, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dspy.Module:
    """A program whose answers are right about as often as not; its library is in the test's own folder."""
    monkeypatch.chdir(tmp_path)
    endpoint.configure(answers={"question": ["yes", "no", "yes", "no", "no"]})
    dspy.configure(lm=lm())
    return dspy.Predict("question -> answer")


def run(program: Any, devset: list[dspy.Example], metric: Any = exact, **options: Any) -> cachectl.EvalReport:
    """Evaluate without a progress bar."""
    return cachectl.evaluate(program, devset, metric, display_progress=False, **options)


def test_every_repeat_is_a_draw_of_its_own(program: dspy.Module, endpoint: Endpoint) -> None:
    """12 questions, 3 repeats: 36 requests, 36 distinct draws, and the counters agree."""
    report = run(program, questions(12), repeats=3)
    assert 36 == endpoint.requests == report.provenance.counters["fresh"] == report.distinct.distinct
    assert (12, 3, 0) == (report.n, report.repeats, report.failures)
    # The endpoint gives each question its answers in turn: yes, no, yes.
    assert pytest.approx(2 / 3) == report.score


def test_a_second_evaluation_loads_what_the_first_computed(program: dspy.Module, endpoint: Endpoint) -> None:
    """The same program, data and configuration: no request, the same score, and the report says so."""
    first = run(program, questions(10), repeats=2)
    endpoint.reset_counts()
    again = run(program, questions(10), repeats=2)
    assert 0 == endpoint.requests
    assert ("loaded", first.score, first.run_id) == (again.provenance.predictions, again.score, again.run_id)
    assert first.draw_ids == again.draw_ids


def test_more_repeats_buy_only_what_is_new(program: dspy.Module, endpoint: Endpoint) -> None:
    """From 3 repeats to 5 buys two for each question, of the same run."""
    first = run(program, questions(6), repeats=3)
    endpoint.reset_counts()
    more = run(program, questions(6), repeats=5)
    assert 12 == endpoint.requests
    assert first.run_id == more.run_id
    assert [row.draws[:3] for row in more.questions] == [
        tuple(_loaded(draw) for draw in row.draws) for row in first.questions
    ]


def _loaded(draw: Any) -> Any:
    from dataclasses import replace

    return replace(draw, loaded=True, requests=0, oldest=draw.oldest, newest=draw.oldest)


def test_more_repeats_without_a_library_resume_the_run_from_the_store(program: dspy.Module, endpoint: Endpoint) -> None:
    """Even where no predictions are kept, a run's draws are in the store."""
    first = run(program, questions(6), repeats=3, predictions=False)
    endpoint.reset_counts()
    more = run(program, questions(6), repeats=5, predictions=False, run_id=first.run_id)
    assert (12, 18) == (endpoint.requests, more.provenance.counters["resumed"])


@pytest.mark.parametrize("threads", [1, 8])
def test_the_draws_do_not_depend_on_the_order_of_the_data(
    program: dspy.Module, endpoint: Endpoint, threads: int
) -> None:
    """A reordered data set recomputes nothing, from the library or from the store."""
    devset = questions(10)
    report = run(program, devset, repeats=2, predictions=False, num_threads=threads)
    endpoint.reset_counts()
    again = run(program, devset[::-1], repeats=2, predictions=False, run_id=report.run_id, num_threads=8)
    assert (0, report.score) == (endpoint.requests, again.score)


def test_new_and_edited_questions_are_all_that_is_asked(program: dspy.Module, endpoint: Endpoint) -> None:
    """3 new questions and 2 edited ones among 20: 5 requests."""
    run(program, questions(20))
    endpoint.reset_counts()
    changed = [*questions(18), *questions(5, first=100)]
    report = run(program, changed)
    assert (5, "extended") == (endpoint.requests, report.provenance.predictions)


def test_a_changed_metric_rescores_without_a_request(program: dspy.Module, endpoint: Endpoint) -> None:
    """Scores belong to the metric, predictions do not."""
    run(program, questions(8))
    endpoint.reset_counts()
    judge = Judge()
    assert 0.25 == run(program, questions(8), judge).score
    assert (0, 8) == (endpoint.requests, next(Judge.calls))
    assert 0.25 == run(program, questions(8), judge).score
    assert 9 == next(Judge.calls)


def test_a_metric_that_asks_a_judge_is_paid_once(program: dspy.Module, lm: MakeLM, endpoint: Endpoint) -> None:
    """The judge's verdicts are kept as scores; a second evaluation asks nobody."""
    judge = lm("openai/judge", role="judge")

    def judged(example: dspy.Example, prediction: Any) -> float:
        judge(f"Is {prediction.answer} right for {example.question}")
        return 1.0

    with cachectl.phase("eval", roles={"judge": cachectl.Policy.REUSE}):
        report = run(program, questions(5), judged)
    assert 10 == endpoint.requests
    assert {"judge", None} == {row["role"] for row in report.provenance.counters["by"]}
    run_id = report.run_id
    with cachectl.phase("eval", roles={"judge": cachectl.Policy.REUSE}, run_id=run_id):
        run(program, questions(5), judged)
    assert 10 == endpoint.requests


def test_one_more_model_asks_that_model_only(program: dspy.Module, lm: MakeLM, endpoint: Endpoint) -> None:
    """Predictions of one model are never served for another."""
    run(program, questions(6))
    with dspy.context(lm=lm("openai/other-model")):
        run(program, questions(6))
    assert {"test-model": 6, "other-model": 6} == models_asked(endpoint)
    run(program, questions(6))
    assert 12 == endpoint.requests


def models_asked(endpoint: Endpoint) -> dict[str, int]:
    """How many requests each model got."""
    counts: dict[str, int] = {}
    for request in endpoint.log():
        model = request["body"]["model"]
        counts[model] = counts.get(model, 0) + 1
    return counts


def test_force_recompute_draws_everything_anew(program: dspy.Module, endpoint: Endpoint) -> None:
    """A forced evaluation is another run, and buys every answer."""
    first = run(program, questions(5))
    forced = run(program, questions(5), force_recompute=True)
    assert 10 == endpoint.requests
    assert first.run_id != forced.run_id
    assert not first.draw_ids & forced.draw_ids


def test_an_explicit_run_is_never_served_anothers_predictions(program: dspy.Module, endpoint: Endpoint) -> None:
    """A fresh run has its own draws, whatever the library holds."""
    run(program, questions(5), run_id="one")
    run(program, questions(5), run_id="two")
    assert 10 == endpoint.requests
    run(program, questions(5), run_id="one")
    with cachectl.phase("eval", run_id="two"):
        run(program, questions(5))
    assert 10 == endpoint.requests


def test_inside_a_replay_nothing_is_asked(program: dspy.Module, endpoint: Endpoint) -> None:
    """An evaluation in a replay phase replays; what it lacks is an error at the phase's end."""
    first = run(program, questions(4), predictions=False)
    endpoint.reset_counts()
    with cachectl.phase("replay", cachectl.Policy.REPLAY, run_id=first.run_id):
        assert first.score == run(program, questions(4), predictions=False).score
    with (
        pytest.raises(cachectl.ReplayIncompleteError),
        cachectl.phase("replay", cachectl.Policy.REPLAY, run_id=first.run_id),
    ):
        run(program, questions(5), predictions=False)
    assert 0 == endpoint.requests


def test_a_plain_lm_is_drawn_afresh_too(program: dspy.Module, plain_lm: Callable[..., Any], endpoint: Endpoint) -> None:
    """evaluate() governs the LMs itself: equal calls are draws of their own."""
    with dspy.context(lm=plain_lm()):
        report = run(program, questions(3) * 2, repeats=2)
    assert 12 == endpoint.requests == report.distinct.distinct
    own = dspy.Predict("question -> answer")
    own.set_lm(plain_lm(temperature=0.5))
    run(own, questions(2) * 2)
    assert 16 == endpoint.requests
    assert not isinstance(own.lm, cachectl.LM)


def test_what_the_metric_may_return(program: dspy.Module) -> None:
    """A number, a bool, or something with a score."""
    devset = questions(4)
    assert 0.5 == run(program, devset, lambda example, prediction: 0.5).score
    assert 1.0 == run(program, devset, lambda example, prediction, trace=None: True).score
    assert 0.75 == run(program, devset, lambda example, prediction: dspy.Prediction(score=0.75, feedback="ok")).score


def test_a_metric_that_fails_is_a_counted_failure(program: dspy.Module) -> None:
    """Never a silent 0.0: the report gives the score with failures as 0 and without them."""

    def fussy(example: dspy.Example, prediction: Any) -> Any:
        number = int(example.question.split()[1])
        if number == 0:
            raise KeyError("no label")
        return [None, float("nan"), "good", 1.0, 1.0][number - 1] if number < 4 else 1.0

    report = run(program, questions(8), fussy)
    assert (4, 0.5, 1.0) == (report.failures, report.score, report.score_without_failures)
    reasons = [row.draws[0].failed or "" for row in report.questions[:4]]
    assert ["raised KeyError", "returned NoneType", "returned nan", "returned str"] == [
        next(
            part for part in ("raised KeyError", "returned NoneType", "returned nan", "returned str") if part in reason
        )
        for reason in reasons
    ]


def test_a_program_that_fails_is_a_counted_failure_and_is_tried_again(
    lm: MakeLM, endpoint: Endpoint, tmp_path: Path
) -> None:
    """What was computed stays; the next evaluation asks only for what failed."""
    dspy.configure(lm=lm(num_retries=0))
    endpoint.fail(status=400, match="question 3 ", times=1)
    program = dspy.Predict("question -> answer")
    first = run(program, questions(6), max_errors=5, predictions=tmp_path / "library")
    assert (1, 6) == (first.failures, endpoint.requests)
    assert "LMInvalidRequestError" in (first.questions[3].draws[0].failed or "")
    second = run(program, questions(6), predictions=tmp_path / "library")
    assert (0, 7) == (second.failures, endpoint.requests)
    assert ("errors: 1 of 6 answers failed before",) == second.provenance.changes


def test_an_evaluation_that_gives_up_keeps_what_it_has(lm: MakeLM, endpoint: Endpoint, tmp_path: Path) -> None:
    """After max_errors DSPy stops; every finished question is kept and not asked again."""
    dspy.configure(lm=lm(num_retries=0))
    program = dspy.Predict("question -> answer")
    endpoint.fail(status=400, skip=4)
    with pytest.raises(Exception, match="cancelled due to errors"):
        run(program, questions(10), max_errors=2, num_threads=1, predictions=tmp_path / "library")
    endpoint.clear_faults()
    endpoint.reset_counts()
    report = run(program, questions(10), predictions=tmp_path / "library")
    assert (6, "extended", 0) == (endpoint.requests, report.provenance.predictions, report.failures)


@pytest.mark.parametrize(
    ("answer", "shown"),
    [({"answer": "yes"}, "a mapping"), ("yes", "a text"), (7, "a number"), (["yes", 1], "a list")],
)
def test_programs_that_return_something_else_are_kept(tmp_path: Path, lm: MakeLM, answer: Any, shown: str) -> None:
    """What is no Prediction comes back from the library as it was."""
    dspy.configure(lm=lm())
    seen: list[Any] = []

    def metric(example: dspy.Example, prediction: Any) -> float:
        seen.append(prediction)
        return 1.0

    def program(question: str) -> Any:
        return answer

    run(program, questions(2), metric, predictions=tmp_path / "library")
    report = run(program, questions(2), lambda _, answer: seen.append(answer) or 0.5, predictions=tmp_path / "library")
    assert "loaded" == report.provenance.predictions
    assert [answer] * 4 == seen


def test_a_prediction_that_cannot_be_kept_is_counted(tmp_path: Path, lm: MakeLM) -> None:
    """The report says how many; the evaluation goes on."""
    dspy.configure(lm=lm())
    report = run(
        lambda question: object(), questions(3), lambda example, prediction: 1.0, predictions=tmp_path / "library"
    )
    assert (3, 1.0) == (report.provenance.unsaved, report.score)


@pytest.mark.parametrize(
    ("devset", "metric", "options", "says"),
    [
        ([], exact, {}, "at least one|empty"),
        ([dspy.Example(question="q")], exact, {}, "with_inputs"),
        (questions(2), lambda: 1.0, {}, r"called with \(example, prediction\)"),
        (questions(2), "accuracy", {}, "not callable"),
        (questions(2), exact, {"repeats": 0}, "repeats must be 1 or more"),
        (questions(2), exact, {"clusters": ["a"]}, "2 questions and 1 cluster"),
        (questions(2), exact, {"clusters": ["a", None]}, "example 1 has no cluster id"),
        (questions(2), exact, {"clusters": ["a", float("nan")]}, "example 1 has no cluster id"),
        (questions(2), exact, {"level": 95}, "level must lie between 0 and 1"),
        (questions(2), exact, {"clusters": "topic"}, "no field 'topic'"),
        (questions(2), exact, {"predictions": 7}, "predictions is True, False"),
    ],
)
def test_bad_input_is_an_error_before_anything_is_paid(
    program: dspy.Module, endpoint: Endpoint, devset: Any, metric: Any, options: dict[str, Any], says: str
) -> None:
    """Each says what is wrong, where, and what to do."""
    with pytest.raises(cachectl.ConfigurationError, match=says):
        run(program, devset, metric, **options)
    assert 0 == endpoint.requests


def test_the_bar_tells_the_score_so_far(
    program: dspy.Module, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers, score, failures, requests and tokens stand on stderr."""
    monkeypatch.setenv("COLUMNS", "200")

    def fussy(example: dspy.Example, prediction: Any) -> float:
        return 1.0 / (example.question != "question 0 ?")

    cachectl.evaluate(program, questions(4), fussy, name="quiz")
    shown = " ".join(capsys.readouterr().err.split())
    assert all(part in shown for part in ("quiz", "4/4", "score 0.750", "1 failed", "4 requests, 0 served"))


def test_clusters_widen_the_interval(program: dspy.Module) -> None:
    """Questions that belong together count as such: by ids, by a field, or by a function."""
    devset = [
        dspy.Example(question=f"question {number} ?", answer="yes", topic=number // 4).with_inputs("question")
        for number in range(20)
    ]

    def by_topic(example: dspy.Example, prediction: Any) -> float:
        return float(example.topic % 2)

    independent = run(program, devset, by_topic)
    reports = [
        run(program, devset, by_topic, clusters=clusters)
        for clusters in ([example.topic for example in devset], "topic", lambda example: example.topic)
    ]
    assert {5} == {report.error.clusters for report in reports}
    assert 1 == len({report.standard_error for report in reports})
    assert reports[0].standard_error > 1.5 * independent.standard_error


def test_dspys_evaluate_runs_underneath(program: dspy.Module) -> None:
    """Callbacks see one `Evaluate` a repeat, with the program's own class and the metric's own name."""
    from dspy.utils.callback import BaseCallback

    seen: list[tuple[str, str]] = []

    class Watch(BaseCallback):  # type: ignore[misc]
        def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
            seen.append((type(inputs["program"]).__name__, instance.metric.__name__))

    with dspy.context(callbacks=[Watch()]):
        run(program, questions(3), repeats=2)
    assert [("Predict", "exact")] * 2 == seen


def test_the_report_compares_with_its_baseline(program: dspy.Module) -> None:
    """`baseline=` gives the comparison at once."""
    first = run(program, questions(6), name="zero-shot")
    second = run(dspy.ChainOfThought("question -> answer"), questions(6), baseline=first, name="cot")
    compared = second.comparison
    assert compared is not None
    assert ("zero-shot", "cot", 6) == (compared.baseline, compared.candidate, compared.result.n)


def test_rows_are_read_from_the_snapshot(program: dspy.Module) -> None:
    """Inputs, prediction, reference and score of every draw, from readable JSON."""
    report = run(program, questions(3), repeats=2)
    rows = list(report.rows())
    assert 6 == len(rows)
    assert {"question 0 ?", "question 1 ?", "question 2 ?"} == {row.inputs["question"] for row in rows}
    assert {"yes"} == {row.reference["answer"] for row in rows}
    data = json.loads(Path(report.path or "").read_text())
    assert {"metadata", "predictions", "metrics"} == set(data)
    assert "sk-test-secret" not in json.dumps(data)
    assert (report.provenance.library_bytes or 0) >= Path(report.path or "").stat().st_size
    assert "MB of 2,147 MB" in " ".join(report.details().split())
