"""What the pages of the documentation take as their reader's own: a program, its data and its metric."""

from __future__ import annotations

import dspy

import dspy_cachectl as cachectl

dspy.configure(lm=cachectl.LM("openai/gpt-4o-mini"))

program = dspy.ChainOfThought("question -> answer")
compiled = dspy.ChainOfThought("question -> answer")
compiled.predict.demos = [dspy.Example(question="What is 5 + 5?", reasoning="Five and five.", answer="10")]
examples = [
    dspy.Example(question=f"What is {at} + {at}?", answer=str(2 * at), document=f"page {at % 3}").with_inputs(
        "question"
    )
    for at in range(10)
]
train, dev = examples[:4], examples[4:]
devset, trainset = dev, train


class Encoder:
    """A model of embeddings with its weights."""

    def encode(self, texts: list[str]) -> list[list[float]]:
        """A vector for each text."""
        return [[float(len(text)), 1.0] for text in texts]


model = Encoder()


def metric(example: dspy.Example, prediction: dspy.Prediction, trace: object = None) -> bool:
    """Whether the answer is right."""
    return bool(example.answer == prediction.answer)


__all__ = [name for name in dir() if not name.startswith("_") and name != "annotations"]
