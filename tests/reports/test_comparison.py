"""Comparisons of reports: what is paired, what is flagged, and what many of them do to one."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.reports.difference import why_undecided
from dspy_cachectl.reports.ranking import Ranking
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.reports.several import compare
from dspy_cachectl.statistics.paired import compare_paired
from dspy_cachectl.statistics.power import holm, selection_bias
from dspy_cachectl.statistics.verdicts import Verdict
from tests.reports.made_up import BOUGHT, report

OLD = [[1, 0], [0, 0], [1, 1], [0, 1], [0, 0], [1, 0]]
NEW = [[1, 1], [0, 1], [1, 1], [1, 1], [0, 0], [1, 1]]


def pair_of(wins: int, losses: int, n: int = 200) -> tuple[list[int], list[int]]:
    """Single 0/1 scores of two programs that differ so often."""
    return [0] * wins + [1] * losses + [1] * (n - wins - losses), [1] * wins + [0] * losses + [1] * (n - wins - losses)


def test_the_numbers_are_those_of_the_paired_statistics() -> None:
    """Differences 1/2, 1/2, 0, 1/2, 0, 1/2: mean 1/3, four wins and two ties, by a paired t test."""
    old, new = report(OLD, name="old"), report(NEW, name="new")
    made = old.compare(new, smallest_difference=0.1)
    assert compare_paired(old.table, new.table, smallest_difference=0.1) == made.result
    assert made.difference == pytest.approx(1 / 3)
    assert made.result.error.value == pytest.approx(math.sqrt(0.4 / 6 / 6))
    assert (4, 2, 0, "paired t") == (made.result.wins, made.result.ties, made.result.losses, made.result.test)
    assert made.p_value == made.adjusted_p_value


def test_single_scores_of_0_and_1_are_compared_by_mcnemar() -> None:
    """Five wins and one loss: mid-p = 2 (1 + 6)/64 - 6/64 = 1/8."""
    old, new = pair_of(5, 1, n=50)
    made = report(old, name="old").compare(report(new, name="new"))
    assert "mid-p McNemar" == made.result.test
    assert made.p_value == pytest.approx(0.125)


def test_questions_pair_by_content_not_by_position() -> None:
    """A data set in another order is the same data set: nothing is unpaired and the numbers are the same."""
    names = [f"question-{i}" for i in range(6)]
    turned = report(NEW[::-1], name="new", questions=names[::-1])
    straight = report(NEW, name="new")
    assert report(OLD).compare(straight).result == report(OLD).compare(turned).result


def test_questions_without_a_partner_are_listed() -> None:
    """What only one report has is left out, counted in a warning, and listed with its beginning."""
    old = report([1, 0, 1, 0], name="old", questions=["a", "b", "c", "d"], preview="old question {}")
    new = report([1, 1, 0], name="new", questions=["b", "c", "x"], preview="new question {}")
    made = old.compare(new)
    assert (2, ("a", "d"), ("x",)) == (made.result.n, made.result.only_baseline, made.result.only_candidate)
    assert {"a": "old question 0", "d": "old question 3", "x": "new question 2"} == made.unpaired
    assert "left out, since only 'old' has them: 2 questions" in made.warnings
    assert "left out, since only 'new' has them: 1 question" in made.warnings
    assert (("a", "d"), ("x",)) == (made.as_dict()["only_baseline"], made.as_dict()["only_candidate"])


def test_no_common_question_is_an_error() -> None:
    """Two data sets cannot be compared, and the error says what to do."""
    with pytest.raises(ConfigurationError, match="evaluate both on the same questions"):
        report([1, 0]).compare(report([1, 0], questions=["x", "y"]))


def test_shared_draws_are_flagged() -> None:
    """Reports that rest on the same draws say how many, and what to do about it."""
    old = report([1, 0, 1], name="old", draws=[["p"], ["q"], ["r"]])
    new = report([1, 0, 0], name="new", draws=[["p"], ["q"], ["s"]])
    made = old.compare(new)
    assert made.shared_draws == 2
    assert any("the two share 2 draws" in warning and "run id of its own" in warning for warning in made.warnings)
    assert old.compare(report([1, 0, 0], name="own")).shared_draws == 0


def test_repeats_that_are_one_draw_are_flagged_and_counted_once() -> None:
    """A comparison with a replayed report is that with a single draw, and says which report it is."""
    replayed = report([[1, 1], [0, 0], [1, 1]], name="replayed", draws=[["a", "a"], ["b", "b"], ["c", "c"]])
    single = report([1, 0, 1], name="single")
    new = report([1, 1, 1], name="new")
    assert single.compare(new).result == replayed.compare(new).result
    assert "replayed: 3 of 6 repeats are replays of a draw that is already counted." in replayed.compare(new).warnings


def test_failures_and_different_metrics_are_flagged() -> None:
    """An answer that failed, and scores that are not of one metric, stand in the warnings."""
    made = report([1, None], name="old").compare(report([1, 0], name="new", metric_hash="d4" * 32))
    assert "old: 1 answer failed, counted with the failure score" in made.warnings
    assert "the two were scored with different metrics; rescore one of them" in made.warnings


def test_an_unremarkable_comparison_has_no_warnings() -> None:
    """Warnings are for what stands in the way, and for nothing else."""
    assert report(OLD, name="old").compare(report(NEW, name="new")).warnings == ()


def test_holm_takes_back_a_win_among_many() -> None:
    """Alone 14 wins to 5 losses are BETTER (p = 0.04); among three comparisons they are not."""
    old, new = pair_of(14, 5)
    reports = {"old": report(old, name="o"), "new": report(new, name="n"), "same": report(old, name="s")}
    alone = reports["old"].compare(reports["new"])
    among = compare(reports)["old", "new"]
    assert (Verdict.BETTER, "BETTER") == (alone.verdict, alone.verdict_text)
    assert (Verdict.INCONCLUSIVE, "INCONCLUSIVE") == (among.verdict, among.verdict_text)
    assert alone.p_value == among.p_value < 0.05 <= among.adjusted_p_value
    assert "INCONCLUSIVE" == among.as_dict()["verdict"]
    assert (3, 1) == (among.compared_with, alone.compared_with)


def test_what_is_missing_of_a_verdict_is_said() -> None:
    """Where the p-value says one thing and the interval another, or is in doubt; else nothing."""
    old, new = pair_of(14, 5)
    result = report(old, name="o").compare(report(new, name="n")).result
    holds = replace(result.interval, low=-0.01, high=0.2)
    within = replace(result.interval, low=-0.01, high=0.02, caveats=("few",))
    for changes, says in (
        ({"interval": holds, "p_value": 0.0046}, "Its p-value of 0.0046 is below 0.05, but its interval holds 0"),
        ({"p_value": 0.06}, "Its interval leaves out 0, but its p-value of 0.06 is not below 0.05"),
        (
            {"interval": replace(result.interval, doubtful=True)},
            "is below 0.05 and its interval leaves out 0, but that is in doubt",
        ),
        ({"interval": within, "p_value": 0.4}, "lies within ±0.05, but that is in doubt (see the caveats)"),
        (
            {"interval": replace(within, caveats=()), "p_value": 0.4, "unseen": 0.1},
            "differences that no question showed",
        ),
        ({"interval": holds, "p_value": 0.4}, ""),
        ({}, ""),
    ):
        assert says in " ".join(why_undecided(replace(result, **changes)))
        assert bool(says) == any(why_undecided(replace(result, **changes)))


def test_a_clear_win_survives_holm() -> None:
    """The adjustment takes back what may be luck, and not a win of 40 to 2."""
    old, new = pair_of(40, 2)
    made = compare({"old": report(old, name="o"), "new": report(new, name="n"), "same": report(old, name="s")})
    assert Verdict.BETTER is made["old", "new"].verdict
    assert Verdict.WORSE is made["new", "same"].verdict
    assert Verdict.NO_DIFFERENCE is made["old", "same"].verdict


def test_the_adjusted_p_values_are_holms() -> None:
    """They are `holm` of the pairs' own p-values, in order."""
    made = compare({name: report(rows, name=name) for name, rows in (("a", OLD), ("b", NEW), ("c", OLD[::-1]))})
    assert holm([pair.p_value for pair in made.pairs]) == tuple(pair.adjusted_p_value for pair in made.pairs)
    assert [("a", "b"), ("a", "c"), ("b", "c")] == [(pair.baseline, pair.candidate) for pair in made.pairs]


def test_reports_are_called_what_they_were_given_as() -> None:
    """Two reports of one program have the names of the mapping, in its order."""
    made = compare({"zero-shot": report([1, 0], name="QA"), "bootstrap": report([1, 1], name="QA")})
    assert ["zero-shot", "bootstrap"] == [one.name for one in made.reports]
    assert "bootstrap" == made.best
    assert ("zero-shot", "bootstrap") == (made.pairs[0].baseline, made.pairs[0].candidate)


def test_the_best_of_several_is_said_to_be_lucky() -> None:
    """The bias of the best is that of the least certain score among so many."""
    made = compare({str(i): report(rows, name=str(i)) for i, rows in enumerate((OLD, NEW, OLD))})
    assert made.selection_bias == selection_bias(max(one.standard_error for one in made.reports), 3)


def test_the_best_that_is_right_in_all_may_be_lucky_too() -> None:
    """Its standard error is 0, and its interval is not: of the best of three, 12 of 12 promise no 100%."""
    reports = {name: report([1.0] * 12, name=name) for name in ("one", "two", "three")}
    made = compare(reports)
    half = 1.0 - reports["one"].interval.low
    assert pytest.approx(half / 1.96 * math.sqrt(2.0 * math.log(3)), rel=1e-3) == made.selection_bias
    for shown in (made, Ranking(tuple(reports.values()))):
        assert f"may look too good by up to about {made.selection_bias:.3g}" in " ".join(str(shown).split())


def test_one_report_is_none_to_compare() -> None:
    """One report, or a pair that is not there, is an error that says what there is."""
    with pytest.raises(ConfigurationError, match="two reports at least"):
        compare({"only": report([1])})
    made = compare({"a": report([1, 0], name="a"), "b": report([0, 1], name="b")})
    with pytest.raises(ConfigurationError, match="name an earlier report, then a later one, of 'a', 'b'"):
        _ = made["b", "a"]


def test_clusters_widen_the_error_of_a_difference() -> None:
    """Questions in clusters are compared by a cluster-robust test, also where one report alone names them."""
    groups = ["a", "a", "b", "b", "c", "c"]
    clustered = report(OLD, name="old", clusters=groups).compare(report(NEW, name="new"))
    assert ("cluster-robust paired t", 3) == (clustered.result.test, clustered.result.error.clusters)


def test_clusters_that_were_given_hold_where_questions_are_equal() -> None:
    """Equal questions are a cluster where nobody gave any; what one report alone names holds for both."""
    asked, groups = ["a#0", "a#1", "b#0", "c#0"], ["x", "x", "x", "y"]
    baseline = report([0, 1, 0, 1], name="old", questions=asked, clusters=groups)
    found = baseline.compare(report([1, 1, 0, 1], name="new", questions=asked))
    assert (2, 1) == (found.result.error.clusters, found.result.wins)


def test_a_baseline_travels_with_its_report() -> None:
    """`report.comparison` is the report against its baseline; without one there is none."""
    old, new = report(OLD, name="old"), report(NEW, name="new")
    assert new.comparison is None
    with_baseline: EvalReport = replace(new, baseline=old)
    assert with_baseline.comparison == old.compare(new)


def test_what_else_may_be_behind_a_difference_is_said() -> None:
    """Other labels, models, temperatures, failure scores and times are named, and no run id is advised for them."""
    made = report([1, 0, 1], name="old", draws=[["p"], ["q"], ["r"]], failure_score=0.0)
    old = replace(made, questions=tuple(replace(question, labels="a") for question in made.questions))
    other = report(
        [1, 1, 1], name="new", draws=[["p"], ["q"], ["s"]], temperature=0.7, model="lab/m2", failure_score=-1.0
    )
    later = [
        replace(
            question,
            labels="aba"[i],
            draws=tuple(replace(draw, oldest=BOUGHT + 6e6, newest=BOUGHT + 6e6) for draw in question.draws),
        )
        for i, question in enumerate(other.questions)
    ]
    warnings = old.compare(replace(other, questions=tuple(later))).warnings
    for said in (
        "the labels of 1 common question differ",
        "failures count as 0 in one and as -1 in the other",
        "the models differ: old openai/gpt-4o-mini @ lab, version 2025-01, new lab/m2 @ lab, version 2025-01",
        "the temperatures differ: old 1, lent by the phase",
        "their draws lie 69 days apart",
        "the two share 2 draws",
    ):
        assert any(said in warning for warning in warnings), said
    assert not any("run id of its own" in warning for warning in warnings)


def test_the_best_is_the_best_on_common_questions() -> None:
    """A report on easy questions of its own is not the best; without common questions the pairs decide."""
    common = [f"c{i}" for i in range(40)]
    x = report([1] * 20 + [0] * 20 + [1] * 60, name="x", questions=common + [f"x{i}" for i in range(60)])
    y = report([1] * 36 + [0] * 4 + [0] * 60, name="y", questions=common + [f"y{i}" for i in range(60)])
    made = compare({"x": x, "y": y})
    assert (made["x", "y"].verdict, made.best) == (Verdict.BETTER, "y")
    assert made.common_scores == {"x": 0.5, "y": 0.9}
    apart = compare(
        {
            "half": report([1, 0] * 30, questions=common[:20] + [f"x{i}" for i in range(40)]),
            "all": report([1] * 60, questions=common[:20] + [f"y{i}" for i in range(40)]),
            "few": report([1, 0] * 40, questions=[f"x{i}" for i in range(40)] + [f"y{i}" for i in range(40)]),
        }
    )
    assert apart.best == "all"


def test_the_level_is_that_of_the_reports() -> None:
    """Reports of 90 % are compared at 90 %; another level may be asked for."""
    reports = {name: report([1, 0, 1, 1], name=name, level=0.9) for name in ("a", "b")}
    assert compare(reports)["a", "b"].interval.level == 0.9
    assert compare(reports, level=0.99)["a", "b"].interval.level == 0.99


def test_equal_questions_are_one_cluster() -> None:
    """A data set with each of 20 questions five times has the error of 20 clusters, and says whose they are."""
    scores = [float(i % 3 > 0) for i in range(20)] * 5
    names = [f"q{i}" + (f"#{k}" if k else "") for k in range(5) for i in range(20)]
    made = report(scores, questions=names)
    clustered = report(scores, clusters=[f"q{i}" for i in range(20)] * 5)
    assert made.error == clustered.error
    assert made.error.clusters == 20
    assert made.standard_error > 2 * made.error.independent
    assert "20, equal questions together" in str(made)
    assert made.compare(replace(made, name="b")).result.error.clusters == 20
