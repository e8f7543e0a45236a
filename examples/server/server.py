"""A web server that answers from the cache, or afresh where it is asked to: one phase a request."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import dspy_cachectl as cachectl  # before DSPy: it loads nothing, and neither is slower for it

# isort: split
import dspy
import uvicorn
from fastapi import Depends, FastAPI

SHOWN = (
    ("I love this blender, it is quick and quiet.", "positive"),
    ("The zipper broke, very poor quality.", "negative"),
    ("A wonderful film, funny and warm.", "positive"),
    ("The food was cold and awful.", "negative"),
    ("The soup was delicious and the waiter was kind.", "positive"),
    ("A boring story with terrible actors.", "negative"),
)


class Sentiment(dspy.Signature):
    """Is the review positive or negative?"""

    review: str = dspy.InputField()
    sentiment: Literal["positive", "negative"] = dspy.OutputField()


def obeying(fresh: bool = False) -> Iterator[Any]:
    """Open the phase of a request: `?fresh=true` draws a new answer, and no other request notices."""
    with cachectl.phase("eval" if fresh else "serve", None if fresh else cachectl.Policy.REUSE, guard=False) as phase:
        yield phase


app = FastAPI(title="Reviews")


@app.get("/sentiment")
def sentiment(review: str, phase: Annotated[Any, Depends(obeying)]) -> dict[str, Any]:
    """Answer, and say what that took."""
    found = app.state.program(review=review).sentiment
    return {"sentiment": found, "requests": phase.stats.requests, "reused": phase.stats.reused}


def right(example: Any, prediction: Any) -> bool:
    """Tell whether the sentiment is the one that people gave."""
    return bool(example.sentiment == prediction.sentiment)


@app.post("/evaluation")
async def evaluated(reviews: dict[str, str]) -> dict[str, Any]:
    """Evaluate on reviews with their sentiments, while other requests are answered."""
    devset = [dspy.Example(review=review, sentiment=label).with_inputs("review") for review, label in reviews.items()]
    report = await cachectl.aevaluate(app.state.program, devset, right, concurrency=8, display_progress=False)
    return {"score": report.score, "requests": report.provenance.counters["requests"]}


def main() -> None:
    """Serve until it is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--local", action="store_true", help="a small model on this machine")
    parser.add_argument("--model", default="openai/gpt-4o-mini", metavar="NAME", help="a provider's model")
    parser.add_argument("--port", type=int, default=8000, help="where on 127.0.0.1 it listens; 0 is any that is free")
    parser.add_argument("--output", type=Path, default=Path("outputs/server"), metavar="FOLDER", help="where it stores")
    options = parser.parse_args()
    cachectl.configure(store=options.output / "store")
    with ExitStack() as stack:
        if options.local:
            model = stack.enter_context(cachectl.local_model())
            dspy.configure(lm=model.lm(), adapter=model.adapter)
        else:
            dspy.configure(lm=cachectl.LM(options.model))
        shown = [dspy.Example(review=review, sentiment=label).with_inputs("review") for review, label in SHOWN]
        app.state.program = dspy.LabeledFewShot(k=len(shown)).compile(dspy.Predict(Sentiment), trainset=shown)
        with suppress(KeyboardInterrupt), socket.create_server(("127.0.0.1", options.port)) as listening:
            print(f"answering at http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
            uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([listening])


if __name__ == "__main__":
    main()
