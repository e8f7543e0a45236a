"""What a trace of MLflow's autolog shows of a draw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.conftest import Finished
from tests.endpoint import Endpoint

TRACED = """
    import json, os
    import dspy, mlflow
    import dspy_cachectl as cachectl

    dspy.configure(lm=cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="sk-test-secret"))
    mlflow.dspy.autolog()
    with cachectl.phase("eval"):
        dspy.Predict("question -> answer")(question="What is the draw?")
    trace = mlflow.get_trace(mlflow.get_last_active_trace_id())
    spans = {span.name: span.inputs for span in trace.data.spans}
    sent = dspy.settings.lm.history[-1]["kwargs"]
    print(json.dumps([spans["LM.__call__"], sent, trace.to_json()]))
"""


def test_the_span_of_a_call_shows_its_draw(child: Callable[..., Finished], endpoint: Endpoint, tmp_path: Path) -> None:
    """The LM's span has the rollout id and the lent temperature that the history has, and no key."""
    address = f"sqlite:///{(tmp_path / 'mlflow.db').as_posix()}"
    settings = {"MLFLOW_TRACKING_URI": address, "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false"}
    span, sent, trace = child(TRACED, env=settings).data
    assert 1 == endpoint.requests
    assert (sent["rollout_id"], 1.0) == (span["rollout_id"], span["temperature"])
    assert "sk-test-secret" not in trace
