"""Write pitches with one LM and judge them with another: compile from the cache, evaluate afresh, log to MLflow."""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dspy_cachectl as cachectl  # before DSPy: it loads nothing, and neither is slower for it

# isort: split
import dspy
from dspy.utils.exceptions import AdapterParseError
from products import test_set, train_set
from program import Pitcher, judged_by

GENERATOR_TEMPERATURE = 1.0
JUDGE_TEMPERATURE = 0.7
THREADS = 4
EXPERIMENT = "pitch"


def main() -> None:
    """Do what the command line asks for."""
    options = parsed()
    options.output.mkdir(parents=True, exist_ok=True)
    # The same pitch judged twice gets one verdict, and the judge is paid once.
    cachectl.configure(
        store=options.output / "store",
        state=options.output / "state",
        phases={"eval": {"roles": {"judge": "REUSE"}}},
        budget=None if options.max_cost is None else f"cost={options.max_cost}",
    )
    try:
        pitch(options)
    except cachectl.BudgetExceededError as error:  # what was bought is kept: with more it goes on from here
        print(f"\n{error}")
    print(f"\nusage, in all\n{cachectl.stats()}")


def pitch(options: argparse.Namespace) -> None:
    """Compile the program, and pitch, or evaluate it."""
    with ExitStack() as stack:
        generator, judge, adapter = models(options, stack)
        dspy.configure(lm=generator, adapter=adapter)
        metric = judged_by(judge)
        is_tracked = options.evaluate and track(options.output)
        with cachectl.phase("compile") as compiling:
            program = OPTIMIZERS[options.optimization](metric, is_local=options.model is None)
        print(f"{options.optimization}: {compiling.stats}\n")
        test = random.Random(options.seed).sample(test_set(), options.test_size)
        if options.evaluate:
            evaluate(program, test, metric, options, is_tracked=is_tracked)
        else:
            show(program, test, metric)


def parsed() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--optimization", choices=sorted(OPTIMIZERS), default="none", help="how to compile it")
    parser.add_argument("--test-size", type=int, default=12, metavar="N", help="how many products to pitch")
    parser.add_argument("--evaluate", action="store_true", help="score them, with an interval, and log that to MLflow")
    parser.add_argument("--repeats", type=int, default=1, metavar="N", help="how many pitches of each to score")
    parser.add_argument("--force-recompute", action="store_true", help="draw anew what was kept of an evaluation")
    parser.add_argument("--model", metavar="NAME", help="a provider's model, such as openai/gpt-4o-mini")
    parser.add_argument("--judge-model", metavar="NAME", help="another one to judge; else the same")
    parser.add_argument("--max-cost", type=float, metavar="USD", help="spend no more than so many US dollars")
    parser.add_argument("--seed", type=int, default=0, help="of the order in which the products come")
    parser.add_argument("--output", type=Path, default=Path("outputs/pitch"), metavar="FOLDER", help="where it goes")
    options = parser.parse_args()
    if not 1 <= options.test_size <= len(test_set()):
        parser.error(f"--test-size is 1 to {len(test_set())}")
    if options.judge_model and not options.model:
        parser.error("--judge-model is a provider's: name --model too")
    if options.repeats < 1:
        parser.error("--repeats is 1 or more")
    if options.force_recompute and not options.evaluate:
        parser.error("--force-recompute is for what --evaluate keeps")
    if options.optimization == "mipro" and find_spec("optuna") is None:
        parser.error("MIPROv2 needs optuna: pip install optuna")
    return options


def models(options: argparse.Namespace, stack: ExitStack) -> tuple[dspy.LM, dspy.LM, dspy.Adapter]:
    """Return the generator, the judge, and the adapter that suits them. Without a provider it starts a local model."""
    generator = {"role": "generator", "temperature": GENERATOR_TEMPERATURE}
    judge = {"role": "judge", "temperature": JUDGE_TEMPERATURE}
    if options.model is None:
        model = stack.enter_context(cachectl.local_model())
        return model.lm(**generator), model.lm(max_tokens=2, **judge), model.adapter  # a rating is one word
    judged_with = options.judge_model or options.model
    return cachectl.LM(options.model, **generator), cachectl.LM(judged_with, **judge), dspy.ChatAdapter()


def not_compiled(metric: Callable[..., float], *, is_local: bool) -> dspy.Module:
    """Return the program as it is written, with three pitches to go by where the model follows no instructions."""
    if is_local:
        return dspy.LabeledFewShot(k=3).compile(Pitcher(), trainset=train_set())
    return Pitcher()


def bootstrapped(metric: Callable[..., float], *, is_local: bool) -> dspy.Module:
    """Return the program with demonstrations that the judge likes."""
    optimizer = dspy.BootstrapFewShot(metric=metric, max_bootstrapped_demos=3, max_labeled_demos=6)
    return optimizer.compile(not_compiled(metric, is_local=is_local), trainset=train_set())


def with_mipro(metric: Callable[..., float], *, is_local: bool) -> dspy.Module:
    """Return the program with the instruction and the demonstrations that MIPROv2 finds best."""
    train = train_set()
    if not is_local:
        return dspy.MIPROv2(metric=metric, auto="light", num_threads=THREADS).compile(Pitcher(), trainset=train)
    # What fits the local model: few candidates, and no long prompt about the program.
    optimizer = dspy.MIPROv2(metric=metric, auto=None, num_candidates=3, num_threads=THREADS)
    return optimizer.compile(
        Pitcher(),
        trainset=train[:6],
        valset=train[6:],
        num_trials=4,
        minibatch=False,
        program_aware_proposer=False,
        data_aware_proposer=False,
        fewshot_aware_proposer=False,
    )


OPTIMIZERS: dict[str, Callable[..., dspy.Module]] = {
    "none": not_compiled,
    "bootstrap": bootstrapped,
    "mipro": with_mipro,
}


def track(output: Path) -> bool:
    """Let MLflow log every evaluation, by itself in a database in the output folder; tell whether it is installed."""
    if find_spec("mlflow") is None:
        print("MLflow is not installed, so nothing is logged: pip install 'dspy-cachectl[mlflow]'")
        return False
    import mlflow

    cachectl.protect_mlflow()  # no server holds the program up for long
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        mlflow.set_tracking_uri(f"sqlite:///{output / 'mlflow.db'}")
        if mlflow.get_experiment_by_name(EXPERIMENT) is None:
            mlflow.create_experiment(EXPERIMENT, artifact_location=(output / "artifacts").absolute().as_uri())
    mlflow.set_experiment(EXPERIMENT)
    mlflow.dspy.autolog(log_evals=True)
    return True


def evaluate(
    program: dspy.Module,
    test: list[dspy.Example],
    metric: Callable[..., float],
    options: argparse.Namespace,
    *,
    is_tracked: bool,
) -> None:
    """Score the program afresh, compare it with the one that is not compiled, and log the report to autolog's run."""
    report = cachectl.evaluate(
        program,
        test,
        metric,
        repeats=options.repeats,
        num_threads=THREADS,
        name=options.optimization,
        predictions=options.output / "predictions",
        force_recompute=options.force_recompute,
    )
    print(report)
    if is_tracked:
        # From memory, or within ten seconds: the run that autolog opened for this evaluation.
        run_id = cachectl.find_mlflow_run()
        logged = cachectl.log_to_mlflow(report, run_id=run_id)
        print(f"\nMLflow: {logged.status}, run {logged.run_id} {logged.reason}".rstrip())
    report.save(options.output / f"{options.optimization}.json")
    before = options.output / "none.json"
    if options.optimization != "none" and before.exists():
        print(f"\n{cachectl.EvalReport.load(before).compare(report)}")


def show(program: dspy.Module, test: list[dspy.Example], metric: Any) -> None:
    """Pitch one product after the other, and say what the judge thinks."""
    with cachectl.phase("eval"):
        for done, example in enumerate(test, start=1):
            prediction = program(**example.inputs())
            try:
                rated = f"{metric(example, prediction):g}"
            except AdapterParseError:  # the judge's answer was no rating
                rated = "not rated"
            print(f"{done}/{len(test)} {example.product}, for {example.audience} ({rated}): {line(prediction.pitch)}")


def line(text: str) -> str:
    """Return what an LM wrote as it may be printed: nothing in it steers a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


if __name__ == "__main__":
    main()
