"""Answers that were another draw's before: known in the store, whoever bought them, and not counted as fresh."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import Policy
from tests.cli.commands import data
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import MakeLM, program, questions, run
from tests.processes import Finished

__all__ = ["program"]

Child = Callable[..., Finished]

EVALUATING = """
    import json, os, sys
    import dspy
    import dspy_cachectl as cachectl

    def always(example, prediction, trace=None):
        return 1.0

    options = {"temperature": 1.0, **json.loads(sys.argv[1])}
    lm = cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="k", **options)
    dspy.configure(lm=lm)
    devset = [dspy.Example(question=f"question {n} ?").with_inputs("question") for n in range(20)]
    report = cachectl.evaluate(
        dspy.Predict("question -> answer"), devset, always, display_progress=False, **json.loads(sys.argv[2])
    )
    print(json.dumps({
        "text": str(report), "counters": dict(report.provenance.counters), "run": report.run_id,
        "distinct": report.distinct.distinct, "known": report.distinct.known, "draws": len(report.draw_ids),
    }))
"""


def elsewhere(child: Child, *, lm: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """Evaluate 20 questions in a process of its own. Return what it found."""
    told = child(EVALUATING, json.dumps(lm or {}), json.dumps({"predictions": False, **options}))
    found: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    return found


def counted(found: dict[str, Any], *names: str) -> tuple[int, ...]:
    """Counters of what an evaluation found."""
    return tuple(found["counters"][name] for name in names)


def first_lines(found: dict[str, Any]) -> str:
    """The first lines of a report."""
    return " ".join(" ".join(found["text"].splitlines()[:8]).split())


def never(example: dspy.Example, prediction: Any, trace: Any = None) -> float:
    """A metric that asks nobody."""
    return 0.0


@pytest.mark.parametrize("engine", ["auto", pytest.param("litellm", marks=pytest.mark.exhaustive)])
def test_yesterdays_answers_are_not_fresh(endpoint: Endpoint, child: Child, engine: str) -> None:
    """A caching proxy answers a new process with what the store holds of another run: none of it is fresh."""
    endpoint.configure(fixed_id=True)
    before = elsewhere(child, lm={"engine": engine})
    after = elsewhere(child, lm={"engine": engine})
    assert endpoint.requests == 40
    assert before["run"] != after["run"]
    assert (20, 0, 0) == counted(before, "fresh", "repeated", "not_distinct")
    assert (0, 20, 20) == counted(after, "fresh", "repeated", "not_distinct")
    assert (0, 20) == (before["known"], after["known"])
    assert "not fresh" not in before["text"]
    assert "20 of 20 answers are not fresh" in first_lines(after)
    assert "20 distinct draws of 20, 0 fresh" in after["text"]


def test_only_what_was_known_is_not_fresh(endpoint: Endpoint, child: Child) -> None:
    """A proxy that forgets half of it: what is new is counted as fresh, and the report says how much is not."""
    endpoint.configure(fixed_id=True)
    child(
        """
        import os
        import dspy
        import dspy_cachectl as cachectl

        url = os.environ["ENDPOINT_URL"]
        dspy.configure(lm=cachectl.LM("openai/test-model", api_base=url, api_key="k", temperature=1.0))
        for question in range(8):
            dspy.Predict("question -> answer")(question=f"question {question} ?")
        """
    )
    found = elsewhere(child)
    assert (12, 8, 8) == counted(found, "fresh", "repeated", "not_distinct")
    assert "8 of 20 answers are not fresh" in first_lines(found)
    assert "20 distinct draws of 20, 12 fresh" in found["text"]


def test_repeats_of_what_was_known(endpoint: Endpoint, child: Child) -> None:
    """Three repeats in a new process: one draw a question, and not even that one is fresh."""
    endpoint.configure(fixed_id=True)
    first, again = (elsewhere(child, repeats=3) for _ in range(2))
    assert (20, 40, 40) == counted(first, "fresh", "repeated", "not_distinct")
    assert (20, 0) == (first["distinct"], first["known"])
    assert (0, 60, 60) == counted(again, "fresh", "repeated", "not_distinct")
    assert (20, 60) == (again["distinct"], again["known"])
    assert "40 of 60 repeats are replays" in first_lines(first)
    assert "60 of 60 answers are not fresh" in first_lines(again)


def test_a_resumed_draw_is_no_answer_that_was_known(endpoint: Endpoint, child: Child) -> None:
    """A run that goes on in another process, or is evaluated again there, has its own draws; a known one stays one."""
    endpoint.configure(fixed_id=True)
    one = elsewhere(child, run_id="one")
    for _ in range(2):
        again = elsewhere(child, run_id="one")
        assert (0, 20, 0, 0) == counted(again, "fresh", "resumed", "repeated", "not_distinct")
        assert (20, 0, "") == (again["distinct"], again["known"], "not fresh" if "not fresh" in again["text"] else "")
    other = elsewhere(child, run_id="other")
    resumed = elsewhere(child, run_id="other")
    assert endpoint.requests == 40
    assert (20, 20) == (other["known"], resumed["known"])
    assert (20, 20) == counted(resumed, "resumed", "not_distinct")
    assert "20 of 20 answers are not fresh" in first_lines(resumed)
    assert one["draws"] == 20


@pytest.mark.exhaustive
def test_loaded_predictions_say_what_they_were(endpoint: Endpoint, child: Child, tmp_path: Path) -> None:
    """Kept predictions of fresh draws are nobody else's; those that were known say so when they are loaded, too."""
    endpoint.configure(fixed_id=True)
    for name, known in (("one", 0), ("two", 20)):
        for requests in (20, 0):
            endpoint.reset_counts()
            found = elsewhere(child, predictions=str(tmp_path / name))
            assert requests == endpoint.requests
            assert (known, 20) == (found["known"], found["distinct"])
            assert ("not fresh" in first_lines(found)) is bool(known)


def test_two_phases_that_share_a_run(endpoint: Endpoint, lm: MakeLM, program: dspy.Module) -> None:
    """What one phase drew is the other's as well: resumed, and known to nobody before."""
    endpoint.configure(fixed_id=True)
    for expected in (("fresh", 5), ("resumed", 5)):
        with cachectl.phase("eval", run_id="shared"):
            report = run(program, questions(5), metric=never, predictions=False)
        assert expected[1] == report.provenance.counters[expected[0]]
        assert (0, 0) == (report.distinct.known, report.provenance.counters["not_distinct"])


@pytest.mark.parametrize("same_run", [pytest.param(False, marks=pytest.mark.exhaustive), True])
def test_two_processes_at_once(endpoint: Endpoint, child: Child, same_run: bool) -> None:
    """Each answer of the proxy is fresh for one of them, whoever stored it first."""
    from concurrent.futures import ThreadPoolExecutor

    endpoint.configure(fixed_id=True, delay=0.05)
    with ThreadPoolExecutor(2) as pool:
        options = [{"run_id": "same" if same_run else f"run {number}", "num_threads": 4} for number in range(2)]
        both = list(pool.map(lambda each: elsewhere(child, **each), options))
    bought = sum(sum(counted(found, "fresh", "repeated", "bought_twice")) for found in both)
    assert endpoint.requests == bought
    assert 20 == sum(counted(found, "fresh")[0] for found in both)
    assert (0 if same_run else 20) == sum(found["known"] for found in both)
    assert [20, 20] == [found["distinct"] for found in both]


@pytest.mark.parametrize("threads", [1, 8])
def test_threads(endpoint: Endpoint, lm: MakeLM, program: dspy.Module, threads: int) -> None:
    """However many threads ask: each answer is fresh once."""
    endpoint.configure(fixed_id=True)
    report = run(program, questions(10), metric=never, repeats=4, predictions=False, num_threads=threads)
    counters = report.provenance.counters
    assert (10, 30, 30) == tuple(counters[name] for name in ("fresh", "repeated", "not_distinct"))
    assert (10, 0) == (report.distinct.distinct, report.distinct.known)


async def test_asynchronous_calls(endpoint: Endpoint, lm: MakeLM, child: Child) -> None:
    """A coroutine's answer is known as any other's."""
    endpoint.configure(fixed_id=True)
    asked = lm(temperature=1.0)
    for expected in ((1, 0), (0, 1)):
        with cachectl.phase("eval") as passage:
            await asked.acall("hello")
        assert expected == (passage.stats.fresh, passage.stats.repeated)
    cachectl.uninstall()
    with cachectl.phase("eval") as passage:
        asked("hello")
    assert (0, 1) == (passage.stats.fresh, passage.stats.repeated)


@pytest.mark.parametrize("way", ["in memory", "plain", "uncached", "unstored", "secret", "another engine"])
def test_other_ways_to_ask(
    endpoint: Endpoint, lm: MakeLM, plain_lm: Callable[..., dspy.LM], way: str, tmp_path: Path
) -> None:
    """Whatever asks, and wherever its answers are kept, if anywhere: what comes twice in a process is known."""
    endpoint.configure(fixed_id=True)
    if way == "in memory":
        cachectl.configure(store="memory://")
    if way == "secret":
        endpoint.configure(answers={"": ["my key is sk-proj-" + "a1B2c3D4" * 6]})
    policy = Policy.FRESH.with_overrides(stores=way != "unstored")
    found = []
    for engine in ("lm15", "litellm" if way == "another engine" else "lm15"):
        make = plain_lm if way == "plain" else lm
        asked = make(temperature=1.0, engine=engine, cache=way != "uncached")
        with cachectl.phase("eval", policy) as passage:
            asked("hello")
        found.append((passage.stats.fresh, passage.stats.repeated, passage.stats.not_distinct))
    assert endpoint.requests == 2
    assert [(0, 0, 0), (0, 0, 1)] == found if way == "uncached" else [(1, 0, 0), (0, 1, 1)] == found


@pytest.mark.exhaustive
def test_a_colleagues_store(endpoint: Endpoint, child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was imported from another store is known as if it had been bought here; what is removed is not."""
    endpoint.configure(fixed_id=True)
    file = tmp_path / "answers.jsonl"
    monkeypatch.setenv("DSPY_CACHECTL_STORE", str(tmp_path / "theirs"))
    elsewhere(child)
    data("export", file, store=tmp_path / "theirs")
    monkeypatch.setenv("DSPY_CACHECTL_STORE", str(tmp_path / "ours"))
    assert 20 == data("import", file, store=tmp_path / "ours")["files"][0]["added"]
    found = elsewhere(child, run_id="mine")
    assert (0, 20, 20) == (*counted(found, "fresh", "repeated"), found["known"])
    data("clear", "--all", "--yes", store=tmp_path / "ours")
    found = elsewhere(child, run_id="anew")
    assert (20, 0, 0) == (*counted(found, "fresh", "repeated"), found["known"])


def test_an_answer_that_was_too_old_and_comes_again(endpoint: Endpoint, lm: MakeLM) -> None:
    """A proxy that gives what was passed over as too old gives nothing fresh."""
    endpoint.configure(fixed_id=True)
    asked = lm(temperature=1.0)
    for policy in (Policy.REUSE, Policy.REUSE.with_overrides(max_age=0.0), Policy.REFRESH):
        with cachectl.phase("mine", policy) as passage:
            asked("hello")
    assert endpoint.requests == 3
    assert (0, 0, 1) == (passage.stats.fresh, passage.stats.refreshed, passage.stats.repeated)


def test_an_honest_provider_is_believed(endpoint: Endpoint, child: Child) -> None:
    """Word for word the same answers under new ids, day after day, are fresh, and nobody is said to cache."""
    endpoint.configure(answers={"question": ["yes"]})
    for _ in range(2):
        found = elsewhere(child)
        assert (20, 0, 0) == counted(found, "fresh", "repeated", "not_distinct")
        assert (20, 0) == (found["distinct"], found["known"])
        assert "fresh" not in first_lines(found).partition("LM calls")[0]


@pytest.mark.parametrize(
    ("answers", "ids"),
    [
        ("long", "constant"),
        *(pytest.param("long", ids, marks=pytest.mark.exhaustive) for ids in ("small", "none")),
        *(pytest.param("short", ids, marks=pytest.mark.exhaustive) for ids in ("constant", "small", "none")),
    ],
)
def test_ids_that_prove_nothing(
    endpoint: Endpoint,
    lm: MakeLM,
    program: dspy.Module,
    caplog: pytest.LogCaptureFixture,
    ids: str,
    answers: str,
) -> None:
    """No draw is dropped or called a replay; what contents do not tell apart is said to be unknown."""
    coins = ["yes", "no", "no", "yes", "no"]
    endpoint.configure(ids=ids, answers={"question": coins} if answers == "short" else {})
    dspy.configure(lm=lm(temperature=1.0, engine="lm15"))
    report = run(program, questions(50), metric=never, repeats=5, predictions=False)
    assert 250 == endpoint.requests == report.provenance.counters["fresh"]
    assert 250 == report.table.n * report.table.repeats
    assert not [record for record in caplog.records if "caches by itself" in record.message]
    assert "replays" not in str(report)
    assert (250 if answers == "long" else None) == report.distinct.distinct
    if answers == "short":
        assert "are draws of their own is not known" in " ".join("\n".join(str(report).splitlines()[:8]).split())
        assert report.summary()["distinct_draws"] is None


@pytest.mark.parametrize("behind_a_cache", [pytest.param(False, marks=pytest.mark.exhaustive), True])
def test_whether_it_is_fresh_may_not_be_known(endpoint: Endpoint, child: Child, behind_a_cache: bool) -> None:
    """Without ids, what a new process hears word for word again may be a replay or not: that is said, and no more."""
    endpoint.configure(ids="none", fixed_id=behind_a_cache, answers={"question": ["yes"]})
    elsewhere(child, lm={"engine": "lm15"})
    found = elsewhere(child, lm={"engine": "lm15"})
    assert (20, 0, 0) == counted(found, "fresh", "repeated", "not_distinct")
    assert found["distinct"] is None
    assert "Whether 20 of 20 answers are fresh is not known" in " ".join(found["text"].split())


def test_a_call_that_passes_on_the_answer_of_another(endpoint: Endpoint, lm: MakeLM) -> None:
    """An engine that asks another LM hands on its answer: one answer, fresh for both, and no cache on the way."""
    inner = lm(temperature=1.0, engine="litellm")

    class PassingOn(dspy.LM):
        """Asks the other, and returns its response."""

        def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
            return inner.forward(prompt=prompt, messages=messages, **kwargs)

    outer = cachectl.wrap(PassingOn("openai/outer", api_base=endpoint.url, api_key="k"))
    with cachectl.phase("eval") as passage:
        outer("hello")
    assert endpoint.requests == 1
    assert (0, 0) == (passage.stats.repeated, passage.stats.not_distinct)
