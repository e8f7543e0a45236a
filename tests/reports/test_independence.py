"""What of a report is a draw of its own: counted where the provider's ids tell, and said where they do not."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from dspy_cachectl.entries.draw_tokens import Draws, token_of
from dspy_cachectl.reports.independence import Doubts
from dspy_cachectl.statistics.repeats import DistinctDraws

Answer = tuple[str, str]
"""The provider's id of an answer, or "" where it gave none, and what it says."""


def counted(rows: Sequence[Sequence[Answer]], *, varies: bool = True, seeds: Sequence[int] = ()) -> DistinctDraws:
    """What is counted of answers, one call each: question by question, each with a key of its own."""
    tokens = [
        [token_of([name] if name else [], said, f"{number}/{repeat}") for repeat, (name, said) in enumerate(row)]
        for number, row in enumerate(rows)
    ]
    draws = Draws(token for row in tokens for token in row)
    told = [list({draws.told(token): token for token in row}.values()) for row in tokens]
    outputs = [[draws.content(token) for token in row] for row in told]
    made = Doubts(draws, [token for row in tokens for token in row], told, varies=varies, seeds=seeds)
    return made.counted(outputs)


def unique(number: int) -> str:
    """An id that comes once."""
    return f"chatcmpl-{number:032x}"


def long(number: int) -> str:
    """An answer that nothing else is."""
    return f"answer {number}"


def test_ids_that_are_unique() -> None:
    """Each is a draw of its own, whatever it says; one that comes again with its content is the same."""
    found = counted([[(unique(3 * question + repeat), "yes") for repeat in range(3)] for question in range(20)])
    assert (60, 60) == (found.distinct, found.asked)
    found = counted([[(unique(question), long(question))] * 3 for question in range(20)])
    assert 20 == found.distinct
    assert "40 of 60 repeats are replays" in found.sentence


def test_one_answer_to_several_questions() -> None:
    """Counted once, however many questions it was given to."""
    found = counted([[(unique(question % 5), long(question % 5))] for question in range(20)])
    assert 5 == found.distinct
    assert "15 of 20 repeats are draws of another question as well" in found.sentence


def test_one_id_for_several_questions() -> None:
    """With contents of their own they are answers of their own."""
    found = counted([[(unique(question % 5), long(question))] for question in range(20)])
    assert (20, "") == (found.distinct, found.sentence)


@pytest.mark.parametrize("constant", ["", "chatcmpl-0", unique(7), "static"])
def test_ids_that_are_missing_or_constant(constant: str) -> None:
    """Contents tell answers apart; of those that say the same nothing is claimed."""
    found = counted([[(constant, long(5 * question + repeat)) for repeat in range(5)] for question in range(50)])
    assert (250, "") == (found.distinct, found.sentence)
    short = [[(constant, "yes" if (question + repeat) % 3 else "no") for repeat in range(5)] for question in range(50)]
    found = counted(short)
    assert found.distinct is None
    assert "Whether 250 of 250 answers are draws of their own is not known" in found.sentence
    assert "replays" not in found.sentence
    alike = counted([[(constant, long(question))] * 5 for question in range(50)])
    assert alike.distinct is None
    assert 1 == len(alike.said), "nothing is said by ids that tell nothing, and nothing of what repeats add"
    assert "tell them apart" in alike.sentence


@pytest.mark.parametrize("answers", ["long", "short", "at temperature 0", "all alike"])
@pytest.mark.parametrize("seed", range(20))
def test_ids_of_a_small_range(answers: str, seed: int) -> None:
    """Where chance gives an id twice, no answer is called a replay, and none is dropped; what is not known is said."""
    chance = random.Random(seed)
    say = {
        "long": lambda question, repeat: long(5 * question + repeat),
        "short": lambda question, repeat: chance.choice(["yes", "no"]),
        "at temperature 0": lambda question, repeat: long(question),
        "all alike": lambda question, repeat: "yes",
    }[answers]
    for questions, repeats in ((12, 5), (200, 5), (250, 1)):
        rows = [
            [(f"chatcmpl-{chance.randint(1, 999)}", say(question, repeat)) for repeat in range(repeats)]
            for question in range(questions)
        ]
        found = counted(rows, varies=answers != "at temperature 0")
        assert found.distinct in {None, questions * repeats}
        assert "replays" not in found.sentence
        assert "another question" not in found.sentence
        assert questions * repeats == found.distinct or answers != "long"


def test_ids_that_count_up_behind_a_cache() -> None:
    """Short ids that always come with one content, where chance would not do that, are believed."""
    found = counted([[(f"chatcmpl-{question}", long(question))] * 3 for question in range(20)])
    assert 20 == found.distinct
    coin = random.Random(0)
    found = counted([[(f"chatcmpl-{question}", coin.choice(["yes", "no"]))] * 3 for question in range(20)])
    assert 20 == found.distinct


@pytest.mark.parametrize("varies", [False, True])
def test_new_ids_for_the_same_words(varies: bool) -> None:
    """At temperature 0 that is to be expected; above it, it may be a cache, which is said first."""
    rows = [[(unique(3 * question + repeat), long(question)) for repeat in range(3)] for question in range(20)]
    found = counted(rows, varies=varies)
    assert (60, 1.0) == (found.distinct, found.effective)
    assert varies is ("caches, and gives new ids" in found.sentence)
    assert "repeats add nothing" in found.sentence
    assert all(said.count(". ") < 2 for said in found.said)
    found = counted([*rows, [(unique(900), "one"), (unique(901), "other")]], varies=varies)
    assert (62, "") == (found.distinct, found.sentence)
    found = counted(rows, varies=varies, seeds=[7])
    assert math.isnan(found.effective)
    assert (None, 1) == (found.distinct, len(found.said)), "a seed says why they are the same"
