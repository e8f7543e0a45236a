"""The page of the documentation that says what everything costs."""

from __future__ import annotations

import json

from benchmarks import page, results
from benchmarks.bars import BARS
from benchmarks.compare import RELEASE
from benchmarks.figures import counted


def test_the_page_says_what_the_release_was_measured_at() -> None:
    """The page is the one that is made of the release's figures and the bars."""
    kept = RELEASE.exists()
    facts, figures = (json.loads(RELEASE.read_text()), results.read(RELEASE)) if kept else ({}, {})

    assert page.text(figures, facts) == page.PAGE.read_text(encoding="utf-8")


def test_every_bar_and_every_figure_is_on_the_page() -> None:
    """What is held to something is named with it, measured or not, and what was measured with its verdict."""
    facts = {"processor": "a processor", "cores": 2, "load": 0.1, "python": "3.11", "versions": {"dspy": "3.4.1"}}
    measured = counted("bytes-disk", 3.0, 2.0, case="native")

    made = page.text({measured.name: measured}, {**facts, "commit": "abc", "when": "2026"})

    assert all(f"| `{name}` |" in made for name in BARS)
    assert "| `bytes-disk.native` | 1.50 |  | ≤ 1.6 (1.4) | yes |" in made
    assert "a processor, 2 cores" in made
