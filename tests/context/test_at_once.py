"""Two that draw the same at once, and cannot know of one another: what is first stored is what both are given.

Where they can, one of them asks (see `test_turns`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.errors import StoreUnavailableError
from dspy_cachectl.stores.disk import DiskStore
from tests.calls.support import MakeLM, exact, examples, gold, qa
from tests.endpoint import Endpoint
from tests.processes import Finished

Child = Callable[..., Finished]

ALONE = """
    from dspy_cachectl.stores.disk import DiskStore
    DiskStore.lease = lambda self, name: None  # as where there are no locks
"""

ASKS = (
    ALONE
    + """
    import json, os, sys, time, dspy, dspy_cachectl as cachectl
    options = json.loads(sys.argv[1])
    now, behind = time.time, options.pop("behind", 0)
    time.time = lambda: now() - behind
    kind = dspy.LM if options.pop("plain", False) else cachectl.LM
    lm = kind("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="sk-x", **options)
    policy = getattr(cachectl.Policy, sys.argv[2])
    run_id = {"run_id": "shared"} if policy.fresh else {}
    with cachectl.phase("both", policy, max_age=3600, temperature=1.0 if policy.fresh else None, **run_id) as run:
        answer = lm("hello")
    row = {name: count for name, count in run.stats.as_dict().items() if count and name != "by"}
    print(json.dumps({"answer": answer, "row": row, "history": lm.history[-1]["outputs"]}))
"""
)


def at_once(child: Child, endpoint: Endpoint, *arguments: str) -> list[dict[str, Any]]:
    """What two processes print that ask the same while neither has an answer."""
    before = endpoint.requests
    endpoint.hold()
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(child, ASKS, *arguments) for _ in range(2)]
        assert endpoint.wait_for(before + 2)
        endpoint.release()
        return [one.result().data for one in running]


@pytest.mark.parametrize("options", [{}, {"engine": "litellm"}, {"plain": True}])
@pytest.mark.parametrize("policy", ["FRESH", "REUSE"])
def test_two_processes_are_given_one_answer(
    child: Child, endpoint: Endpoint, options: dict[str, Any], policy: str
) -> None:
    """Both pay; the second to store is given what the first stored, says so, and a third is served that."""
    both = at_once(child, endpoint, json.dumps({"temperature": 1.0, **options}), policy)

    assert endpoint.requests == 2
    third = child(ASKS, json.dumps({"temperature": 1.0, **options}), policy).data
    assert endpoint.requests == 2
    assert [third["answer"]] * 2 == [one["answer"] for one in both] == [one["history"] for one in both]
    assert [("bought_twice", 1), ("fresh", 1)] == sorted(
        (name, count) for one in both for name, count in one["row"].items() if name in {"fresh", "bought_twice"}
    )
    assert [1, 1] == [one["row"]["requests"] for one in both]


def test_who_replaces_keeps_its_own(child: Child, endpoint: Endpoint) -> None:
    """Under REFRESH nothing is read: each keeps its own answer, and the last one stays in the store."""
    both = at_once(child, endpoint, '{"temperature": 1.0}', "REFRESH")

    assert len({tuple(one["answer"]) for one in both}) == 2
    third = child(ASKS, '{"temperature": 1.0}', "REUSE").data
    assert third["answer"] in [one["answer"] for one in both]
    assert endpoint.requests == 2


def test_what_both_turned_down_goes(child: Child, endpoint: Endpoint) -> None:
    """Where both find an answer too old, the first to buy another replaces it, and the second is given that."""
    old = child(ASKS, '{"temperature": 1.0, "behind": 7200}', "REUSE").data

    both = at_once(child, endpoint, '{"temperature": 1.0}', "REUSE")

    assert both[0]["answer"] == both[1]["answer"] != old["answer"]
    assert endpoint.requests == 3
    assert child(ASKS, '{"temperature": 1.0}', "REUSE").data["answer"] == both[0]["answer"]
    assert endpoint.requests == 3


EVALUATES = (
    ALONE
    + """
    import json, os, dspy, dspy_cachectl as cachectl
    from tests.calls.support import exact, examples, qa
    dspy.configure(lm=cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="sk-x"))
    options = {"run_id": "shared", "num_threads": 8, "predictions": f"kept-{os.getpid()}", "display_progress": False}
    report = cachectl.evaluate(qa(), examples(8), exact, **options)
    stats = cachectl.last_phase().stats
    kept = [(row.example_key, row.scores, row.output, row.draws, row.completion_tokens) for row in report.rows()]
    kept = {"score": report.score, "rows": sorted(map(str, kept)), "models": str(report.provenance.models)}
    print(json.dumps({"kept": kept, "requests": stats.requests, "twice": stats.bought_twice}))
"""
)


def test_two_evaluations_of_one_run_report_what_is_stored(child: Child, endpoint: Endpoint) -> None:
    """Started at once under one run id, both report the same draws, and so does whoever resumes them."""
    # The two answers to a question are of different lengths: what was bought and not used is in no report.
    endpoint.configure(
        answers={question: [right, f"{right} and four words more"] for question, right in gold(8).items()}
    )
    endpoint.hold()
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(child, EVALUATES) for _ in range(2)]
        assert endpoint.wait_for(16)
        endpoint.release()
        both = [one.result().data for one in running]

    assert endpoint.requests == 16 == sum(one["requests"] for one in both)
    assert sum(one["twice"] for one in both) == 8
    resumed = child(EVALUATES).data
    assert resumed == {**resumed, "requests": 0, "kept": both[0]["kept"]}
    assert both[0]["kept"] == both[1]["kept"]
    assert endpoint.requests == 16


def test_a_report_says_what_could_not_be_stored(
    endpoint: Endpoint, lm: MakeLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the store takes nothing each keeps its own answers, and says that the run cannot be had again."""

    def unreachable(*_: Any, **__: Any) -> None:
        raise StoreUnavailableError("the disk went away")

    monkeypatch.setattr(DiskStore, "put_first", unreachable)
    dspy.configure(lm=lm())
    report = cachectl.evaluate(qa(), examples(4), exact, predictions=False, display_progress=False)

    assert 4 == endpoint.requests
    assert "4 draws could not be stored" in str(report)
