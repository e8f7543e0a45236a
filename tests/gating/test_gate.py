"""The gate: passed, failed, cannot tell, each with 0 requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dspy
import pytest

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.gating.gate import Gate, Outcome, gate
from tests.cli.commands import command
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import exact, program, questions, run
from tests.reports.made_up import report
from tests.settling.test_settle import Fixed

__all__ = ["program"]

BEFORE = [1.0, 0.0] * 200


def changed(*, lost: int = 0, won: int = 0) -> list[float]:
    """The scores of before, with so many questions lost, and so many won."""
    after = list(BEFORE)
    for place in range(lost):
        after[2 * place] = 0.0
    for place in range(won):
        after[2 * place + 1] = 1.0
    return after


def short(example: dspy.Example, prediction: Any) -> float:
    """Whether the answer is no, which is shorter than yes."""
    return float(len(prediction.answer) == 2)


def gated(scores: list[float], margin: float = 0.05, **options: Any) -> Gate:
    return gate(report(BEFORE, name="old"), report(scores, name="new", **options), not_worse_by=margin)


@pytest.mark.parametrize(
    ("scores", "margin", "expected"),
    [
        (changed(), 0.02, Outcome.PASSED),
        (changed(won=60), 0.0001, Outcome.PASSED),
        (changed(lost=12, won=14), 0.05, Outcome.PASSED),
        (changed(lost=60), 0.02, Outcome.FAILED),
        (changed(lost=60), 0.3, Outcome.PASSED),
        (changed(lost=12, won=10), 0.01, Outcome.CANNOT_TELL),
    ],
)
def test_it_passes_what_is_surely_within_the_margin(scores: list[float], margin: float, expected: Outcome) -> None:
    """And fails what is surely worse and may be so by more; the rest cannot be told."""
    assert expected is gated(scores, margin).outcome


def test_what_is_not_of_the_same_cannot_be_told() -> None:
    """Another metric, and questions that the candidate has not answered, though all that it has are right."""
    assert Outcome.CANNOT_TELL is gated(changed(won=60), metric_hash="d4" * 32).outcome
    fewer = gate(report(BEFORE, name="old"), report([1.0] * 100, name="new"), not_worse_by=0.02)
    assert Outcome.CANNOT_TELL is fewer.outcome
    assert "no answer to 300 questions" in fewer.details()
    with pytest.raises(ConfigurationError, match="not_worse_by"):
        gated(BEFORE, 0.0)


def test_equal_programs_with_a_difference_of_the_margin_rarely_pass() -> None:
    """Where the interval's lower end is minus the margin it does not pass, and just above it it does."""
    found = gated(changed(lost=12, won=10), 0.05)
    low = found.comparison.interval.low
    assert [Outcome.CANNOT_TELL, Outcome.PASSED] == [
        gated(changed(lost=12, won=10), margin).outcome for margin in (-low, -low + 1e-9)
    ]


def test_the_command_exits_by_what_it_found(tmp_path: Path) -> None:
    """0, 1 and 2; 2 as well for a file that is not there, with what to do."""
    names = {"same": changed(), "worse": changed(lost=60), "unclear": changed(lost=12, won=10)}
    report(BEFORE, name="old").save(tmp_path / "before.json")
    for name, scores in names.items():
        report(scores, name="new").save(tmp_path / f"{name}.json")
    for name, code, said in (("same", 0, "PASSED"), ("worse", 1, "FAILED"), ("unclear", 2, "CANNOT TELL")):
        done = command("gate", "before.json", f"{name}.json", "--not-worse-by", "0.02", cwd=tmp_path)
        assert (code, "") == (done.returncode, done.stderr)
        assert said in done.stdout
    done = command("gate", "before.json", "worse.json", "--not-worse-by", "0.02", "--json", cwd=tmp_path)
    assert (1, "FAILED") == (json.loads(done.stdout)["exit_code"], json.loads(done.stdout)["outcome"])
    done = command("gate", "before.json", "none.json", "--not-worse-by", "0.02", cwd=tmp_path)
    assert 2 == done.returncode
    assert "none.json" in done.stderr
    for name, code in (("same", 0), ("worse", 1), ("unclear", 0), ("none", 2)):
        options = ("--not-worse-by", "0.02", "--undecided-passes")
        assert code == command("gate", "before.json", f"{name}.json", *options, cwd=tmp_path).returncode


def test_a_metric_that_is_none_passes_nothing(program: dspy.Module, endpoint: Endpoint, tmp_path: Path) -> None:
    """By its name, or the beginning of its hash, also of saved reports; by another name it cannot be told."""
    several = {"exact": exact, "short": short}
    files = [
        str(run(Fixed(right), questions(60), several, name=name).save(tmp_path / f"{name}.json"))
        for name, right in (("old", 6), ("new", 9))
    ]
    hashed = json.loads(Path(files[0]).read_text())["provenance"]["others"][0]["metric_hash"]
    asked = endpoint.requests
    by = {None: 0, "exact": 0, "short": 1, hashed[:8]: 1, "shor": 2}
    for metric, code in by.items():
        done = command("gate", *files, "--not-worse-by", "0.02", *(["--metric", metric] if metric else []))
        assert code == done.returncode, (metric, done.stderr)
    assert "no metric 'shor' has scored old.json; there are: exact, short" in done.stderr
    assert asked == endpoint.requests


def test_kept_predictions_pass_without_a_request(program: dspy.Module, endpoint: Endpoint, tmp_path: Path) -> None:
    """By the names of their snapshots."""
    paths = [run(Fixed(right), questions(120)).path for right in (4, 8)]
    endpoint.reset_counts()
    for files, code in ((paths, 0), (paths[::-1], 1)):
        done = command("gate", *[Path(file or "") for file in files], "--not-worse-by", "0.02", cwd=tmp_path)
        assert code == done.returncode, done.stdout + done.stderr
    assert 0 == endpoint.requests


def test_markdown_holds_no_markup_of_a_question() -> None:
    """A table of the numbers and of what was lost; what stands in a question is text."""
    shown = gated(changed(lost=60), 0.02, preview="<b>@all | `x` [y](http://z) {}").as_markdown()
    assert shown.startswith("### FAILED: new is worse")
    assert "Questions that were lost" in shown
    assert not {"<b>", "@all", "](http", "`x`"} & {one for one in ("<b>", "@all", "](http", "`x`") if one in shown}
    rows = [line for line in shown.splitlines() if line.startswith("| ")]
    assert {3, 4} == {line.replace("\\|", "").count("|") for line in rows}


def test_the_fixture_fails_or_skips(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """One that passes, one that is worse, and one of which it cannot be told, which may be skipped."""
    report(BEFORE, name="old").save(pytester.path / "before.json")
    for name, scores in {"same": changed(), "worse": changed(lost=60), "unclear": changed(lost=12, won=10)}.items():
        report(scores, name="new").save(pytester.path / f"{name}.json")
    pytester.makepyfile(
        """
        import dspy_cachectl as cachectl, pytest

        @pytest.mark.parametrize("name", ["same", "worse", "unclear"])
        def test_it(cachectl_gate, name):
            assert cachectl_gate("before.json", f"{name}.json", not_worse_by=0.02).exit_code == 0

        def test_later(cachectl_gate):
            cachectl_gate("before.json", "unclear.json", not_worse_by=0.02, undecided="skip")

        def test_misspelt(cachectl_gate):
            with pytest.raises(cachectl.ConfigurationError, match='"fail" or "skip", and not .skipped.'):
                cachectl_gate("before.json", "same.json", not_worse_by=0.02, undecided="skipped")
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=2, failed=2, skipped=1)
