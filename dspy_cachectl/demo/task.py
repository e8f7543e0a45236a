"""The task of the demo: is a short review positive or negative?"""

from __future__ import annotations

from typing import Any, Literal

import dspy
from dspy.utils.exceptions import AdapterParseError

from dspy_cachectl.demo.act_results import ActResult

THREADS = 4
"""How many questions to ask at once."""

POSITIVE_TRAIN = (
    "I love this blender, it is quick and quiet.",
    "A wonderful film, funny and warm from start to end.",
    "The soup was delicious and the waiter was kind.",
    "Great headphones, the sound is rich and clear.",
    "Our guide was excellent and we enjoyed every minute.",
    "The battery lasts for days, I am very happy with it.",
    "A beautiful room with a lovely view of the harbour.",
    "The best bread in town, fresh and crisp.",
    "Setup was easy and everything works perfectly.",
    "I could not put this book down, a brilliant story.",
)
NEGATIVE_TRAIN = (
    "The zipper broke on the second day, very poor quality.",
    "We waited an hour and the food was cold and awful.",
    "A boring story with terrible actors.",
    "The room was dirty and smelled of smoke.",
    "Support was useless and never answered my messages.",
    "It stopped charging after a week, a waste of money.",
    "The tour was rushed and our guide was rude.",
    "I hate this lamp, it flickers and gives me a headache.",
    "Stale cake and bitter coffee, a horrible place.",
    "The book is dull and badly written.",
)
POSITIVE_DEV = (
    "The mattress is soft and comfortable, I sleep wonderfully.",
    "Tasty noodles and a friendly waiter, we will be back.",
    "My daughter adores this puzzle and plays with it every day.",
    "The train was clean, quiet and right on time.",
    "This knife is sharp and a pleasure to use.",
    "A fantastic concert, the whole hall was dancing.",
    "The new update is fast and I really like it.",
    "They replaced my broken cup at once, superb service.",
    "The garden behind the hotel is a little paradise.",
    "Warm boots at a great price, I am delighted.",
    "The teacher is patient and explains everything well.",
    "The crew was lovely and the flight was smooth.",
)
NEGATIVE_DEV = (
    "The paint peeled off within a month, very disappointing.",
    "The app crashes whenever I open a photo, it is terrible.",
    "Our pizza was burnt and nobody seemed to care.",
    "The seats are hard and the film is even worse.",
    "I paid for express delivery and it came two weeks late.",
    "The vacuum is loud, weak and badly made.",
    "The receptionist was rude and lost our booking.",
    "This phone case cracked the first day, do not buy it.",
    "The lecture was confusing and far too long.",
    "The shirt shrank and the colours look awful now.",
    "A bad smell and sticky keys, I sent the keyboard back.",
    "The soup was watery and the salad was disgusting.",
)


class Sentiment(dspy.Signature):  # type: ignore[misc]  # dspy ships no types
    """Is the review positive or negative?"""

    review: str = dspy.InputField()
    sentiment: Literal["positive", "negative"] = dspy.OutputField()


class Classifier(dspy.Module):  # type: ignore[misc]
    """Labels a review. An answer that cannot be read is the label None, which is never right."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = dspy.Predict(Sentiment)

    def forward(self, review: str) -> dspy.Prediction:
        """Return a prediction with the review's `sentiment`."""
        try:
            return self.classify(review=review)
        except AdapterParseError:
            # Left to Evaluate, this and a server that fails would look the same.
            return dspy.Prediction(sentiment=None)


def train_set() -> list[dspy.Example]:
    """Return 20 labelled reviews, half of them positive."""
    return _examples(POSITIVE_TRAIN, NEGATIVE_TRAIN)


def dev_set() -> list[dspy.Example]:
    """Return 24 other labelled reviews, half of them positive."""
    return _examples(POSITIVE_DEV, NEGATIVE_DEV)


def right_label(example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> bool:  # noqa: ARG001
    """Tell whether the predicted label is the one that a person gave (DSPy's metric signature)."""
    return bool(example.sentiment == prediction.sentiment)


def evaluate(program: dspy.Module, reviews: list[dspy.Example]) -> ActResult:
    """Evaluate a program with `dspy.Evaluate`.

    Raises:
        Exception: A call to the model failed; DSPy has logged which and why.
    """
    evaluator = dspy.Evaluate(
        devset=reviews, metric=right_label, num_threads=THREADS, display_progress=False, max_errors=1
    )
    result = evaluator(program)
    labels = tuple(prediction.sentiment for _, prediction, _ in result.results)
    return ActResult(score=float(result.score), labels=labels)


def compile_program(program: dspy.Module, reviews: list[dspy.Example]) -> dspy.Module:
    """Return the program with demonstrations: 4 that it got right itself, and labelled ones up to 8."""
    optimizer = dspy.BootstrapFewShot(metric=right_label, max_bootstrapped_demos=4, max_labeled_demos=8, max_errors=1)
    return optimizer.compile(program, trainset=reviews)


def _examples(positive: tuple[str, ...], negative: tuple[str, ...]) -> list[dspy.Example]:
    # Alternating, so that any slice of the set stays balanced.
    pairs = zip(positive, negative, strict=True)
    rows = [row for good, bad in pairs for row in ((good, "positive"), (bad, "negative"))]
    return [dspy.Example(review=review, sentiment=label).with_inputs("review") for review, label in rows]
