"""A judge asked several times about the same answers. The provider's request counter is the oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.statistics.agreement import cohen_kappa, krippendorff_alpha
from tests.endpoint import Endpoint
from tests.evaluation.test_evaluate import program, questions, run

__all__ = ["program"]

MakeLM = Callable[..., cachectl.LM]
Judge = Callable[..., float]


def pairs(count: int) -> list[tuple[dspy.Example, dspy.Prediction]]:
    """Questions with the same answer to each."""
    return [(example, dspy.Prediction(answer="yes")) for example in questions(count)]


@pytest.fixture
def judge(lm: MakeLM, endpoint: Endpoint) -> Judge:
    """A judge of its own that says yes to two of three requests, whatever is asked."""
    endpoint.configure(answers={"question": ["yes", "no", "yes"]})
    rate = dspy.Predict("question, answer -> verdict")
    rate.lm = lm("openai/judge", role="judge", temperature=0.5)

    def judged(example: dspy.Example, prediction: Any, trace: Any = None) -> float:
        return float(rate(question=example.question, answer=prediction.answer).verdict == "yes")

    return judged


def test_each_verdict_is_a_draw_of_its_own(judge: Judge, endpoint: Endpoint) -> None:
    """12 answers three times: 36 requests at the judge's own temperature, and each answer gets yes, no, yes."""
    found: cachectl.JudgeCheck = cachectl.check_judge(judge, pairs(12), num_threads=1)
    assert 36 == endpoint.requests == found.stats.requests
    assert {0.5} == {request["body"]["temperature"] for request in endpoint.log()}
    assert (12, {2.0}) == (len(found.scores), {sum(row) for row in found.scores})
    assert found.itself == krippendorff_alpha(found.scores)
    assert 1 / 3 == pytest.approx(found.same)
    assert found.labels == (None,) * 12
    assert found.kappa is found.alpha is found.right is None


def test_a_policy_that_serves_judges_again_does_not_rule_here(judge: Judge, endpoint: Endpoint) -> None:
    """Whatever an evaluation does with judges, what is to be looked at is their wavering."""
    with cachectl.phase("eval", roles={"judge": cachectl.Policy.REUSE}):
        cachectl.check_judge(judge, pairs(4), repeats=2)
    assert 8 == endpoint.requests


def test_the_same_run_buys_nothing(judge: Judge, endpoint: Endpoint) -> None:
    """And more repeats buy only what is new."""
    first = cachectl.check_judge(judge, pairs(5), repeats=2, run_id="judges")
    again = cachectl.check_judge(judge, pairs(5), repeats=2, run_id=first.run_id)
    assert (10, first.scores) == (endpoint.requests, again.scores)
    cachectl.check_judge(judge, pairs(5)[::-1], repeats=3, run_id="judges")
    assert 15 == endpoint.requests


def test_questions_that_belong_together_are_clusters(judge: Judge, program: dspy.Module, endpoint: Endpoint) -> None:
    """By a field or one for each, or as the report or equal questions tell: all intervals are of clusters."""
    asked, labels = pairs(15), [1, 0] * 5 + [None] * 5
    for place, (example, _) in enumerate(asked):
        example["page"] = place // 3
    options: Any = {"labels": labels, "num_threads": 1, "run_id": "judged"}
    found = cachectl.check_judge(judge, asked, clusters="page", **options)
    groups = [place // 3 for place in range(15)]
    both = list(zip([row[0] for row in found.scores[:10]], map(float, labels[:10]), strict=True))  # type: ignore[arg-type]
    assert krippendorff_alpha(found.scores, clusters=groups) == found.itself
    assert cohen_kappa(both, clusters=groups[:10]) == found.kappa
    assert krippendorff_alpha(both, clusters=groups[:10]) == found.alpha
    again = cachectl.check_judge(judge, asked, clusters=groups, **options)
    assert found.as_dict() == again.as_dict()
    assert 5 == found.as_dict()["clusters"]
    assert "clusters 5, which" in " ".join(str(found).split())
    assert cachectl.check_judge(judge, pairs(15), run_id="judged").clusters is None
    twice = cachectl.check_judge(judge, [*pairs(6), *pairs(6)])
    assert 6 == twice.as_dict()["clusters"] == len(set(twice.clusters or ()))
    report = run(program, questions(6), clusters=lambda example: example.question[-3:])
    told = cachectl.check_judge(judge, report, devset=questions(6))
    assert report.table.clusters == told.clusters
    bought = endpoint.requests
    with pytest.raises(cachectl.ConfigurationError, match="no field 'paragraph'"):
        cachectl.check_judge(judge, asked, clusters="paragraph")
    assert bought == endpoint.requests


def test_labels_tell_whether_it_is_right(judge: Judge, endpoint: Endpoint) -> None:
    """By its first verdicts; where nobody was asked it counts for nothing."""
    labels = [1, 0] * 5 + [None] * 5
    found = cachectl.check_judge(judge, pairs(15), labels=labels, num_threads=1)
    both = [(row[0], float(label)) for row, label in zip(found.scores, labels, strict=True) if label is not None]
    assert found.kappa == cohen_kappa(both)
    assert found.right == sum(one == other for one, other in both) / 10
    text = " ".join(str(found).split())
    for said in ("agreement with itself", "agreement with people", "of 10 answers", "Krippendorff's alpha"):
        assert said in text
    assert all(len(line) <= 80 for line in str(found).splitlines())
    assert found.as_dict()["right"] == found.right


def test_the_answers_of_a_report_are_asked_of_nobody_but_the_judge(
    program: dspy.Module, lm: MakeLM, endpoint: Endpoint
) -> None:
    """They are kept, and so are those of `dspy.Evaluate`."""
    devset = questions(6)
    report = run(program, devset, repeats=2)
    result = dspy.Evaluate(devset=devset, metric=lambda *_: True, display_progress=False)(program)
    endpoint.reset_counts()
    seen: list[tuple[str, str]] = []

    def counting(example: dspy.Example, prediction: Any) -> bool:
        seen.append((example.question, prediction.answer))
        return len(seen) % 2 == 0

    found = cachectl.check_judge(counting, report, devset=devset, repeats=2, num_threads=1)
    kept = [
        (row.inputs["question"], row.output.fields["answer"]) for row in report.rows() if not row.repeat and row.output
    ]
    assert sorted(2 * kept) == sorted(seen)
    assert (6, 0) == (len(found.scores), endpoint.requests)
    assert 6 == len(cachectl.check_judge(counting, result.results, repeats=2).scores)


async def _awaited(example: dspy.Example, prediction: Any) -> float:
    return 1.0


def test_a_judge_that_is_awaited_or_fails_now_and_then() -> None:
    """What failed is left out and counted; one that says one thing cannot be told apart from chance."""
    count = iter(range(100))

    def fails(example: dspy.Example, prediction: Any) -> float:
        if (number := next(count)) % 4 == 3:
            raise ValueError("no verdict")
        return float(number % 3 == 0)

    found = cachectl.check_judge(fails, pairs(8), num_threads=1)
    assert (6, 18) == (found.failures, sum(map(len, found.scores)))
    assert "6 verdicts failed" in str(found)
    assert "all verdicts are one" in " ".join(str(cachectl.check_judge(_awaited, pairs(4))).split())


def test_scores_on_a_scale_differ_by_their_distance() -> None:
    """1 to 5: alpha is that of intervals, and the wavering has its share."""
    count = iter(range(1000))
    found = cachectl.check_judge(lambda example, prediction: next(count) % 5 + 1, pairs(10), num_threads=1)
    assert ("interval", krippendorff_alpha(found.scores, kind="interval")) == (found.kind, found.itself)
    assert "of the variance of its scores" in " ".join(str(found).split())


@pytest.mark.parametrize(
    ("answers", "options", "why"),
    [
        ([("no", "example")], {}, "pairs of an example and a prediction"),
        (pairs(3), {"labels": [1]}, "1 labels for 3 answers"),
        (pairs(3), {"labels": ["yes", None, None]}, "not 'yes'"),
        (pairs(3), {"repeats": 1}, "2 or more"),
        ([], {}, "empty"),
    ],
)
def test_what_cannot_be_is_said(
    judge: Judge, endpoint: Endpoint, answers: Any, options: dict[str, Any], why: str
) -> None:
    """With 0 requests."""
    with pytest.raises(cachectl.ConfigurationError, match=why):
        cachectl.check_judge(judge, answers, **options)
    assert 0 == endpoint.requests


def test_a_report_without_its_questions_and_a_judge_without_verdicts(program: dspy.Module) -> None:
    """Each says what it lacks."""
    report = run(program, questions(3))
    with pytest.raises(cachectl.ConfigurationError, match="devset="):
        cachectl.check_judge(lambda *_: 1, report)
    with pytest.raises(cachectl.ConfigurationError, match="ZeroDivisionError"):
        cachectl.check_judge(lambda *_: 1 / 0, pairs(3))
