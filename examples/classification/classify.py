"""Route messages with several models: each is asked once, and one more model costs itself."""

from __future__ import annotations

import argparse
import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import dspy_cachectl as cachectl  # before DSPy: it loads nothing, and neither is slower for it

# isort: split
import dspy
from messages import test_set, train_set

MODELS = ("openai/gpt-4o-mini", "openai/gpt-4o", "anthropic/claude-haiku-4-5")
TEMPERATURES = (0.2, 1.0, 1.8)
"""Of the local model, which takes the place of three."""


class Route(dspy.Signature):
    """Which desk does a message belong to: delivery, payment or product?"""

    message: str = dspy.InputField()
    desk: Literal["delivery", "payment", "product"] = dspy.OutputField()


def right(example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> bool:
    """Tell whether a message went to its desk."""
    return example.desk == prediction.desk


def main() -> None:
    """Do what the command line asks for."""
    options = parsed()
    logging.getLogger("dspy").setLevel(logging.CRITICAL)  # of what it cannot parse the report tells, too
    cachectl.configure(store=options.output / "store", predictions=options.output / "predictions")
    with ExitStack() as stack:
        models, adapter = models_of(options, stack)
        dspy.configure(adapter=adapter)
        program = dspy.LabeledFewShot(k=9).compile(dspy.Predict(Route), trainset=train_set())
        ranking = cachectl.evaluate(program, test_set(), right, lms=models, repeats=options.repeats, max_errors=1000)
    print(ranking)
    print("\nasked of each model this time")
    for report in ranking:
        print(f"  {report.name}: {report.provenance.counters['requests']} requests")
    print(f"\nwhat each answered is kept, a JSON file a model: {options.output / 'predictions'}")


def parsed() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--local", action="store_true", help="a small model on this machine, at three temperatures")
    parser.add_argument("--model", action="append", metavar="NAME", help="a model instead of the three; repeatable")
    parser.add_argument("--more", metavar="NAME", help="a fourth: a model, or with --local a temperature")
    parser.add_argument("--repeats", type=int, default=2, metavar="N", help="how often each is asked each message")
    parser.add_argument("--output", type=Path, default=Path("outputs/classification"), metavar="FOLDER")
    return parser.parse_args()


def models_of(options: argparse.Namespace, stack: ExitStack) -> tuple[dict[str, dspy.LM], dspy.Adapter]:
    """Return the LMs by the names that the table shows, and the adapter that suits them."""
    more = [options.more] if options.more else []
    if options.local:
        model = stack.enter_context(cachectl.local_model())
        temperatures = [*TEMPERATURES, *map(float, more)]
        return {f"at {one:g}": model.lm(temperature=one) for one in temperatures}, model.adapter
    return {name: cachectl.LM(name) for name in [*(options.model or MODELS), *more]}, dspy.ChatAdapter()


if __name__ == "__main__":
    main()
