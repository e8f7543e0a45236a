"""What people see of a report and of a comparison: the facts, in every medium, and nothing that acts."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from rich.console import Console

from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.reports.several import Comparisons, compare
from dspy_cachectl.reports.texts import duration, money, number, p_value, places
from tests.reports.made_up import ASKED, report

EVIL = '<script>alert("x")</script> [red]loud[/red] \x1b[31m\x07 \u202eback\u2066 \x9b31m \ud800'
REPEATED = [[1, 1, 0], [1, 0, 1], [0, 0, 0], [1, 1, 1], [None, 1, 1]]
VOID = {"br", "hr", "img", "input", "link", "meta"}
WORDS = {"div", "details", "summary", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "span"}
DRAWN = {"svg", "text", "line", "rect", "circle"}
LOOKS = {"viewbox", "width", "height", "role", "aria-label", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "fill"}
LOOKS |= {"fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray"}
LOOKS |= {"font-family", "font-size", "text-anchor"}


class Page(HTMLParser):
    """What a browser makes of HTML: its text, its tags, and whether they are balanced."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert [] == self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag == self._open.pop()

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def as_text(shown: Any) -> str:
    return str(shown.details())


def as_printed(shown: Any) -> str:
    return str(shown)


def as_panel(shown: Any) -> str:
    console = Console(file=io.StringIO(), width=400, color_system=None)
    console.print(shown)
    return console.file.getvalue()  # type: ignore[attr-defined]


def as_html(shown: Any) -> str:
    return Page(shown._repr_html_()).text


def squeezed(text: str) -> str:
    """The text on one line, without the frame of a panel, however its medium broke it up."""
    return " ".join(text.translate(dict.fromkeys(map(ord, "╭─╮│╰╯"), " ")).split())


MEDIA = pytest.mark.parametrize("medium", [as_text, as_html])
"""What shows all of it."""
Medium = Callable[[Any], str]


def many() -> Comparisons:
    """Three reports, of which the first pair is a win alone and none among three."""
    old, new = [0] * 14 + [1] * 186, [1] * 14 + [0] * 5 + [1] * 181
    return compare({"old": report(old, name="o"), "new": report(new, name="n"), "same": report(old, name="s")})


@MEDIA
def test_a_report_shows_its_score_and_what_it_rests_on(medium: Medium) -> None:
    """Score, error, interval, method, repeats, draws, failures, variance, advice, pass@k, flips and clusters."""
    made = report(REPEATED, name="bootstrap", clusters=["a", "a", "b", "b", "c"])
    shown = squeezed(medium(made))
    assert "Evaluation of bootstrap" in shown
    for fact in (
        f"score 0.600 ± {made.standard_error:.3f} (standard error)",
        "95% interval",
        made.interval.method,
        "questions 5",
        "repeats 3: 15 distinct draws of 15",
        "1 of 15 answers, counted as 0; score without them 0.667 (5 questions)",
        f"{number(made.variance.between)} between questions, {number(made.variance.within)} between draws",
        made.variance.advice,
        f"pass@1 0.6, pass@3 {number(made.pass_at_k(3))}",
        f"pass^1 0.6, pass^3 {number(made.pass_hat_k(3))}",
        f"flip rate {number(made.flip_rate)}",
        f"clusters 3; design effect {number(made.error.design_effect)}",
        *made.interval.caveats,
        "1 answer failed: the metric raised KeyError: 'answer' (for example: What is 4?)",
    ):
        assert squeezed(fact) in shown, fact


@MEDIA
def test_a_report_shows_where_it_comes_from(medium: Medium) -> None:
    """Run, model, temperature, hashes, draws, requests, tokens, cost, age and kept predictions."""
    shown = squeezed(medium(report(REPEATED, cost=0.002, unsaved=2)))
    for fact in (
        "run run-7 (phase eval, policy FRESH)",
        "model openai/gpt-4o-mini @ lab, version 2025-01",
        "temperature 1, lent by the phase (13 calls)",
        "program a1a1a1a1a1a1",
        "data b2b2b2b2b2b2",
        "metric exact_match c3c3c3c3c3c3",
        "extended: 5 of 15 answers loaded (gpt-4o-mini_1234.json)",
        "the instruction of `answer` changed",
        "14: 9 fresh, 3 resumed, 1 reused, 1 coalesced, 2 truncated",
        "9 requests, 12,345 tokens, $0.0123, 40.0 s of the provider, 1 request without a known price",
        "678 tokens, $0.00100, 2.5 s of the provider",
        "1,500 tokens, $0.0300, 7.5 s of the provider, whoever paid for them",
        "oldest draw 2025-10-09 08:53:20 UTC",
        "newest draw 2025-10-09 08:54:24 UTC",
        "2025-10-09 08:55:00 UTC, in 12.3 s",
        "dspy 3.4.1",
        "2 predictions could not be kept and will be computed again",
    ):
        assert fact in shown, fact


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ([(None, False, 2)], "unset, as the program asks (2 calls)"),
        ([(0.7, False, 2)], "0.7, as the program asks (2 calls)"),
        ([(1.0, True, 3)], "1, lent by the phase (3 calls)"),
        ([(0.7, False, 2), (1.0, True, 1)], "0.7, as the program asks (2 calls); 1, lent by the phase (1 call)"),
        ([], "not known"),
    ],
)
def test_a_lent_temperature_is_said(asked: list[tuple[float | None, bool, int]], expected: str) -> None:
    """Whose temperature it was, and in how many calls the phase lent one."""
    models = [replace(ASKED, temperature=own, lent=lent, calls=calls) for own, lent, calls in asked]
    made = report([1, 0], models=models)
    assert f"temperature    {expected}" in as_text(made) or f"temperature   {expected}" in as_text(made)


def test_what_is_not_known_is_a_dash() -> None:
    """One draw of one question, nothing counted: no NaN, None or inf reaches people."""
    made = report([0.3], run_id=None, models=(), counters={}, predictions="off")
    bare = replace(made.questions[0], draws=(replace(made.questions[0].draws[0], oldest=None, newest=None),))
    shown = squeezed(as_text(replace(made, questions=(bare,))))
    for fact in (
        "LM calls –",
        "spent –",
        "oldest draw –",
        "run none",
        "model not known: no LM call was seen to answer",
        "off: computed, and not kept",
        "0.3 ± ∞",
    ):
        assert fact in shown, fact
    assert not {"nan", "None", "inf"} & set(shown.replace(",", " ").split())


def test_scores_that_are_no_passes_have_no_pass_rates() -> None:
    """pass@k is shown for scores of 0 and 1 only."""
    assert "pass@1" in as_text(report([[1, 0], [1, 1]]))
    assert "pass@1" not in as_text(report([[0.5, 0], [1, 1]]))


def test_replays_are_said() -> None:
    """Repeats that were one draw stand among the caveats."""
    made = report([[1, 1], [0, 0]], draws=[["a", "a"], ["b", "b"]])
    assert "repeats                  2: 2 distinct draws of 4" in as_text(made)
    assert "2 of 4 repeats are replays of a draw that is already counted." in squeezed(as_text(made))


def test_a_report_shows_its_baseline() -> None:
    """A report with a baseline says how it stands to it; one that cannot be compared says why, and is shown."""
    old, new = report([0] * 40, name="old"), report([1] * 40, name="new")
    assert "against old              BETTER: +1" in as_text(replace(new, baseline=old))
    stranger = report([0], name="old", questions=["x"])
    assert "cannot be compared: none of the 1 questions" in squeezed(as_text(replace(new, baseline=stranger)))


@MEDIA
def test_a_comparison_shows_the_verdict_and_its_grounds(medium: Medium) -> None:
    """Verdict, means, difference, interval, p, wins, correlation, errors and the smallest detectable difference."""
    old = report([[1, 0], [0, 0], [1, 1], [0, 1], [0, 0], [1, 0]], name="old")
    new = report([[1, 1], [0, 1], [1, 1], [1, 1], [0, 0], [1, 1]], name="new")
    made = old.compare(new)
    result = made.result
    shown = squeezed(medium(made))
    decimals = places(result.error.value)
    for fact in (
        f"new against old {made.verdict_text}",
        f"candidate {number(result.candidate_mean, decimals)} (new)",
        f"baseline {number(result.baseline_mean, decimals)} (old)",
        f"difference +0.33 ± {number(result.error.value, decimals)}",
        f"p-value {p_value(result.p_value)}, paired t",
        "6 pairs: 4 won, 2 tied, 0 lost",
        f"correlation {number(result.correlation, 2)}",
        f"{number(result.unpaired_error, decimals)} if it were not",
        " to ".join(number(end, decimals) for end in result.minimal_detectable_range) + " with a probability of 80%",
        "old openai/gpt-4o-mini @ lab, version 2025-01 (13 calls); temperature 1, lent by the phase",
        "newest draw 2025-10-09 08:54:25 UTC",
        "(the smallest that matters: 0.05)",
        *made.interval.caveats,
    ):
        assert squeezed(fact) in shown, fact
    assert "Holm" not in shown


def test_an_open_comparison_says_what_would_settle_it() -> None:
    """INCONCLUSIVE comes with a number of questions or repeats."""
    made = report([1, 0, 1, 0], name="old").compare(report([1, 1, 0, 1], name="new"))
    assert made.result.needed is not None
    shown = squeezed(as_text(made))
    assert "INCONCLUSIVE" in shown
    assert made.result.needed.sentence in shown


def test_warnings_and_unpaired_questions_are_shown() -> None:
    """What stands in the way of a comparison, and each question that is in one report only."""
    old = report([1, 0, 1], name="old", questions=["a", "b", "c"], preview="old question {}")
    new = report([1, 1], name="new", questions=["b", "c"], metric_hash="other", preview="new question {}")
    made = old.compare(new)
    shown = squeezed(as_text(made))
    assert "old a old question 0" in shown
    for warning in made.warnings:
        assert warning in shown


def test_only_some_of_many_unpaired_questions_are_shown() -> None:
    """A long list ends with how many more there are, and where they all are."""
    old = report([1] * 50, name="old")
    shown = as_text(old.compare(report([1], name="new", questions=["question-0"])))
    assert "and 29 more: as_dict()['only_baseline']" in shown


@MEDIA
def test_many_comparisons_show_scores_pairs_and_the_luck_of_the_best(medium: Medium) -> None:
    """Every report, every pair with its adjusted p-value, the selection bias, and a win that Holm took back."""
    made = many()
    shown = squeezed(medium(made))
    for one in made.reports:
        score = f"{number(one.score, places(one.standard_error))} ±"
        assert f"{one.name} {score}" in shown or f"report {one.name} score {score}" in shown
    for pair in made.pairs:
        assert f"{pair.candidate} against {pair.baseline}" in shown
    assert p_value(made["old", "new"].adjusted_p_value) in shown
    assert "14/181/5" in shown
    assert (
        "new has the highest score on the questions that all have. The best of 3 may look too good by up to about"
        in shown
    )
    assert "Alone it would be BETTER; among 3 comparisons its p-value of 0.041 becomes 0.12 (Holm)" in shown


def test_a_pair_among_many_shows_both_p_values() -> None:
    """The plain p-value and Holm's, with the number of comparisons."""
    shown = squeezed(as_text(many()["old", "new"]))
    assert "p-value 0.041, mid-p McNemar" in shown
    assert "adjusted p-value 0.12, Holm, among 3 comparisons" in shown


def evil_things() -> list[Any]:
    """Everything that is rendered, with something harmful in every name, question, reason and fact."""
    evil = report(
        [[1, None], [0, 1], [1, 1]],
        name=EVIL,
        preview=EVIL + "{}",
        clusters=[EVIL, EVIL, "b"],
        run_id=EVIL,
        phase=EVIL,
        model=EVIL,
        endpoint=EVIL,
        version=EVIL,
        program=EVIL,
        metric=EVIL,
        changes=(EVIL,),
        snapshot=EVIL,
        versions={EVIL: EVIL},
    )
    questions = (
        replace(evil.questions[0], draws=(replace(evil.questions[0].draws[1], failed=EVIL),)),
        *evil.questions[1:],
    )
    evil = replace(evil, questions=questions)
    other = report([[1, 0], [0, 0]], name=EVIL + "2", questions=["question-1", EVIL], preview=EVIL + "{}")
    return [evil, evil.compare(other), compare({EVIL: evil, EVIL + "2": other})]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_html_is_escaped_and_needs_nothing_else(which: int) -> None:
    """No text becomes a tag, and nothing is loaded from anywhere."""
    source = evil_things()[which]._repr_html_()
    page = Page(source)
    assert '<script>alert("x")</script>' in page.text
    assert page.tags <= {*WORDS, *DRAWN}
    assert {name for name, _ in page.attributes} <= {"class", "style", "scope", *LOOKS}
    assert not any("url(" in value or "@import" in value for _, value in page.attributes)
    assert "http" not in source


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("medium", [as_text, as_printed, as_panel, as_html])
def test_nothing_reaches_a_terminal_that_it_would_obey(medium: Medium, which: int) -> None:
    """Control characters, turned text and half characters are replaced; markup is shown as it is written."""
    shown = medium(evil_things()[which])
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\ud800", "\r"} & set(shown)
    assert "[red]loud[/red]" in squeezed(shown)
    shown.encode("utf-8")


def test_notebooks_do_not_take_dollars_for_formulas() -> None:
    """Amounts and questions with dollar signs are left as they are."""
    assert "tex2jax_ignore mathjax_ignore" in report([1])._repr_html_()


def test_colours_are_readable_on_light_and_dark() -> None:
    """Whatever has a colour of its own has a ground of its own; all else takes the notebook's."""
    for shown in (report([1, 0]), many(), *many().pairs):
        for name, value in Page(shown._repr_html_()).attributes:
            styles = dict(part.split(":", 1) for part in value.split(";")) if name == "style" else {}
            assert "color" not in styles or "#" in styles["background"]


def test_text_fits_a_terminal() -> None:
    """Plain text is wrapped, and its lines have no blanks at their ends."""
    for shown in (report(REPEATED, name="x" * 300), many(), many().pairs[0]):
        lines = str(shown).splitlines()
        assert max(map(len, lines)) <= 110
        assert all(line == line.rstrip() for line in lines)


def test_a_verdict_is_coloured_in_a_terminal() -> None:
    """BETTER is green, and INCONCLUSIVE is yellow."""
    console = Console(file=io.StringIO(), width=100, color_system="standard", force_terminal=True)
    console.print(report([0] * 40, name="old").compare(report([1] * 40, name="new")))
    console.print(many()["old", "new"])
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[1;32mBETTER" in written
    assert "\x1b[1;33mINCONCLUSIVE" in written


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (number(math.nan), "–"),
        (number(None), "–"),
        (number(-math.inf), "-∞"),
        (number(0.73333, places(0.045)), "0.733"),
        (number(73.333, places(4.5)), "73.3"),
        (number(1234.5), "1,234"),
        (number(0.1, 2, sign=True), "+0.10"),
        (number(0.0, sign=True), "0"),
        (money(0.0), "$0.00"),
        (money(1234.5), "$1,234.50"),
        (money(0.000099), "$0.0000990"),
        (money(math.nan), "–"),
        (p_value(1e-9), "below 0.0001"),
        (p_value(0.0413), "0.041"),
        (p_value(math.nan), "–"),
        (duration(12.34), "12.3 s"),
        (duration(600.0), "10 min"),
        (duration(9000.0), "2 h 30 min"),
        (duration(None), "–"),
    ],
)
def test_numbers_are_written_for_people(written: str, expected: str) -> None:
    """As many digits as say something, and a dash for what is not known."""
    assert expected == written


def test_the_representation_is_one_line() -> None:
    """In a list or a debugger a report is its name, score and interval."""
    made: EvalReport = report([1, 0], name="old")
    assert repr(made).startswith("<EvalReport 'old': 0.5 [")
    assert "\n" not in repr(made)
