"""The program under test: is a message to a house's caretaker urgent?"""

from __future__ import annotations

from typing import Literal

import dspy

SHOWN = (
    ("Water is running through the ceiling!", "urgent"),
    ("The hedge could be cut some time.", "can wait"),
    ("I smell gas on the stairs.", "urgent"),
    ("May I paint my door blue?", "can wait"),
    ("Somebody is stuck in the lift.", "urgent"),
    ("The lamp in the cellar is a bit dim.", "can wait"),
)


class Triage(dspy.Signature):
    """Is the message to the caretaker urgent, or can it wait?"""

    message: str = dspy.InputField()
    priority: Literal["urgent", "can wait"] = dspy.OutputField()


def program() -> dspy.Module:
    """Return the program, with demonstrations."""
    shown = [dspy.Example(message=message, priority=priority).with_inputs("message") for message, priority in SHOWN]
    return dspy.LabeledFewShot(k=len(shown)).compile(dspy.Predict(Triage), trainset=shown)
