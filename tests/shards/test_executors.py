"""`evaluate(executor=...)`: the same requests and the same report on every kind of pool, whatever is lost."""

from __future__ import annotations

import importlib.util
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.errors import CachectlError, ConfigurationError
from tests.cli.commands import data
from tests.endpoint import Endpoint
from tests.processes import Finished
from tests.shards.asking import CALLS, asked, devset, evaluated, make_lm, said
from tests.shards.pools import ENGINES, HERE, Postman, pool, processes

ANSWERS = 20 * 3
QUICK = {("processes", 2)}


@pytest.fixture(autouse=True)
def _on_the_endpoint(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ENDPOINT_URL", endpoint.url)
    monkeypatch.chdir(tmp_path)


def cases() -> list[Any]:
    """Kinds of pools and numbers of shards; most only in the whole suite, or where the engine is installed."""
    lacks = {"dask": "distributed", "ray": "ray"}
    return [
        pytest.param(
            kind,
            shards,
            marks=[
                *([] if (kind, shards) in QUICK else [pytest.mark.exhaustive]),
                pytest.mark.skipif(
                    kind in lacks and importlib.util.find_spec(lacks[kind]) is None, reason=f"{kind} is not installed"
                ),
            ],
        )
        for kind in HERE + ENGINES
        for shards in (1, 2, 5, 8)
    ]


@pytest.mark.parametrize(("kind", "shards"), cases())
def test_a_pool_reports_what_one_process_does(endpoint: Endpoint, tmp_path: Path, kind: str, shards: int) -> None:
    """600 draws a time: each is bought once, the run is complete, and the report is the same to the digit."""
    count, repeats = (50, 4) if (kind, shards) not in QUICK else (20, 3)
    with pool(kind) as executor:
        first = evaluated(count, repeats, executor=executor, shards=shards)
        assert count * repeats * CALLS == endpoint.requests == first.provenance.counters["requests"]
        assert ["complete"] == [run["state"] for run in data("runs", store=tmp_path / "store")]
        again = evaluated(count, repeats, executor=executor, shards=shards)
    whole = evaluated(count, repeats)
    assert count * repeats * CALLS == endpoint.requests
    assert said(whole) == said(again)
    assert str(whole) == str(again)
    assert (0, count * repeats * 3) == (first.provenance.counters["not_distinct"], len(first.draw_ids))


class Killing:
    """A metric that kills its process, once."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __call__(self, example: Any, prediction: Any, trace: Any = None) -> float:
        """Score by the answer's length."""
        if not Path(self.mark).exists() and "7" in example.question:
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return float(len(prediction.answer) % 2)


def killed(tmp_path: Path, executor: Any, **options: Any) -> Any:
    """An evaluation one of whose workers is killed."""
    program, _ = asked()
    given = {"predictions": False, "display_progress": False, "num_threads": 2, "shards": 4, "run_id": "killed"}
    return cachectl.evaluate(program, devset(20), Killing(tmp_path / "mark"), executor=executor, **{**given, **options})


def test_a_killed_worker_buys_nothing_twice_but_what_was_in_the_air(endpoint: Endpoint, tmp_path: Path) -> None:
    """The pool is made anew and the shard sent again: at most the calls in the air are bought again."""
    report = killed(tmp_path, processes)
    assert (20, 0) == (report.n, report.failures)
    assert 20 * 3 <= endpoint.requests <= 20 * 3 + 4


@pytest.mark.exhaustive
def test_a_pool_that_is_lost_leaves_what_was_answered(endpoint: Endpoint, tmp_path: Path) -> None:
    """The error says what to do; the same evaluation with another pool goes on from there."""
    with processes() as executor, pytest.raises(CachectlError, match="again with another pool goes on from here"):
        killed(tmp_path, executor)
    before = endpoint.requests
    with processes() as executor:
        report = killed(tmp_path, executor)
    assert 20 == report.n
    assert 20 * 3 <= endpoint.requests <= 20 * 3 + 4
    assert endpoint.requests - before < 20 * 3


def test_predictions_are_kept_where_the_evaluation_was_asked_for(endpoint: Endpoint) -> None:
    """Workers send back what is to be kept, and are sent what is kept: a pool asks only for what is missing."""
    with ThreadPoolExecutor(2) as executor:
        program, judge = asked()
        options = {"predictions": "library", "display_progress": False}
        cachectl.evaluate(program, devset(10), judge, **options)
        assert 10 * CALLS == endpoint.requests
        more = cachectl.evaluate(program, devset(20), judge, executor=executor, shards=3, **options)
        assert 20 * CALLS == endpoint.requests
        assert "extended" == more.provenance.predictions
        whole = cachectl.evaluate(program, devset(20), judge, **options)
        again = cachectl.evaluate(program, devset(20), judge, executor=executor, shards=3, **options)
    assert 20 * CALLS == endpoint.requests
    assert ("loaded", whole.path) == (whole.provenance.predictions, more.path)
    assert said(whole) == said(again)
    assert 20 == len(list(more.rows()))


NOTEBOOK = """
import dspy, multiprocessing, os
from concurrent.futures import ProcessPoolExecutor
import dspy_cachectl as cachectl

class Twice(dspy.Module):
    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question):
        self.ask(question=question)
        return self.ask(question=question)

def is_long(example, prediction, trace=None):
    return len(prediction.answer) > limit

limit = 4
dspy.configure(lm=cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="none"))
devset = [dspy.Example(question=f"question {n} ?").with_inputs("question") for n in range(8)]
options = {"predictions": "kept", "display_progress": False}
with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
    first = cachectl.evaluate(Twice(), devset, is_long, executor=pool, shards=2, **options)
again = cachectl.evaluate(Twice(), devset, is_long, **options)
print([first.score == again.score, again.provenance.predictions, again.provenance.rescored])
"""


@pytest.mark.exhaustive
def test_programs_and_metrics_of_a_notebook(child: Any, endpoint: Endpoint, tmp_path: Path) -> None:
    """What is defined in `__main__` goes to workers by value, and its predictions are filed where they are found."""
    ran: Finished = child(f"import sys; del sys.modules['__main__'].__file__\nexec({NOTEBOOK!r})", fresh=True)
    assert '[true, "loaded", 0]' == ran.stdout.splitlines()[-1].replace("'", '"').replace("True", "true")
    assert 8 * 2 == endpoint.requests


def test_what_ends_a_shard_ends_the_evaluation(endpoint: Endpoint) -> None:
    """The error is the metric's own, as without a pool, and what was answered is its report."""

    def none(example: Any, prediction: Any) -> Any:
        return None

    program, _ = asked()
    options = {"shards": 2, "predictions": False, "display_progress": False, "num_threads": 1}
    with ThreadPoolExecutor(1) as pool, pytest.raises(ConfigurationError, match="gave no score") as raised:
        cachectl.evaluate(program, devset(20), none, executor=pool, **options)
    report = cachectl.last_report()
    assert report is raised.value.report  # type: ignore[attr-defined]
    assert report is not None
    assert 0 < report.provenance.missing < 20


def test_an_error_comes_back_from_another_process(endpoint: Endpoint) -> None:
    """As it is sent by workers, in bytes: a replay that misses says so where it was asked for."""
    with (
        pytest.raises(cachectl.ReplayIncompleteError, match="2 calls"),
        cachectl.phase("replay", cachectl.Policy.REPLAY),
    ):
        evaluated(2, 1, executor=Postman(), run_id=None)
    assert 0 == endpoint.requests


@pytest.mark.parametrize("what", [7, object(), dspy, lambda: 7])
def test_what_is_no_pool_is_refused(endpoint: Endpoint, what: Any) -> None:
    """The error says what a pool has; nothing is asked."""
    with pytest.raises(ConfigurationError, match="executor is something with submit"):
        evaluated(4, 1, executor=what)
    assert 0 == endpoint.requests


def test_evaluations_at_once_take_no_bar_of_one_another(endpoint: Endpoint) -> None:
    """DSPy's executor forgets the bars of all threads whenever it begins: hundreds at once all come to their end."""
    from dspy.utils.parallelizer import ParallelExecutor

    def many(_: int) -> int:
        done = [ParallelExecutor(num_threads=1, disable_progress_bar=True).execute(str, [1, 2]) for _ in range(200)]
        return len(done)

    cachectl.install()
    with ThreadPoolExecutor(8) as executor:
        assert [200] * 8 == list(executor.map(many, range(8)))


TRACKED = """
    import concurrent.futures, mlflow
    mlflow.set_tracking_uri("sqlite:///runs.db")
    mlflow.dspy.autolog(log_evals=True)
    from tests.shards.asking import evaluated

    counts = []
    for how in (None, True):
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            evaluated(6, 1, executor=pool, shards=3, mlflow=how)
        counts.append(len(mlflow.search_runs(output_format="list")))
    print(counts)
"""


@pytest.mark.exhaustive
def test_a_pool_is_one_run_in_mlflow(child: Any, endpoint: Endpoint) -> None:
    """Its parts are none of their own, though autolog is on in the process that they are evaluated in."""
    pytest.importorskip("mlflow")
    assert [0, 1] == child(TRACKED).data


def test_several_models_are_asked_on_a_pool(endpoint: Endpoint) -> None:
    """Each by the same workers, and the judge is that of whoever evaluates: the ranking is that of one process."""
    lms = {name: make_lm(f"openai/{name}") for name in ("small", "large")}
    _, judge = asked()
    options = {"lms": lms, "run_id": "models", "predictions": False, "display_progress": False}
    program = dspy.Predict("question -> answer")
    with dspy.context(lm=make_lm("openai/other")):
        spread = cachectl.evaluate(program, devset(6), judge, executor=Postman(), shards=2, **options)
        assert 6 * 2 * 2 == endpoint.requests
        here = cachectl.evaluate(program, devset(6), judge, **options)
    assert 6 * 2 * 2 == endpoint.requests
    assert [(one.name, one.score) for one in here] == [(one.name, one.score) for one in spread]
    assert ["openai/small", "openai/large"] == [one.provenance.model for one in spread]
