"""Answer questions from passages that are found by their embeddings: vectors are kept, answers are drawn afresh."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dspy_cachectl as cachectl  # before DSPy: it loads nothing, and neither is slower for it

# isort: split
import dspy
import numpy as np
from library import PASSAGES, spelling, test_set, train_set


class Answer(dspy.Signature):
    """Answer the question in a few words of the passage."""

    passage: str = dspy.InputField()
    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Handbook(dspy.Module):
    """Finds the passage that is nearest to a question, and answers from it.

    Args:
        embed: Returns the vectors of texts.
    """

    def __init__(self, embed: dspy.Embedder) -> None:
        super().__init__()
        self.embed = embed
        self.answer = dspy.Predict(Answer)

    def forward(self, question: str) -> dspy.Prediction:
        """Return a prediction with the `passage` and the `answer`."""
        *known, asked = _unit(self.embed([*PASSAGES, question]))
        passage = PASSAGES[int(np.argmax(np.stack(known) @ asked))]
        return dspy.Prediction(passage=passage, answer=self.answer(passage=passage, question=question).answer)


def _unit(vectors: Any) -> np.ndarray:
    found = np.asarray(vectors, dtype=float)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def right(example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> bool:
    """Tell whether the answer has the word that it needs."""
    return example.word.casefold() in prediction.answer.casefold()


def main() -> None:
    """Do what the command line asks for."""
    options = parsed()
    cachectl.configure(store=options.output / "store", predictions=options.output / "predictions")
    with ExitStack() as stack:
        if options.local:
            model = stack.enter_context(cachectl.local_model())
            dspy.configure(lm=model.lm(), adapter=model.adapter)
        else:
            dspy.configure(lm=cachectl.LM(options.model))
        embed = cachectl.Embedder(spelling if options.local else options.embedder)
        program = dspy.LabeledFewShot(k=4).compile(Handbook(embed), trainset=train_set())
        report = cachectl.evaluate(program, test_set(), right, repeats=options.repeats, max_errors=1000)
    print(report)
    print(f"\nusage, in all\n{cachectl.stats()}")


def parsed() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--local", action="store_true", help="a small model on this machine, and no embedding model")
    parser.add_argument("--model", default="openai/gpt-4o-mini", metavar="NAME", help="a provider's model")
    parser.add_argument("--embedder", default="openai/text-embedding-3-small", metavar="NAME", help="and embeddings")
    parser.add_argument("--repeats", type=int, default=2, metavar="N", help="how often each question is asked")
    parser.add_argument("--output", type=Path, default=Path("outputs/retrieval"), metavar="FOLDER")
    return parser.parse_args()


if __name__ == "__main__":
    main()
