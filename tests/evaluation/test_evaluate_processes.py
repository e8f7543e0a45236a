"""`evaluate()` across processes: what one has computed, the next one does not ask for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import models_asked
from tests.processes import Finished

CHILD = """
    import os, sys, json
    import dspy, dspy_cachectl as cachectl

    count, model, repeats, change = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    dspy.configure(lm=cachectl.LM(model, api_base=os.environ["ENDPOINT_URL"], api_key="sk-test-secret"))
    devset = [dspy.Example(question=f"question {n} ?", answer="yes").with_inputs("question") for n in range(count)]

    def exact(example, prediction, trace=None):
        return example.answer == prediction.answer

    def length(example, prediction, trace=None):
        return len(prediction.answer) / 100

    report = cachectl.evaluate(dspy.Predict("question -> answer"), devset, length if change == "metric" else exact,
                               repeats=repeats, predictions="library", display_progress=False, num_threads=16)
    print(json.dumps({"score": report.score, "status": report.provenance.predictions, "run": report.run_id}))
"""


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.exhaustive)])
def test_a_new_process_computes_only_what_changed(
    child: Callable[..., Finished], endpoint: Endpoint, count: int
) -> None:
    """Again in a new process, 0 requests; one more model: only that one; another metric: 0."""
    first = child(CHILD, str(count), "openai/a", "1", "-").data
    assert count == endpoint.requests
    again = child(CHILD, str(count), "openai/a", "1", "-").data
    assert (count, first["score"], "loaded") == (endpoint.requests, again["score"], again["status"])
    child(CHILD, str(count), "openai/b", "1", "-")
    assert {"a": count, "b": count} == models_asked(endpoint)
    child(CHILD, str(count), "openai/a", "1", "metric")
    assert 2 * count == endpoint.requests


def test_a_killed_evaluation_goes_on_where_it_was(child: Callable[..., Finished], endpoint: Endpoint) -> None:
    """SIGKILL half way: what was answered and kept is not asked again, without a run id being given."""
    endpoint.configure(delay=0.02)
    killer = CHILD.replace("def length", "answered = []\n\n    def _unused").replace(
        "return example.answer == prediction.answer",
        "answered.append(1)\n        if len(answered) == 100: os.kill(os.getpid(), 9)\n"
        "        return example.answer == prediction.answer",
    )
    finished = child(killer.replace("length if", "exact if"), "200", "openai/a", "1", "-", check=False)
    assert -9 == finished.returncode
    asked = endpoint.requests
    assert 100 <= asked < 200
    child(CHILD, "200", "openai/a", "1", "-")
    # The 16 calls in the air may be asked again, and nothing else.
    assert 200 <= endpoint.requests <= 200 + 16
