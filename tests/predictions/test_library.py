"""The library serves what is valid, computes what is missing, and says which of the two it was."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest

from dspy_cachectl.entries.values import UnstorableError
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.fingerprints.data import questions_of
from dspy_cachectl.predictions.library import DAY, Library
from dspy_cachectl.predictions.outputs import Output
from dspy_cachectl.predictions.rows import Failure, PredictionRow, Score, decode
from dspy_cachectl.predictions.snapshot import FOLDER
from tests.predictions.support import METRIC, compute, evaluate, examples, fail, key_of, row


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "library")


def test_first_evaluation_is_computed_and_the_second_loaded(library: Library) -> None:
    """What was computed once is not computed again."""
    first, second = evaluate(library, examples(10)), evaluate(library, examples(10))

    assert ("computed", 10, []) == (first.status, first.computed, first.changes)
    assert ("loaded", 0, []) == (second.status, second.computed, second.changes)
    assert first.run_id == second.run_id
    assert 1 == len(library.snapshots())


def test_the_file_is_readable_json_of_three_parts(library: Library) -> None:
    """A snapshot is `<model-slug>_<hash>.json` with metadata, predictions and metrics."""
    session = evaluate(library, examples(3))

    stored = json.loads(session.path.read_text())

    assert ["metadata", "predictions", "metrics"] == list(stored)
    assert ("openai-test", 16) == (
        session.path.stem.rsplit("_", 1)[0],
        len(session.path.stem.rsplit("_", 1)[1]),
    )
    assert [{"answer": "a"}] * 3 == [line["prediction"] for line in stored["predictions"]]
    assert 1.0 == stored["metrics"]["score"]
    assert session.run_id == stored["metadata"]["run_id"]


def test_ten_new_questions_among_a_thousand_run_ten(library: Library) -> None:
    """Only questions that are new or edited are computed, under the run of the others."""
    data = examples(1000)
    before = evaluate(library, data)

    after = evaluate(library, [*data[:990], *examples(10, start=5000)])

    assert ("extended", 10) == (after.status, after.computed)
    assert before.run_id == after.run_id
    assert ["data: 10 of 1000 questions are new or edited"] == after.changes


def test_reordered_data_recompute_nothing(library: Library) -> None:
    """The order of a data set is no part of it, and the rows come in the order that is asked for."""
    data = examples(20)
    evaluate(library, data)

    with library.open(key_of(data[::-1]), questions_of(data[::-1])) as session:
        assert ("loaded", 0) == (session.status, compute(session))
        assert [question.example_key for question in questions_of(data[::-1])] == [
            decode(one).example_key for one in session.kept.in_order()
        ]


def test_edited_label_only_needs_a_new_score(library: Library) -> None:
    """A prediction does not depend on what is expected; its score does."""
    data = examples(3)
    evaluate(library, data)
    edited = [data[0].copy(answer="another").with_inputs("question"), *data[1:]]
    found = questions_of(edited)

    with library.open(key_of(edited), found) as session:
        assert "loaded" == session.status
        assert [None, 1.0, 1.0] == [
            None if (score := session.score(question, 0, METRIC)) is None else score.score for question in found
        ]
        session.keep_score(found[0], 0, METRIC, Score(found[0].label_key, 0.5), reference={"answer": "another"})
        session.finish()

    with library.open(key_of(edited), found) as again:
        assert Score(found[0].label_key, 0.5) == again.score(found[0], 0, METRIC)
        assert {"answer": "another"} == again.kept_row(found[0]).reference


def test_another_metric_has_no_scores_and_keeps_the_predictions(library: Library) -> None:
    """A changed metric rescores what is kept."""
    data = examples(3)
    evaluate(library, data)

    with library.open(key_of(data), questions_of(data)) as session:
        assert "loaded" == session.status
        assert [None] * 3 == [session.score(question, 0, "another metric") for question in session.questions]


def test_from_three_repeats_to_five_computes_two(library: Library) -> None:
    """More repeats keep those that are there."""
    data = examples(4)
    evaluate(library, data, repeats=3)

    more = evaluate(library, data, repeats=5)

    assert ("extended", 8) == (more.status, more.computed)
    assert ["repeats: 8 more answers to questions that were asked before"] == more.changes


def test_duplicate_questions_are_kept_apart(library: Library) -> None:
    """The same question twice in a data set is two answers."""
    data = [*examples(2), *examples(1)]
    evaluate(library, data)

    with library.open(key_of(data), questions_of(data)) as session:
        assert [0, 0, 1] == [question.occurrence for question in session.questions]
        assert 3 == len(list(session.kept.in_order()))
        assert 0 == compute(session)


def test_named_run_is_served_alone(library: Library) -> None:
    """A session serves predictions of one run."""
    data = examples(2)
    first = evaluate(library, data, run_id="one")
    other = evaluate(library, data, run_id="two")

    assert (2, 2) == (first.computed, other.computed)
    assert ["run: 'two' has no predictions; the newest are of 'one'"] == other.changes
    assert ("loaded", "one") == ((again := evaluate(library, data, run_id="one")).status, again.run_id)
    assert "two" == evaluate(library, data).run_id


def test_forced_evaluation_draws_anew(library: Library) -> None:
    """`force_recompute` serves nothing, under a run of its own, and is what is served from then on."""
    data = examples(2)
    first = evaluate(library, data)

    forced = evaluate(library, data, force_recompute=True)

    assert ("computed", 2) == (forced.status, forced.computed)
    assert ["recomputed because it was asked for"] == forced.changes
    assert first.run_id != forced.run_id
    assert forced.run_id == evaluate(library, data).run_id


def test_forced_evaluation_that_failed_is_continued_by_the_next(library: Library) -> None:
    """What a cut evaluation had finished is never lost, and a complete one is preferred where nothing is forced."""
    data = examples(5)
    complete = evaluate(library, data)
    cut = library.open(key_of(data), questions_of(data), force_recompute=True)
    with pytest.raises(KeyboardInterrupt):
        fail(cut, KeyboardInterrupt(), after=3)

    assert complete.run_id == evaluate(library, data).run_id
    resumed = evaluate(library, data, force_recompute=True)
    assert (cut.run_id, "extended", 2) == (resumed.run_id, resumed.status, resumed.computed)


def test_answers_older_than_max_age_are_recomputed(library: Library) -> None:
    """Thirty days by default, another limit where one is given, and the report says so."""
    data = examples(2)
    old = time.time() - 31 * DAY
    with library.open(key_of(data), questions_of(data)) as session:
        for question in session.questions:
            session.keep(row(question, created=old))
        snapshot = session.finish()
    assert snapshot.exists()

    assert "loaded" == library.open(key_of(data), questions_of(data), max_age=40 * DAY).status
    again = evaluate(library, data)

    assert ("computed", ["age: the predictions are 31 days old, more than 30 days"]) == (again.status, again.changes)
    assert session.run_id != again.run_id
    # It is not served, and stays until somebody removes it.
    assert snapshot.exists()
    assert [snapshot] == library.expired() == library.prune()


def test_failed_programs_are_tried_again(library: Library) -> None:
    """An error is kept to be read, and never served as an answer."""
    data = examples(2)
    with library.open(key_of(data), questions_of(data)) as session:
        session.keep(row(session.questions[0]))
        session.keep(PredictionRow(session.questions[1].example_key, error=Failure("TimeoutError", "it took too long")))
        session.finish()

    again = evaluate(library, data)

    assert ("extended", 1) == (again.status, again.computed)


def test_a_row_of_another_data_set_is_refused(library: Library) -> None:
    """A row that answers none of the questions is a mistake, not a loss."""
    data = examples(1)
    with (
        library.open(key_of(data), questions_of(data)) as session,
        pytest.raises(ConfigurationError, match="no question"),
    ):
        session.keep(row(questions_of(examples(1, start=9))[0]))


def test_unserialisable_row_is_refused(library: Library) -> None:
    """What has no stored form is an error, and computed again."""
    data = examples(2)
    with library.open(key_of(data), questions_of(data)) as session:
        with pytest.raises(UnstorableError, match="object"):
            session.keep(PredictionRow(session.questions[0].example_key, output=Output({"answer": object()})))
        session.keep(row(session.questions[1]))
        session.finish()

    assert 1 == evaluate(library, data).computed


def test_prune_removes_the_old_and_then_the_oldest(tmp_path: Path) -> None:
    """What is over age goes when it is asked for, then the oldest, until the library is within its size."""
    library = Library(tmp_path)
    for days in (40, 25, 15, 5):
        data = examples(5, start=100 * days)
        with library.open(key_of(data), questions_of(data)) as session:
            for question in session.questions:
                session.keep(row(question, created=time.time() - days * DAY))
            session.finish()
    kept = [info.path for info in library.snapshots()]
    assert 4 == len(kept)
    assert [kept.pop()] == library.prune()  # the first: it is older than 30 days

    small = Library(tmp_path, max_bytes=sum(info.bytes for info in library.snapshots()[:2]) + 1)
    gone = small.prune()

    assert [path for path in kept if path not in gone] == [info.path for info in small.snapshots()]
    assert 1 == len(gone)
    assert small.usage() <= small.max_bytes


def test_prune_spares_what_a_live_session_uses(tmp_path: Path) -> None:
    """A file that a session reads or writes stays until the session ends."""
    library = Library(tmp_path, max_bytes=1)
    data = examples(5)
    evaluate(library, data)
    other = Library(tmp_path, max_bytes=1)

    with library.open(key_of(data), questions_of(data), repeats=2) as session:
        compute(session, at_most=1)
        assert [] == other.prune()
    assert [session.path] == other.prune()


def test_clear_removes_what_is_chosen(library: Library) -> None:
    """`clear` removes what a function says, or all."""
    data = examples(2)
    evaluate(library, data, key=key_of(data, model="openai/one"))
    evaluate(library, data, key=key_of(data, model="openai/two"))

    assert 1 == len(library.clear(lambda info: info.key.model.model.endswith("/one")))
    assert 0 == len(library.clear(lambda info: info.rows > 2))
    assert 1 == len(library.clear())
    assert [] == library.snapshots()


def test_no_secret_is_in_any_file(tmp_path: Path) -> None:
    """Keys of the LM, of the metadata and of error texts are nowhere in the folder."""
    library = Library(tmp_path / "library")
    secret = "sk-abcdefghijklmnopqrstuvwx"
    data = examples(2)
    options = {"api_key": secret, "api_base": f"http://user:{secret}@host/v1", "extra_headers": {"x-api-key": secret}}
    with library.open(key_of(data, **options), questions_of(data)) as session:
        session.keep(row(session.questions[0]))
        session.keep(PredictionRow(session.questions[1].example_key, error=Failure("AuthError", f"wrong key {secret}")))
        journal = b"".join(path.read_bytes() for path in (tmp_path / "library" / FOLDER).iterdir())
        session.finish({"api_key": secret, "note": f"Bearer {secret}"}, {})

    everything = journal + b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert secret.encode() not in everything
    assert b"wrong key" in everything


def test_sessions_keep_apart_what_threads_write(library: Library) -> None:
    """A session may be used from many threads."""
    from concurrent.futures import ThreadPoolExecutor

    data = examples(200)
    with library.open(key_of(data), questions_of(data)) as session, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda question: session.keep(row(question)), session.questions))
        session.finish()

    assert "loaded" == evaluate(library, data).status


def test_a_model_is_added_alone(library: Library) -> None:
    """Adding a model evaluates that model only; the report names what differs."""
    data = examples(3)
    evaluate(library, data, key=key_of(data, model="openai/one"))

    added = evaluate(library, data, key=key_of(data, model="openai/two"))

    assert (3, ["model: name 'openai/one' is now 'openai/two'"]) == (added.computed, added.changes)
    assert "loaded" == evaluate(library, data, key=key_of(data, model="openai/one")).status


def test_changes_name_program_and_generation(library: Library) -> None:
    """In words: the instruction that changed, the temperature that changed."""
    data = examples(1)
    evaluate(library, data)
    program = dspy.Predict(dspy.Signature("question -> answer", "Answer briefly."))

    again = evaluate(library, data, key=key_of(data, program=program, temperature=0.5))

    assert ["program: instructions of the program changed", "generation: temperature 1 is now 0.5"] == again.changes


def test_what_changed_is_said_of_the_nearest(library: Library) -> None:
    """An edited program is compared with itself before, and not with another one; a stranger with nothing."""
    data, others = examples(2), examples(3, 10)

    def changes(data: Sequence[dspy.Example], program: dspy.Module, **more: Any) -> list[str]:
        return evaluate(library, data, key=key_of(data, program=program, **more)).changes

    assert [] == changes(data, Asks("one"))
    assert [] == changes(others, dspy.Predict("text -> summary"))
    assert [] == changes(examples(2, 20), dspy.Predict("name -> greeting"), model="openai/other")
    assert ["program: attribute 'kind' of the program changed"] == changes(data, Asks("two"))
    # Of other data, and edited; of another model; the same data, by another program.
    assert ["program: attribute 'kind' of the program changed"] == changes(examples(2, 30), Asks("three"))
    assert ["model: name 'openai/test' is now 'openai/late'"] == changes(data, Asks("one"), model="openai/late")
    assert any("source of Asks removed" in line for line in changes(data, dspy.Predict("a -> b")))
    assert ["data: none of the questions was asked before"] == changes(examples(1, 50), Asks("one"))


class Asks(dspy.Module):
    """A program with an attribute."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> Any:
        """Ask."""
        return self.ask(question=f"{self.kind} {question}")


@pytest.mark.parametrize("how", ["damaged", "version", "errors", "nothing"])
def test_why_nothing_is_served_is_true(library: Library, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Where nothing differs that has a word, the reason is the one that it is."""
    data = examples(2)
    with library.open(key_of(data), questions_of(data)) as session:
        for question in session.questions if how != "nothing" else ():
            failed = {"error": Failure("ValueError", "no")} if how == "errors" else {}
            session.keep(replace(row(question), output=None, **failed) if failed else row(question))
        session.finish()
    if how == "damaged":
        session.path.write_bytes(session.path.read_bytes().replace(b'"repeat":0', b'"repeat":1'))
    if how == "version":
        monkeypatch.setattr("dspy_cachectl.predictions.keys.KEY_VERSION", 10_000)
    again = evaluate(library, data)
    assert 2 == again.computed
    right = {
        "damaged": f"damaged: {session.path.name} could not be read",
        "version": "version: they were kept by a dspy-cachectl that told programs and models apart differently",
        "errors": "errors: 2 of 2 answers failed before",
        "nothing": "answers: none was kept",
    }[how]
    assert [right] == again.changes
    assert (again.run_id == session.run_id) is (how == "errors")


def test_empty_wishes_are_refused(library: Library, tmp_path: Path) -> None:
    """No question, no repeat and no limit that could be one are configuration errors."""
    with pytest.raises(ConfigurationError, match="at least one"):
        library.open(key_of(examples(1)), [])
    with pytest.raises(ConfigurationError, match="positive"):
        Library(tmp_path, max_age=-1)
    with pytest.raises(ConfigurationError, match="positive"):
        Library(tmp_path, max_bytes=0)
    assert not library.root.exists()
