"""Messages to a shop, with the desk that each belongs to."""

from __future__ import annotations

import dspy

BY_DESK = {
    "delivery": """My parcel has not arrived yet.
The courier left the box at the wrong house.
When will you ship my order?
Tracking says delivered, but nothing is here.
Can you send it to my office instead?
The package has been stuck in customs for a week.
I was at home, and the driver never rang.
How long does shipping to Norway take?
The van came a day early and went away again.
Half of the boxes are still on the way.""",
    "payment": """I was charged twice for one order.
My credit card was refused.
Can I pay by bank transfer?
The invoice shows the wrong amount.
Please send me a receipt for my taxes.
The discount code did not change the price.
Why is there a fee on my bill?
My refund has not reached my bank account.
Do you take instalments?
The total on the bill is higher than in the basket.""",
    "product": """The lamp flickers when I switch it on.
How do I clean this pan?
Does the jacket come in a larger size?
The zip broke on the first day.
Is the battery included?
The manual for the drill is missing a page.
Will this lid fit the old pot?
The speaker makes a humming noise.
What is the table top made of?
The kettle no longer switches off.""",
}
LEARNED = 3
"""How many messages of each desk are shown to a model."""


def train_set() -> list[dspy.Example]:
    """Return the messages that a model is shown, desk after desk in turn."""
    return _examples(0, LEARNED)


def test_set() -> list[dspy.Example]:
    """Return the others."""
    return _examples(LEARNED, None)


def _examples(first: int, last: int | None) -> list[dspy.Example]:
    columns = [[(line, desk) for line in text.splitlines()[first:last]] for desk, text in BY_DESK.items()]
    return [
        dspy.Example(message=message, desk=desk).with_inputs("message")
        for row in zip(*columns, strict=True)
        for message, desk in row
    ]
