"""What a report's page says: everything that is known of the answers, and nothing that is another answer's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.reports.results import DrawResult
from tests.endpoint import Endpoint
from tests.page import unpacked
from tests.reports.made_up import report

MakeLM = Callable[..., cachectl.LM]
SECRET = "sk-proj-Zq8vN3xT5yL1mWb7Kc2Rj9Hd4"


def content(path: Path) -> dict[str, Any]:
    """What a page holds."""
    return unpacked.content(path.read_bytes())


def said(page: dict[str, Any], named: list[list[Any]]) -> list[tuple[str, str]]:
    """Titles and texts, of titles and the numbers of texts."""
    return [(name, page["texts"][number]) for name, number in named]


def answers(page: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every answer on a page."""
    for question in page["questions"]:
        for side in question["answers"]:
            yield from side or ()


@pytest.fixture
def program(lm: MakeLM, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dspy.Module:
    """A program whose answers are right about as often as not; what it keeps is in the test's own folder."""
    monkeypatch.chdir(tmp_path)
    endpoint.configure(answers={"question": ["yes", "no", "yes"]})
    dspy.configure(lm=lm())
    return dspy.Predict("question -> answer")


def evaluated(program: dspy.Module, count: int = 3, **options: Any) -> cachectl.EvalReport:
    """Evaluate on questions that are all to be answered by yes."""
    devset = [
        dspy.Example(question=f"question {number} ?", answer="yes").with_inputs("question") for number in range(count)
    ]
    return cachectl.evaluate(
        program, devset, lambda example, made: example.answer == made.answer, display_progress=False, **options
    )


def test_an_answer_is_there_whole(program: dspy.Module, tmp_path: Path) -> None:
    """Its question, label, prediction, prompt and completion, and a prompt that repeats is kept once."""
    made = evaluated(program, repeats=2)
    path = made.to_html(tmp_path / "page.html")
    page = content(path)
    assert [f"question {number} ?" for number in range(3)] == [one["preview"] for one in page["questions"]]
    for number, question in enumerate(page["questions"]):
        asked = f"question {number} ?"
        assert [("question", asked)] == said(page, question["inputs"])
        assert [("answer", "yes")] == said(page, question["expected"])
        assert [made.table.means[number]] == question["means"]
        prompts = set()
        for draw, answer in zip(made.questions[number].draws, question["answers"][0], strict=True):
            assert draw.score == answer["score"]
            ((name, prediction),) = said(page, answer["prediction"])
            assert ("answer", draw.score) == (name, float(prediction == "yes"))
            (call,) = answer["calls"]
            (_, system), (_, user) = said(page, call["prompt"])
            assert "Your input fields are" in system
            assert asked in user
            assert [["system", "user"], ["text"]] == [
                [title for title, _ in call[part]] for part in ("prompt", "answer")
            ]
            assert prediction in said(page, call["answer"])[0][1]
            prompts.add(tuple(number for _, number in call["prompt"]))
        assert 1 == len(prompts)
    assert len(page["texts"]) == len(set(page["texts"]))
    assert {"name": "Predict", "n": 3, "score": made.score} == {
        name: page["scores"][0][name] for name in ("name", "n", "score")
    }


def test_a_loaded_report_finds_its_texts_in_a_store_that_is_named(program: dspy.Module, tmp_path: Path) -> None:
    """The LM's words come from the store that is named, and where there is none the page is made without them."""
    made = evaluated(program, predictions=False)
    loaded = cachectl.EvalReport.load(made.save(tmp_path / "report.json"))
    there = content(loaded.to_html(tmp_path / "there.html", store=tmp_path / "store"))
    gone = content(loaded.to_html(tmp_path / "gone.html", store=tmp_path / "elsewhere"))
    assert [1, 1, 1] == [len(one["calls"]) for one in answers(there)]
    assert [0, 0, 0] == [len(one["calls"]) for one in answers(gone)]
    assert not (tmp_path / "elsewhere").exists()
    assert [one["score"] for one in answers(there)] == [draw.score for draw in made.draws]


def test_a_store_in_memory_has_the_words_too(lm: MakeLM, program: dspy.Module, tmp_path: Path) -> None:
    """As long as the process lives; looking into it asks nothing and counts as no use."""
    with cachectl.configure(store="memory://"):
        made = evaluated(program)
        before = cachectl.stats()
        assert [1, 1, 1] == [len(one["calls"]) for one in answers(content(made.to_html(tmp_path / "page.html")))]
        assert before == cachectl.stats()
    assert not (tmp_path / "store").exists()


def test_a_store_that_cannot_be_read_is_said(
    program: dspy.Module, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The page is made all the same, without the LM's words."""
    made = evaluated(program)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "cache.db").write_bytes(b"not a database" * 1000)
    page = content(made.to_html(tmp_path / "page.html", store=tmp_path / "broken"))
    assert [0, 0, 0] == [len(one["calls"]) for one in answers(page)]
    assert "is not looked up in a store" in caplog.text


def test_what_was_drawn_anew_is_not_taken_for_the_answer(program: dspy.Module, tmp_path: Path) -> None:
    """A prediction or a completion that took the place of the report's own is another answer, and not shown as it."""
    before = evaluated(program, 1)
    made = replace(before, path=evaluated(program, 1, force_recompute=True).path)
    (answer,) = answers(content(made.to_html(tmp_path / "other-prediction.html")))
    assert (0, 1) == (len(answer["prediction"]), len(answer["calls"]))
    draw = before.draws[0]
    ids, _, key = draw.draw.split(".")
    other = replace(before.questions[0], draws=(replace(draw, draw=f"{ids}.{'0' * 16}.{key}"),))
    page = content(replace(before, questions=(other,)).to_html(tmp_path / "other-completion.html"))
    (answer,) = answers(page)
    assert (0, 0) == (len(answer["prediction"]), len(answer["calls"]))
    # The question itself is the same.
    assert [("question", "question 0 ?")] == said(page, page["questions"][0]["inputs"])


def test_no_secret_is_on_a_page(program: dspy.Module, endpoint: Endpoint, tmp_path: Path) -> None:
    """What looks like a key is in no question, prompt, answer or name."""
    endpoint.configure(answers={"question": [f"the key is {SECRET}"]})
    devset = [dspy.Example(question=f"is {SECRET} a key ?", answer=SECRET).with_inputs("question")]
    made = cachectl.evaluate(program, devset, lambda *_: 1.0, name=f"of {SECRET}", display_progress=False)
    draw = replace(made.questions[0].draws[0], failed=f"the metric raised KeyError: '{SECRET}'")
    made = replace(made, questions=(replace(made.questions[0], draws=(draw,)),))
    page = content(made.to_html(tmp_path / "page.html"))
    assert SECRET not in json.dumps(page)
    assert "the metric raised KeyError" in json.dumps(page)


def test_what_steers_a_terminal_or_hides_a_text_is_written_out(tmp_path: Path) -> None:
    """Control characters, changes of direction and half of a character are shown as their escapes."""
    made = report([[1.0]], name="a\x1b[31m\u202eb", preview="\ud800 {}\x07")
    page = content(made.to_html(tmp_path / "page.html"))
    assert ["a\\x1b[31m\\u202eb"] == page["sides"]
    assert "\\ud800 0\\x07" == page["questions"][0]["preview"]


def test_the_file_allows_itself_and_nothing_else(tmp_path: Path) -> None:
    """Its policy names one style and one script, by hash, and the same report is the same file."""
    made = report([[1.0, 0.0], [0.0, 0.0]])
    one, other = (made.to_html(tmp_path / name).read_bytes() for name in ("one.html", "other.html"))
    assert one == other
    assert bytes(4) == unpacked.packed(one)[4:8]  # where gzip has the time
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', one.decode())
    assert policy is not None
    assert re.fullmatch(
        "default-src 'none'; style-src 'sha256-[^']+'; script-src 'sha256-[^']+'; base-uri 'none'; form-action 'none'",
        policy[1],
    )
    assert b"http://" not in one.replace(b"http://www.w3.org/2000/svg", b"")
    assert b"https://" not in one


def test_a_comparison_shows_which_questions_changed_sides(tmp_path: Path) -> None:
    """Those that were won or lost, as many as it counts, with what both said; those of one side alone are there too."""
    old = report([[1, 1], [1, 0], [0, 0], [1, 1]], name="old", questions=["a", "b", "c", "d"])
    new = report([[0, 0], [1, 0], [1, 0], [1, 1]], name="new", questions=["a", "b", "c", "e"])
    found = old.compare(new)
    changed = found.changed()
    assert [("a", 1.0, 0.0, -1.0), ("c", 0.0, 0.5, 0.5)] == [
        (one.question, one.baseline, one.candidate, one.difference) for one in changed
    ]
    assert "What is 0?" == changed[0].preview
    assert (1, 1) == (found.result.wins, found.result.losses)
    page = content(found.to_html(tmp_path / "page.html"))
    assert ["old", "new"] == page["sides"]
    assert {"a": -1.0, "b": 0.0, "c": 0.5, "d": None, "e": None} == {
        one["id"]: one["change"] for one in page["questions"]
    }
    assert [[True, True]] * 3 + [[True, False], [False, True]] == [
        [side is not None for side in one["answers"]] for one in page["questions"]
    ]
    assert found.difference == page["difference"]["score"]
    assert ["old", "new"] == [row["name"] for row in page["scores"]]
    assert ["old", "new"] == [row.name for row in replace(new, baseline=old).page().scores]


def test_what_the_metric_said_beside_the_score_is_there(program: dspy.Module, tmp_path: Path) -> None:
    """As GEPA's metrics do, with each answer."""
    devset = [dspy.Example(question="question 0 ?", answer="yes").with_inputs("question")]
    made = cachectl.evaluate(
        program, devset, lambda *_: {"score": 0.5, "feedback": "half of it is there"}, display_progress=False
    )
    page = content(made.to_html(tmp_path / "page.html"))
    assert ["half of it is there"] == [page["texts"][one["feedback"]] for one in answers(page)]


def test_texts_that_do_not_fit_are_left_out_and_said(program: dspy.Module, tmp_path: Path) -> None:
    """A page that nobody could open, or that takes longer than there is time, is made without its longest texts."""
    devset = [dspy.Example(question="long " * 2_000, answer="yes").with_inputs("question")]
    made = cachectl.evaluate(program, devset, lambda *_: 1.0, display_progress=False)
    whole, cut = made.page(), made.page(most=5_000)
    assert any("long long" in text for text in whole.texts)
    assert not any("long long" in text for text in cut.texts)
    (question,) = cut.questions
    assert "[left out: the page would be too large]" == cut.texts[question.inputs[0][1]]
    assert ("2 texts did not fit" in cut.foot, "did not fit" in whole.foot) == (True, False)


def test_two_programs_differ_word_by_word(lm: MakeLM, program: dspy.Module, tmp_path: Path) -> None:
    """Instructions, demos, options of the LM: what both have, what only one has; also of a report that was saved."""
    before = evaluated(program)
    other = dspy.Predict(dspy.Signature("question -> answer", "Answer by yes or no."))
    other.demos = [dspy.Example(question="is it ?", answer="yes")]
    other.lm = lm(temperature=0.3)
    after = cachectl.EvalReport.load(evaluated(other, name="edited").save(tmp_path / "after.json"))
    page = content(before.compare(after).to_html(tmp_path / "page.html"))
    found = {one["what"]: one["words"] for one in page["differences"]}
    assert {"instructions of the program", "demos of the program", "the LM"} == set(found)
    assert [["1", "first"], ["0.3", "second"]] == found["the LM"][1:]  # of which 1 is lent
    assert [["question: is it ?\nanswer: yes", "second"]] == found["demos of the program"]
    words = {
        of: "".join(text for text, whose in found["instructions of the program"] if whose == of)
        for of in ("first", "second")
    }
    assert "produce the fields" in words["first"]
    assert "yes or no." in words["second"]
    assert "temperature: 0.3" in after.provenance.program_text["the LM"]
    same = content(before.compare(replace(before, name="again")).to_html(tmp_path / "same.html"))
    assert ([], "They are the same program, and ask with the same options.") == (same["differences"], same["programs"])
    unknown = content(report([1], name="a").compare(report([1], name="b")).to_html(tmp_path / "unknown.html"))
    assert ([], True) == (unknown["differences"], "not known" in unknown["programs"])


def test_no_key_is_among_what_a_program_tells(lm: MakeLM, program: dspy.Module, tmp_path: Path) -> None:
    """Neither the LM's, nor one among a predictor's options, nor one in a demo, is in a report or on its page."""
    other = dspy.Predict("question -> answer", api_key="hush-hush-hush", temperature=0.5)
    other.demos = [dspy.Example(question=f"is {SECRET} one ?", answer="yes")]
    other.lm = lm(api_key="quiet-quiet-quiet")
    made = evaluated(other, 1, predictions=False)
    kept = json.dumps(dict(made.provenance.program_text))
    assert not [secret for secret in (SECRET, "hush-hush-hush", "quiet-quiet-quiet") if secret in kept]
    assert "temperature: 0.5" in kept


@pytest.mark.exhaustive
def test_a_large_report_is_a_file_of_10_mb_at_most(program: dspy.Module, tmp_path: Path) -> None:
    """1,000 questions by 5 repeats, prompts of 2 kB and answers of 1 kB that hardly repeat."""
    from tests.page.large import large_page
    from tests.page.pages import written

    assert 10_000_000 >= written(large_page(), tmp_path).stat().st_size


def test_a_failed_answer_says_why(tmp_path: Path) -> None:
    """And what it cost all the same."""
    made = report([[None, 1.0]])
    page = content(made.to_html(tmp_path / "page.html"))
    failed, fine = answers(page)
    assert "the metric raised KeyError: 'answer'" == page["texts"][failed["failed"]]
    assert fine["failed"] is None
    assert ["tokens", "100"] in failed["facts"]
    lost = replace(made.questions[0], draws=(DrawResult(0.0, failed="the program raised X"),))
    page = content(replace(made, questions=(lost,)).to_html(tmp_path / "lost.html"))
    assert ["draw", "not known"] in next(answers(page))["facts"]
