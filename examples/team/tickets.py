"""What the team works on: messages to a support desk, the program that reads them, and what is right."""

from __future__ import annotations

from typing import Any, Literal

import dspy

URGENT = """The kettle is on fire.
Water runs out of the machine onto the socket.
Nobody can log in since an hour ago.
The payment page shows other people's addresses.
The lift is stuck, and somebody is inside.
Our shop is down, and it is Friday evening.
The heater gives me electric shocks.
All orders of today are gone."""
CALM = """Do you sell the cup in blue?
Thank you for the quick delivery.
Where can I find the manual?
I would like a receipt for May.
Could the text on the invoice be larger?
Which size fits a child of six?
When does the summer sale begin?
Please take me off the newsletter."""
LEARNED = 3
"""How many of each the optimizer is shown."""


class Triage(dspy.Signature):
    """Does a message have to be read at once?"""

    message: str = dspy.InputField()
    urgency: Literal["urgent", "calm"] = dspy.OutputField()


def messages(*, learned: bool) -> list[dspy.Example]:
    """Return the messages to learn from, or those to measure with."""
    mine = slice(None, LEARNED) if learned else slice(LEARNED, None)
    return [
        dspy.Example(message=message, urgency=urgency).with_inputs("message")
        for urgency, texts in (("urgent", URGENT), ("calm", CALM))
        for message in texts.splitlines()[mine]
    ]


def right(example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> bool:
    """Tell whether a message was read rightly."""
    return example.urgency == prediction.urgency
