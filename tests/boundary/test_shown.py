"""Texts of others are harmless where they are shown."""

from __future__ import annotations

import pytest

from dspy_cachectl.boundary import shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("naïve 日本 👩\u200d🔬", "naïve 日本 👩\u200d🔬"),
        ("a\tb\nc\xa0d", "a b c d"),
        ("\x1b[2J\x07\x9b\u202e\u200b\x00", r"\x1b[2J\x07\x9b\u202e\u200b\x00"),
        ("half of a pair: \ud83d", r"half of a pair: \ud83d"),
        ("[bold]<b>", "[bold]<b>"),
    ],
)
def test_what_would_be_obeyed_is_shown(text: str, expected: str) -> None:
    """Escape sequences, turned directions and what has no width are written out; markup is nobody's command here."""
    assert expected == shown.harmless(text)


def test_lines_stay_lines() -> None:
    """Where a text has lines they are kept, and a tab is room."""
    assert "a   b\n\\x1bc" == shown.harmless_lines("a\tb\n\x1bc")
