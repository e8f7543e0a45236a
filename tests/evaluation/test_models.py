"""`evaluate(lms=[...])`: a report a model, ranked, and the judge stays. The provider's counter is the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.utils.dummies import DummyLM

import dspy_cachectl as cachectl
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import MakeLM, exact, models_asked, program, questions, run

__all__ = ["program"]


class Checked(dspy.Module):
    """A program that asks one LM for an answer, and another one whether it is right."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.Predict("question -> answer")
        self.check = dspy.Predict("question, draft -> answer")

    def forward(self, question: str) -> Any:
        return self.check(question=question, draft=self.answer(question=question).answer)


def ranked(program: Any, *, lms: Any, count: int = 6, metric: Any = exact, **options: Any) -> cachectl.Ranking:
    return cachectl.evaluate(program, questions(count), metric, display_progress=False, lms=lms, **options)


def test_each_model_is_asked_once_and_another_one_costs_itself(
    program: dspy.Module, lm: MakeLM, endpoint: Endpoint
) -> None:
    """Four models: a report each, with predictions of its own; again nothing is asked, a fifth only itself."""
    lms = [lm(f"openai/model-{number}") for number in range(4)]
    first = ranked(program, lms=lms)
    assert {f"model-{number}": 6 for number in range(4)} == models_asked(endpoint)
    assert [one.model for one in lms] == [report.name for report in first]
    assert [one.model for one in lms] == [report.provenance.model for report in first]
    assert 4 == len({report.path for report in first}) == len({report.run_id for report in first})
    again = ranked(program, lms=lms)
    assert 24 == endpoint.requests
    assert [report.score for report in first] == [report.score for report in again]
    assert ["loaded"] * 4 == [report.provenance.predictions for report in again]
    more = ranked(program, lms=[*lms, lm("openai/model-4")])
    assert (5, 30) == (len(more), endpoint.requests)
    assert 6 == models_asked(endpoint)["model-4"]


def test_it_is_the_evaluation_of_each_model(program: dspy.Module, lm: MakeLM, endpoint: Endpoint) -> None:
    """What one model answered is kept as by `evaluate` with that model set, and the other way round."""
    with dspy.context(lm=lm("openai/one")):
        alone = run(program, questions(4))
    owned = program.deepcopy()
    owned.set_lm(lm("openai/zero"))
    ranking = ranked(owned, lms={"mine": lm("openai/one")}, count=4)
    assert 4 == endpoint.requests
    assert (alone.run_id, alone.score, alone.provenance.metric_hash) == (
        ranking["mine"].run_id,
        ranking["mine"].score,
        ranking["mine"].provenance.metric_hash,
    )
    assert "openai/zero" == owned.lm if isinstance(owned.lm, str) else owned.lm.model


def test_a_judge_stays_what_it_is(program: dspy.Module, lm: MakeLM, endpoint: Endpoint) -> None:
    """The metric asks the LM that DSPy is set to, and not the model that it judges; its scores are of one metric."""
    judge = dspy.Predict("question, said -> answer")

    def metric(example: Any, prediction: Any) -> bool:
        return bool(judge(question=example.question, said=prediction.answer).answer == "yes")

    dspy.configure(lm=lm("openai/judge"))
    ranking = ranked(program, lms=[lm("openai/one"), lm("openai/two")], metric=metric)
    assert {"one": 6, "two": 6, "judge": 12} == models_asked(endpoint)
    assert 1 == len({report.provenance.metric_hash for report in ranking})
    assert [["openai/judge"]] * 2 == [[one.model for one in report.provenance.judges] for report in ranking]
    with dspy.context(lm=lm("openai/judge")):
        plain = program.deepcopy()
        plain.set_lm(lm("openai/one"))
        assert ranking[0].provenance.metric_hash == run(plain, questions(1), metric).provenance.metric_hash


def test_a_judge_that_is_no_lm_of_ours_is_one_judge(program: dspy.Module, lm: MakeLM) -> None:
    """A DummyLM has no name that tells it from others, and is the same judge of every model."""
    judge = dspy.Predict("question, said -> answer")
    said = DummyLM([{"answer": "yes"}] * 20)

    def metric(example: Any, prediction: Any) -> bool:
        return bool(judge(question=example.question, said=prediction.answer).answer == "yes")

    with dspy.context(lm=said):
        ranking = ranked(program, lms=[lm("openai/one"), lm("openai/two")], metric=metric, count=2)
    assert [1.0, 1.0] == [report.score for report in ranking]
    assert 1 == len({report.provenance.metric_hash for report in ranking})


def test_a_part_with_a_role_keeps_its_lm(program: dspy.Module, lm: MakeLM, endpoint: Endpoint) -> None:
    """The model takes the place of LMs without a role, or of its own role; the program is as it was."""
    checked = Checked()
    checked.answer.lm, checked.check.lm = lm("openai/small"), lm("openai/checker", role="judge")
    ranked(checked, lms=[lm("openai/one")], count=3)
    assert {"one": 3, "checker": 3} == models_asked(endpoint)
    ranked(checked, lms=[lm("openai/two", role="judge")], count=3)
    assert {"one": 3, "checker": 3, "two": 6} == models_asked(endpoint)
    assert ["openai/small", "openai/checker"] == [checked.answer.lm.model, checked.check.lm.model]
    checked.answer.lm = lm("openai/writer", role="writer")
    with pytest.raises(cachectl.ConfigurationError, match="openai/one would not be asked"):
        ranked(checked, lms=[lm("openai/one")], count=3)
    assert 12 == endpoint.requests


def test_models_of_one_name_are_told_apart(program: dspy.Module, lm: MakeLM, endpoint: Endpoint) -> None:
    """By what differs in how they are asked, or by the names that they are given."""
    lms = [lm("openai/one", temperature=0.5), lm("openai/one", temperature=1.0), lm("openai/two")]
    names = [report.name for report in ranked(program, lms=lms, count=2)]
    assert ["openai/one temperature=0.5", "openai/one temperature=1.0", "openai/two"] == names
    assert 6 == endpoint.requests
    assert ["a", "b"] == [report.name for report in ranked(program, lms={"a": lms[0], "b": lms[1]}, count=2)]
    assert 6 == endpoint.requests


def test_a_baseline_takes_the_place_of_the_best(program: dspy.Module, lm: MakeLM) -> None:
    """All are compared with it, and with nothing else."""
    before = run(program, questions(6), name="before")
    ranking = ranked(program, lms=[lm("openai/one"), lm("openai/two")], baseline=before)
    assert before is ranking.reference
    assert [("before", 2)] * 2 == [(pair.baseline, pair.compared_with) for pair in ranking.comparisons]
    assert {"before", "openai/one", "openai/two"} == {row.name for row in ranking.rows}


@pytest.mark.parametrize(
    "again", [{"force_recompute": True}, pytest.param({"max_age": 5.0}, marks=pytest.mark.exhaustive)]
)
def test_a_run_of_several_models_is_not_drawn_anew(
    program: dspy.Module, lm: MakeLM, endpoint: Endpoint, again: dict[str, Any]
) -> None:
    """The first model would give it draws, and the second be refused: that is said before either is paid."""
    lms = [lm("openai/one"), lm("openai/two")]
    with pytest.raises(cachectl.ConfigurationError, match="with lms, run_id does not go together"):
        ranked(program, lms=lms, run_id="one", **again)
    assert 0 == endpoint.requests
    ranked(program, lms=lms, count=2)
    forced = ranked(program, lms=lms, count=2, **again)
    assert (["one"] * 2, 12 if again.get("force_recompute") else 8) == (
        [report.run_id for report in ranked(program, lms=lms, count=2, run_id="one")],
        endpoint.requests,
    )
    assert 2 == len(forced)


def test_what_ends_it_has_the_reports_that_there_are(
    program: dspy.Module, lm: MakeLM, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """One model that is down costs the others nothing: what was paid for is handed out, and kept."""
    endpoint.fail(status=400, skip=4)
    lms = [lm("openai/one", num_retries=0), lm("openai/two", num_retries=0)]
    with pytest.raises(Exception, match="cancelled due to errors") as caught:
        ranked(program, lms=lms, count=4, max_errors=1, num_threads=1)
    assert ["openai/one"] == [report.name for report in caught.value.reports]
    assert "1 of 2 models were evaluated" in caplog.text
    endpoint.clear_faults()
    endpoint.reset_counts()
    ranked(program, lms=lms, count=4)
    assert {"two": 4} == models_asked(endpoint)


@pytest.mark.parametrize(
    ("lms", "says"),
    [
        ([], "names no model"),
        ({}, "names no model"),
        ("openai/one", "a list of LMs, or LMs by name"),
        (["openai/one"], "such as cachectl.LM"),
        (dspy.LM("openai/one"), "a list of LMs, or LMs by name"),
        ({1: dspy.LM("openai/one"), "1": dspy.LM("openai/two")}, "different names"),
    ],
)
def test_bad_models_are_refused(program: dspy.Module, endpoint: Endpoint, lms: Any, says: str) -> None:
    """Before anything is paid for."""
    with pytest.raises(cachectl.ConfigurationError, match=says):
        ranked(program, lms=lms)
    assert 0 == endpoint.requests


def test_what_it_shows(program: dspy.Module, lm: MakeLM, tmp_path: Path) -> None:
    """A table that a terminal of 80 columns holds, HTML, and a data frame."""
    ranking = ranked(program, lms=[lm("openai/one"), lm("openai/two")])
    text = str(ranking)
    assert max(map(len, text.splitlines())) <= 110
    assert "Against" in text
    for row in ranking.rows:
        assert row.name in text
        assert row.name in ranking._repr_html_()
    assert [row.name for row in ranking.rows] == list(ranking.to_pandas()["name"])
    assert list(ranking.to_pandas().columns)[:4] == ["name", "n", "repeats", "failures"]
