"""What DSPy says of a call stays right, and what we say agrees with the provider."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
import pytest
from dspy.utils.callback import BaseCallback

import dspy_cachectl as cachectl
from dspy_cachectl import Policy
from tests.calls.support import MakeLM, assert_counted, evaluate, examples, qa
from tests.endpoint import Endpoint

MODEL = "openai/test-model"
ENGINES = ["auto", "litellm"]


def tokens(usage: dict[str, Any]) -> int:
    """The tokens of a prediction's usage; 0 where nothing was used."""
    return sum(entry["total_tokens"] for entry in usage.values())


@pytest.mark.parametrize("engine", ENGINES)
class TestUsage:
    """`track_usage=True`: DSPy's own accounting of tokens."""

    @pytest.mark.parametrize("phase", ["compile", "eval"])
    def test_fresh_and_served(self, endpoint: Endpoint, lm: MakeLM, phase: str, engine: str) -> None:
        """A bought answer has its usage, a served one has none, and the stats have spent and saved the same."""
        dspy.configure(lm=lm(engine=engine), track_usage=True)
        options = {"run_id": "usage"} if phase == "eval" else {}
        with cachectl.phase(phase, **options) as run:
            bought = qa()(question="Q?").get_lm_usage()
        assert [MODEL] == list(bought)
        assert tokens(bought) == run.stats.tokens_spent > 0
        assert run.stats.tokens_saved == 0

        with cachectl.phase(phase, **options) as run:
            served = qa()(question="Q?").get_lm_usage()
        assert tokens(served) == 0
        assert (run.stats.tokens_spent, run.stats.tokens_saved) == (0, tokens(bought))
        assert endpoint.requests == 1

    def test_coalesced(self, endpoint: Endpoint, lm: MakeLM, engine: str) -> None:
        """Of four that ask the same at once, one used tokens."""
        dspy.configure(lm=lm(engine=engine), track_usage=True)
        endpoint.hold()
        barrier = threading.Barrier(4)
        program = qa()  # made here: Python 3.11 cannot parse in several threads at once

        def ask() -> Any:
            barrier.wait()
            return program(question="Q?")

        with cachectl.phase("compile") as run, ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(cachectl.carry(ask)) for _ in range(4)]
            assert endpoint.wait_for(1)
            endpoint.release()
            usages = [future.result().get_lm_usage() for future in futures]
        assert endpoint.requests == 1
        assert [0, 0, 0, run.stats.tokens_spent] == sorted(map(tokens, usages))
        assert run.stats.tokens_saved == 3 * run.stats.tokens_spent
        assert run.stats.coalesced + run.stats.reused == 3

    def test_an_evaluation(self, endpoint: Endpoint, lm: MakeLM, engine: str) -> None:
        """The tokens of an evaluation's predictions add up to what the phase spent."""
        dspy.configure(lm=lm(engine=engine), track_usage=True)
        used = []

        def metric(example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> float:
            used.append(tokens(prediction.get_lm_usage()))
            return 1.0

        with cachectl.phase("eval") as run:
            dspy.Evaluate(devset=examples(4, 2), metric=metric, num_threads=2)(qa())
        assert run.stats.tokens_spent == sum(used)
        assert len(used) == endpoint.requests == run.stats.requests == 8


class TestHistory:
    """What a user sees in `lm.history`."""

    def test_every_entry_says_how_it_was_answered(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """`cachectl` in an entry has the outcome, the phase, the role, the run and the key."""
        asked = lm(role="judge")
        with cachectl.phase("compile"):
            asked("hello")
            asked("hello")
            asked("hello", cache=False)
        with cachectl.phase("eval", run_id="seen"):
            asked("hello")
        with cachectl.phase("eval", run_id="seen"):
            asked("hello")
        with cachectl.phase("again", Policy.REFRESH):
            asked("hello")
        with cachectl.phase("check", Policy.REPLAY):
            asked("hello")
        asked("hello")
        notes = [entry["cachectl"] for entry in asked.history]
        assert [
            ("fresh", "compile", None),
            ("reused", "compile", None),
            ("uncacheable", "compile", None),
            ("fresh", "eval", "seen"),
            ("resumed", "eval", "seen"),
            ("refreshed", "again", None),
            ("replayed", "check", None),
            ("reused", None, None),
        ] == [(note["outcome"], note["phase"], note["run_id"]) for note in notes]
        assert {"judge"} == {note["role"] for note in notes}
        served = {entry["cachectl"]["outcome"] for entry in asked.history if entry["usage"] == {}}
        assert {"reused", "resumed", "replayed"} == served, "what is served has no usage, as in DSPy"
        assert notes[3]["key"] == notes[4]["key"] != notes[0]["key"] == notes[1]["key"]
        assert endpoint.requests == 4

    def test_the_rollout_id_is_visible(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """In a fresh phase each entry's kwargs have the draw's rollout id and the temperature that was sent."""
        asked = lm()
        with cachectl.phase("eval"):
            for _ in range(3):
                asked("hello")
        kwargs = [entry["kwargs"] for entry in asked.history]
        assert len({entry["rollout_id"] for entry in kwargs}) == 3
        assert {1.0} == {entry["temperature"] for entry in kwargs}

    def test_global_history(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """DSPy's global history is the same entries, and can be printed."""
        lm()("hello")
        assert "fresh" == dspy.clients.base_lm.GLOBAL_HISTORY[-1]["cachectl"]["outcome"]
        dspy.inspect_history()

    def test_without_history(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """With DSPy's history off, calls are counted all the same, with their tokens."""
        asked = lm()
        with dspy.context(disable_history=True), cachectl.phase("compile") as run:
            asked("hello")
            asked("hello")
        assert asked.history == []
        assert_counted(run.stats, fresh=1, reused=1)
        assert run.stats.tokens_spent == run.stats.tokens_saved > 0


class Recorder(BaseCallback):
    """Notes the calls of LMs."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.ended: list[Any] = []

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self.started.append(inputs)

    def on_lm_end(self, call_id: str, outputs: Any, exception: Exception | None = None) -> None:
        self.ended.append(exception or outputs)


class TestCallbacks:
    """What a callback, and with it MLflow's span, sees."""

    async def test_the_draw(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """Each call starts and ends once, with the draw's rollout id and temperature among its inputs."""
        recorder = Recorder()
        asked = lm(callbacks=[recorder])
        with cachectl.phase("eval") as run:
            asked("hello")
            await asked.acall("hello")
        assert len(recorder.started) == len(recorder.ended) == 2
        seen = [inputs.get("kwargs", inputs) for inputs in recorder.started]
        assert [entry["kwargs"]["rollout_id"] for entry in asked.history] == [one["rollout_id"] for one in seen]
        assert {1.0} == {one["temperature"] for one in seen}
        assert_counted(run.stats, fresh=2)

    def test_served_and_coalesced_calls(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """A call that is served starts and ends for its callbacks too."""
        recorder = Recorder()
        dspy.configure(lm=lm(), callbacks=[recorder])
        with cachectl.phase("compile"):
            evaluate(qa(), examples(1, 4), threads=4)
        assert len(recorder.started) == len(recorder.ended) == 4
        assert endpoint.requests == 1

    def test_a_miss(self, lm: MakeLM) -> None:
        """A replay's miss ends the call with the error."""
        recorder = Recorder()
        asked = lm(callbacks=[recorder])
        with pytest.raises(cachectl.CacheMissError) as miss, cachectl.phase("check", Policy.REPLAY):
            asked("hello")
        assert [miss.value] == recorder.ended


class TestCost:
    """What is paid for, and what is not."""

    @pytest.mark.parametrize("engine", ENGINES)
    def test_known_price(self, endpoint: Endpoint, lm: MakeLM, engine: str) -> None:
        """A priced model's cost is spent once and saved as often as it is served."""
        asked = lm("openai/gpt-4o-mini", engine=engine)
        with cachectl.phase("compile") as run:
            for _ in range(3):
                asked("hello there, what is the capital of France?")
        assert run.stats.cost_spent > 0
        assert run.stats.cost_saved == pytest.approx(2 * run.stats.cost_spent)
        assert run.stats.cost_spent == pytest.approx(asked.history[0]["cost"])
        assert run.stats.unpriced == 0
        assert run.stats.seconds_spent > 0
        assert run.stats.seconds_saved == pytest.approx(2 * run.stats.seconds_spent)

    def test_unknown_price(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """A model without a price is counted as such."""
        with cachectl.phase("compile") as run:
            lm()("hello")
            lm()("hello")
        assert (run.stats.unpriced, run.stats.cost_spent) == (1, 0.0)

    @pytest.mark.parametrize("cache", [True, False])
    @pytest.mark.parametrize("engine", ENGINES)
    def test_several_answers(self, endpoint: Endpoint, lm: MakeLM, engine: str, cache: bool) -> None:
        """n=3 is as many requests as the endpoint sees, and the tokens of all, whether they are kept or not."""
        with cachectl.phase("compile") as run:
            lm(temperature=1.0, engine=engine, cache=cache)("hello", n=3)
        assert run.stats.requests == endpoint.requests == run.stats.unpriced
        assert run.stats.completion_tokens_spent == 6

    @pytest.mark.parametrize("engine", ENGINES)
    def test_failures(self, endpoint: Endpoint, lm: MakeLM, engine: str) -> None:
        """A call that fails is counted as failed, stored nowhere, and can be asked again."""
        endpoint.fail(status=401, times=1)
        asked = lm(engine=engine)
        with cachectl.phase("compile") as run:
            with pytest.raises(dspy.utils.exceptions.LMError):
                asked("hello")
            asked("hello")
        assert_counted(run.stats, failed=1, fresh=1)

    @pytest.mark.parametrize(("fault", "counter", "requests"), [("empty", "unstored", 2), ("length", "truncated", 1)])
    def test_odd_answers(self, endpoint: Endpoint, lm: MakeLM, fault: str, counter: str, requests: int) -> None:
        """An empty answer is not stored, a truncated one is; both are counted."""
        endpoint.fail(fault, times=1)
        with cachectl.phase("compile") as run:
            lm()("hello")
            lm()("hello")
        assert requests == endpoint.requests
        assert getattr(run.stats, counter) == 1


def test_process_totals(endpoint: Endpoint, lm: MakeLM) -> None:
    """`cachectl.stats()` adds up every phase, and what was asked outside."""
    asked = lm(role="judge")
    asked("hello")
    with cachectl.phase("compile"):
        asked("hello")
    with cachectl.phase("eval") as run:
        asked("hello")
    total = cachectl.stats()
    assert_counted(total, fresh=2, reused=1, requests=2)
    assert ["", "compile", "eval"] == [row.phase for row in total.by]
    rows = total.as_dict()["by"]
    assert [("judge", MODEL)] * 3 == [(row["role"], row["model"]) for row in rows]
    assert sum(row["requests"] for row in rows) == endpoint.requests
    assert cachectl.last_phase() is run
