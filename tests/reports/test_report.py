"""A report's numbers, and its way to a file and back."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dspy_cachectl.errors import ConfigurationError, FormatVersionError, MissingExtraError, StoreUnavailableError
from dspy_cachectl.reports.report import REPORT_VERSION, EvalReport
from dspy_cachectl.reports.results import DrawResult, QuestionResult
from dspy_cachectl.reports.several import compare
from dspy_cachectl.statistics.intervals import mean_interval
from dspy_cachectl.statistics.repeats import consistency, flip_rate, pass_at_k, pass_hat_k
from dspy_cachectl.statistics.variance import standard_error, variance_split
from tests.reports.made_up import provenance, report
from tests.statistics.tables import table_of

REPEATED = ([1, 1], [1, 0], [0, 0], [1, 1])


def test_the_score_is_the_mean_over_questions_and_its_error_that_of_their_means() -> None:
    """Means 1, 1/2, 0, 1: score 5/8, S^2 = 0.2291666, standard error sqrt(S^2/4)."""
    made = report(REPEATED)
    assert made.score == pytest.approx(0.625)
    assert made.standard_error == pytest.approx(math.sqrt(0.22916666666666666 / 4))
    assert (made.n, made.repeats, made.failures) == (4, 2, 0)


def test_every_number_is_the_one_of_the_statistics() -> None:
    """A report computes nothing by itself: error, variance and repeats are those of its score table."""
    made = report(REPEATED, clusters=["a", "a", "b", "b"], level=0.9)
    table = table_of(REPEATED, clusters=["a", "a", "b", "b"], questions=[f"question-{i}" for i in range(4)])
    assert table == made.table
    assert variance_split(table) == made.variance
    assert mean_interval(table, level=0.9) == made.interval
    assert pass_at_k(table, 2) == made.pass_at_k(2)
    assert pass_hat_k(table, 2) == made.pass_hat_k(2)
    assert (flip_rate(table), consistency(table)) == (made.flip_rate, made.consistency)
    assert standard_error(table) == made.error


def test_repeats_by_hand() -> None:
    """Of questions passing 2, 1, 0 and 2 times in 2: pass@2 = 3/4, pass^2 = 2/4, flip rate 1/4."""
    made = report(REPEATED)
    assert (0.75, 0.5, 0.25, 0.75) == (made.pass_at_k(2), made.pass_hat_k(2), made.flip_rate, made.consistency)
    assert math.isnan(made.pass_at_k(3))


def test_failures_count_as_zero_and_the_score_without_them_is_told() -> None:
    """1, 1, failed, 0 score 1/2, and 2/3 where the failure is left out."""
    made = report([1, 1, None, 0])
    assert (0.5, 1) == (made.score, made.failures)
    assert made.score_without_failures == pytest.approx(2 / 3)


def test_only_failures_leave_no_score_without_them() -> None:
    """Where every answer failed the score is 0 and the score without failures is unknown."""
    made = report([None, None])
    assert (0.0, None) == (made.score, made.score_without_failures)


def test_repeats_that_are_one_draw_count_once() -> None:
    """Four repeats of one draw are a single draw: the interval is that of one draw, and the report says so."""
    scores = [[1] * 4, [0] * 4, [1] * 4]
    made = report(scores, draws=[[f"draw-{i}"] * 4 for i in range(3)])
    assert (4, 3, 12) == (made.repeats, made.distinct.distinct, made.distinct.asked)
    assert report([1, 0, 1]).interval == made.interval
    assert "9 of 12 repeats are replays" in made.distinct.sentence
    assert math.isnan(made.pass_at_k(4))


def test_one_replayed_repeat_does_not_weigh_twice() -> None:
    """A question with draws a (1), a (1) and b (0) has mean 1/2, not 2/3."""
    made = report([[1, 1, 0]], draws=[["a", "a", "b"]])
    assert made.score == 0.5


def test_answers_of_which_no_draw_is_known_are_not_taken_for_replays() -> None:
    """Two repeats without a draw are two for the score; how many are distinct is unknown, whether an LM was seen."""
    made = report([[1, 0], [1, 1]], draws=[["", ""], ["", ""]], outputs=[["x", "y"], ["x", "x"]])
    assert (None, 4) == (made.distinct.distinct, made.distinct.asked)
    without_lm = replace(made, provenance=replace(made.provenance, models=(), counters={}))
    assert (None, 1) == (without_lm.distinct.distinct, len(without_lm.distinct.said))
    assert "No LM call was seen" in without_lm.distinct.sentence
    assert made.score == 0.75
    assert [(1.0, 0.0), (1.0, 1.0)] == [row.scores for row in made.table.questions]
    assert frozenset() == made.draw_ids


def test_a_saved_report_comes_back_whole(tmp_path: Path) -> None:
    """Loading gives an equal report, whatever its texts hold, and the folder is made."""
    made = report([[1, None], [0, 1]], clusters=["ü", "b"], preview="half a pair \ud800 and “{}”\n\x1b[31m")
    path = made.save(tmp_path / "new" / "report.json")
    assert made == EvalReport.load(path)
    assert [path] == list(path.parent.iterdir())
    assert "“0”" in path.read_text(encoding="utf-8")


def test_a_report_is_replaced_whole(tmp_path: Path) -> None:
    """Saving over an older report leaves the new one and nothing beside it."""
    path = tmp_path / "report.json"
    report([1, 0]).save(path)
    newer = report([0, 0, 1])
    newer.save(path)
    assert newer == EvalReport.load(path)
    assert [path] == list(tmp_path.iterdir())


def test_a_report_that_has_no_json_leaves_the_old_file_alone(tmp_path: Path) -> None:
    """A failed save leaves what was there, and no half of a file."""
    path = report([1, 0]).save(tmp_path / "report.json")
    before = path.read_bytes()
    with pytest.raises(TypeError):
        report([1], counters={"calls": object()}).save(path)
    assert before == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


def test_the_summary_in_the_file_needs_no_computing(tmp_path: Path) -> None:
    """Other programs read score, error and interval straight from the JSON."""
    made = report(REPEATED)
    data = json.loads(made.save(tmp_path / "report.json").read_text(encoding="utf-8"))
    assert made.score == data["summary"]["score"]
    assert {"low": made.interval.low, "high": made.interval.high, "level": 0.95, "method": made.interval.method} == (
        data["summary"]["interval"]
    )


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A report of a newer version says to upgrade, and is not half understood."""
    path = report([1]).save(tmp_path / "report.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**data, "format": REPORT_VERSION + 1, "questions": "something else"}), encoding="utf-8")
    with pytest.raises(FormatVersionError, match=rf"format {REPORT_VERSION + 1}; upgrade dspy-cachectl"):
        EvalReport.load(path)


def test_facts_that_a_later_version_adds_are_passed_over(tmp_path: Path) -> None:
    """Within one format, a provenance with more in it can still be read."""
    made = report([1, 0])
    path = made.save(tmp_path / "report.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    data["provenance"]["weather"] = "rain"
    path.write_text(json.dumps(data), encoding="utf-8")
    assert made == EvalReport.load(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"format": 1, "name": "cut o',
        b"\xff\xfe not text",
        b"[]",
        b"null",
        b'{"format": "one"}',
        b'{"format": 1, "name": "x", "level": 0.95, "provenance": [], "questions": []}',
        b'{"format": 1, "name": "x", "level": 0.95, "provenance": {}, "questions": []}',
    ],
)
def test_a_damaged_file_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    """What is no report is named as that, with the file's name."""
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"report\.json is not a report that EvalReport\.save\(\) wrote"):
        EvalReport.load(path)


def test_damaged_rows_are_a_clear_error(tmp_path: Path) -> None:
    """A question that is no question is as clear an error as a file that is no report."""
    path = report([1]).save(tmp_path / "report.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    (row,) = data["questions"]
    a_text = {**row, "draws": [{**row["draws"][0], "score": "one"}]}
    for rows in (
        ["text"],
        [{"question": "x"}],
        [{"question": "x", "preview": "", "draws": [{"points": 1}]}],
        None,
        [a_text],
        [],
    ):
        path.write_text(json.dumps({**data, "questions": rows}), encoding="utf-8")
        with pytest.raises(
            ConfigurationError, match=r"is not a report .*: questions[\w.]* is missing, or of a wrong kind"
        ):
            EvalReport.load(path)


@pytest.mark.parametrize(
    "counters",
    [
        *({"calls": value} for value in ("many", [1], -1, True)),
        {"cost_saved": None},
        *({"by": rows} for rows in (3, ["x"], [{"phase": 1}], [{"phase": "eval", "calls": "many"}])),
    ],
)
def test_damaged_counters_are_a_clear_error(tmp_path: Path, counters: Any) -> None:
    """What is no count, or no row of them, is refused when a report is read, and not when it is shown."""
    path = report([1]).save(tmp_path / "report.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    data["provenance"]["counters"] |= counters
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"provenance\.counters is missing, or of a wrong kind"):
        EvalReport.load(path)


def test_a_score_that_no_metric_may_give_is_a_clear_error(tmp_path: Path) -> None:
    """Its square is no number."""
    path = report([1]).save(tmp_path / "report.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    data["questions"][0]["draws"][0]["score"] = 1e200
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"score is missing, or of a wrong kind"):
        EvalReport.load(path)


def test_a_file_that_cannot_be_read_or_written_is_said(tmp_path: Path) -> None:
    """A missing file, and a folder in the way, are errors of the store with the path in them."""
    with pytest.raises(StoreUnavailableError, match=r"missing\.json"):
        EvalReport.load(tmp_path / "missing.json")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StoreUnavailableError, match=r"the report .* cannot be written"):
        report([1]).save(tmp_path / "file" / "report.json")


def test_to_pandas_has_a_row_a_draw() -> None:
    """Questions by repeats rows, with what each draw is made of; half a character is no reason to fail."""
    pytest.importorskip("pandas")
    assert ["a\\ud800?"] == list(report([1], preview="a\ud800?").to_pandas().preview)
    frame = report([[1, None], [0, 1]], clusters=["a", "b"]).to_pandas()
    assert [1.0, 0.0, 0.0, 1.0] == frame["score"].tolist()
    assert [0, 1, 0, 1] == frame["repeat"].tolist()
    assert ["a", "a", "b", "b"] == frame["cluster"].tolist()
    assert {"question", "preview", "failed", "draw", "tokens", "cost", "oldest", "loaded"} <= set(frame.columns)


def test_to_pandas_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pandas the error says what to install."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError) as caught:
        report([1]).to_pandas()
    assert caught.value.extra


def test_a_report_is_a_value() -> None:
    """Equal results make equal reports; another name makes another."""
    assert report([1, 0]) == report([1, 0])
    assert replace(report([1, 0]), name="other") != report([1, 0])


def test_half_of_the_questions_in_clusters_is_an_error() -> None:
    """A cluster that some questions lack is said, not guessed."""
    rows = (
        QuestionResult("a", "", (DrawResult(1.0),), cluster="one"),
        QuestionResult("b", "", (DrawResult(0.0),)),
    )
    with pytest.raises(ConfigurationError, match="no cluster id"):
        _ = EvalReport("halves", rows, provenance()).score


def test_what_is_no_report_is_refused() -> None:
    """A list in the place of names, or a text in that of a report, is told what to write."""
    one = report([[1.0], [0.0], [1.0]])
    with pytest.raises(ConfigurationError, match="takes reports by name"):
        compare([one, one])  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="compared with another one of evaluate"):
        one.compare("baseline.json")  # type: ignore[arg-type]
