"""Reports and comparisons on a real server: numbers, tables, figures, inputs and nested runs."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import threading
from concurrent import futures
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.tracking._tracking_service import utils

from dspy_cachectl.accounting.troubles import Trouble
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.reports.ranking import Ranking
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.reports.several import compare
from dspy_cachectl.settling.result import Look, Settled
from dspy_cachectl.statistics.looks import Bound
from dspy_cachectl.tracking import attachments, sync
from dspy_cachectl.tracking.log import log_to_mlflow
from dspy_cachectl.tracking.outbox import Outbox
from dspy_cachectl.tracking.report_records import digest
from tests.limits import PATIENCE
from tests.reports.made_up import BOUGHT, report
from tests.tracking import servers
from tests.tracking.delivered import FILES, deliver_twice, kinds
from tests.tracking.rest import Rest, Run

pytestmark = pytest.mark.usefixtures("mlflow_set")


def _run_of(server: Rest, uid: str | None) -> Run:
    (found,) = server.runs_of(str(uid))
    return found


def _metrics(run: Run) -> dict[str, float]:
    return {name.removeprefix("dspy_cachectl/"): value for name, value in run.metrics.items()}


def test_a_report_is_a_run_with_its_error_bars(server: Rest, outbox: Outbox) -> None:
    """Score, error, interval, variance, ledger and provenance are in one finished run of its own."""
    made = report([(1, 0), (1, 1), (0, 0), (1, 0), (None, 1)], name="answers")
    outcome = log_to_mlflow(made)

    found = _run_of(server, outcome.uid)
    assert (found.id, found.status) == (outcome.run_id, "FINISHED")
    assert found["info"]["run_name"] == "answers"
    assert (found["info"]["start_time"], found["info"]["end_time"]) == (
        int((BOUGHT + 100.0 - 12.3) * 1000),
        int((BOUGHT + 100.0) * 1000),
    )
    expected = {
        "score/mean": made.score,
        "score/se": made.standard_error,
        "score/ci_low": made.interval.low,
        "score/ci_high": made.interval.high,
        "score/n": 5.0,
        "score/k": 2.0,
        "score/k_eff": made.distinct.effective,
        "score/failures": 1.0,
        "score/flip_rate": made.flip_rate,
        "var/within": made.variance.within,
        "var/between": made.variance.between,
        "cache/calls": 14.0,
        "cache/fresh": 9.0,
        "cache/resumed": 3.0,
        "cost/spent": 0.0123,
        "cost/saved": 0.001,
        "cost/tokens_spent": 12345.0,
        "cost/seconds_spent": 40.0,
        "cost/unpriced": 1.0,
        "cost/wall_s": 12.3,
    }
    metrics = _metrics(found)
    assert expected == {name: metrics[name] for name in expected}
    tags = {
        "kind": "eval",
        "name": "answers",
        "phase": "eval",
        "policy": "FRESH",
        "cache_run_id": "run-7",
        "model": "openai/gpt-4o-mini",
        "program_sha": "a1" * 32,
        "devset_digest": "b2" * 32,
        "metric": "exact_match",
        "report": digest(made),
    }
    assert tags == {name: found.tags[f"dspy_cachectl.{name}"] for name in tags}
    assert found.params["dspy_cachectl.repeats"] == "2"
    assert found.params["dspy_cachectl.versions.dspy"] == "3.4.1"
    assert found.inputs == [("devset", ("b2" * 32)[:36], {"mlflow.data.context": "eval"})]
    assert outbox.waiting() == []


def test_repeats_are_steps(server: Rest) -> None:
    """Each repeat's own score is a step, and the totals stand at the last one."""
    outcome = log_to_mlflow(report([(1, 0, 1), (1, 1, 0), (0, 0, 0), (1, 0, 0)]))
    steps = server.history(str(outcome.run_id), "dspy_cachectl/score/repeat")
    assert sorted((step, value) for step, value, _ in steps) == [(0, 0.75), (1, 0.25), (2, 0.25)]
    assert [step for step, _, _ in server.history(str(outcome.run_id), "dspy_cachectl/score/mean")] == [2]


def test_the_table_has_a_row_a_draw(server: Rest) -> None:
    """`mlflow.load_table` reads it, and it says what each score is and what it was made of."""
    outcome = log_to_mlflow(report([(1, 0), (None, 1)], preview="api_key=sk-verysecretverysecret {}\ud800"))
    found = _run_of(server, outcome.uid)
    name = f"dspy_cachectl/rows_{str(outcome.uid)[:8]}.json"
    table = mlflow.load_table(name, run_ids=[found.id])
    assert list(table["score"]) == [1.0, 0.0, 0.0, 1.0]
    assert list(table["repeat"]) == [0, 1, 0, 1]
    assert list(table["question"]) == ["question-0", "question-0", "question-1", "question-1"]
    assert table["failed"][2] == "the metric raised KeyError: 'answer'"
    assert "verysecret" not in server.download(found, name).decode()


def test_trouble_is_counted_and_listed_by_predictor(server: Rest) -> None:
    """Where there was any: totals as metrics, and a table with the questions. Where there was none: neither."""
    made = report([(1, 0), (1, 1)])
    quiet = _run_of(server, log_to_mlflow(made).uid)
    assert not [name for name in (*quiet.metrics, *server.artifacts(quiet.id)) if "trouble" in name]
    first, second = made.questions
    draw = replace(first.draws[0], troubles=(Trouble("a.predict", unparsed=2, fall_backs=1), Trouble("b", retries=3)))
    made = replace(made, questions=(replace(first, draws=(draw, first.draws[1])), second))
    found = _run_of(server, log_to_mlflow(made).uid)
    metrics = _metrics(found)
    assert (2.0, 1.0, 3.0) == tuple(metrics[f"trouble/{kind}"] for kind in ("unparsed", "fall_backs", "retries"))
    assert "trouble/truncated" not in metrics
    (name,) = (path for path in server.artifacts(found.id) if "/troubles_" in path)
    table = mlflow.load_table(name, run_ids=[found.id])
    assert table[["predictor", "kind", "count", "questions"]].to_numpy().tolist() == [
        ["a.predict", "unparsed", 2, 1],
        ["a.predict", "fall_backs", 1, 1],
        ["b", "retries", 3, 1],
    ]
    assert [one["question"] for one in json.loads(table["where"][0])] == ["question-0"]


def test_two_reports_in_a_run_of_the_user(server: Rest) -> None:
    """Both are there, one after the other; the user's table, params and status stay what they were."""
    with mlflow.start_run() as active:
        mlflow.log_table({"a": [1]}, "mine.json")
        outcomes = [log_to_mlflow(report(scores)) for scores in ([1, 1, 0], [1, 0, 0])]
        found = server.run(active.info.run_id)
    assert found.status == "RUNNING"
    assert found.params == {}
    steps = sorted((step, value) for step, value, _ in server.history(found.id, "dspy_cachectl/score/mean"))
    assert steps == [(0, 2 / 3), (1, 1 / 3)]
    tables = [f"dspy_cachectl/rows_{str(outcome.uid)[:8]}.json" for outcome in outcomes]
    listed = [table["path"] for table in json.loads(found.tags["mlflow.loggedArtifacts"])]
    assert sorted(listed) == sorted(["mine.json", *tables])
    assert list(mlflow.load_table(tables[1], run_ids=[found.id])["score"]) == [1.0, 0.0, 0.0]


def test_a_comparison_is_the_parent_of_what_it_compares(server: Rest) -> None:
    """Its run holds difference and verdict; the runs of the two reports, loaded from a file or not, are below it."""
    old, new = report([0, 0, 1, 0, 0, 1] * 5, name="old"), report([1, 1, 1, 0, 1, 1] * 5, name="new")
    children = [log_to_mlflow(made).run_id for made in (old, new)]
    comparison = old.compare(new)
    outcome = log_to_mlflow(comparison)

    found = _run_of(server, outcome.uid)
    assert [server.run(str(child)).tags.get("mlflow.parentRunId") for child in children] == [found.id] * 2
    metrics = _metrics(found)
    expected = {
        "delta/mean": 0.5,
        "delta/se": comparison.result.error.value,
        "delta/ci_low": comparison.interval.low,
        "delta/ci_high": comparison.interval.high,
        "delta/p": comparison.p_value,
        "delta/wins": 15.0,
        "delta/losses": 0.0,
    }
    assert {name: pytest.approx(value) for name, value in expected.items()} == {
        name: metrics[name] for name in expected
    }
    assert found.tags["dspy_cachectl.kind"] == "compare"
    assert found.tags["dspy_cachectl.verdict"] == comparison.verdict_text
    assert (found.tags["dspy_cachectl.baseline"], found.tags["dspy_cachectl.candidate"]) == ("old", "new")
    page = server.download(found, f"dspy_cachectl/page_{str(outcome.uid)[:8]}.html").decode()
    assert "<title>new against old</title>" in page
    table = mlflow.load_table(f"dspy_cachectl/compare_{str(outcome.uid)[:8]}.json", run_ids=[found.id])
    assert list(table["difference"]) == [0.5]


def test_what_settle_found_has_its_looks_as_steps(server: Rest) -> None:
    """The verdict is that over all looks, and the page has each of them."""
    found = [report([0, 1] * n, name="old").compare(report([1, 1] * n, name="new")) for n in (10, 20)]
    looks = tuple(Look.at(one, one.result.n) for one in found)
    outcome = log_to_mlflow(Settled(found[-1], looks, Bound.POCOCK, 0.95, most=50))
    run = _run_of(server, outcome.uid)
    steps = server.history(run.id, "dspy_cachectl/look/difference")
    assert [(0, 0.5), (1, 0.5)] == [(step, value) for step, value, _ in steps]
    assert (found[-1].verdict_text, "pocock") == (run.tags["dspy_cachectl.verdict"], run.tags["dspy_cachectl.bound"])
    assert b"new against old" in server.download(run, f"dspy_cachectl/page_{str(outcome.uid)[:8]}.html")
    table = mlflow.load_table(f"dspy_cachectl/looks_{str(outcome.uid)[:8]}.json", run_ids=[run.id])
    assert [20, 40] == list(table["questions"])


@pytest.mark.exhaustive
def test_a_parent_is_not_taken_away(server: Rest) -> None:
    """A run that has a parent keeps it when its report is compared again."""
    old, new = report([0, 0, 1], name="old"), report([1, 1, 1], name="new")
    child = str(log_to_mlflow(new).run_id)
    first, _ = log_to_mlflow(old.compare(new)), log_to_mlflow(new.compare(old))
    assert server.run(child).tags["mlflow.parentRunId"] == first.run_id


@pytest.mark.exhaustive
def test_a_comparison_in_the_run_of_its_reports_is_no_parent_of_itself(server: Rest) -> None:
    """Everything in one run of the user's leaves that run at the top."""
    old, new = report([0, 0, 1], name="old"), report([1, 1, 1], name="new")
    with mlflow.start_run() as active:
        for result in (old, new, old.compare(new)):
            log_to_mlflow(result)
    found = server.run(active.info.run_id)
    assert "mlflow.parentRunId" not in found.tags
    assert _metrics(found)["delta/mean"] == pytest.approx(2 / 3)


def test_several_reports_are_compared_in_one_run(server: Rest) -> None:
    """Each pair is a step and a row; every report's run is below it."""
    made = {
        name: report(scores, name=name) for name, scores in {"a": [0, 0, 1], "b": [1, 0, 1], "c": [1, 1, 1]}.items()
    }
    children = [str(log_to_mlflow(one).run_id) for one in made.values()]
    compared = compare(made)
    outcome = log_to_mlflow(compared)
    found = _run_of(server, outcome.uid)
    assert {server.run(child).tags.get("mlflow.parentRunId") for child in children} == {found.id}
    history = sorted((step, value) for step, value, _ in server.history(found.id, "dspy_cachectl/delta/mean"))
    assert history == [(step, pytest.approx(pair.difference)) for step, pair in enumerate(compared.pairs)]
    assert found.tags["dspy_cachectl.best"] == "c"
    table = mlflow.load_table(f"dspy_cachectl/compare_{str(outcome.uid)[:8]}.json", run_ids=[found.id])
    assert list(zip(table["baseline"], table["candidate"], strict=True)) == [("a", "b"), ("a", "c"), ("b", "c")]


def test_a_ranking_is_its_comparisons_with_the_reference(server: Rest) -> None:
    """Each is a step and a row, with the verdict that holds among all; one report alone is a report."""
    made = [report(scores * 30, name=name) for name, scores in {"a": [0, 0, 1], "b": [0, 1, 1]}.items()]
    for ranking, expected in ((Ranking(made), ["a"]), (Ranking(made[1:], baseline=made[0]), ["b"])):
        outcome = log_to_mlflow(ranking)
        found = _run_of(server, outcome.uid)
        assert found.tags["dspy_cachectl.baseline"] == ranking.reference.name
        assert [found.tags["dspy_cachectl.candidate"]] == expected
        assert _metrics(found)["delta/mean"] == pytest.approx(ranking.comparisons[0].difference)
    assert _metrics(_run_of(server, log_to_mlflow(Ranking(made[:1])).uid))["score/n"] == 90


def test_a_report_with_a_baseline_says_the_difference(server: Rest) -> None:
    """What `evaluate(baseline=...)` compares is in the report's own run."""
    from dataclasses import replace

    old, new = report([0, 0, 1], name="old"), report([1, 1, 1], name="new")
    found = _run_of(server, log_to_mlflow(replace(new, baseline=old)).uid)
    assert _metrics(found)["delta/mean"] == pytest.approx(2 / 3)
    assert found.tags["dspy_cachectl.baseline"] == "old"


def test_a_baseline_of_other_questions_does_not_stop_the_score(server: Rest, caplog: pytest.LogCaptureFixture) -> None:
    """The score is logged, and a warning says that there is nothing to compare."""
    from dataclasses import replace

    old, new = report([0, 1], questions=["x", "y"], name="old"), report([1, 1], name="new")
    with caplog.at_level(logging.WARNING, logger="dspy_cachectl"):
        found = _run_of(server, log_to_mlflow(replace(new, baseline=old)).uid)
    assert _metrics(found)["score/mean"] == 1.0
    assert "without its baseline" in caplog.text


def test_delivering_twice_changes_nothing(server: Rest, experiment: str, outbox: Outbox) -> None:
    """The same record again: the same points, inputs, model, files and table, once each."""
    log_to_mlflow(report([1, 0, 1]), timeout=0)
    before, after = (run for _ in deliver_twice(outbox) for run in server.all_runs(experiment))
    assert after == before
    assert len(server.history(after.id, "dspy_cachectl/score/mean")) == 1
    assert len(server.run(after.id)["inputs"]["model_inputs"]) == len(server.models(experiment)) == 1


_CALLS = ["runs/search", "runs/create", "runs/log-batch", "runs/log-inputs", "upload", "runs/set-tag", "runs/update"]


@pytest.mark.parametrize(
    "calls",
    [
        pytest.param(["runs/create", "upload", "runs/update"], id="some"),
        pytest.param(_CALLS, id="all", marks=pytest.mark.exhaustive),
    ],
)
def test_pushes_that_were_given_up_do_not_come_back(
    calls: list[str], server: Rest, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their threads hang, a sync delivers, the threads wake up: one run each, the sync's, with everything once."""
    monkeypatch.setattr(attachments, "_NAMING_WAIT", 0.01)  # one that hangs while it names its tables is waited for
    given_up: dict[str | None, tuple[str, str]] = {}
    threads: list[futures.Future[Any]] = []
    proxies: list[servers.Proxy] = []
    with contextlib.ExitStack() as stack:
        # After the request was passed on, and before.
        for fault, call in itertools.product(("holds", "delays"), calls):
            proxy = stack.enter_context(servers.Proxy.to(server.url))
            setattr(proxy, fault, call)
            proxies.append(proxy)
            with servers.ends_the_limit(proxy) as late:
                outcome = log_to_mlflow(report([1, 0, 1]), tracking_uri=proxy.url)
            assert outcome.status == "pending"
            given_up[outcome.uid] = fault, call
            threads += late
        # MLflow remembers a run's artifact store for the process, and with it the address of the proxy.
        utils._artifact_repos_cache.clear()
        done = {outcome.uid: outcome for outcome in sync(uri=server.url)}
        for proxy in proxies:
            proxy.let_go()
        futures.wait(threads, PATIENCE)
    assert done.keys() == given_up.keys()
    for uid, where in given_up.items():
        found = _run_of(server, uid)
        assert (done[uid].status, done[uid].run_id, found.status) == ("logged", found.id, "FINISHED"), where
        assert len(found.inputs) == 1, where
        assert kinds(server.artifacts(found.id)) == FILES, where
        assert len(json.loads(found.tags["mlflow.loggedArtifacts"])) == 1, where


def test_a_thousand_questions_cost_as_many_requests_as_three(server: Rest) -> None:
    """One batch, one input, four files, one model: the number of requests does not depend on what is in them."""
    log_to_mlflow(report([1.0]))  # makes the program's model
    seen = []
    for scores in ([1, 0, 1], [number % 3 > 0 for number in range(1000)]):
        made = report([float(score) for score in scores])
        with servers.Proxy.to(server.url) as proxy:
            assert log_to_mlflow(made, tracking_uri=proxy.url, timeout=60.0).status == "logged"
        seen.append(proxy.seen)
    assert seen[0] == seen[1]
    own_run = ["runs/search", "runs/create", "runs/search", "logged-models/search", "runs/log-batch"]
    own_run += ["runs/update", "runs/log-inputs"]  # a run is ended with its numbers, whatever else is refused
    files = ["upload", "upload", "upload", "upload", "listing", "runs/set-tag"]
    assert seen[0] == [*own_run, *files, "runs/get"]


class Waited:
    """A lock that tells when somebody waits for it."""

    def __init__(self) -> None:
        self.waited = threading.Event()
        self._lock = threading.Lock()
        self.release = self._lock.release

    def acquire(self, timeout: float) -> bool:
        if not self._lock.acquire(blocking=False):
            self.waited.set()
            return self._lock.acquire(timeout=timeout)
        return True


def test_two_threads_that_log_to_one_run_hide_no_table(server: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reads the list of tables and writes it back: the list has both in the end."""
    named = server.create_run()
    lock = Waited()
    monkeypatch.setattr(attachments, "_naming", lock)
    with servers.Proxy.to(server.url) as proxy:
        proxy.delays = "runs/set-tag:1"
        threads = [
            threading.Thread(target=log_to_mlflow, args=(report([1, 0, 1]),), kwargs={"run_id": named, **options})
            for options in ({"tracking_uri": proxy.url}, {"tracking_uri": server.url})
        ]
        threads[0].start()
        assert proxy.stopped.wait(PATIENCE)
        threads[1].start()
        # It does not end before the other one: it would have read what is about to change.
        assert lock.waited.wait(PATIENCE)
        proxy.let_go()
        for thread in threads:
            thread.join()
    tables = [table["path"] for table in json.loads(server.run(named).tags["mlflow.loggedArtifacts"])]
    assert sorted(path for path in server.artifacts(named) if "/rows_" in path) == sorted(
        path for path in tables if "/rows_" in path
    )


def test_a_report_is_recognised_whatever_it_is_called(tmp_path: Path) -> None:
    """Its digest survives saving and renaming, and tells it from another one."""
    made = report([1, 0, None], name="a")
    assert digest(EvalReport.load(made.save(tmp_path / "a.json"))) == digest(made)
    assert digest(report([1, 0, 1], name="a")) != digest(made)


def test_a_report_takes_no_result(state: Path) -> None:
    """`result=` is for phases."""
    with pytest.raises(ConfigurationError, match="goes with a phase"):
        log_to_mlflow(report([1, 0]), result=object())  # type: ignore[arg-type]
