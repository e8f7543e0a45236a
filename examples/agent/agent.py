"""An agent with tools, compiled from the cache and evaluated afresh."""

from __future__ import annotations

import argparse
import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dspy_cachectl as cachectl  # before DSPy: it loads nothing, and neither is slower for it

# isort: split
import dspy
from shop import Assistant, test_set, train_set


def right(example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> bool:
    """Tell whether what the shop's tool said is what was asked for."""
    return example.found == prediction.found


def main() -> None:
    """Do what the command line asks for."""
    options = parsed()
    logging.getLogger("dspy").setLevel(logging.CRITICAL)  # of what it cannot parse the report tells, too
    cachectl.configure(store=options.output / "store", predictions=options.output / "predictions")
    with ExitStack() as stack:
        if options.local:
            model = stack.enter_context(cachectl.local_model())
            dspy.configure(lm=model.lm(temperature=1.0), adapter=model.adapter)
        else:
            dspy.configure(lm=cachectl.LM(options.model, temperature=1.0))
        with cachectl.phase("compile") as compiling:
            compiled = shown()
        report = cachectl.evaluate(compiled, test_set(), right, repeats=options.repeats, max_errors=1000)
    print(f"compile: {compiling.stats}\n")
    print(report)


def parsed() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--local", action="store_true", help="a small model on this machine")
    parser.add_argument("--model", default="openai/gpt-4o-mini", metavar="NAME", help="a provider's model")
    parser.add_argument("--repeats", type=int, default=2, metavar="N", help="how often each question is asked")
    parser.add_argument("--output", type=Path, default=Path("outputs/agent"), metavar="FOLDER", help="where it goes")
    return parser.parse_args()


def shown() -> dspy.Module:
    """Return the agent with demonstrations of both of its steps, of which it was right in what it did."""
    optimizer = dspy.BootstrapFewShot(metric=right, max_bootstrapped_demos=4, max_labeled_demos=4)
    return optimizer.compile(Assistant(), trainset=train_set())


if __name__ == "__main__":
    main()
