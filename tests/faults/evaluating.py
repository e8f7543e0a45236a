"""An evaluation that a test and a child process can run alike."""

from __future__ import annotations

import dspy

import dspy_cachectl as cachectl


def evaluated(model: cachectl.LM) -> tuple[float, cachectl.PhaseRun]:
    """Evaluate a program on 96 examples by 48 threads, in a run of one name."""
    devset = [dspy.Example(question=f"question {at}").with_inputs("question") for at in range(96)]
    evaluate = dspy.Evaluate(devset=devset, metric=metric, num_threads=48, display_progress=False)
    with dspy.context(lm=model), cachectl.phase("eval", run_id="run-1") as run:
        score = float(evaluate(dspy.Predict("question -> answer")).score)
    return score, run


def metric(example: dspy.Example, prediction: dspy.Prediction, trace: object = None) -> int:
    return len(prediction.answer) % 2
