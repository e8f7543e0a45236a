"""A program that writes pitches, and a judge that rates them: two LMs, each with a role."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import dspy

WORTH = {"weak": 0.0, "good": 0.5, "great": 1.0}


class WritePitch(dspy.Signature):
    """Write one sentence that makes the audience want the product."""

    product: str = dspy.InputField()
    audience: str = dspy.InputField()
    pitch: str = dspy.OutputField(desc="one sentence")


class RatePitch(dspy.Signature):
    """Rate a pitch: is it weak, good or great? It is great if it is vivid, and speaks to that audience."""

    product: str = dspy.InputField()
    audience: str = dspy.InputField()
    pitch: str = dspy.InputField()
    rating: Literal["weak", "good", "great"] = dspy.OutputField()


RATED = (
    ("tent", "campers", "It is a tent.", "weak"),
    ("tent", "campers", "Up in two minutes, dry all night: spend the evening by the fire, not with poles.", "great"),
    ("mug", "teachers", "This product is a very good product for everybody.", "weak"),
    ("mug", "teachers", "A big mug that keeps your coffee warm for a while.", "good"),
    ("bell", "cyclists", "One clear ring, and the pavement parts for you.", "great"),
    ("bell", "cyclists", "A bell for your bike, loud enough and easy to fit.", "good"),
)


class Pitcher(dspy.Module):
    """Writes a pitch for a product, with the LM that DSPy is set to."""

    def __init__(self) -> None:
        super().__init__()
        self.write = dspy.Predict(WritePitch)

    def forward(self, product: str, audience: str) -> dspy.Prediction:
        """Return a prediction with a `pitch`."""
        return self.write(product=product, audience=audience)


def judged_by(lm: dspy.LM) -> Callable[..., float]:
    """Return the metric that asks a judge: 0 for a weak pitch, 0.5 for a good one and 1 for a great one."""
    judge = dspy.Predict(RatePitch)
    judge.set_lm(lm)
    judge.demos = [
        dspy.Example(product=product, audience=audience, pitch=pitch, rating=rating)
        for product, audience, pitch, rating in RATED
    ]

    def quality(example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> float:
        rating = judge(product=example.product, audience=example.audience, pitch=prediction.pitch).rating
        worth = WORTH[rating]
        # While an optimizer looks for demonstrations, it asks whether a pitch may be one.
        return worth if trace is None else float(worth > 0)

    return quality
