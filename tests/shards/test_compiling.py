"""Optimizers whose candidates are evaluated on workers: the requests and the result of one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.calls.support import evaluate, exact, examples, gold, qa
from tests.endpoint import Endpoint
from tests.processes import Finished
from tests.shards.pools import Postman

COMPILES = """
    import contextlib, hashlib, json, os, sys
    import dspy, dspy_cachectl as cachectl
    from dspy_cachectl.evaluation.pools import candidates
    from tests.calls.support import examples, exact
    from tests.context.workers import make_lm
    from tests.shards.pools import pool

    def compiled(optimizer):
        data = examples(12)
        program = dspy.ChainOfThought("question -> answer")
        if optimizer == "random":
            made = dspy.BootstrapFewShotWithRandomSearch(metric=exact, num_candidate_programs=3, num_threads=2)
            return made.compile(program, trainset=data[:6], valset=data)
        lm = dspy.settings.lm
        made = dspy.MIPROv2(metric=exact, auto=None, num_candidates=3, num_threads=2, prompt_model=lm, task_model=lm)
        return made.compile(program, trainset=data[:6], valset=data, num_trials=4, minibatch_size=6, seed=1)

    if __name__ == "__main__":
        optimizer, kind = sys.argv[1:]
        dspy.configure(lm=cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="none"))
        judged = []
        original = candidates._spread
        candidates._spread = lambda *given: judged.append(1) or original(*given)
        with cachectl.phase("compile") as run, contextlib.ExitStack() as stack:
            if kind != "here":
                stack.enter_context(cachectl.workers(stack.enter_context(pool(kind))))
            best = compiled(optimizer)
        found = [[one["score"], one["program"].dump_state()] for one in best.candidate_programs]
        said = json.dumps([best.dump_state(), found], sort_keys=True, default=str)
        counted = [run.stats.calls, run.stats.requests]
        print(json.dumps([hashlib.sha256(said.encode()).hexdigest(), counted, len(judged)]))
"""


@pytest.mark.parametrize("optimizer", ["random", pytest.param("mipro", marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("kind", ["threads", pytest.param("loky", marks=pytest.mark.exhaustive)])
def test_candidates_on_workers_are_those_of_one_process(
    child: Callable[..., Finished], endpoint: Endpoint, tmp_path: Path, optimizer: str, kind: str
) -> None:
    """The same candidates with the same scores, and as many requests, which the phase has counted."""
    found = {}
    for where in ("here", kind):
        endpoint.reset()  # it gives the same draws again
        endpoint.configure(accuracy=0.6, gold=gold(12))
        store = {"DSPY_CACHECTL_STORE": str(tmp_path / where)}
        result, (calls, requests), spread = child(COMPILES, optimizer, where, env=store).data
        assert endpoint.requests == requests
        assert (where != "here") == (spread > 0)
        found[where] = result, calls, requests
    assert found["here"] == found[kind]


def test_other_evaluations_in_the_block_run_here(endpoint: Endpoint, lm: Callable[..., cachectl.LM]) -> None:
    """One that no optimizer makes, and that of a fresh phase: nothing is sent, and all of it is asked."""
    postman = Postman()
    program = qa()
    with cachectl.workers(postman), dspy.context(lm=lm()):
        with cachectl.phase("compile"):
            evaluate(program, examples(4))
        with cachectl.phase("eval"):
            optimizer = dspy.BootstrapFewShotWithRandomSearch(metric=exact, num_candidate_programs=0)
            optimizer.compile(program, trainset=examples(2))
    assert b"" == postman.sent
    assert endpoint.requests > 4
