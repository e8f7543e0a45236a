"""Compile a small program once and print what came out: run as a script, in a process of its own."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable
from typing import Any

import dspy

import dspy_cachectl as cachectl
from tests.calls.support import exact, examples

EXAMPLES = examples(12)
TRAINSET, VALSET = EXAMPLES[:6], EXAMPLES[6:]


def exact_with_feedback(gold: Any, prediction: Any, trace: Any, name: Any, name_trace: Any) -> dspy.Prediction:
    """What GEPA wants of a metric."""
    return dspy.Prediction(score=exact(gold, prediction), feedback=f"It is {gold.answer}.")


def bootstrap(student: dspy.Module) -> dspy.Module:
    return dspy.BootstrapFewShot(metric=exact, max_bootstrapped_demos=2, max_rounds=2).compile(
        student, trainset=TRAINSET
    )


def random_search(student: dspy.Module) -> dspy.Module:
    return dspy.BootstrapFewShotWithRandomSearch(
        metric=exact, max_bootstrapped_demos=1, max_labeled_demos=1, num_candidate_programs=2, num_threads=2
    ).compile(student, trainset=TRAINSET, valset=VALSET)


def mipro(student: dspy.Module) -> dspy.Module:
    return dspy.MIPROv2(metric=exact, auto=None, num_candidates=2, num_threads=2, seed=1).compile(
        student,
        trainset=TRAINSET,
        valset=VALSET,
        num_trials=3,
        minibatch=False,
        max_bootstrapped_demos=1,
        max_labeled_demos=1,
    )


def copro(student: dspy.Module) -> dspy.Module:
    return dspy.COPRO(metric=exact, breadth=2, depth=2).compile(
        student, trainset=TRAINSET, eval_kwargs={"num_threads": 2, "display_progress": False}
    )


def simba(student: dspy.Module) -> dspy.Module:
    return dspy.SIMBA(metric=exact, bsize=4, num_candidates=2, max_steps=2, num_threads=2).compile(
        student, trainset=TRAINSET, seed=1
    )


def gepa(student: dspy.Module) -> dspy.Module:
    return dspy.GEPA(
        metric=exact_with_feedback, reflection_lm=dspy.settings.lm, max_metric_calls=40, num_threads=2, seed=1
    ).compile(student, trainset=TRAINSET, valset=VALSET)


def infer_rules(student: dspy.Module) -> dspy.Module:
    return dspy.InferRules(
        metric=exact, num_candidates=2, num_rules=2, num_threads=2, max_bootstrapped_demos=1, max_labeled_demos=1
    ).compile(student, trainset=TRAINSET, valset=VALSET)


OPTIMIZERS: dict[str, Callable[[dspy.Module], dspy.Module]] = {
    "BootstrapFewShot": bootstrap,
    "BootstrapFewShotWithRandomSearch": random_search,
    "MIPROv2": mipro,
    "COPRO": copro,
    "SIMBA": simba,
    "GEPA": gepa,
    "InferRules": infer_rules,
}


def requests_so_far() -> int:
    """What the endpoint has counted."""
    with urllib.request.urlopen(os.environ["ENDPOINT_URL"].replace("/v1", "/_control/state")) as answer:
        return int(json.load(answer)["requests"])


def main() -> None:
    """Print, for each optimizer, the compiled program's state, its requests and the counters of its phase."""
    found = {}
    for name, optimize in OPTIMIZERS.items():
        # Versions keep their entries apart: no optimizer lives on what another one bought.
        lm = cachectl.LM(
            "openai/test-model",
            api_base=os.environ["ENDPOINT_URL"],
            api_key="sk-test",
            temperature=1.0,
            version=name,
        )
        before = requests_so_far()
        with dspy.context(lm=lm), cachectl.phase("compile") as run:
            compiled = optimize(dspy.ChainOfThought("question -> answer"))
        found[name] = {
            "program": compiled.dump_state(),
            "requests": requests_so_far() - before,
            "counted": run.stats.requests,
            "calls": run.stats.calls,
            "served": run.stats.reused + run.stats.coalesced,
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
