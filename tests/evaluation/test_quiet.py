"""An evaluation that is to be silent is silent, and one that fails says so all the same."""

from __future__ import annotations

import os

from tests.endpoint import Endpoint
from tests.processes import python

PROGRAM = """
import dspy, dspy_cachectl as cachectl, logging, os

class Program(dspy.Module):
    def __init__(self):
        super().__init__()
        self.answer = dspy.Predict("question -> answer")

    def forward(self, question):
        logging.getLogger("dspy.evaluate.evaluate").info("the program's own")
        return self.answer(question=question)

dspy.configure(lm=cachectl.LM("openai/test", api_base=os.environ["ENDPOINT_URL"], api_key="k"))
devset = [dspy.Example(question=f"question {at}?", answer="yes").with_inputs("question") for at in range(3)]
report = cachectl.evaluate(Program(), devset, lambda *_: 1.0, repeats=2, display_progress=False, predictions=False)
assert 1.0 == report.score
logging.getLogger("dspy.evaluate.evaluate").info("after it")
"""


def test_nothing_of_dspys_is_printed(endpoint: Endpoint) -> None:
    """Without progress neither stream says anything of DSPy's; what others log there is as it was."""
    done = python("-c", PROGRAM, env={**os.environ, "ENDPOINT_URL": endpoint.url})
    assert (0, "") == (done.returncode, done.stdout)
    assert "Average Metric" not in done.stderr
    said = [line.rpartition(": ")[2] for line in done.stderr.splitlines()]
    assert ["the program's own"] * 6 + ["after it"] == said, done.stderr
