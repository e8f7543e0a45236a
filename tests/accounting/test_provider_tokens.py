"""The provider's own prompt cache and its reasoning: kept, priced and shown apart. What it sent is the oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dspy
import litellm
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.entries.token_counts import MOST, read_counts
from tests.calls.support import MakeLM, qa
from tests.endpoint import Endpoint

MODEL = "openai/gpt-4o-mini"
ENGINES = ["auto", "litellm"]
SENT = {
    "prompt_tokens": 12_000,
    "completion_tokens": 3_000,
    "total_tokens": 15_000,
    "prompt_tokens_details": {"cached_tokens": 8_000},
    "completion_tokens_details": {"reasoning_tokens": 1_200},
}
KNOWN = {
    "prompt_tokens": 12_000,
    "completion_tokens": 3_000,
    "cached_tokens": 8_000,
    "cache_creation_tokens": 0,
    "reasoning_tokens": 1_200,
}
WORDS = "12,000 tokens in (8,000 cached by the provider), 3,000 out (1,200 reasoning)"


def price() -> float:
    """What LiteLLM's own calculation says of such an answer."""
    answer = litellm.ModelResponse(model="gpt-4o-mini", usage=litellm.Usage(**SENT))
    return float(litellm.completion_cost(answer, model=MODEL))


def counted(stats: Any, suffix: str) -> dict[str, int]:
    """The counters of tokens with such an ending."""
    return {name: getattr(stats, f"{name}_{suffix}") for name in KNOWN}


@pytest.mark.parametrize("engine", ENGINES)
class TestSpentAndSaved:
    """A bought answer spends what the provider said, a served one saves the same."""

    def test_sync(self, endpoint: Endpoint, lm: MakeLM, engine: str) -> None:
        """Tokens and price; DSPy's own tracker has what it always had."""
        endpoint.configure(usage={"": SENT})
        dspy.configure(lm=lm(MODEL, engine=engine), track_usage=True)
        with cachectl.phase("eval", run_id="tokens") as run:
            used = qa()(question="Q?").get_lm_usage()
        assert counted(run.stats, "spent") == KNOWN
        assert run.stats.cost_spent == pytest.approx(price())
        assert used[MODEL]["prompt_tokens_details"]["cached_tokens"] == 8_000
        assert used[MODEL]["completion_tokens_details"]["reasoning_tokens"] == 1_200
        with cachectl.phase("eval", run_id="tokens") as again:
            qa()(question="Q?")
        assert counted(again.stats, "saved") == KNOWN
        assert counted(again.stats, "spent") == dict.fromkeys(KNOWN, 0)
        assert again.stats.cost_saved == pytest.approx(price())
        assert endpoint.requests == 1
        assert endpoint.log()[0]["usage"] == SENT

    async def test_async_wrapped_and_uncached(self, endpoint: Endpoint, plain_lm: MakeLM, engine: str) -> None:
        """A wrapped LM, called asynchronously, with its cache and without."""
        endpoint.configure(usage={"": SENT})
        for cache in (True, False):
            asked = cachectl.wrap(plain_lm(MODEL, engine=engine, cache=cache))
            with cachectl.phase("compile") as run:
                await asked.acall(f"hello {cache}")
            assert counted(run.stats, "spent") == KNOWN
            assert run.stats.cost_spent == pytest.approx(price())

    def test_several_answers(self, endpoint: Endpoint, lm: MakeLM, engine: str) -> None:
        """n=3: as many times over as the provider was asked."""
        endpoint.configure(usage={"": SENT})
        with cachectl.phase("compile") as run:
            lm(MODEL, engine=engine, temperature=1.0)("hello", n=3)
        assert counted(run.stats, "spent") == {name: endpoint.requests * count for name, count in KNOWN.items()}
        assert run.stats.cost_spent == pytest.approx(endpoint.requests * price())

    async def test_streaming(self, endpoint: Endpoint, lm: MakeLM, engine: str) -> None:
        """A stream's last piece says what was used."""
        endpoint.configure(usage={"": SENT})
        dspy.configure(lm=lm(MODEL, engine=engine), track_usage=True)
        listener = dspy.streaming.StreamListener(signature_field_name="answer")
        program = dspy.streamify(qa(), stream_listeners=[listener])
        with cachectl.phase("compile") as run:
            [item async for item in program(question="Q?")]
        assert counted(run.stats, "spent") == KNOWN
        assert run.stats.cost_spent in (0.0, pytest.approx(price()))
        assert run.stats.unpriced == (run.stats.cost_spent == 0.0)

    @pytest.mark.parametrize(
        "wrong",
        [
            None,
            {"prompt_tokens": None},
            {"prompt_tokens": 2**63},
            {"prompt_tokens_details": {"cached_tokens": None}},
            {"prompt_tokens_details": {"cached_tokens": 2**63}},
            {"completion_tokens_details": {"reasoning_tokens": 2**63}},
        ],
    )
    def test_wrong_numbers_lose_nothing(self, endpoint: Endpoint, lm: MakeLM, engine: str, wrong: Any) -> None:
        """Whatever a server says it used: its answer is stored and served, and the next one is counted as ever."""
        endpoint.configure(usage={"odd": wrong, "even": SENT})
        asked = lm(MODEL, engine=engine)
        with cachectl.phase("compile") as run:
            answer = asked("odd")
            asked("even")
            assert asked("odd") == answer
        stats = run.stats
        assert (endpoint.requests, stats.failed_writes, stats.unstored) == (2, 0, 0)
        assert all(0 <= count <= MOST for count in counted(stats, "spent").values())
        assert stats.cached_tokens_spent == 8_000
        assert stats.cost_spent <= 2 * price()


@pytest.mark.parametrize("wrong", [-1, True, "12", "x", 1.5, 2**70, 1e300, float("nan"), float("inf"), [1], {}])
def test_what_is_no_count_is_not_counted(wrong: Any) -> None:
    """A count is a whole number that an answer can have; a price of anything else is not believed."""
    given = {"prompt_tokens": 5, "completion_tokens": 5}
    for usage in (
        {**given, "prompt_tokens": wrong},
        {**given, "prompt_tokens_details": {"cached_tokens": wrong}},
        {**given, "cache_creation_input_tokens": wrong},
        {**given, "completion_tokens_details": {"reasoning_tokens": wrong}},
    ):
        found, is_sound = read_counts(usage)
        assert set(found) <= {5, None}
        assert not is_sound


def test_the_names_of_other_providers() -> None:
    """Anthropic counts what it cached beside what it read; LiteLLM and the Responses API have it within."""
    anthropic = {
        "input_tokens": 10,
        "output_tokens": 5,
        "cache_read_input_tokens": 70,
        "cache_creation_input_tokens": 20,
    }
    assert tuple(read_counts(anthropic)[0]) == (100, 5, 70, 20, None)
    as_litellm = litellm.Usage(
        prompt_tokens=100, completion_tokens=5, cache_read_input_tokens=70, cache_creation_input_tokens=20
    )
    assert tuple(read_counts(as_litellm)[0])[:4] == (100, 5, 70, 20)
    responses = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 70},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 4},
    }
    assert tuple(read_counts(responses)[0]) == (100, 9, 70, None, 4)


def test_the_report_and_the_commands_agree(
    endpoint: Endpoint, lm: MakeLM, child: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Report, kept predictions, its file, and `stats` of another process: all say what the provider sent."""
    monkeypatch.chdir(tmp_path)
    endpoint.configure(usage={"": SENT})
    dspy.configure(lm=lm(MODEL))
    devset = [dspy.Example(question="Q?", answer="yes").with_inputs("question")]
    options = {"display_progress": False}
    report = cachectl.evaluate(qa(), devset, lambda example, prediction, trace=None: 1.0, **options)
    assert WORDS in " ".join(str(report).split())
    assert [{name: getattr(row, name) for name in KNOWN} for row in report.rows()] == [KNOWN]
    again = cachectl.evaluate(qa(), devset, lambda example, prediction, trace=None: 1.0, **options)
    assert (endpoint.requests, again.provenance.predictions) == (1, "loaded")
    assert {name: again.provenance.counters[f"{name}_saved"] for name in KNOWN} == KNOWN
    assert again.provenance.counters["cost_saved"] == pytest.approx(price())
    read = cachectl.EvalReport.load(report.save(tmp_path / "report.json"))
    assert (read.draws[0].cached_tokens, read.draws[0].reasoning_tokens) == (8_000, 1_200)
    command = "from dspy_cachectl.cli import main\nimport sys\nsys.argv[1:] = {}\nmain()"
    shown = child(command.format(["stats"])).output
    assert f"spent: {WORDS}" in shown
    said = json.loads(child(command.format(["stats", "--json"])).stdout)
    assert said["total"]["tally"]["cached_tokens_spent"] == 8_000


def test_nothing_is_shown_where_there_is_none(endpoint: Endpoint, lm: MakeLM) -> None:
    """Without a cache and without reasoning no line speaks of them."""
    with cachectl.phase("compile") as run:
        lm(MODEL)("hello")
    assert "cached" not in str(run.stats)
    assert "reasoning" not in str(run.stats)
