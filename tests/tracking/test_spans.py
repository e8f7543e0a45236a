"""What a trace of MLflow's autolog shows of a draw."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import dspy
import mlflow
import pytest

import dspy_cachectl as cachectl
from tests.endpoint import Endpoint
from tests.limits import PATIENCE
from tests.tracking.rest import Rest

PRICED = "openai/gpt-4o-mini"


def _spans(server: Rest, experiment: str) -> list[dict[str, Any]]:
    mlflow.flush_trace_async_logging()
    return [call for trace in server.traces(experiment) for call in trace.calls]


def test_the_span_of_a_call_shows_its_draw(
    server: Rest, experiment: str, autolog: Callable[..., None], lm: Callable[..., Any]
) -> None:
    """The LM's span has the rollout id and the lent temperature that the history has, and no key."""
    autolog()
    dspy.configure(lm=lm())
    with cachectl.phase("eval"):
        dspy.Predict("question -> answer")(question="one")
    (span,) = _spans(server, experiment)
    sent, shown = dspy.settings.lm.history[-1]["kwargs"], span["mlflow.spanInputs"]
    assert (sent["rollout_id"], 1.0) == (shown["rollout_id"], shown["temperature"])
    assert "sk-test-secret" not in repr(span)


def test_no_option_of_a_call_shows_a_secret(
    server: Rest, experiment: str, autolog: Callable[..., None], endpoint: Endpoint, lm: Callable[..., Any]
) -> None:
    """Whether the LM has it, a call or a module's config, and however deep; what is sent and the other options stay."""
    autolog(log_evals=True)

    def options(where: str) -> dict[str, Any]:
        hidden = {"inner": [{"api_key": f"{where}-verysecret", "region": f"{where}-region"}]}
        address = f"http://me:{where}-verysecret@host/?token={where}-verysecret"
        return {"extra_body": {"deep": hidden, "address": address}, "extra_headers": {"Authorization": "verysecret"}}

    dspy.configure(lm=lm(**options("lm")))
    with cachectl.phase("eval"):
        dspy.settings.lm("one", **options("call"))
        dspy.Predict("token -> answer")(token="two", config=options("module"))
        dspy.Evaluate(
            devset=[dspy.Example(token="three").with_inputs("token")], metric=lambda *_: 1, display_progress=False
        )(dspy.Predict("token -> answer"))
    mlflow.flush_trace_async_logging()
    traces = server.traces(experiment)
    shown = repr([trace.spans for trace in traces])
    assert "verysecret" not in shown
    assert "verysecret" not in repr(server.all_runs(experiment))
    assert all(part in shown for part in ("lm-region", "call-region", "module-region", "two", "three"))
    assert "module-verysecret" in repr(endpoint.log()[-2]["body"])


def _make(kind: str, lm: Callable[..., Any], plain_lm: Callable[..., Any]) -> Any:
    if kind == "LM":
        return lm(PRICED)
    return cachectl.wrap(plain_lm(PRICED)) if kind == "wrap" else plain_lm(PRICED)


def _sync(program: Any, questions: list[str]) -> None:
    for question in questions:
        program(question=question)


def _async(program: Any, questions: list[str]) -> None:
    async def ask() -> None:
        await asyncio.gather(*(program.acall(question=question) for question in questions))

    asyncio.run(ask())


def _threads(program: Any, questions: list[str]) -> None:
    devset = [dspy.Example(question=question).with_inputs("question") for question in questions]
    dspy.Evaluate(devset=devset, metric=lambda *_: True, num_threads=4, display_progress=False)(program)


@pytest.mark.parametrize(
    ("kind", "ask"), [("LM", _sync), ("LM", _threads), ("wrap", _threads), ("plain", _async), ("plain", _sync)]
)
def test_a_span_says_whether_it_was_bought(
    server: Rest,
    experiment: str,
    autolog: Callable[..., None],
    endpoint: Endpoint,
    lm: Callable[..., Any],
    plain_lm: Callable[..., Any],
    kind: str,
    ask: Callable[..., None],
) -> None:
    """Bought calls have their tokens, and so a cost; resumed ones have the same draw and no tokens."""
    autolog()
    dspy.configure(lm=_make(kind, lm, plain_lm))
    program = dspy.Predict("question -> answer")
    questions = ["one", "two", "three"]
    with cachectl.phase("eval") as run:
        ask(program, questions)
    with cachectl.phase("eval", run_id=run.run_id) as again:
        ask(program, questions)
    assert endpoint.requests == 3
    spans = _spans(server, experiment)
    assert len(spans) == 6
    assert {(span["dspy_cachectl.phase"], span["dspy_cachectl.run_id"]) for span in spans} == {("eval", run.run_id)}
    bought = [span for span in spans if not span["dspy_cachectl.cache_hit"]]
    served = [span for span in spans if span["dspy_cachectl.cache_hit"]]
    assert {span["dspy_cachectl.outcome"] for span in bought} == {"fresh"}
    assert {span["dspy_cachectl.outcome"] for span in served} == {"resumed"}
    draws = [
        {(span["dspy_cachectl.rollout_id"], span["dspy_cachectl.cache_key"]) for span in some}
        for some in (bought, served)
    ]
    assert len(draws[0]) == 3
    assert draws[0] == draws[1]
    tokens = [span["mlflow.chat.tokenUsage"] for span in bought]
    assert sum(int(one["total_tokens"]) for one in tokens) == run.stats.tokens_spent > 0
    assert sum(int(one["input_tokens"]) for one in tokens) == run.stats.prompt_tokens_spent
    cost = sum(span["mlflow.llm.cost"]["total_cost"] for span in bought)
    assert cost == pytest.approx(run.stats.cost_spent)
    assert again.stats.cost_spent == 0
    assert not any("mlflow.chat.tokenUsage" in span or "mlflow.llm.cost" in span for span in served)


def test_nothing_is_counted_twice(
    server: Rest, experiment: str, autolog: Callable[..., None], lm: Callable[..., Any]
) -> None:
    """MLflow's totals of a trace are those of the phase, though the span of the module has tokens, too."""
    autolog()
    dspy.configure(lm=lm(PRICED))
    with cachectl.phase("eval") as run:
        dspy.ChainOfThought("question -> answer")(question="one")
    mlflow.flush_trace_async_logging()
    (trace,) = server.traces(experiment)
    assert f'"total_tokens": {run.stats.tokens_spent}' in trace.metadata["mlflow.trace.tokenUsage"]
    assert str(run.stats.cost_spent) in trace.metadata["mlflow.trace.cost"]


def test_a_call_that_fails_says_so(
    server: Rest, experiment: str, autolog: Callable[..., None], lm: Callable[..., Any]
) -> None:
    """It has its phase and its key, and no tokens."""
    autolog()
    dspy.configure(lm=lm())
    with pytest.raises(cachectl.CacheMissError), cachectl.phase("eval", cachectl.Policy.REPLAY):
        dspy.Predict("question -> answer")(question="one")
    (span,) = _spans(server, experiment)
    assert (span["dspy_cachectl.outcome"], span["dspy_cachectl.cache_hit"]) == ("missed", False)
    assert len(span["dspy_cachectl.cache_key"]) == 64
    assert "mlflow.chat.tokenUsage" not in span


def test_a_span_of_the_users_is_left_alone(server: Rest, experiment: str, lm: Callable[..., Any], autolog: Any) -> None:
    """Where autolog traces nothing, the active span is somebody else's."""
    autolog(log_traces=False)
    dspy.configure(lm=lm())
    with mlflow.start_span("mine"), cachectl.phase("eval"):
        dspy.Predict("question -> answer")(question="one")
    mlflow.flush_trace_async_logging()
    (trace,) = server.traces(experiment)
    assert not any(key.startswith("dspy_cachectl") for _, attributes in trace.spans for key in attributes)


def test_a_head_in_the_wrong_place_says_nothing(
    server: Rest, experiment: str, lm: Callable[..., Any], autolog: Any
) -> None:
    """Behind autolog's callback it sees the span of the module, which is not the call's; a phase puts it right."""
    autolog()
    head, _ = cachectl.mlflow_callbacks()
    dspy.configure(lm=lm(), callbacks=[*dspy.settings.callbacks, head])
    dspy.Predict("question -> answer")(question="one")
    mlflow.flush_trace_async_logging()
    (trace,) = server.traces(experiment)
    assert not any(key.startswith("dspy_cachectl") for _, attributes in trace.spans for key in attributes)
    with cachectl.phase("eval"):
        dspy.Predict("question -> answer")(question="one")
    assert [span.get("dspy_cachectl.outcome") for span in _spans(server, experiment)].count("fresh") == 1


def test_a_phase_that_reads_the_store_is_shown_too(
    server: Rest, experiment: str, autolog: Callable[..., None], lm: Callable[..., Any]
) -> None:
    """In `compile`, which has no draws of its own."""
    autolog()
    dspy.configure(lm=lm(PRICED))
    with cachectl.phase("compile"):
        for _ in range(2):
            dspy.Predict("question -> answer")(question="one")
    found = [(s["dspy_cachectl.outcome"], "mlflow.chat.tokenUsage" in s) for s in _spans(server, experiment)]
    assert sorted(found) == [("fresh", True), ("reused", False)]
    assert all("dspy_cachectl.run_id" not in span for span in _spans(server, experiment))


def test_without_mlflow_nobody_is_added(lm: Callable[..., Any]) -> None:
    """Nor is MLflow imported: a phase leaves the callbacks as they are."""
    script = """
import sys, dspy, dspy_cachectl as cachectl
with cachectl.phase("compile"):
    print(len(dspy.settings.callbacks))
with cachectl.phase("eval"):
    print([type(one).__name__ for one in dspy.settings.callbacks])
print("mlflow" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert done.stdout.split("\n")[:3] == ["0", "[]", "False"]
