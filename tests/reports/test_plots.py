"""Figures: what they show, that they are saved, and what is said where they cannot be."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from dspy_cachectl.errors import ConfigurationError, MissingExtraError, StoreUnavailableError
from dspy_cachectl.reports.plots import MOST_QUESTIONS, plot_report, plot_scores
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.reports.several import compare
from tests.reports.made_up import provenance, report

pytest.importorskip("matplotlib")

REPEATED = [[1, 1, 0], [0, None, 0], [1, 1, 1], [1, 0, 1]]
PNG = b"\x89PNG\r\n\x1a\n"


def heat_map(made: EvalReport) -> Any:
    """The scores that a report's figure shows, shape (repeats, questions)."""
    return plot_report(made).axes[1].collections[0].get_array()


def points(axes: Any) -> list[tuple[float, float]]:
    """Where the error bars of an axes are."""
    return [tuple(float(value[0]) for value in bar[0].get_data()) for bar in axes.containers]


def test_a_report_is_drawn_and_saved(tmp_path: Path) -> None:
    """A PNG of some size, in a folder that is made for it."""
    figure = report(REPEATED).plot(tmp_path / "new" / "report.png")
    content = (tmp_path / "new" / "report.png").read_bytes()
    assert PNG == content[:8]
    width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
    assert (width, height) == tuple(round(inches * figure.dpi) for inches in figure.get_size_inches())
    assert min(width, height) > 300


def test_a_notebook_shows_a_figure_without_pyplot() -> None:
    """A figure that is returned is a picture there, sharp and not too large; also one that has been copied."""
    figure = report(REPEATED).plot()
    for one in (figure, pickle.loads(pickle.dumps(figure))):
        content, size = one._repr_png_()
        assert PNG == content[:8]
        width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
        assert 700 < size["width"] < width
        assert width / height == pytest.approx(size["width"] / size["height"], rel=0.01)


def test_a_name_without_an_ending_is_a_png(tmp_path: Path) -> None:
    """The file has the name that was asked for; other endings choose other formats."""
    report([1, 0]).plot(tmp_path / "report")
    assert PNG == (tmp_path / "report").read_bytes()[:8]
    report([1, 0]).plot(tmp_path / "report.svg")
    assert "<svg" in (tmp_path / "report.svg").read_text(encoding="utf-8")


HOSTILE = [
    "<script>alert(1)</script>",
    '"/><script>alert(1)</script><g a="',
    "]]></style><script/>",
    "--><a xlink:href='javascript:alert(1)'>x</a><!--",
    "</text></svg><svg onload='alert(1)'>",
    "&xxe;&lt;image href='http://host/x'/>",
    "$\\href{javascript:alert(1)}{x}$ $\\frac{",
    "\0\x1b[2J\ufffe\ud800\u202e",
]
ELEMENTS = {"svg", "metadata", "RDF", "Work", "type", "date", "format", "creator", "Agent", "title", "defs", "style"}
ELEMENTS |= {"g", "path", "use", "rect", "clipPath", "image", "text", "tspan"}


@pytest.mark.parametrize("fonts", ["path", pytest.param("none", marks=pytest.mark.exhaustive)])
def test_no_name_becomes_part_of_a_drawing(tmp_path: Path, fonts: str) -> None:
    """A browser runs what is in an SVG. Names are shown in it, and whatever they say, no element comes of them."""
    import matplotlib as mpl

    made = [
        replace(
            report([[1, 0], [0, 1]], name=name),
            provenance=provenance(model=name, metric=name, endpoint=name, phase=name, run_id=name, data=name),
        )
        for name in HOSTILE
    ]
    with mpl.rc_context({"svg.fonttype": fonts}):
        for number, one in enumerate(made):
            one.plot(tmp_path / f"{number}.svg")
        compare(dict(zip(HOSTILE, made, strict=True))).plot(tmp_path / "all.svg")
    for path in tmp_path.iterdir():
        for element in ET.parse(path).iter():
            assert element.tag.rpartition("}")[2] in ELEMENTS
            assert not any(name.lower().startswith("on") or "script" in value for name, value in element.items())
            assert element.tag.endswith("image") or all(
                value.startswith("#") for name, value in element.items() if name.endswith("href")
            )
    assert len(HOSTILE) + 1 == len(list(tmp_path.iterdir()))


def test_the_score_is_where_it_belongs() -> None:
    """The point is the score, the bar its interval, the axis the scale from 0 to 1."""
    made = report(REPEATED, name="zero-shot")
    axes = plot_report(made).axes[0]
    assert [(made.score, 0.0)] == points(axes)
    segment = axes.containers[0][2][0].get_segments()[0]
    assert [made.interval.low, made.interval.high] == pytest.approx(sorted(x for x, _ in segment))
    assert "score (exact_match)" == axes.get_xlabel()
    assert axes.get_title(loc="left").startswith("zero-shot: 0.58 ± ")
    assert (-0.02, 1.02) == axes.get_xlim()
    assert ["without failures"] == [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_heat_map_has_questions_by_repeats_sorted_by_their_mean() -> None:
    """Columns are questions from the lowest mean up, rows are repeats, and failures are marked."""
    axes = plot_report(report(REPEATED)).axes[1]
    assert [[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 1, 1]] == axes.collections[0].get_array().tolist()
    assert ("question, sorted by its mean score", "repeat") == (axes.get_xlabel(), axes.get_ylabel())
    failed = next(line for line in axes.lines if line.get_label() == "failed")
    assert ([1], [2]) == (list(failed.get_xdata()), list(failed.get_ydata()))
    assert "4 questions, 3 repeats, 12 distinct draws of 12" == axes.get_title(loc="left")
    assert "score" == plot_report(report(REPEATED)).axes[2].get_ylabel()


def test_a_missing_repeat_is_left_blank() -> None:
    """A question with fewer draws than others has no colour for those that it lacks."""
    shown = heat_map(report([[1, 0], [1]]))
    assert [[False, False], [False, True]] == shown.mask.tolist()


def test_of_many_questions_an_even_choice_is_shown() -> None:
    """Of 1,000 questions 200 are drawn, from the worst to the best, with their share of passes."""
    made = report([0] * 600 + [1] * 400)
    shown = heat_map(made)
    assert (1, MOST_QUESTIONS) == shown.shape
    assert 0.4 == pytest.approx(shown.mean(), abs=0.01)
    assert (0, 1) == (shown[0, 0], shown[0, -1])
    axes = plot_report(made).axes[1]
    assert axes.get_title(loc="left").startswith("200 of 1,000 questions, 1 repeat")
    assert ((0.5, MOST_QUESTIONS + 0.5), (1.5, 0.5)) == (axes.get_xlim(), axes.get_ylim())
    assert 0 == len(axes.collections[0].get_edgecolor()), "lines between them would hide them"


@pytest.mark.parametrize("scores", [[1], [3.5], [0, 0], [-4.0, 12.0], [[70.5] * 3, [80.0] * 3], [None, None]])
def test_every_report_can_be_drawn(scores: list[Any], tmp_path: Path) -> None:
    """One question, equal scores, other scales, only failures: a figure all the same, also without an interval."""
    report(scores).plot(tmp_path / "report.png")
    assert PNG == (tmp_path / "report.png").read_bytes()[:8]


def test_texts_are_not_taken_for_formulas(tmp_path: Path) -> None:
    """Dollar signs and control characters in names are drawn as they are written, and never an error."""
    made = report([1, 0], name="$\\frac{$ \x1b[31m", metric="$_{")
    figure = made.plot(tmp_path / "report.png")
    assert figure.axes[0].get_title(loc="left").startswith("$\\frac{$ \\x1b[31m: ")
    both = compare({"$\\frac{$": made, "$_{": report([1, 1], metric="$_{")})
    both.plot(tmp_path / "both.png")
    assert (tmp_path / "both.png").stat().st_size > 0


def test_comparisons_are_drawn_with_scores_and_costs(tmp_path: Path) -> None:
    """Left a score with its interval for each name, right score against the cost of one answer."""
    old = report(REPEATED, cost=0.001)
    new = report([[1, 1, 1]] * 4, cost=0.004)
    made = compare({"zero-shot": old, "bootstrap": new})
    figure = made.plot(tmp_path / "both.png")
    left, right = figure.axes
    assert [(old.score, 0.0), (new.score, 1.0)] == points(left)
    assert ["zero-shot", "bootstrap"] == [label.get_text() for label in left.get_yticklabels()]
    assert [pytest.approx((0.001, old.score)), pytest.approx((0.004, new.score))] == points(right)
    assert ("cost of one answer (US$)", "score (exact_match)") == (right.get_xlabel(), right.get_ylabel())
    assert "score (exact_match)" == left.get_xlabel()
    assert PNG == (tmp_path / "both.png").read_bytes()[:8]


def test_without_prices_tokens_are_the_cost() -> None:
    """Where one report does not know its price, all are drawn against tokens: the unit is one for all."""
    made = compare({"old": report(REPEATED, cost=0.001), "new": report([[1, 1, 1]] * 4)})
    right = plot_scores(made.reports).axes[1]
    assert "tokens of one answer" == right.get_xlabel()
    assert [100.0, 100.0] == [x for x, _ in points(right)]


def test_reports_differ_in_colour_and_in_mark() -> None:
    """No two of seven reports look alike, with any colour vision; both panels mark them the same."""
    made = compare({str(i): report([[1, 0], [i % 2, 1]], name=str(i)) for i in range(7)})
    left, right = plot_scores(made.reports).axes
    looks = [[(bar[0].get_color(), bar[0].get_marker()) for bar in axes.containers] for axes in (left, right)]
    assert looks[0] == looks[1]
    assert 7 == len({colour for colour, _ in looks[0]}) == len({mark for _, mark in looks[0]})


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    """An unknown ending and a folder that cannot be made are errors with the file's name."""
    with pytest.raises(ConfigurationError, match=r"report\.xyz; end it in one of .*png"):
        report([1]).plot(tmp_path / "report.xyz")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StoreUnavailableError, match="cannot be written"):
        report([1]).plot(tmp_path / "file" / "report.png")


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(MissingExtraError, match=r"dspy-cachectl\[plots\]") as caught:
        report([1]).plot()
    assert "plots" == caught.value.extra


def test_no_state_of_pyplot_is_touched() -> None:
    """Drawing needs no display and leaves the user's own figures alone: pyplot is never loaded."""
    program = (
        "import sys; from tests.reports.made_up import provenance, report; "
        "report([[1, 0], [0, 1]]).plot(); assert 'matplotlib.pyplot' not in sys.modules"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr if done.returncode else "")


def test_another_name_is_another_title() -> None:
    """Long names are cut, so that the figure keeps its shape."""
    title = plot_report(replace(report([1, 0]), name="n" * 200)).axes[0].get_title(loc="left")
    assert "n" * 27 + "…" == title.split(":")[0]
