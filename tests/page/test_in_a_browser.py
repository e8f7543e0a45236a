"""The report page as people use it: in a real Chromium, with mouse, keyboard and screen reader."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.page.browser import chromium, opened
from tests.page.pages import comparison_page, report_page, written

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["chromium"]

REPORT = ([1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [None, 1.0])
EVIL = (
    "</script><script>window.taken = 1</script><img src=x onerror='window.taken = 2'>"
    "<svg onload='window.taken = 3'><a href='javascript:window.taken=4'>here</a><!-- ]]> &lt;b&gt; ${1} $x \u2028 "
    "<iframe src='file:///etc/hostname'></iframe><style>* { display: none }</style>"
)


def test_it_opens_alone_and_without_a_fault(chromium: Browser, tmp_path: Path) -> None:
    """No request, nothing on the console, no serious finding of axe-core: light and dark, list and answer."""
    path = written(comparison_page([[0.0], [1.0], [1.0]], [[1.0], [0.0], [1.0]]), tmp_path)
    grounds = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}
    with opened(chromium, path) as shown:
        shown.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        for does in ("shows all", "shows one"):
            for scheme, ground in grounds.items():
                shown.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                assert ground == shown.page.evaluate("getComputedStyle(document.body).backgroundColor")
                assert [] == shown.faults(), (does, scheme)
            if does == "shows all":
                shown.page.locator("button.answer").first.click()
        assert [] == shown.told


def test_nothing_is_wider_than_the_screen(chromium: Browser, tmp_path: Path) -> None:
    """On a desk as on a phone nobody scrolls sideways, whatever the names are like."""
    page = comparison_page([[0.0] * 5], [[1.0] * 5], lambda text: f"{text} {'x' * 200}")
    with opened(chromium, written(page, tmp_path)) as shown:
        shown.page.locator("button.answer").first.click()
        for width in (1280, 390):
            shown.page.set_viewport_size({"width": width, "height": 800})
            for score in shown.page.locator(".picture .names span").all():  # a long name gives way, and no score
                assert score.evaluate(
                    "one => one.closest('.names').getBoundingClientRect().right >= one.getBoundingClientRect().right"
                ), width
            assert 0 >= shown.page.evaluate("document.documentElement.scrollWidth - innerWidth"), width


def test_questions_are_filtered_and_sorted(chromium: Browser, tmp_path: Path) -> None:
    """By a text anywhere in them, by what became of them, by predictor, and in either order of their score."""
    with opened(chromium, written(report_page(*REPORT), tmp_path)) as shown:
        assert ([f"question {at}" for at in range(4)], "4 questions") == (shown.shown, shown.count)
        for choice, expected in {
            "short": [1, 2, 3],
            "failed": [3],
            "spread": [1, 3],
            "slice odd": [1, 3],
            "trouble answer": [1],
        }.items():
            shown.page.select_option("#filter", choice)
            assert [f"question {at}" for at in expected] == shown.shown, choice
        assert "1 of 4 questions" == shown.count
        shown.page.select_option("#filter", "all")
        for text, expected in {"COMPLETION 2/1": [2], "expected 3": [3], "prompt": [0, 1, 2, 3], "nowhere": []}.items():
            shown.page.fill("#search", text)
            assert [f"question {at}" for at in expected] == shown.shown, text
        assert shown.page.get_by_text("No question is like that.").is_visible()
        shown.page.fill("#search", "")
        for order, first in {"low": 2, "high": 0, "cost": 3, "seconds": 0, "spread": 1}.items():
            shown.page.select_option("#sort", order)
            assert f"question {first}" == shown.shown[0], order
        shown.page.get_by_role("columnheader", name="score").get_by_role("button").click()
        assert ("question 2", "low") == (shown.shown[0], shown.page.input_value("#sort"))
        shown.page.get_by_role("button", name="Show them").click()
        assert (["question 1"], "trouble answer") == (shown.shown, shown.page.input_value("#filter"))


def test_a_click_opens_an_answer(chromium: Browser, tmp_path: Path) -> None:
    """Prediction, label, prompt, completion, feedback, trouble, cost and provenance; and the next one from there."""
    with opened(chromium, written(report_page(*REPORT), tmp_path)) as shown:
        shown.page.get_by_role("row", name="question 1").get_by_role("button", name="repeat 2").click()
        for text in (
            "question 1",
            "repeat 2: score 0",
            "prediction 1/1",
            "expected 1",
            "the whole question 1",
            "prompt 1",
            "completion 1/1",
            "feedback 1/1",
            "2 answers not parsed",
            "120",
            "ab12",
        ):
            assert text in shown.answer, text
        shown.page.get_by_role("button", name="repeat 1").last.click()
        assert "prediction 1/0" in shown.answer
        shown.page.get_by_role("button", name="Close").click()
        assert "" == shown.answer
        assert "repeat 2: score 0" in shown.focused()
        shown.page.get_by_role("row", name="question 3").get_by_role("button", name="repeat 1").click()
        assert "it raised KeyError" in shown.answer


def test_the_keyboard_is_enough(chromium: Browser, tmp_path: Path) -> None:
    """Tab leads to the filter and the answers, arrows from one to the next, Enter opens one and Escape closes it."""
    with opened(chromium, written(report_page(*REPORT), tmp_path)) as shown:
        press = shown.page.keyboard.press
        press("Tab")
        assert "To the questions" == shown.focused()
        press("Enter")
        press("Tab")
        shown.page.keyboard.type("completion")
        press("Tab")
        press("ArrowDown")
        assert "short" == shown.page.input_value("#filter")
        for _ in range(4):  # the order, and two headings by which the table is sorted
            press("Tab")
        assert "repeat 1: score 1" in shown.focused()
        press("ArrowRight")
        press("ArrowDown")
        press("ArrowDown")
        assert "repeat 2: score 1" in shown.focused()
        press("Home")
        assert "failed" in shown.focused()
        press("ArrowUp")
        press("Enter")
        assert "prediction 2/0" in shown.answer
        press("ArrowRight")
        assert "prediction 2/1" in shown.answer
        press("Escape")
        assert ("", True) == (shown.answer, "repeat 1: score 0" in shown.focused())
        press("Tab")
        press("Shift+Tab")
        assert "repeat 1: score 0" in shown.focused()


def test_a_comparison_begins_with_what_changed(chromium: Browser, tmp_path: Path) -> None:
    """The questions that were won or lost, both answers of each, and the words in which the programs differ."""
    path = written(comparison_page([[0.0], [1.0], [1.0]], [[1.0], [0.0], [1.0]]), tmp_path)
    with opened(chromium, path) as shown:
        assert ["question 0", "question 1"] == shown.shown
        for choice, expected in {"won": [0], "lost": [1], "all": [0, 1, 2]}.items():
            shown.page.select_option("#filter", choice)
            assert [f"question {at}" for at in expected] == shown.shown, choice
        shown.page.select_option("#sort", "gain")
        assert ["question 0", "question 2", "question 1"] == shown.shown
        for expected in ([0, 1, 2], [1, 2, 0]):
            shown.page.get_by_role("columnheader", name="before", exact=True).get_by_role("button").click()
            assert [f"question {at}" for at in expected] == shown.shown
        price = shown.page.get_by_role("img", name="Score against what an answer cost")
        assert (2, True) == (price.locator("circle").count(), price.is_visible())
        assert "after: 0.50 ± 0.05 at 0.002 ± 0.001 US$" in str(price.get_attribute("aria-label"))
        row = shown.page.get_by_role("row", name="question 0")
        assert "won +1" in row.inner_text()
        row.get_by_role("button", name="after, repeat 1").click()
        assert "after, repeat 1: score 1" in shown.answer
        shown.page.keyboard.press("ArrowLeft")
        assert "before, repeat 1: score 0" in shown.answer
        shown.page.keyboard.press("Escape")
        programs = shown.page.locator("#programs")
        assert ["briefly"] == programs.locator("pre del").evaluate_all(
            "all => all.map(one => one.lastChild.previousSibling.data)"
        )
        assert "[only the second: at length]" == programs.locator("pre ins").text_content()


def test_no_text_becomes_markup(chromium: Browser, tmp_path: Path) -> None:
    """Names, questions, prompts, answers, feedback and errors are shown as they are, and run nothing."""
    page = comparison_page([[0.0], [None]], [[1.0], [0.0]], lambda text: f"{text} {EVIL}")
    with opened(chromium, written(page, tmp_path)) as shown:
        shown.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        shown.page.locator("button.answer").first.click()
        assert f"prediction 0/0 {EVIL}".replace("\u2028", " ") in shown.page.locator("dialog").inner_text()
        assert shown.page.evaluate("window.taken") is None
        assert (
            0 == shown.page.locator("main script, main img, main a, dialog :is(script, img, a, iframe, style)").count()
        )
        assert 2 == shown.page.locator("script").count()
        assert EVIL[:40] in shown.page.title()
        assert [] == shown.told


def test_many_questions_are_shown_bit_by_bit(chromium: Browser, tmp_path: Path) -> None:
    """A long list begins with some, says how many there are, and gives more when it is asked."""
    with opened(chromium, written(report_page(*[[1.0]] * 300), tmp_path)) as shown:
        assert (50, "300 questions") == (len(shown.shown), shown.count)
        shown.page.get_by_role("button", name="Show 200 more of 250").click()
        shown.page.get_by_role("button", name="Show 50 more of 50").click()
        assert 300 == len(shown.shown)
        shown.page.select_option("#sort", "question")
        assert ["question 0", "question 1", "question 2"] == shown.shown[:3]
