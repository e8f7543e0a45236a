"""Which name was probably meant, and how a name is shortened so that it can be told again."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from dspy_cachectl.boundary.meant import meant, question
from dspy_cachectl.boundary.shown import shortened, stands_for

MODELS = ["openai/Phi-4", "openai/gpt-4o-mini", "anthropic/claude-3", "local"]


@pytest.mark.parametrize(
    ("written", "first"),
    [
        ("Phi-4", "openai/Phi-4"),
        ("OPENAI/phi-4", "openai/Phi-4"),
        ("openai/gpt-4o-mni", "openai/gpt-4o-mini"),
        ("claude", "anthropic/claude-3"),
        ("azure/gpt-4o-mini", "openai/gpt-4o-mini"),
    ],
)
def test_what_is_near_is_named_first(written: str, first: str) -> None:
    """Without its provider, in another case, misspelt, or a part of it."""
    assert first == meant(written, MODELS)[0]


@pytest.mark.parametrize("written", ["zzz", "", "x"])
def test_what_is_far_is_not_suggested(written: str) -> None:
    """A suggestion that nobody can have meant is worse than none."""
    assert "" == question(written, MODELS)


@pytest.mark.parametrize("name", ["openai/gpt-4o-mini-2024-07-18", "模型/模型模型模型模型模型模型", "x" * 500])
@pytest.mark.parametrize("width", [5, 12, 25])
def test_a_shortened_name_stands_for_the_whole_one(name: str, width: int) -> None:
    """It fits, and is known again; the whole name stands for itself alone."""
    short = shortened(name, width)
    assert cell_len(short) <= width
    assert stands_for(short, name)
    assert not stands_for(short, f"{name}!")
    assert not stands_for(name, name)
    assert name == shortened(name, 1000)
