"""Passages of a house's handbook, questions about them, and an embedding that needs no model."""

from __future__ import annotations

import zlib

import dspy
import numpy as np

PASSAGES = (
    "The bins are emptied on Tuesday morning; put them out the evening before.",
    "The laundry room is in the cellar and closes at ten in the evening.",
    "Bicycles are parked in the yard, behind the green door.",
    "The lift holds six people and is serviced every March.",
    "Guests may park in space 14 for one night.",
    "The caretaker is Mrs Novak; her office is on the ground floor.",
    "Heating is switched on in October and off in April.",
    "Parcels are left with the bakery next door.",
    "The roof terrace is open from sunrise until sunset.",
    "A spare key is kept by the neighbour in flat 3.",
)
TRAIN = (
    ("Where is the laundry room?", 1, "In the cellar."),
    ("How many people fit into the lift?", 3, "Six."),
    ("Where may guests park?", 4, "In space 14."),
    ("Who is the caretaker?", 5, "Mrs Novak."),
)
TEST = (
    ("When are the bins emptied?", 0, "Tuesday"),
    ("Where are bicycles parked?", 2, "yard"),
    ("When is the heating switched on?", 6, "October"),
    ("Where are parcels left?", 7, "bakery"),
    ("Until when is the roof terrace open?", 8, "sunset"),
    ("Who has a spare key?", 9, "neighbour"),
)
NUMBERS = 512
"""Of a vector of the local embedding."""


def spelling(texts: list[str]) -> np.ndarray:
    """Embed texts by the groups of four letters in them: no model, and enough for ten passages."""
    vectors = np.zeros((len(texts), NUMBERS))
    for vector, text in zip(vectors, texts, strict=True):
        plain = f" {text.casefold()} "
        for start in range(len(plain) - 3):
            vector[zlib.crc32(plain[start : start + 4].encode()) % NUMBERS] += 1
    return vectors


def train_set() -> list[dspy.Example]:
    """Return the questions that a model is shown, with the passage that answers each."""
    return [
        dspy.Example(question=question, passage=PASSAGES[place], answer=answer).with_inputs("question")
        for question, place, answer in TRAIN
    ]


def test_set() -> list[dspy.Example]:
    """Return the others, with a word that a right answer has."""
    return [
        dspy.Example(question=question, passage=PASSAGES[place], word=word).with_inputs("question")
        for question, place, word in TEST
    ]
