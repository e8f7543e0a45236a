"""An answer in which there is a secret is told by what is kept of it, wherever the secret stands."""

from __future__ import annotations

from typing import Any

import pytest

from dspy_cachectl.boundary.held import HELD
from dspy_cachectl.entries.cleaning import cleaned, holds_secret
from dspy_cachectl.entries.stored import stored

# Not whole in here: what has the form of a key is taken for one by whoever looks for them in source code.
KEY = "sk-proj-q8Zx" + "V3nT7pLw2RkY9sBd4HfCq8ZxV3nT7pLw"
LEARNED = 'geheim "0123"\nand more'
SECRETS = [KEY, f"Authorization: Bearer {KEY[8:]}", "see https://me:s3cr3t@host/x", f"as you said: {LEARNED}"]
PLACES: list[Any] = [
    lambda secret: {"outputs": [secret], "responses": [{"text": secret}]},
    lambda secret: {"outputs": [{"text": "a text " * 40 + secret}], "usage": {"tokens": 12345678901}},
    lambda secret: {"reason": secret, "model": secret[:60]},
    lambda secret: {"arguments": {secret: [1, 2.5, None, True]}},
    lambda secret: {"outputs": [{"text": "é\\ud83d"}, {"of": {"$": secret}}]},
    lambda secret: [secret],
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("secret", [*SECRETS, "nothing of the kind"])
def test_a_secret_in_an_answer(place: Any, secret: str) -> None:
    """It is found where JSON is kept, and where its shape and its leaves are."""
    HELD.learn({"api_key": LEARNED})
    kept = stored(place(secret))
    assert (secret in SECRETS) == holds_secret(kept) == (cleaned(kept.body) is not None)
    HELD.forget()


@pytest.mark.parametrize("place", PLACES[:4])
def test_what_is_learned_later_is_found(place: Any) -> None:
    """Also in the shape of an answer, and where an answer of that shape was looked through before."""
    kept = stored(place(LEARNED))
    assert not holds_secret(kept)
    HELD.learn({"api_key": LEARNED})
    assert holds_secret(kept)
    HELD.forget()


def test_most_answers_have_a_shape() -> None:
    """What is looked through here is both: JSON, and shapes with their leaves."""
    shaped = [stored(place(KEY)).shaped is not None for place in PLACES]
    assert [True, True, True, True, False, False] == shaped
