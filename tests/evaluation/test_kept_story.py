"""What a report says of kept predictions: what was loaded, rescored, bought, why, and what it saved."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.errors import ConfigurationError
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import MakeLM, program, questions, run

__all__ = ["program"]


def wrong(example: dspy.Example, prediction: Any, trace: Any = None) -> bool:
    """Whether the answer is not the expected one."""
    return bool(example.answer != prediction.answer)


@pytest.mark.parametrize("again", [{"force_recompute": True}, {"max_age": 0.0}])
def test_a_run_that_has_draws_is_not_drawn_anew(
    program: dspy.Module, endpoint: Endpoint, again: dict[str, Any]
) -> None:
    """A run's draws are its own: to force others is refused before anything is bought, and a new run id is named."""
    first = run(program, questions(4))
    for predictions in (True, False):
        with pytest.raises(ConfigurationError, match=r"has draws.*run_id=") as caught:
            run(program, questions(4), run_id=first.run_id, predictions=predictions, **again)
        assert str(first.run_id) in str(caught.value)
    assert endpoint.requests == 4
    assert run(program, questions(4), run_id="another", force_recompute=True).provenance.counters["fresh"] == 4


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("again", [{"force_recompute": True}, {"max_age": 0.0}])
def test_an_open_phase_that_has_draws_is_drawn_anew(
    program: dspy.Module, endpoint: Endpoint, again: dict[str, Any], keeps: bool
) -> None:
    """Others than the draws of the open phase's run are of a run of their own, and bought; its first are its own."""
    with cachectl.phase("eval") as opened:
        first = run(program, questions(4), predictions=keeps, **again)
        second = run(program, questions(4), predictions=keeps, **again)
        assert (endpoint.requests, second.provenance.counters["fresh"]) == (8, 4)
        third = run(program, questions(4), predictions=keeps)
    assert endpoint.requests == 8
    assert [first.run_id, opened.run_id, first.score] == [opened.run_id, third.run_id, third.score]
    assert not first.draw_ids & second.draw_ids
    with cachectl.phase("replay", cachectl.Policy.REPLAY, run_id=first.run_id):
        assert run(program, questions(4), predictions=keeps, **again).score == first.score
    assert endpoint.requests == 8


def test_a_number_is_one_number_however_it_is_written(program: dspy.Module, endpoint: Endpoint, lm: MakeLM) -> None:
    """A temperature of 1.0, and 1 as YAML gives it: nothing is bought again, in predictions and store."""
    dspy.configure(lm=lm(temperature=1.0, top_p=1))
    first = run(program, questions(4))
    dspy.configure(lm=lm(temperature=1, top_p=1.0))
    again = run(program, questions(4))
    assert (endpoint.requests, again.provenance.predictions) == (4, "loaded")
    assert run(program, questions(4), run_id=first.run_id, predictions=False).provenance.counters["resumed"] == 4
    dspy.configure(lm=lm())  # the phase lends 1.0
    run(program, questions(5))
    dspy.configure(lm=lm(temperature=1))
    assert run(program, questions(5)).provenance.predictions == "loaded"
    assert endpoint.requests == 9


def test_a_number_of_a_predictor_is_one_number(program: dspy.Module, endpoint: Endpoint) -> None:
    """Likewise its own options, however deep; None is one too, and what a program holds itself stays as it is."""

    def asking(**options: Any) -> dspy.Module:
        return dspy.ChainOfThought("question -> answer", **options)

    run(asking(temperature=1, top_p=1.0, extra_body={"a": [1.0, {"b": 2}], "c": (1,)}), questions(2))
    again = run(asking(temperature=1.0, top_p=1, extra_body={"a": [1, {"b": 2.0}], "c": [1.0]}), questions(2))
    assert (endpoint.requests, again.provenance.predictions) == (2, "loaded")
    for other in (
        asking(temperature=1, top_p=1.0, extra_body={"a": [True, {"b": 2}], "c": (1,)}),
        asking(temperature=1.0, top_p=None),
        asking(temperature=1.0),
    ):
        (said,) = run(other, questions(2)).provenance.changes
        assert said == "program: configuration of 'predict' changed"
    assert endpoint.requests == 8


def test_what_only_looks_equal_is_told(program: dspy.Module, endpoint: Endpoint, lm: MakeLM) -> None:
    """True is no 1, though Python says so: bought again, and the reason says which option."""
    dspy.configure(lm=lm(extra=1, logprobs=True))
    run(program, questions(2))
    dspy.configure(lm=lm(extra=True, logprobs=True))
    assert run(program, questions(2)).provenance.changes == ("generation: extra 1 is now True",)
    assert endpoint.requests == 4


def test_what_was_paid_and_came_too_late_is_resumed(program: dspy.Module, endpoint: Endpoint) -> None:
    """All questions were given up: the same run goes on, nothing is asked twice, and the reason is the true one."""
    endpoint.hold("question")
    first = run(program, questions(4), timeout=0.3, num_threads=4)
    assert (first.failures, endpoint.requests) == (4, 4)
    endpoint.release()
    again = run(program, questions(5), timeout=30.0, num_threads=4)
    assert again.provenance.changes == (
        "errors: 4 of 5 answers failed before",
        "data: 1 of 5 questions are new or edited",
    )
    assert (again.run_id, again.failures, endpoint.requests) == (first.run_id, 0, 5)
    assert run(program, questions(5)).provenance.predictions == "loaded"
    assert endpoint.requests == 5


def test_an_answer_that_failed_before_is_said(program: dspy.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of four questions failed; the next evaluation asks it again, and says why."""

    class Fragile(dspy.Module):
        """Fails on one question until told not to."""

        def __init__(self) -> None:
            super().__init__()
            self.answer = dspy.Predict("question -> answer")

        def forward(self, question: str) -> Any:
            """Answer, or not."""
            if "2" in question and os.environ.get("BROKEN"):
                raise RuntimeError("no")
            return self.answer(question=question)

    monkeypatch.setenv("BROKEN", "yes")
    run(Fragile(), questions(4))
    monkeypatch.delenv("BROKEN")
    again = run(Fragile(), questions(4))
    assert again.provenance.changes == ("errors: 1 of 4 answers failed before",)


def test_what_kept_predictions_saved_is_said(program: dspy.Module, endpoint: Endpoint) -> None:
    """A rerun asks for nothing: it saved the requests, tokens and seconds that the first one spent."""
    first = run(program, questions(5), repeats=2)
    again = run(program, questions(5), repeats=2)
    spent, saved = first.provenance.counters, again.provenance.counters
    assert spent["tokens_spent"] == saved["tokens_saved"] > 0
    assert saved["loaded"] == 10
    assert f"{spent['tokens_spent']:,} tokens" in str(again)


def test_when_a_loaded_answer_was_drawn(endpoint: Endpoint, lm: MakeLM) -> None:
    """The oldest and the newest of its draws are of the same times, bought and loaded."""

    class Twice(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = dspy.Predict("question -> hint"), dspy.Predict("question, hint -> answer")

        def forward(self, question: str) -> Any:
            return self.second(question=question, hint=self.first(question=question).hint)

    dspy.configure(lm=lm())
    bought, loaded = (run(Twice(), questions(2)) for _ in range(2))
    times = [
        [(draw.oldest, draw.newest) for one in report.questions for draw in one.draws] for report in (bought, loaded)
    ]
    assert times[0] == times[1]
    assert all(oldest < newest for oldest, newest in times[0])
    assert endpoint.requests == 4


def test_a_metric_that_changed_is_said_and_each_keeps_its_scores(program: dspy.Module, endpoint: Endpoint) -> None:
    """Another metric on kept answers: "rescored", nothing is bought, and the snapshot keeps both by name."""
    first = run(program, questions(6))
    again = run(program, questions(6), metric=wrong)
    assert endpoint.requests == 6
    assert "6 rescored" in str(again)
    kept = json.loads(Path(str(again.path)).read_text(encoding="utf-8"))["metrics"]
    assert (kept["exact"]["score"], kept["wrong"]["score"]) == (first.score, again.score)
    assert again.score == pytest.approx(1 - first.score)
    third = run(program, questions(6))
    assert (third.score, third.provenance.predictions) == (first.score, "loaded")
    assert "rescored" not in str(third)


def test_an_edited_metric_of_the_same_name_has_a_name_of_its_own(program: dspy.Module, endpoint: Endpoint) -> None:
    """Both versions of one metric are in the snapshot, each with its score; the one that was used last has its name."""

    def made(score: float) -> Any:
        def judged(example: Any, prediction: Any) -> float:
            return score

        return judged

    reports = [run(program, questions(4), metric=made(score)) for score in (0.25, 0.75, 0.25)]
    assert [0.25, 0.75, 0.25] == [report.score for report in reports]
    assert endpoint.requests == 4
    kept = json.loads(Path(str(reports[-1].path)).read_text(encoding="utf-8"))["metrics"]
    other = f"judged ({reports[1].provenance.metric_hash[:8]})"
    assert {"judged": 0.25, other: 0.75} == {name: found["score"] for name, found in kept.items() if name != "file"}


def test_a_folder_of_the_models_name_is_no_checkpoint(
    program: dspy.Module, endpoint: Endpoint, lm: MakeLM, tmp_path: Path
) -> None:
    """Notes in folders named like the model change nothing; a model written as a path is its content."""
    dspy.configure(lm=lm())
    run(program, questions(3))
    model = str(dspy.settings.lm.model)
    for folder in (tmp_path / model, tmp_path / model.partition("/")[2]):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log.txt").write_text("notes")
    assert run(program, questions(3)).provenance.predictions == "loaded"
    assert endpoint.requests == 3


@pytest.mark.parametrize("how", ["file", "folder", "value"])
def test_what_is_declared_is_what_predictions_depend_on(
    program: dspy.Module, endpoint: Endpoint, tmp_path: Path, how: str
) -> None:
    """A rubric that the metric reads: nothing is bought while it stays as it is, and everything when it was edited."""
    (tmp_path / "prompts").mkdir()
    rubric = tmp_path / "prompts/rubric.md"

    def declared() -> Any:
        return {"file": [rubric], "folder": [tmp_path / "prompts"], "value": {"rubric": rubric.read_text()}}[how]

    for content, bought in (("strict", 4), ("strict", 4), ("lenient", 8)):
        rubric.write_text(content)
        report = run(program, questions(4), depends_on=declared())
        assert endpoint.requests == bought
    assert any("depends_on" in change for change in report.provenance.changes)
    for wrong in ("rubric.md", [tmp_path / "nowhere"], {"index": object()}):
        with pytest.raises(ConfigurationError, match="depends_on"):
            run(program, questions(4), depends_on=wrong)
    assert endpoint.requests == 8


@pytest.mark.parametrize("repeats", [1, 2])
def test_what_loaded_scores_rest_on_is_said(
    program: dspy.Module, endpoint: Endpoint, tmp_path: Path, repeats: int
) -> None:
    """A metric that reads a rubric: said where its scores were loaded, and only there; not where it was declared."""
    rubric = tmp_path / "rubric.md"
    rubric.write_text("strict")

    def judged(example: dspy.Example, prediction: Any) -> float:
        return float(len(Path("rubric.md").read_text()))

    def other(example: dspy.Example, prediction: Any) -> float:
        return 2.0 * float(len(Path("rubric.md").read_text()))

    assert run(program, questions(2), metric=judged).provenance.unseen == ()
    rubric.write_text("lenient")
    again = run(program, questions(2), metric=judged, repeats=repeats)
    (said,) = again.provenance.unseen
    assert again.score == 6.0 if repeats == 1 else again.score > 6.0
    assert said == "judged() reads a file (.read_text)"
    text = " ".join(str(again).split())
    assert said in text
    assert "depends_on=[...]" in text
    assert cachectl.EvalReport.load(again.save(tmp_path / "report.json")).provenance.unseen == (said,)
    # It judges anew what is loaded: nothing that it read is old.
    assert run(program, questions(2), metric=other).provenance.unseen == ()
    bought = endpoint.requests
    for loaded in (False, True):
        declared = run(program, questions(2), metric=judged, depends_on=[rubric])
        assert (declared.provenance.predictions == "loaded") is loaded
        assert declared.provenance.unseen == ()
    assert endpoint.requests == bought + 2
    assert run(program, questions(2), predictions=False).provenance.unseen == ()


def test_what_a_loaded_program_reads_is_said(program: dspy.Module, endpoint: Endpoint, tmp_path: Path) -> None:
    """A program that reads its prompt, and a metric of which nothing is loaded."""
    (tmp_path / "prompt.md").write_text("be brief")

    class Prompted(dspy.Module):
        """Reads its prompt each time."""

        def __init__(self) -> None:
            super().__init__()
            self.ask = program

        def forward(self, question: str) -> Any:
            """Ask with it."""
            return self.ask(question=f"{Path('prompt.md').read_text()}: {question}")

    run(Prompted(), questions(2))
    again = run(Prompted(), questions(2), metric=lambda example, prediction: 0.5)
    assert endpoint.requests == 2
    (said,) = again.provenance.unseen
    assert said == "Prompted.forward() reads a file (.read_text)"


@pytest.mark.parametrize(("between", "buys"), [({"run_id": "smoke"}, 0), ({"force_recompute": True}, 4)])
def test_a_smaller_evaluation_in_between(
    program: dspy.Module, endpoint: Endpoint, between: dict[str, Any], buys: int
) -> None:
    """Answers that are kept are not bought since a newer run has fewer of them; what was forced counts from then on."""
    first = run(program, questions(4), repeats=2)
    second = run(program, questions(4), **between)
    assert 12 == endpoint.requests
    again = run(program, questions(4), repeats=2)
    assert (12 + buys, second.run_id if buys else first.run_id) == (endpoint.requests, again.run_id)
    assert run(program, questions(4), run_id=second.run_id).run_id == second.run_id
    assert 12 + buys == endpoint.requests
