"""The input of the statistics: what is taken, what is refused."""

from __future__ import annotations

import math

import pytest

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.statistics.repeats import pass_at_k
from dspy_cachectl.statistics.scores import QuestionScores, ScoreTable
from tests.statistics.tables import table_of


def test_each_question_weighs_the_same_whatever_its_draws() -> None:
    """The mean is the mean of the questions' means, not of all draws."""
    table = table_of([[1, 1, 1, 1], [0]])
    assert table.mean == 0.5
    assert table.repeats == pytest.approx(2 / (1 / 4 + 1))


def test_a_failure_counts_as_zero_and_can_be_left_out() -> None:
    """None is a failed draw: 0 in the table, gone without failures, and its question with it if nothing is left."""
    table = table_of([[1, None], [None, None], [0, 1]], questions=["a", "b", "c"])
    assert table.mean == pytest.approx((0.5 + 0 + 0.5) / 3)
    answered = table.without_failures()
    assert answered is not None
    assert [(row.question, row.scores) for row in answered.questions] == [("a", (1.0,)), ("c", (0.0, 1.0))]
    assert answered.mean == 0.75


def test_leaving_out_failures_keeps_clusters() -> None:
    """A question keeps its cluster when its failed draws go."""
    table = table_of([[1, None], [0, 1]], clusters=["x", "y"]).without_failures()
    assert table is not None
    assert table.clusters == ("x", "y")


def test_nothing_but_failures_cannot_be_left_out() -> None:
    """Without a single score left there is no score without failures."""
    assert table_of([None, None]).without_failures() is None


def test_scores_in_the_unit_range_have_that_range() -> None:
    """Scores within [0, 1] are taken to be on that scale, others on the scale seen."""
    assert table_of([0.2, 0.4]).score_range == (0.0, 1.0)
    assert table_of([1, 5, 3]).score_range == (1.0, 5.0)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([], "no questions"),
        ([[1.0], []], "'1' has no draws"),
        ([[1.0, math.nan]], "question '0', draw 1, is nan"),
        ([math.inf], "is inf"),
    ],
)
def test_bad_scores_are_refused_with_their_place(scores: list[object], message: str) -> None:
    """Nothing that is no finite score becomes one, and the message says where it is."""
    with pytest.raises(ConfigurationError, match=message):
        table_of(scores)


@pytest.mark.parametrize(
    ("clusters", "message"),
    [
        (["a", None, "b"], r"1 of 3 questions have no cluster id \('1'\)"),
        (["a", math.nan, ""], r"2 of 3 questions have no cluster id \('1', '2'\)"),
    ],
)
def test_missing_cluster_ids_are_refused(clusters: list[str | None], message: str) -> None:
    """A cluster id that is missing, NaN or empty is an error that names the questions."""
    with pytest.raises(ConfigurationError, match=message):
        table_of([1, 0, 1], clusters=clusters)


def test_many_missing_cluster_ids_are_not_all_listed() -> None:
    """The message names the first five questions and says how many there are."""
    with pytest.raises(ConfigurationError, match=r"9 of 10 questions have no cluster id \('1', .*'5', \.\.\.\)"):
        table_of([1] * 10, clusters=["a"] + [""] * 9)


def test_duplicate_questions_are_refused() -> None:
    """Two rows of one question would count it twice."""
    with pytest.raises(ConfigurationError, match="'q' has 2 rows"):
        table_of([1, 0], questions=["q", "q"])


@pytest.mark.parametrize(("answered", "counts", "binary"), [(0.0, -1.0, False), (100.0, 0.0, True), (1.0, 0.0, True)])
def test_what_counts_for_a_failure_is_no_end_of_the_scale(answered: float, counts: float, binary: bool) -> None:
    """Four answers that scored 0 have not passed because a failure counts as -1."""
    rows = [QuestionScores(f"q{at}", (answered,), (False,)) for at in range(4)]
    table = ScoreTable.of((*rows, QuestionScores("q4", (counts,), (True,))))
    assert (table.is_binary, math.isnan(pass_at_k(table, 1))) == (binary, not binary)


def test_rows_and_columns_are_one_table() -> None:
    """A table is the same whether it is made of its rows or of its columns, and where some rows say of no failure."""
    rows = (
        QuestionScores("one", (1.0, 0.0), (False, True), "a"),
        QuestionScores("two", (0.5,), (), "b"),
        QuestionScores("three", (0.0,), (True,), "a"),
    )
    table = ScoreTable.of(rows, (0.0, 2.0))
    assert ((False, True), (False,), (True,)) == table.failed
    assert [(row.question, row.scores, row.cluster) for row in rows] == [
        (row.question, row.scores, row.cluster) for row in table.questions
    ]
    assert table == ScoreTable.of(table.questions, (0.0, 2.0))
    without = table.without_failures()
    assert without is not None
    assert (("one", "two"), ((1.0,), (0.5,)), (), ("a", "b"), None) == (
        without.names,
        without.scores,
        without.failed,
        without.groups,
        without.scale,
    )
    assert () == ScoreTable.of([rows[1], QuestionScores("four", (0.0,), (False,), "c")]).failed


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_what_is_no_number_is_named(score: float) -> None:
    """In whichever way a table is made, it says which score of which question is none."""
    with pytest.raises(ConfigurationError, match="question 'two', draw 1, is"):
        ScoreTable(("one", "two"), ((1.0,), (0.5, score)))
    with pytest.raises(ConfigurationError, match="'two' has no draws"):
        ScoreTable(("one", "two"), ((1.0,), ()))
