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


@pytest.mark.parametrize(
    "name", [r"openai/\$(touch x)", "$(x)", "`x`", "a;b", "a b", "-x", "~x", "=x", "*", "a'b", "a\nb", ""]
)
def test_a_shell_is_offered_no_name_that_it_would_obey(name: str) -> None:
    """Whatever a shell expands, splits or runs is in none of the names that are offered."""
    assert not shown.is_harmless_for_shells(name)


@pytest.mark.parametrize("name", ["openai/gpt-4o-mini", "ollama/llama3:8b", "@cf/meta/llama", "run-2026-01-01T00:00"])
def test_a_shell_is_offered_usual_names(name: str) -> None:
    """Names of models and runs are offered."""
    assert shown.is_harmless_for_shells(name)


@pytest.mark.parametrize(
    "text",
    [
        "=1",
        "+1",
        "-1",
        "@x",
        " =1",
        "\n=1",
        "\u3000=1",
        "\t1",
        "\r1",
        "\n1",
        "\uff1d1",
        "\uff0b1",
        "\uff0d1",
        "\uff201",
    ],
)
def test_no_cell_is_a_formula(text: str) -> None:
    """What a spreadsheet would compute gets an apostrophe in front, and other text does not."""
    assert f"'{text}" == shown.harmless_cell(text)
    assert "1=1" == shown.harmless_cell("1=1")
    assert r"\x00=1" == shown.harmless_cell("\0=1")


@pytest.mark.parametrize("number", [0, -5, 10**3000, 7**20_000, -(7**20_000)], ids=lambda number: number.bit_length())
def test_a_number_can_be_written(number: int) -> None:
    """Python refuses to write numbers of thousands of digits; they are shown in hexadecimal, and no command fails."""
    written = shown.writable_number(number)
    assert number == int(str(written), 0 if isinstance(written, str) else 10)
    assert written == number or abs(number) > 10**3000
