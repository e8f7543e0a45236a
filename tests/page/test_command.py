"""`dspy-cachectl report`: the page of what is in files, without a request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.manage.kept_reports import reports_in
from tests.cli.commands import command
from tests.endpoint import Endpoint
from tests.page.test_what_is_on_it import answers, content, evaluated, program, said
from tests.processes import Finished

__all__ = ["program"]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Finished]:
    """Run the command where the evaluations were made."""
    return lambda *arguments: command("report", *arguments, store=tmp_path / "store", cwd=tmp_path)


def test_a_saved_report_has_its_page_whole(
    program: dspy.Module, endpoint: Endpoint, tmp_path: Path, run: Callable[..., Finished]
) -> None:
    """Its predictions are found in the folder of the kept ones, the LM's words in the store, and nothing is asked."""
    made = evaluated(program, repeats=2)
    made.save(tmp_path / "saved.json")
    requests = endpoint.requests
    done = run("saved.json")
    assert (0, "", "Wrote 'Evaluation of Predict' to report.html.\n") == (done.returncode, done.stderr, done.stdout)
    assert requests == endpoint.requests
    assert made.to_html(tmp_path / "other.html").read_bytes() == (tmp_path / "report.html").read_bytes()
    again = run("saved.json")
    assert (1, True) == (again.returncode, "add --force" in again.stderr)
    assert (tmp_path / "report.html").read_text("utf-8") == run("saved.json", "--output", "-").stdout
    (tmp_path / "link.html").symlink_to("saved.json")
    for name in ("saved.json", f"../{tmp_path.name}/saved.json", "link.html"):
        over = run("saved.json", "-o", name, "--force")
        assert (1, True) == (over.returncode, "it is made of that; name another file" in over.stderr)
    assert made.score == cachectl.EvalReport.load(tmp_path / "saved.json").score


def test_kept_predictions_have_a_page_too(program: dspy.Module, tmp_path: Path, run: Callable[..., Finished]) -> None:
    """By the path or the name of the snapshot: the same scores, answers, prompts and words of the program."""
    made = evaluated(program, repeats=2)
    path = Path(str(made.path))
    for number, name in enumerate((str(path), path.name[:-8], str(made.run_id))):
        done = run(name, "-o", f"{number}.html")
        assert (0, "") == (done.returncode, done.stderr)
    page = content(tmp_path / "0.html")
    assert page == content(tmp_path / "1.html") == content(tmp_path / "2.html")
    assert made.score == page["scores"][0]["score"]
    assert sorted(draw.score for draw in made.draws) == sorted(one["score"] for one in answers(page))
    assert [1] * 6 == [len(one["calls"]) for one in answers(page)]
    for one in answers(page):
        ((name, text),) = said(page, one["prediction"])
        assert ("answer", one["score"]) == (name, float(text == "yes"))
    wrong = run(str(path), "--metric", "nothing", "--force")
    assert (1, True) == (wrong.returncode, "no metric 'nothing' has scored" in wrong.stderr)


def test_two_files_are_compared(program: dspy.Module, tmp_path: Path, run: Callable[..., Finished]) -> None:
    """A saved report with kept predictions, the first as the baseline; what differs between the programs is said."""
    before = evaluated(program)
    before.save(tmp_path / "before.json")
    other = dspy.Predict(dspy.Signature("question -> answer", "Answer by yes or no."))
    after = evaluated(other)
    done = run("before.json", str(after.path), "-o", "page.html")
    assert (0, "") == (done.returncode, done.stderr)
    page = content(tmp_path / "page.html")
    assert ("Predict", True) == (page["sides"][0], page["sides"][1].endswith(" on openai/test-model"))
    assert ["instructions of the program"] == [one["what"] for one in page["differences"]]
    twice = reports_in([str(tmp_path / "before.json")] * 2, tmp_path)
    assert ["Predict (before)"] * 2 == [report.name for report in twice]


def test_what_is_no_report_is_said(tmp_path: Path, run: Callable[..., Finished]) -> None:
    """One message and its exit code, and no page is left."""
    (tmp_path / "else.json").write_text('{"a": 1}')
    (tmp_path / "bad.json").write_text('{"a": ')
    for arguments, code, message in (
        (["else.json"], 1, "is not a report that EvalReport.save() wrote: a part of it is missing"),
        (["bad.json"], 1, "is not a report that EvalReport.save() wrote: it cannot be read as JSON\n"),
        (["nowhere.json"], 1, "no file is called"),
        (["a", "b", "c"], 2, "one report has a page"),
        ([], 2, "Missing argument"),
    ):
        done = run(*arguments)
        assert (code, "", True) == (done.returncode, done.stdout, message in done.stderr), done
    assert not (tmp_path / "report.html").exists()
