"""Every figure inside a sentence, and every one on a sheet, is the oracle's, rounded as it is shown."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from dspy_cachectl.reports.report import EvalReport
from tests.reports import oracle
from tests.reports.drawn import SCALES, Drawn, drawn
from tests.reports.shown_numbers import decimals_of, rows_of, shows
from tests.statistics.simulate import in_full

EVERY_SCALE = pytest.mark.parametrize("scale", SCALES)
SEEDS = pytest.mark.parametrize("seed", [0, *(in_full(seed) for seed in range(1, 12))])

SPLIT = re.compile(
    r"(\d+)% of the variance of the score comes from the draws: twice the repeats \((\S+)\) would take the standard "
    r"error from (\S+) to (\S+), and no number of them below (\S+); twice the questions \((\d+)\), for as many calls, "
    r"would take it to (\S+)\. (More .*)"
)
UNSPLIT = re.compile(
    r"With one draw per question .* Twice the questions \((\d+)\) would take the standard error from (\S+) to (\S+)\."
)
NEEDED = re.compile(
    r"([\d,]+)(?: to ([\d,]+))? questions instead of ([\d,]+) would (?:find a difference of (\S+) with a probability "
    r"of 80%|settle it with a probability of 80% if the difference is the one seen \((\S+)\)); (.*?)\. Looking again "
    r"after each addition finds a difference where there is none in more than (\d+)%: settle on a number and look "
    r"once, or let cachectl\.settle\(\) look, which keeps to it\."
)
REPEATS = {
    r"so would (\d+) repeats of each of these questions, of both programs",
    r"with these questions, no number of repeats would",
    r"whether repeats would, two draws per question would tell",
}


def tables_of(scale: str, seed: int, salt: int) -> list[tuple[list[Drawn], float]]:
    rng = np.random.default_rng([seed, len(scale), salt])
    return [drawn(rng, SCALES[scale]) for _ in range(12 if seed else 5)]


def groups_of(one: Drawn, names: list[str]) -> list[str] | None:
    return None if one.groups is None else [one.groups[name] for name in names]


def doubts_of(values: Any, error: oracle.Figures, what: str) -> tuple[list[str], list[str]]:
    """What is said of few questions, and of what the scores show."""
    few, seen = oracle.doubts(values, error)
    said = []
    varied = float(np.ptp(values)) > oracle.EQUAL * np.abs(values).max()
    if varied and float(stats.skew(values)) ** 2 > 0.04 * len(values):
        said.append(f"few questions far from the others decide {what}")
    if error["clusters"] is not None and error["degrees"] < 5:
        # The oracle's degrees may be a last bit above a half where those of the report are one below.
        degrees = round(error["degrees"] - 1e-9, 1)
        said.append(f"{error['clusters']} clusters of these sizes are worth {degrees:.1f} degrees of freedom")
    assert bool(said) is seen
    much = [f"{len(values)} questions are few"] if few else []
    if error["clusters"] is not None and error["degrees"] >= 5 and error["shared"] < oracle.FEW_SHARED:
        alike = f"{error['clusters']} clusters of these sizes, with questions so much alike in each, are worth "
        much.append(f"{alike}{round(error['shared'] - 1e-9, 1):.1f} degrees of freedom")
    return much, said


def equal_caveats(units: int, ends: tuple[float, float]) -> list[str]:
    """What is said where all scored the same."""
    said = ["one question, or one cluster, says nothing"] if units < 2 else []
    if 2 <= units < 100:
        said = [f"all {units} questions or clusters scored the same"]
    return said + (["the range of the scores is not known"] if ends[0] == ends[1] else [])


def all_said(expected: list[str], found: Any) -> bool:
    return len(expected) == len(found) and all(one in said for one, said in zip(expected, found, strict=True))


@EVERY_SCALE
@SEEDS
def test_what_a_report_says_is_the_oracles(scale: str, seed: int) -> None:
    """Its advice and its caveats: each number in them, and which of them are said."""
    for tables, level in tables_of(scale, seed, 2):
        for one in tables:
            made, table = one.report("one", level), one.distinct
            groups, values = groups_of(one, one.names), np.array([np.mean(row) for row in table.values()])
            error, ends = oracle.standard_error(values, groups), oracle.ends_of(table)
            figures = oracle.summary(table, groups, level)
            if figures["method"] == "rule of three":
                expected = equal_caveats(error["units"], ends)
            elif figures["method"] == "Wilson":
                expected = []
            else:
                expected = [part for parts in doubts_of(values, error, "the mean") for part in parts]
            assert all_said(expected, made.interval.caveats), (expected, made.interval.caveats)
            assert made.summary()["caveats"] == list(made.interval.caveats)
            check_advice(made.summary()["advice"], figures, table)


def check_advice(said: str, figures: oracle.Figures, table: oracle.Rows) -> None:
    error, inside, n = figures["standard_error"], figures["variance_within"], len(table)
    if error == math.inf:
        assert said.startswith("One question, or one cluster, says nothing of the spread")
    elif error == 0:
        assert said.startswith("Every question or cluster scored the same")
    elif inside is None:
        match = UNSPLIT.fullmatch(said)
        assert match, said
        assert int(match[1]) == 2 * n
        assert shows(match[2], error)
        assert shows(match[3], error / math.sqrt(2))
    else:
        repeats = stats.hmean([len(row) for row in table.values()])
        of_draws = min(error**2, inside / repeats / n)
        match = SPLIT.fullmatch(said)
        assert match, said
        shown = dict(zip(range(1, 8), match.groups(), strict=False))
        assert shows(shown[1], 100 * of_draws / error**2, 0)
        assert int(shown[6]) == 2 * n
        for place, value in (
            (2, 2 * repeats),
            (3, error),
            (4, math.sqrt(error**2 - of_draws / 2)),
            (5, math.sqrt(error**2 - of_draws)),
            (7, error / math.sqrt(2)),
        ):
            # Of a difference of squares that are all but equal, no digit is known.
            assert shows(shown[place], value) or (float(shown[place]) < 1e-7 * error and value < 1e-7 * error), said
        if not math.isclose(of_draws, error**2 / 2):
            assert ("do nearly as much" in match[8]) is bool(of_draws > error**2 / 2)


class Expected:
    """What the oracle says of a comparison, in words."""

    def __init__(self, before: Drawn, after: Drawn, level: float) -> None:
        a, b = before.distinct, after.distinct
        self.level, self.figures = level, oracle.comparison(a, b, before.groups, level)
        names = [name for name in a if name in b]
        first, second = (np.array([np.mean(table[name]) for name in names]) for table in (a, b))
        d = np.where(np.isclose(first, second, rtol=oracle.EQUAL, atol=0), 0.0, second - first)
        self.error = self.figures["error"]
        ends = oracle.ends_of({name: a[name] for name in names}, {name: b[name] for name in names})
        self.doubts: list[str] = []
        if self.figures["test"] == "mid-p McNemar":
            self.caveats: list[str] = []
        elif self.figures["test"] == "sign":
            reach = ends[1] - ends[0]
            self.caveats = equal_caveats(self.error["units"], (-reach, reach))
        else:
            few, self.doubts = doubts_of(d, self.error, "the difference")
            if (changed := int((d != 0).sum())) < 10:
                self.doubts.append(f"the two differ on {changed} question{'s' if changed > 1 else ''} only")
            self.caveats = [*few, *self.doubts]

    @property
    def verdict(self) -> str:
        (low, high), size = self.figures["interval"], self.figures["smallest_difference"]
        if (low > 0 or high < 0) and self.figures["p_value"] < 1 - self.level and not self.doubts:
            return "BETTER" if low > 0 else "WORSE"
        if -size < low and high < size and not self.caveats and self.figures["unseen"] <= size:
            return f"NO DIFFERENCE OF SIZE {size:g}"
        return "INCONCLUSIVE"

    def check_needed(self, said: str) -> None:
        """Each number of what would settle it."""
        n, size, error = self.figures["n"], self.figures["smallest_difference"], self.figures["planning_error"]
        if self.error["units"] < 2 or not math.isfinite(error):
            assert said.startswith("One question or cluster, or an unknown scale, cannot tell")
            return
        match = NEEDED.fullmatch(said)
        assert match, said
        least, most, now, to_find, seen, repeats, alpha = match.groups()
        assert (int(now.replace(",", "")), int(alpha)) == (n, round(100 * (1 - self.level)))
        too_small = bool(self.figures["minimal_detectable_effect"] > size)
        difference = abs(self.figures["difference"])
        self.aim = size if too_small else max(difference, size - difference)
        assert (to_find is not None) is too_small
        assert shows(to_find or seen, size if too_small else difference)
        planned = sorted((*self.figures["planning_range"], error))
        for text, one in ((least, planned[0]), (most or least, planned[-1])):
            self.check_questions(int(text.replace(",", "")), one)
        self.check_repeats(repeats)

    def check_questions(self, found: int, error: float) -> None:
        n, size, unseen = self.figures["n"], self.figures["smallest_difference"], self.figures["unseen"]
        least = max(n + 1, math.ceil(n * unseen / size), 100 if self.caveats else 0)
        per_degree = n / (oracle.sure_degrees(self.error) + 1)

        def is_enough(questions: int) -> bool:
            degrees = questions / per_degree - 1
            if degrees < 1:
                return False
            return bool(oracle.multiple(degrees, self.level) ** 2 * n * (error / self.aim) ** 2 <= questions)

        assert found >= least
        assert is_enough(found)
        assert found == least or not is_enough(found - 1)

    def check_repeats(self, said: str) -> None:
        assert sum(bool(re.fullmatch(one, said)) for one in REPEATS) == 1
        before, after = self.figures["within_baseline"], self.figures["within_candidate"]
        assert ("would tell" in said) is (before is None or after is None)
        if before is None or after is None:
            return
        n, target = self.figures["n"], self.aim / (stats.norm.ppf(0.5 + self.level / 2) + stats.norm.ppf(0.8))
        ks = self.figures["repeats_baseline"], self.figures["repeats_candidate"]
        limit = max(0.0, self.figures["planning_error"] ** 2 - (before / ks[0] + after / ks[1]) / n)
        if match := re.match(r"so would (\d+) repeats", said):
            found, least = int(match[1]), math.floor(min(ks)) + 1
            assert limit + (before + after) / (n * found) <= target**2 * (1 + 1e-9)
            assert found == least or limit + (before + after) / (n * (found - 1)) > target**2 * (1 - 1e-9)
            assert found >= least
        else:
            assert limit >= target**2 * (1 - 1e-9)


@EVERY_SCALE
@SEEDS
def test_what_a_comparison_says_is_the_oracles(scale: str, seed: int) -> None:
    """Its verdict, its caveats, whether it is in doubt, and each number of what would settle it."""
    for tables, level in tables_of(scale, seed, 3):
        for i, j in ((0, 1), (1, 2)):
            found = tables[i].report("a", level).compare(tables[j].report("b", level)).as_dict()
            expected = Expected(tables[i], tables[j], level)
            assert all_said(expected.caveats, found["interval"]["caveats"]), (expected.caveats, found["interval"])
            assert found["interval"]["doubtful"] is bool(expected.doubts)
            assert found["verdict"] == expected.verdict
            assert (found["needed"] is None) is (expected.verdict != "INCONCLUSIVE")
            if found["needed"] is not None:
                expected.check_needed(found["needed"])


def priced(made: EvalReport, rng: np.random.Generator) -> EvalReport:
    """The same report, each draw with tokens and a cost of its own."""
    questions = []
    for question in made.questions:
        tokens, costs = rng.integers(1, 9999, len(question.draws)).tolist(), (rng.random(len(question.draws)) / 100)
        draws = [
            replace(draw, tokens=count, cost=float(cost), seconds=2.0)
            for draw, count, cost in zip(question.draws, tokens, costs, strict=True)
        ]
        questions.append(replace(question, draws=tuple(draws)))
    return replace(made, questions=tuple(questions))


def interval_of(rows: dict[str, str], found: dict[str, Any], decimals: int | None) -> bool:
    """Whether the row of the interval shows its ends and its method."""
    text, interval = rows[f"{100 * found['interval']['level']:.4g}% interval"], found["interval"]
    low, high = ends_in(text)
    return (shows(low, interval["low"], decimals) and shows(high, interval["high"], decimals)) and text.endswith(
        interval["method"]
    )


def ends_in(text: str) -> list[str]:
    """The two ends of an interval, or the two numbers of a range."""
    match = re.match(r"(\S+) to ([^\s,]+(?:,\d{3})*(?:\.\d+)?)", text)
    assert match, text
    return list(match.groups())


@EVERY_SCALE
@SEEDS
def test_a_report_as_text_shows_its_figures(scale: str, seed: int) -> None:
    """What is read back from the text is the JSON's number, rounded as it is shown; sums are numpy's."""
    for tables, level in tables_of(scale, seed, 4):
        rng = np.random.default_rng([seed, 5])
        for one in tables:
            made = one.report("one", level)
            made = replace(
                made,
                questions=tuple(
                    replace(
                        question,
                        draws=tuple(
                            replace(
                                draw, tokens=int(rng.integers(1, 9999)), cost=float(rng.random() * 0.01), seconds=2.0
                            )
                            for draw in question.draws
                        ),
                    )
                    for question in made.questions
                ),
            )
            rows, found, error = rows_of(made.details()), made.summary(), made.summary()["standard_error"]
            decimals = decimals_of(error)
            score, shown_error = rows["score"].split(" ")[::2][:2]
            assert shows(score, found["score"], decimals), rows["score"]
            assert shows(shown_error, error, decimals), rows["score"]
            interval = rows[f"{100 * level:.4g}% interval"]
            assert all(
                map(shows, ends_in(interval), (found["interval"][end] for end in ("low", "high")), [decimals] * 2)
            )
            assert interval.endswith(found["interval"]["method"])
            assert (int(rows["questions"]), rows["repeats"]) == (
                found["n"],
                f"{found['repeats']}: {found['distinct_draws']} distinct draws of {len(made.draws)}",
            )
            if found["failures"]:
                said = re.match(r"(\d+) of (\d+) answers?, counted as 0; score without them (\S+)", rows["failures"])
                assert said, rows["failures"]
                assert (int(said[1]), int(said[2])) == (found["failures"], len(made.draws))
                assert shows(said[3], found["score_without_failures"], decimals)
            check_parts(rows, found, made, level)
            tokens, cost, seconds = re.findall(r"([\d,]+) tokens?, \$([\d.,]+), ([\d.,]+) (?:s|min)", rows["made of"])[
                0
            ]
            assert int(tokens.replace(",", "")) == np.sum([draw.tokens for draw in made.draws])
            assert shows(cost, float(np.sum([draw.cost for draw in made.draws])))
            assert shows(seconds, 2.0 * len(made.draws), 1) or len(made.draws) >= 60
            assert made.tokens_per_answer == pytest.approx(np.mean([draw.tokens for draw in made.draws]), rel=1e-12)
            assert made.cost_per_answer == pytest.approx(np.mean([draw.cost for draw in made.draws]), rel=1e-12)


def check_parts(rows: dict[str, str], found: dict[str, Any], made: Any, level: float) -> None:
    inside, between = found["variance_within"], found["variance_between"]
    if inside is None and between is None:
        assert "variance" not in rows
    else:
        said = re.match(
            r"(\S+) between questions, (\S+) between draws of one question \((\S+) of both\)", rows["variance"]
        )
        assert said, rows["variance"]
        assert shows(said[1], between)
        assert shows(said[2], inside)
        assert between is None or not between + inside or shows(said[3], 100 * inside / (between + inside), 0)
    for label, sign, rate in (("one of k passes", "@", made.pass_at_k), ("all of k pass", "^", made.pass_hat_k)):
        for k, value in re.findall(rf"pass\{sign}(\d+) (\S+?)(?:,|$)", rows.get(label, "")):
            assert shows(value, rate(int(k)))
    if not math.isnan(made.flip_rate):
        flips, agreeing = re.findall(r"(\S+); all draws of a question agree for (\S+) of them", rows["flip rate"])[0]
        assert shows(flips, made.flip_rate)
        assert shows(agreeing, made.consistency)
    if found["clusters"] is not None:
        said = re.match(r"(\d+); design effect (\S+) \(standard error (\S+) if", rows["clusters"])
        assert said, rows["clusters"]
        assert int(said[1]) == found["clusters"]
        assert shows(said[2], found["design_effect"])
        assert shows(said[3], made.error.independent, decimals_of(found["standard_error"]))
    assert rows["to shorten the interval"] == found["advice"]


@EVERY_SCALE
@SEEDS
def test_a_comparison_as_text_shows_its_figures(scale: str, seed: int) -> None:
    """What is read back from the text is the JSON's number, rounded as it is shown."""
    for tables, level in tables_of(scale, seed, 6):
        made = tables[0].report("old", level).compare(tables[1].report("new", level))
        rows, found, error = rows_of(made.details()), made.as_dict(), made.as_dict()["error"]
        decimals = decimals_of(error["value"] if math.isfinite(error["value"]) else 0.0)
        assert made.details().splitlines()[1] == found["verdict"]
        assert rows["candidate"].endswith(" (new)")
        assert rows["baseline"].endswith(" (old)")
        for label in ("candidate", "baseline"):
            assert shows(rows[label].split(" ")[0], found[f"{label}_mean"], decimals), rows[label]
        difference, shown_error = rows["difference"].split(" ± ")
        assert shows(difference, found["difference"], decimals)
        assert shows(shown_error, error["value"], decimals)
        assert interval_of(rows, found, decimals)
        p, _, test = rows["p-value"].partition(", ")
        assert test == found["test"]
        assert found["p_value"] < 1e-4 if p.startswith("below") else abs(float(p) - found["p_value"]) <= 0.006
        counts = re.findall(r"\d+", rows["questions"])
        assert [int(one) for one in counts] == [found[one] for one in ("n", "wins", "ties", "losses")]
        assert shows(rows["correlation"], found["correlation"], 2)
        paired, unpaired = re.findall(r"(\S+) paired, (\S+) if it were not", rows["standard error"])[0]
        assert shows(paired, error["value"], decimals)
        assert shows(unpaired, found["unpaired_error"], decimals)
        detectable = rows["smallest detectable difference"]
        least, most = ends_in(detectable)
        assert shows(least, found["minimal_detectable_range"][0], decimals)
        assert shows(most, found["minimal_detectable_range"][1], decimals)
        assert (
            f"(the smallest that matters: {found['smallest_difference']:g})" in rows["smallest detectable difference"]
        )
        if error["clusters"] is not None:
            clusters, effect = re.findall(r"(\d+); design effect (\S+)", rows["clusters"])[0]
            assert int(clusters) == error["clusters"]
            assert shows(effect, error["design_effect"])
