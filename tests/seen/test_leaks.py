"""Questions that stand in a program's own demonstrations or instructions: the report counts them, and does without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.seen.leaks import leaks_of
from dspy_cachectl.seen.words import Passages, head, words
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import program, questions, run
from tests.statistics.simulate import in_full
from tests.work.counting import calls_of, instructions

__all__ = ["program"]


def told(program: Any, *demos: dspy.Example) -> Any:
    """A program with these demonstrations."""
    copy = program.deepcopy()
    copy.demos = list(demos)
    return copy


def in_part(example: dspy.Example, prediction: Any) -> bool:
    """What every third question passes."""
    return int(example.question.split()[1]) % 3 == 0


def found(program: Any, *inputs: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """Where each of some questions stands, by its number."""
    asked = {str(number): one for number, one in enumerate(inputs)}
    return {leak.question: (leak.where, leak.is_exact) for leak in leaks_of(program, asked)}


def test_it_says_first_how_many_and_the_score_without_them(program: dspy.Module, endpoint: Endpoint) -> None:
    """Five of 50, one with other blanks and capitals: that is the first thing said, and the others have a score."""
    devset = questions(50)
    demos = [*devset[3:7], dspy.Example(question="  QUESTION   40?", answer="yes")]
    report = run(told(program, *demos), devset, in_part)
    assert 50 == endpoint.requests
    assert 5 == len(report.leaked) == report.summary()["leaked"]
    others = [one for one in report.questions if one.preview not in {f"question {n} ?" for n in (3, 4, 5, 6, 40)}]
    without = sum(one.draws[0].score for one in others) / 45
    assert report.without_leaks is not None
    assert pytest.approx(without) == report.without_leaks.score == report.summary()["score_without_leaks"]
    for text in (str(report), report.details()):
        first = " ".join(text.partition("Caveats")[2].split())[:400]
        assert "5 of 50 questions stand in the program's own demonstrations or instructions" in first
        assert "1 of them with other blanks, capitals or punctuation" in first
        assert f"Score of the other 45: {without:.2f}" in first
    assert report.leaked == cachectl.EvalReport.load(report.save("report.json")).leaked


def test_without_any_nothing_is_said(program: dspy.Module) -> None:
    """And the score without them is the score."""
    report = run(told(program, *questions(5, first=100)), questions(8))
    assert (0, report.score) == (report.summary()["leaked"], report.summary()["score_without_leaks"])
    assert "demonstrations" not in report.details()


def test_where_all_were_told_there_is_no_other_score(program: dspy.Module) -> None:
    """It is said, and nothing fails."""
    report = run(told(program, *questions(3)), questions(3))
    assert report.without_leaks is None is report.summary()["score_without_leaks"]
    assert "3 of 3 questions stand in" in report.details()
    assert "There are no others" in " ".join(report.details().split())


def test_a_comparison_says_what_the_difference_is_without_them(program: dspy.Module) -> None:
    """Whoever of the two was told."""
    devset = questions(9)
    plain, taught = (run(one, devset, in_part) for one in (program, told(program, *devset[:3])))
    (warning,) = [one for one in plain.compare(taught).warnings if "demonstrations" in one]
    assert "tell the program 'Predict' of 3 questions that it is asked: without these the difference is 0" in warning
    assert not any("demonstrations" in one for one in plain.compare(plain).warnings)


def test_a_ranking_of_models_says_it_too(program: dspy.Module) -> None:
    """First, once, and with the score of the best."""
    devset = questions(9)
    found = cachectl.evaluate(
        told(program, *devset[:3]), devset, in_part, lms={"one": dspy.settings.lm}, display_progress=False
    )
    text = " ".join(str(found).split())
    assert 1 == text.count("3 of 9 questions stand in the program's own demonstrations")
    assert text.index("Score of the other 6: 0.33") < text.index("Against one")


def test_parts_and_growing_evaluations_know_theirs(program: dspy.Module, tmp_path: Path) -> None:
    """Shards count those of theirs, and all of them together; one that stops counts those that it asked."""
    devset, taught = questions(12), told(program, *questions(4))
    parts = [run(taught, devset, shard=(index, 3), run_id="r") for index in range(3)]
    assert [2, 1, 1] == [len(part.leaked) for part in parts]
    assert 4 == len(cachectl.EvalReport.merge(parts).leaked)
    assert 4 == len(run(taught, devset, order="random").leaked)


@pytest.mark.parametrize(
    ("instruction", "question", "is_told"),
    [
        ("For example, «what is the capital of France» is answered by Paris.", "What is the capital of France?", True),
        ("For example, what is the capital of Frances is not.", "What is the capital of France?", False),
        ("Answer. What is 7 - 5? It is 2.", "What is 7 * 5?", False),
        ("Answer. What is 7-5? It is 2.", "what is 7 - 5", True),
        ("Say yes where the film is good.", "yes", False),
        ("法国的首都是哪里？巴黎。", "法国的首都是哪里", True),
        ("It’s said: don’t look back, ever.", "Don't look BACK", True),
        ("ตอบคำถาม เช่น เมืองหลวงของฝรั่งเศสคืออะไร คำตอบคือปารีส", "เมืองหลวงของฝรั่งเศสคืออะไร", True),
    ],
)
def test_instructions(instruction: str, question: str, *, is_told: bool) -> None:
    """Words in a row count, but for blanks, capitals and punctuation; an operator is a word, and a word or two none."""
    program = dspy.Predict(dspy.Signature("question -> answer", instruction))
    assert is_told == bool(found(program, {"question": question}))


@pytest.mark.parametrize(
    ("text", "other", "is_same"),
    [
        ("IŞIK hızı, İstanbul'da?", "ışık HIZI istanbulda", True),
        ("Ποιος έγραψε τον Άμλετ;", "ΠΟΙΟΣ ΕΓΡΑΨΕ ΤΟΝ ΑΜΛΕΤ", True),
        ("Die größte Straße", "DIE GRÖSSTE STRASSE", True),
        ("ما هي عاصمة فرنسا؟", "مَا هِيَ عَاصِمَةُ فَرَنْسَا", True),
        ("कल क्या है?", "कल  क्या है", True),
        ("कल क्या है?", "कील क्या है?", False),
        ("ไม่ คืออะไร", "ไม้ คืออะไร", False),
        ("well\u00adknown", "wellknown", True),
        ("What is 2² + 1?", "what is 2^2 + 1", True),
        ("What is 2²?", "What is 22?", False),
        ("Is x ≤ y?", "Is x ≥ y?", False),
        ("What is 😀?", "What is 😢?", False),
        ("Is a != b?", "Is a = b?", False),
        ("What is C#?", "What is C?", False),
    ],
)
def test_words_in_other_scripts(text: str, other: str, *, is_same: bool) -> None:
    """Capitals, blanks and what is left out at will do not matter in any script; vowels and signs do."""
    assert is_same == (words(text) == words(other))
    assert is_same == (head(text) == head(other))


def test_what_several_questions_have_in_common_tells_none() -> None:
    """A passage that two questions are about, or a task that all have: only with the question itself it is one."""
    passage, other = "The tower was built by many people in ten years.", "A river runs through the middle of town."
    program = dspy.Predict("context, question -> answer")
    asked = [
        {"context": passage, "question": "Who built the tower?"},
        {"context": passage, "question": "How long did it take?"},
        {"context": other, "question": "Where is the river?"},
    ]
    taught = told(program, dspy.Example(context=passage, question="How  long did it take", answer="ten years"))
    assert {"1": ("demos of the program", False)} == found(taught, *asked)
    assert {} == found(told(program, dspy.Example(context=other, question="What runs?", answer="a river")), *asked)
    # A predictor inside that is given less, or by another name.
    for demo in (dspy.Example(question="Where is the river?", query="q"), dspy.Example(query=asked[2]["question"])):
        assert {"2": ("demos of the program", True)} == found(told(program, demo), *asked)
    assert {} == found(told(program, dspy.Example(context=passage, query="towers")), *asked)


def test_inputs_that_are_no_texts() -> None:
    """Numbers, lists and what has a form of its own are told from others by what they hold."""
    program = dspy.Predict("left: int, right: list[str] -> answer")
    taught = told(program, dspy.Example(left=7, right=["a", "b"], answer="x"))
    assert ["1"] == [*found(taught, {"left": 7, "right": ["a"]}, {"left": 7, "right": ["A", "b"]})]
    odd = dspy.Predict("picture: dspy.Image -> answer")
    image = dspy.Image(url="https://example.com/a.png")
    assert ["0"] == [*found(told(odd, dspy.Example(picture=image, answer="cat")), {"picture": image})]
    assert {} == found(told(odd, dspy.Example(picture=object(), answer="cat")), {"picture": object()})


def test_a_picture_is_not_looked_into_for_nothing() -> None:
    """Where no demonstration has such an input, nothing is hashed; the text beside it is found all the same."""
    odd = dspy.Predict("picture: dspy.Image, question -> answer")
    asked = {"picture": dspy.Image(url="https://example.com/a.png"), "question": "What is on it now?"}
    taught = told(odd, dspy.Example(query="what is on it now", answer="a cat"))
    assert {"0": ("demos of the program", False)} == found(taught, asked)
    untold = told(odd, dspy.Example(query="something else", answer="a cat"))
    assert 0 == calls_of("digest", lambda: leaks_of(untold, {"0": asked}))


def test_each_predictor_of_a_program_is_looked_into() -> None:
    """And the report says in whose demonstrations it stands; a function has none."""

    class Two(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.find, self.answer = dspy.Predict("question -> query"), dspy.ChainOfThought("query -> answer")

    program = Two()
    program.answer.predict.demos = [dspy.Example(query="the end of the road", answer="here")]
    assert {"0": ("demos of 'answer.predict'", True)} == found(program, {"question": "the end of the road"})
    assert {} == found(lambda question: question, {"question": "the end of the road"})


def test_a_long_text_is_read_once_and_no_further_than_it_must() -> None:
    """Words are found wherever they stand; what begins like many others costs no search through all demonstrations."""
    long = " ".join(f"word{number}" for number in range(5000))
    passages = Passages([long, "short one"])
    assert (0,) == passages.holding(words("Word7, word8 - word9"))
    assert (1,) == passages.holding("short one")
    assert () == passages.holding("word7 word9 word8")
    assert () == passages.holding(" ".join(f"word{number}" for number in (*range(40), 41, *range(42, 60))))
    assert ("word0", "word1") == head(long)[:2]
    assert 3 * instructions(lambda: head("a b c")) > instructions(lambda: head(long)) / 3


@pytest.mark.parametrize("size", [200, in_full(20_000)])
def test_it_takes_a_time_in_proportion_to_the_questions(size: int) -> None:
    """However long the demonstrations are: no question that begins otherwise is read to its end."""
    text = " ".join(f"word{number}" for number in range(20_000))
    taught = told(dspy.Predict("question -> answer"), dspy.Example(question=text, answer="x"))
    asked = {str(number): {"question": f"other {number} " + text[:2000]} for number in range(size)}
    assert calls_of("words", lambda: leaks_of(taught, asked)) < 20
    assert () == leaks_of(taught, asked)
