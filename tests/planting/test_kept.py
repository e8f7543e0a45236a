"""What is kept of a question has no secret in it, and an answer is served as it was bought or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.entries.records import decode_request
from dspy_cachectl.stores.disk import DiskStore
from tests.endpoint import Endpoint
from tests.planting.finder import find

MakeLM = Callable[..., Any]

# Not whole in here: what has the form of a key is taken for one by whoever looks for them in source code.
DRAWN = "q8Zx" + "V3nT7pLw2RkY9sBd4HfC"
KEY = f"sk-proj-{DRAWN}{DRAWN}"
HELD = "mein" + "geheimes-0123456789"


@pytest.mark.parametrize("secret", [KEY, HELD], ids=["by its shape", "by its value"])
@pytest.mark.parametrize("phase", ["compile", "eval"])
def test_a_secret_in_a_question(
    endpoint: Endpoint, lm: MakeLM, child: Callable[..., Any], tmp_path: Path, secret: str, phase: str
) -> None:
    """It is sent, is in no file, and the question still finds its answer: here, and in another process."""
    asking = lm(api_key=HELD)
    for _ in range(2):
        with cachectl.phase(phase, run_id="one" if phase == "eval" else None):
            asking(f"What does {secret} open?")
    script = f"""
        import os, sys, dspy_cachectl as cachectl
        lm = cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key=sys.argv[1])
        with cachectl.phase({phase!r}, run_id={"one" if phase == "eval" else None!r}):
            lm(f"What does {{sys.argv[2]}} open?")
    """
    child(script, HELD, secret)

    assert 1 == endpoint.requests
    assert secret in json.dumps(endpoint.log()[-1]["body"])
    cachectl.uninstall()
    assert {} == find([secret, DRAWN], tmp_path / "store")
    store = DiskStore(tmp_path / "store")
    (request,) = (decode_request(store.get(key) or b"") for key in store.keys() if not key.startswith("run"))  # noqa: SIM118
    assert "What does [removed] open?" in json.dumps(request)
    assert request["cleaned"]


def test_a_secret_in_an_answer(endpoint: Endpoint, lm: MakeLM, tmp_path: Path) -> None:
    """It reaches the program as it was bought, also when memory serves it; it is in no file."""
    endpoint.configure(answers={"echo": [f"The key is {KEY}."]})
    with cachectl.phase("compile") as run:
        given = [lm()("echo")[0] for _ in range(2)]

    assert [f"The key is {KEY}."] * 2 == given
    assert (1, 1) == (endpoint.requests, run.stats.unstored)
    assert {} == find([KEY, DRAWN], tmp_path)
    cachectl.uninstall()
    with cachectl.phase("compile"):
        assert f"The key is {KEY}." == lm()("echo")[0]
    assert 2 == endpoint.requests


def test_a_kept_prediction(endpoint: Endpoint, lm: MakeLM, tmp_path: Path) -> None:
    """Questions and labels are kept without their secrets and still found; an answer with one is made anew."""
    pytest.importorskip("scipy")
    endpoint.configure(answers={"echo": [KEY], "colour": ["red"]})
    dspy.configure(lm=lm())
    devset = [
        dspy.Example(question=f"the colour of {KEY}?", answer=f"not {KEY}").with_inputs("question"),
        dspy.Example(question="echo", answer=KEY).with_inputs("question"),
    ]

    def exact(example: dspy.Example, prediction: dspy.Prediction, trace: object = None) -> bool:
        return bool(example.answer == prediction.answer)

    for kept in (0, 1):
        before = endpoint.requests
        report = cachectl.evaluate(
            dspy.Predict("question -> answer"), devset, exact, predictions=tmp_path / "kept", display_progress=False
        )
        assert 0.5 == report.score
        assert 2 * (1 - kept) == endpoint.requests - before
    assert {} == find([KEY, DRAWN], tmp_path)
