"""A score that the labels of people correct: from a report, through a file that a spreadsheet writes."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import numpy as np
import pandas as pd
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.reports.apart.labels import COLUMNS, as_numbers
from dspy_cachectl.statistics.corrected import corrected_mean
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import program, questions, run
from tests.reports.made_up import provenance, report

__all__ = ["program"]


def judged(count: int = 200, seed: int = 0) -> tuple[cachectl.EvalReport, list[float]]:
    """A report by a judge that is right in 80%, and what people would say."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(count) < 0.6).astype(float)
    scores = np.where(rng.random(count) < 0.8, truth, 1 - truth)
    return report(scores.tolist(), name="judged"), truth.tolist()


def test_labels_correct_a_score() -> None:
    """By question or in order: the numbers are those of the statistics, and the sheet has them all."""
    made, truth = judged()
    in_order = [label if place % 4 == 0 else None for place, label in enumerate(truth)]
    found: cachectl.Corrected = made.corrected(in_order)
    by_name = {f"question-{place}": label for place, label in enumerate(in_order) if label is not None}
    assert found == made.corrected(by_name)
    assert corrected_mean([one.draws[0].score for one in made.questions], in_order) == found.result
    same = [made.questions[place].draws[0].score == truth[place] for place in range(0, 200, 4)]
    assert found.right == np.mean(same)
    text = " ".join(str(found).split())
    for said in (f"score {found.score:.2f}", "the labels alone", "50 of 200 questions", "Cohen's kappa"):
        assert said in text
    assert found.as_dict()["result"]["mean"] == found.score
    assert all(len(line) <= 80 for line in str(found).splitlines())


def test_questions_of_a_cluster_are_not_independent() -> None:
    """The clusters of the report count, and equal questions are one; the sheet says how many, and what they cost."""
    made, truth = judged()
    labels = [label if place % 2 else None for place, label in enumerate(truth)]
    scores = [one.draws[0].score for one in made.questions]
    groups = [f"passage {place // 10}" for place in range(200)]
    grouped = report(scores, name="judged", clusters=groups)
    found = grouped.corrected(labels)
    assert corrected_mean(scores, labels, clusters=groups) == found.result
    assert 20 == found.result.clusters
    assert "clusters 20; design effect" in " ".join(str(found).split())
    assert all(len(line) <= 80 for line in str(found).splitlines())
    assert (found.kappa.low, found.alpha.low) != (made.corrected(labels).kappa.low, made.corrected(labels).alpha.low)
    equal = report(scores, questions=[f"same {place // 2}#{place % 2}" for place in range(200)])
    assert 100 == equal.corrected(labels).result.clusters


def test_labels_come_from_a_column_of_pandas() -> None:
    """Whole numbers, truths, and what is missing, which is NaN there; what is no number is refused."""
    made, truth = judged()
    some = [label if place % 4 == 0 else None for place, label in enumerate(truth)]
    wanted = made.corrected(some)
    for column in (pd.Series(some, dtype=float), pd.array(some, dtype="Int64").to_numpy(dtype=float), np.array(some)):
        assert wanted == made.corrected(list(column))
    whole = made.corrected(truth)
    assert (
        whole == made.corrected(list(np.array(truth, dtype=int))) == made.corrected(list(np.array(truth, dtype=bool)))
    )
    assert [1.0, None, 0.0, None] == as_numbers([np.True_, float("nan"), np.int64(0), None])
    assert [None, None, 2.0] == as_numbers([pd.NA, np.float32("nan"), 2])
    for wrong in (math.inf, "1", [1], 10**400):
        with pytest.raises(cachectl.ConfigurationError, match="a label is a number"):
            as_numbers([1, wrong])


def test_what_no_label_can_correct_is_refused() -> None:
    """What answers cost, and what they come to together."""
    cost = replace(judged()[0], provenance=provenance(metric="cost", metric_hash="measure:cost"))
    with pytest.raises(cachectl.ConfigurationError, match="no score that a label"):
        cost.corrected([1.0] * 200)


def test_what_is_to_be_labelled_comes_back_from_its_file(
    program: dspy.Module, endpoint: Endpoint, tmp_path: Path
) -> None:
    """A random sample, with what was asked and answered; what is left empty has no label; no request is made for it."""
    made = run(program, questions(40))
    endpoint.reset_counts()
    path = made.to_label(15, tmp_path / "labels.csv", seed=3)
    assert path.read_bytes() == made.to_label(15, tmp_path / "again.csv", seed=3).read_bytes()
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    assert list(COLUMNS) == [*rows[0]]
    known = {one.question: one for one in made.questions}
    assert all(f"question: {known[row['question']].preview}" == row["asks"] for row in rows)
    assert all(row["answered"].startswith("answer: ") for row in rows)
    for place, row in enumerate(rows):
        row["label"] = "" if place == 0 else str(place % 2)
    with path.open("w", encoding="utf-8-sig", newline="") as file:  # as a spreadsheet does
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    assert 14 == made.corrected(path).result.labelled
    assert 0 == endpoint.requests


def test_a_spreadsheet_runs_nothing(program: dspy.Module, tmp_path: Path) -> None:
    """What begins like a formula is a text, also where nothing was kept."""
    devset = [dspy.Example(question=f"=cmd|{at}", answer="yes").with_inputs("question") for at in range(3)]
    path = run(program, devset, predictions=False).to_label(3, tmp_path / "labels.csv")
    assert all(row["asks"].startswith("'=cmd") for row in csv.DictReader(path.open(encoding="utf-8")))


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([1.0] * 3, "3 labels for 200 questions"),
        ({"question-7": 1.0, "other": 1.0}, "no question 'other'"),
        ({f"question-{at}": 1.0 for at in range(5)}, "5 labels are too few"),
        ([*["yes"] * 20, *[None] * 180], "not 'yes'"),
        ("missing.csv", "missing.csv"),
        (3, "labels are numbers by question.* not 3"),
        (None, "labels are numbers by question.* not None"),
        (b"labels.csv", "labels are numbers by question"),
        ({1.0, 0.0}, "labels are numbers by question"),
        ([1.0, 5.0] * 100, "lie from 0 to 1: not 5"),
        ([-1.0] * 200, "lie from 0 to 1: not -1"),
        (np.ones((200, 2), dtype=bool), "a label is a number"),
    ],
)
def test_what_is_no_label_is_said(labels: Any, why: str) -> None:
    """Which, and what to write."""
    with pytest.raises(cachectl.CachectlError, match=why):
        judged()[0].corrected(labels)


FILE = [("question", "asks", "label"), *((f"question-{at}", "one, or; two\nof it", f"{at % 2}") for at in range(12))]


def written(path: Path, delimiter: str, rows: list[tuple[str, ...]] = FILE) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    path.write_bytes(text.getvalue().encode())
    return text.getvalue()


@pytest.mark.parametrize(
    ("delimiter", "how"),
    [
        (";", str.encode),
        ("\t", str.encode),
        ("\t", lambda text: text.encode("utf-16")),
        (";", lambda text: f"sep=;\r\n{text.replace('label', 'Label ')}".encode("utf-8-sig")),
        (";", lambda text: text.replace(";1\r", ";0,5\r").encode()),
        (",", lambda text: f"{text}question-13,{'x' * 200_000},\r\n,,\r\n".encode()),
    ],
)
def test_a_file_is_read_as_a_spreadsheet_of_whatever_country_writes_it(
    tmp_path: Path, delimiter: str, how: Callable[[str], bytes]
) -> None:
    """Semicolons and tabs, UTF-16, a first line that says what separates, decimal commas, fields of any length."""
    path = tmp_path / "labels.csv"
    path.write_bytes(how(written(path, delimiter)))
    half = 0.5 if b"0,5" in path.read_bytes() else 1.0
    by_name = {f"question-{at}": at % 2 * half for at in range(12)}
    assert judged()[0].corrected(by_name) == judged()[0].corrected(path)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["question,label", "question-1,good"], "line 2 of .* the label 'good'"),
        (["question,label", "question-1,inf"], "line 2 of .* the label 'inf'"),
        (["question,asks,label", '"question-1","a', 'b",1', "question-1,a,0"], "line 4 .* second label .*'question-1'"),
        (["question,asks,label", "question-1,one, or two,1"], "line 2 of .* has 4 columns"),
        (["question,label", ",1"], "line 2 of .* no question"),
        (["question-1,what,yes,1"], "first line of .* column 'question'"),
        (["question;asks;rating", "question-1;a;1"], "first line of .* column 'label'"),
        ([""], "first line of .* column 'question'"),
        (["question,label", "question-1,1"], "1 labels are too few"),
        (["question,label", "question-999,1"], "no question 'question-999'"),
    ],
)
def test_a_wrong_line_of_a_file_is_named(tmp_path: Path, lines: list[str], said: str) -> None:
    """By its number, and what is wrong with it."""
    (tmp_path / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(cachectl.ConfigurationError, match=said):
        judged()[0].corrected(tmp_path / "labels.csv")


def test_what_identifies_a_question_is_no_number(tmp_path: Path) -> None:
    """A spreadsheet rounds one of digits alone, and one with an e: it is written as a text, and found again."""
    names = [f"{at + 10}e4567890123456" if at % 2 else f"{at + 10}34567890123456" for at in range(12)]
    made = report([at % 2 for at in range(12)], questions=names)
    path = made.to_label(12, tmp_path / "labels.csv")
    rows = list(csv.reader(path.open(encoding="utf-8")))
    assert {f"'{name}" for name in names} == {row[0] for row in rows[1:]}
    written(path, ",", [tuple(rows[0]), *((*row[:-1], "1") for row in rows[1:])])
    assert made.corrected([1] * 12) == made.corrected(path)


def test_a_column_that_is_indexed_by_questions_is_taken_by_them() -> None:
    """And not by its order."""
    made, truth = judged()
    named = {f"question-{at}": label for at, label in enumerate(truth)}
    column = pd.Series(named).sample(frac=1.0, random_state=1)
    assert made.corrected(named) == made.corrected(column)


def test_several_answers_to_a_question_have_no_label() -> None:
    """And no more can be drawn than there are."""
    with pytest.raises(cachectl.ConfigurationError, match="leave repeats out"):
        report([[1.0, 0.0]] * 20).corrected([1.0] * 20)
    with pytest.raises(cachectl.ConfigurationError, match="201 of 200 questions"):
        judged()[0].to_label(201, "labels.csv")
