"""Pictures are drawn to scale, can be read on any ground, and hold nothing that acts."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

import dspy_cachectl as cachectl
from dspy_cachectl.accounting.ledger import Row, Stats, Tally
from dspy_cachectl.reports.several import compare
from dspy_cachectl.showing.pictures import COLOURS, as_svg
from dspy_cachectl.showing.sheets import Intervals, Picture, Share, Shares, Span
from tests.reports.made_up import report

GROUNDS = ("#ffffff", "#111111")
"""What notebooks are written on."""
EVIL = '</svg><script>alert("x")</script>&\x1b[31m\u202e\ud800'
COORDINATES = ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height")


class Drawn:
    """What a picture shows, by its elements."""

    def __init__(self, svg: str) -> None:
        self.root = ET.fromstring(svg)
        _, _, self.width, self.height = map(float, self.root.attrib["viewBox"].split())

    @classmethod
    def of(cls, shown: Any) -> Drawn:
        """The only picture in what a notebook is given."""
        (svg,) = re.findall("<svg.*?</svg>", shown._repr_html_(), re.DOTALL)
        return cls(svg)

    @property
    def texts(self) -> list[str]:
        return [node.text or "" for node in self.root.iter("text")]

    def marks(self) -> list[float]:
        """Where the values are."""
        return [float(node.attrib["cx"]) for node in self.root.iter("circle")]

    def ticks(self) -> dict[float, float]:
        """Where the numbers of the axis are."""
        found = {}
        for node in self.root.iter("text"):
            if node.attrib["text-anchor"] == "middle" and re.fullmatch(r"-?[\d.e+-]+", node.text or ""):
                found[float(node.text or "")] = float(node.attrib["x"])
        return found

    def intervals(self) -> Iterator[tuple[float, float]]:
        """Where the intervals begin and end."""
        for node in self.root.iter("line"):
            if "stroke-width" in node.attrib and node.attrib["y1"] == node.attrib["y2"]:
                yield float(node.attrib["x1"]), float(node.attrib["x2"])

    def place(self, value: float) -> float:
        """Where a value has to be, by the numbers of the axis."""
        (one, at), (other, there) = list(self.ticks().items())[:: len(self.ticks()) - 1]
        return at + (value - one) * (there - at) / (other - one)


def test_a_score_is_where_its_axis_says() -> None:
    """The score of a metric that goes from 0 to 1, and its interval, on an axis that does."""
    made = report([1, 1, 0, 1, 1, 0, 1, 1], name="bootstrap")
    drawn = Drawn.of(made)
    assert {0.0, 1.0} <= drawn.ticks().keys()
    assert drawn.marks() == pytest.approx([drawn.place(0.75)], abs=0.2)
    ((low, high),) = drawn.intervals()
    assert (low, high) == pytest.approx((drawn.place(made.interval.low), drawn.place(made.interval.high)), abs=0.2)
    assert "bootstrap" in drawn.texts


def test_a_difference_stands_against_none_and_against_what_matters() -> None:
    """A dashed line at 0, a band from -d to d, and the difference with its interval."""
    made = report([0] * 20, name="old").compare(report([1] * 12 + [0] * 8, name="new"), smallest_difference=0.1)
    drawn = Drawn.of(made)
    (zero,) = (float(node.attrib["x1"]) for node in drawn.root.iter("line") if "stroke-dasharray" in node.attrib)
    (band,) = drawn.root.iter("rect")
    begin = float(band.attrib["x"])
    assert zero == pytest.approx(drawn.place(0.0), abs=0.2)
    ends = (begin, begin + float(band.attrib["width"]))
    assert ends == pytest.approx((drawn.place(-0.1), drawn.place(0.1)), abs=0.3)
    assert drawn.marks() == pytest.approx([drawn.place(0.6)], abs=0.2)
    ((low, high),) = drawn.intervals()
    assert (low, high) == pytest.approx((drawn.place(made.interval.low), drawn.place(made.interval.high)), abs=0.2)
    assert "±0.1 does not matter" in " ".join(drawn.texts)


def test_several_reports_have_a_row_each() -> None:
    """One axis, and each score on it by its name."""
    made = compare({"a": report([1, 0, 1, 1]), "b": report([0, 0, 1, 1]), "c": report([1, 1, 1, 0])})
    drawn = Drawn.of(made)
    assert {"a", "b", "c"} <= set(drawn.texts)
    assert drawn.marks() == pytest.approx([drawn.place(score) for score in (0.75, 0.5, 0.75)], abs=0.2)


def test_a_ranking_has_a_row_for_each_report() -> None:
    """The best first, as in its table."""
    made = cachectl.Ranking((report([0, 0, 1, 1], name="small"), report([1, 0, 1, 1], name="large")))
    drawn = Drawn.of(made)
    assert ["large", "small"] == [text for text in drawn.texts if text in {"large", "small"}]
    assert drawn.marks() == pytest.approx([drawn.place(0.75), drawn.place(0.5)], abs=0.2)


def test_stats_are_a_bar_of_what_became_of_the_calls() -> None:
    """As wide as they are many; the troubles' names are there, too."""
    stats = Stats.of(
        [(Row("eval", "judge", "m"), Tally(calls=8, fresh=5, reused=2, failed=1, requests=5, cost_spent=0.5))]
    )
    drawn = Drawn.of(stats)
    bars = [float(node.attrib["width"]) for node in drawn.root.iter("rect") if node.attrib["height"] == "18"]
    assert [width / drawn.width for width in bars] == pytest.approx([5 / 8, 2 / 8, 1 / 8], abs=0.01)
    assert ["5 fresh", "2 reused", "1 failed"] == drawn.texts
    assert "$0.5" in stats._repr_html_()
    assert ">role</th>" in stats._repr_html_()


def test_a_phase_and_the_process_show_their_calls(lm: Any) -> None:
    """A table of what became of the calls, in a notebook: of an open phase, a closed one, and the process."""
    with cachectl.phase("eval") as run:
        lm()("What is a phase?")
        assert "open" in run._repr_html_()
    for shown in (run, cachectl.stats()):
        assert ["1 fresh"] == Drawn.of(shown).texts
        assert "<td" in shown._repr_html_()
        assert "openai/test-model" in shown._repr_html_()
        assert ">role</th>" not in shown._repr_html_()
    assert run.run_id is not None
    assert f"run {run.run_id}, closed" in run._repr_html_()
    with cachectl.phase("compile") as empty:
        assert "<svg" not in empty._repr_html_()


BIG = 1.7e308
ODD: list[Picture] = [
    Intervals((), axis=""),
    Intervals((Span("n", "s", math.nan, math.nan, math.nan),), axis="x"),
    Intervals((Span("n", "s", 0.5, -math.inf, math.inf),), axis="x", scale=(0.0, 1.0)),
    Intervals((Span("n", "s", 3.0, 3.0, 3.0),), axis="x"),
    Intervals((Span("n", "s", 0.0, 0.0, 0.0),), axis="x", about_zero=True, band=0.0),
    Intervals((Span("n", "s", 0.0, -BIG, BIG),), axis="x", about_zero=True, band=BIG),
    Intervals((Span("n", "s", 5e-324, 0.0, 5e-324),), axis="x"),
    Intervals((Span("n", "s", 1e16, 1e16, 1e16 + 2),), axis="x"),
    Intervals((Span("n", "s", -1e-9, -2e-9, 3e-9),) * 40, axis="x", about_zero=True, band=math.inf),
    Shares(()),
    Shares((Share("fresh", 10**15), Share("failed", 1))),
    Shares(tuple(Share(f"outcome {number}", number) for number in range(26))),
]


@pytest.mark.parametrize("picture", ODD)
def test_odd_numbers_stay_within_the_picture(picture: Picture) -> None:
    """Nothing, NaN, no end, no width, and the largest and smallest there are."""
    drawn = Drawn(as_svg(picture))
    for node in drawn.root.iter():
        for name in set(COORDINATES) & node.attrib.keys() - ({"width"} if node.tag == "svg" else set()):
            limit = drawn.height if name in ("y", "y1", "y2", "cy", "height") else drawn.width
            assert 0 <= float(node.attrib[name]) <= limit + 0.1, (node.tag, node.attrib)
    assert "nan" not in as_svg(picture).lower().replace("name", "")


def test_no_name_becomes_anything_but_text() -> None:
    """Tags, quotes and controls of a name are letters, in the picture and in its label."""
    for picture in (Intervals((Span(EVIL, EVIL, 1.0, 0.5, 1.5),), axis=EVIL), Shares((Share(EVIL, 1),))):
        drawn = Drawn(as_svg(picture))
        assert {"svg", "line", "text", "circle", "rect"} >= {node.tag for node in drawn.root.iter()}
        assert '<script>alert("x")' in drawn.root.attrib["aria-label"]
        assert not {"\x1b", "\u202e", "\ud800"} & set(as_svg(picture))
    stats = Stats.of([(Row(EVIL, EVIL, EVIL), Tally(calls=1, fresh=1))])._repr_html_()
    assert stats.count("&lt;script&gt;") == 3
    assert not {"\x1b", "\u202e", "\ud800"} & set(stats)
    assert "<script" not in stats


@pytest.mark.parametrize("ground", GROUNDS)
def test_marks_stand_out_from_light_and_dark(ground: str) -> None:
    """Three to one at least (WCAG 1.4.11); everything else has the colour of the text."""

    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for tone, colour in COLOURS.items():
        darker, lighter = sorted((light(colour), light(ground)))
        assert (lighter + 0.05) / (darker + 0.05) >= 3, tone
    svg = as_svg(Intervals((Span("a", "b", 1.0, 0.5, 1.5),), axis="x", about_zero=True, band=1.0))
    assert {"currentColor", *COLOURS.values()} >= set(re.findall(r'(?:fill|stroke)="([^"]*)"', svg))


@pytest.mark.parametrize(
    "name", ["openai/gpt-4o-mini-2024-07-18", "W" * 40, "meta-llama/Llama-3.3-70B-Instruct", "i" * 80]
)
def test_no_label_reaches_beyond_its_picture(name: str) -> None:
    """Where a text begins and ends is looked up in the widest font that is usual: no first or last letter is lost."""
    span = Span(name, "-0.01234 (-0.04567 to 0.07890)", 0.5, 0.25, 0.75)
    drawn = Drawn(as_svg(Intervals((span,), axis=f"difference of {name}, 95% interval; up to ±0.05 does not matter")))
    for node in drawn.root.iter("text"):
        drawn_text = TextPath(
            (0, 0), node.text or "", float(node.attrib["font-size"]), prop=FontProperties("DejaVu Sans")
        )
        wide, x = drawn_text.get_extents().width, float(node.attrib["x"])
        begin = {"start": x, "middle": x - wide / 2, "end": x - wide}[node.attrib["text-anchor"]]
        assert -0.5 <= begin <= begin + wide <= drawn.width + 0.5, node.text
    assert span.said in drawn.texts
