"""A page as large as is promised to be handled."""

from __future__ import annotations

import random
import string

from dspy_cachectl.page.content import Page
from tests.page.pages import report_page

QUESTIONS, REPEATS, PROMPT, ANSWER = 1_000, 5, 2_000, 1_000


def large_page() -> Page:
    """1,000 questions by 5 repeats, with prompts of 2 kB, kept once, and answers of 1 kB, of words that are drawn."""
    rng = random.Random(7)
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 10))) for _ in range(20_000)]

    def write(text: str) -> str:
        length = PROMPT if text.startswith("prompt") else ANSWER if text.startswith("completion") else 0
        while len(text) < length:
            text += " " + " ".join(rng.choices(words, k=20))
        return text

    scores = [[float(rng.random() < 0.6) for _ in range(REPEATS)] for _ in range(QUESTIONS)]
    prompts: dict[str, str] = {}
    return report_page(*scores, write=lambda text: prompts.setdefault(text, write(text)))
