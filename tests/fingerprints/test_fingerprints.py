"""Examples and metrics are told apart by what they hold, and what cannot be told apart is a clear error."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import re
import sys
import types
from pathlib import Path
from typing import Any

import dspy
import pydantic
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.entries import values
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.fingerprints.canonical import UnstableError, digest
from dspy_cachectl.fingerprints.code import code_fingerprint
from dspy_cachectl.fingerprints.data import Question, questions_of
from dspy_cachectl.fingerprints.models import generation_config, model_identity
from dspy_cachectl.fingerprints.programs import program_fingerprint
from dspy_cachectl.fingerprints.reached import metric_fingerprint


class Point(pydantic.BaseModel):
    x: float
    y: float = 0.0


def question(**fields: Any) -> dspy.Example:
    return dspy.Example(**fields).with_inputs("q")


@pytest.mark.parametrize("module", ["numpy", "pandas"])
def test_what_another_thread_is_importing_is_not_asked(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As MLflow's import in the background does: nothing that there is can be of a class that is not there yet."""
    before = digest({"point": Point(x=1.0)})
    monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    assert before == digest({"point": Point(x=1.0)})
    assert values.dumps({"point": (1.0,)})[1]
    with pytest.raises(UnstableError):
        digest(object())


def test_inputs_and_labels_are_hashed_apart() -> None:
    """An edited label leaves the question what it was."""
    one, other = question(q="1", a="2"), question(q="1", a="3")

    [first], [second] = questions_of([one]), questions_of([other])

    assert first.example_key == second.example_key
    assert first.label_key != second.label_key


def test_fields_of_the_loader_do_not_count() -> None:
    """DSPy's loaders give examples a random id."""
    assert questions_of([question(q="1", a="2")]) == questions_of([question(q="1", a="2", dspy_uuid="x")])


def test_duplicates_are_numbered_in_their_order() -> None:
    """The second of two equal questions is occurrence 1."""
    found = questions_of([question(q="1"), question(q="2"), question(q="1")])

    assert [0, 0, 1] == [question.occurrence for question in found]
    assert found[0].example_key == found[2].example_key
    assert isinstance(found[0], Question)


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([], "empty"),
        ([question(q="1"), dspy.Example(q="2")], "example 1 .*with_inputs"),
        ([dspy.Example(q="1").with_inputs("other")], "example 0 has none of the inputs"),
        ([{"q": "1"}], "example 0 is a dict"),
        ([question(q={"deep": [object()]})], r"example 0 .*'q'.*deep\[0\]"),
    ],
)
def test_bad_data_are_clear_errors(examples: list[Any], message: str) -> None:
    """The message says which example, which field, and what to do."""
    with pytest.raises(ConfigurationError, match=message):
        questions_of(examples)


def test_values_of_many_kinds_have_a_stable_form() -> None:
    """Pydantic objects, images, dates, sets and numbers that only look equal are told apart."""
    some = [
        Point(x=1),
        Point(x=2),
        dspy.Image(url="http://host/a.png"),
        dspy.Image(url="http://host/b.png"),
        dt.date(2026, 1, 1),
        dt.datetime(2026, 1, 1),
        {"a", "b"},
        ("a", "b"),
        ["a", "b"],
        1,
        1.0,
        True,
        "1",
        None,
        2**80,
        float("nan"),
        b"1",
        {1: 2},
        {"1": 2},
        "\ud800",
        dspy.History(messages=[{"q": "1"}]),
        Point,
    ]

    assert len(some) == len({digest(value) for value in some})
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest(Point(x=1)) == digest(Point(x=1.0))


def test_a_value_that_holds_itself_is_an_error() -> None:
    """Hashing ends."""
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(UnstableError, match="holds itself"):
        digest(loop)


def exact(example: Any, prediction: Any, trace: Any = None, *, strict: bool = True) -> bool:
    return bool(example.a == prediction.a) or not strict


class Judge:
    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def __call__(self, example: Any, prediction: Any, trace: Any = None) -> bool:
        return float(prediction.a) > self.threshold

    def other(self, example: Any, prediction: Any) -> bool:
        return False


def close_to(limits: dict[str, float]) -> Any:
    return lambda example, prediction, trace=None: prediction.a < limits["high"]


def test_metrics_are_told_apart() -> None:
    """By source, defaults, arguments of a partial, closure, class and plain attributes."""
    metrics = [
        exact,
        functools.partial(exact, strict=False),
        functools.partial(exact, strict=True),
        Judge(0.5),
        Judge(0.7),
        Judge(0.5).other,
        close_to({"high": 1.0}),
        close_to({"high": 2.0}),
        *(lambda e, p: 1, lambda e, p: 2),
    ]

    assert len(metrics) == len({metric_fingerprint(metric) for metric in metrics})
    assert metric_fingerprint(Judge(0.5)) == metric_fingerprint(Judge(0.5))


judge = dspy.Predict("answer -> verdict: bool")
PATTERN = re.compile("a")
LIMIT = 3


def judged(example: Any, prediction: Any, trace: Any = None) -> bool:
    return bool(judge(answer=prediction.a).verdict)


class Judging(dspy.Module):
    def __init__(self, lm: dspy.LM) -> None:
        super().__init__()
        self.strict = lm

    def forward(self, example: Any, prediction: Any, trace: Any = None) -> bool:
        with dspy.context(lm=self.strict):
            return bool(judge(answer=prediction.a).verdict)


class Asking:
    def __init__(self, lm: dspy.LM) -> None:
        self.judge = judge.deepcopy()
        self.judge.lm = lm

    def __call__(self, example: Any, prediction: Any, trace: Any = None) -> bool:
        return bool(self.judge(answer=prediction.a).verdict)


def judged_by(by: Any, example: Any, prediction: Any) -> bool:
    return bool(by(answer=prediction.a).verdict)


def through(lm: dspy.LM, way: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A metric that asks an LM, which it comes by in one of several ways."""
    own = judge.deepcopy()
    own.set_lm(lm)
    if way == "global":
        monkeypatch.setitem(globals(), "judge", own)
    ways = {
        "global": judged,
        "module": Judging(lm),
        "object": Asking(lm),
        "partial": functools.partial(judged_by, own),
        "closure": lambda example, prediction: own(answer=prediction.a),
    }
    return ways[way]


@pytest.mark.parametrize("way", ["global", "module", "object", "partial", "closure"])
def test_a_judge_counts_with_its_lm(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A metric that asks an LM is another one when that LM's model, endpoint or temperature is another."""
    options = [
        {},
        {"model": "openai/other"},
        {"temperature": 0.3},
        {"api_base": "http://other/v1"},
    ]
    found = []
    for one in [*options, {"api_key": "another", "num_retries": 9}]:
        lm = dspy.LM(**{"model": "openai/m", **one})
        found.append(metric_fingerprint(through(lm, way, monkeypatch)))

    assert len(options) == len(set(found))
    assert found[0] == found[-1]


def test_a_judge_counts_with_its_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other instructions and other demos are another judge."""
    prompts = [dspy.Predict(dspy.Signature("answer -> verdict: bool", words)) for words in ("Be kind.", "Be strict.")]
    prompts.append(prompts[0].deepcopy())
    prompts[-1].demos = [dspy.Example(answer="1", verdict=True)]
    found = set()
    for one in prompts:
        monkeypatch.setitem(globals(), "judge", one)
        found.add(metric_fingerprint(judged))

    assert 3 == len(found)


@functools.cache
def limited(text: str) -> str:
    return text[:LIMIT]


def by_pattern(example: Any, prediction: Any) -> bool:
    return PATTERN.match(limited(prediction.a)) is not None


def test_what_a_metric_reaches_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern that it uses, and a constant of a helper that remembers its results."""
    found = [metric_fingerprint(by_pattern)]
    for name, value in (("PATTERN", re.compile("b")), ("LIMIT", 4)):
        monkeypatch.setitem(globals(), name, value)
        found.append(metric_fingerprint(by_pattern))

    assert 3 == len(set(found))


@dataclasses.dataclass
class Limits:
    low: float
    high: float


def test_a_class_that_a_metric_holds_counts() -> None:
    """A dataclass that is held itself is no object of it."""
    held = [Judge(kind) for kind in (Limits, Point, Limits(1, 2))]  # type: ignore[arg-type]

    assert 3 == len({metric_fingerprint(metric) for metric in held})


def test_things_that_hold_each_other_have_an_end() -> None:
    """Objects that refer to one another are hashed, and told from others."""

    def ring(size: int) -> Judge:
        first = Judge(0.5)
        last: Any = first
        for number in range(size):
            last.next = Judge(float(number))
            last = last.next
        last.next = first
        return first

    assert metric_fingerprint(ring(3)) == metric_fingerprint(ring(3)) != metric_fingerprint(ring(4))


@pytest.mark.parametrize(("model", "is_path"), [("local/weights", True), ("openai/weights", False)])
def test_a_folder_of_a_models_name_is_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, is_path: bool
) -> None:
    """A folder in the working directory is the weights only where the provider loads weights."""
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "weights", tmp_path / "openai" / "weights"):
        folder.mkdir(parents=True)
        (folder / "log").write_text("x")

    assert is_path == (model_identity(dspy.LM(model)).checkpoint is not None)
    assert model_identity(dspy.LM("openai/./weights")).checkpoint


@pytest.mark.parametrize("name", ["local", "vllm", "local/", "gpu-1"])
def test_the_name_of_an_endpoint_is_not_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A server that its user calls as a provider of weights is called is no folder: no file beside it decides."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").write_text("x")
    assert model_identity(cachectl.LM("openai/m", endpoint=name)).checkpoint is None
    assert model_identity(dspy.LM(name.strip("/"))).checkpoint is None


def test_generation_config_is_clean() -> None:
    """Options without secrets, transport and what is unset; the lent temperature where there is none."""
    lm = dspy.LM(
        "openai/m", api_key="sk-secret", api_base="http://host", top_p=0.5, extra_headers={"x-api-key": "s-secret"}
    )

    config = generation_config(lm, 0.9)

    assert (0.5, 0.9) == (config["top_p"], config["temperature"])
    assert "s-secret" not in str(config)
    assert not {"api_key", "api_base"} & set(config)
    assert 0.3 == generation_config(dspy.LM("openai/m", temperature=0.3), 0.9)["temperature"]
    assert 0.9 == generation_config(dspy.LM("openai/m", temperature=0), 0.9)["temperature"]


def test_no_lm_is_a_clear_error() -> None:
    """A program without any LM cannot be evaluated."""
    with pytest.raises(ConfigurationError, match=r"dspy\.configure"):
        model_identity(None, program=dspy.Predict("a -> b"))


@pytest.mark.parametrize("name", ["token", "password", "auth", "secret", "credentials", "session_token"])
def test_what_only_sounds_like_a_secret_decides(name: str) -> None:
    """Two programs that differ in a demo's field, a setting or an attribute of such a name are two programs."""
    found = set()
    for value in ("a", "b"):
        for change in ("none", "demo", "attribute", "setting"):
            program = dspy.Predict(f"question, {name} -> answer")
            program.demos = [dspy.Example(question="Q?", answer="A", **{name: value if change == "demo" else "-"})]
            if change == "attribute":
                setattr(program, name, value)
            program.settings_of_mine = {"deep": [{name: value if change == "setting" else "-"}]}
            found.add(program_fingerprint(program).hash)
    assert 7 == len(found)


@pytest.mark.parametrize("name", ["api_key", "OPENAI_API_KEY", "Authorization", "aws_secret_access_key"])
def test_a_known_credential_does_not(name: str) -> None:
    """One that is rotated leaves a program what it is."""
    found = set()
    for value in ("a", "b"):
        program = dspy.Predict("question -> answer")
        program.settings_of_mine = {"deep": [{name: value}]}
        setattr(program, name, value)
        found.add(program_fingerprint(program).hash)
    assert 1 == len(found)


def test_an_embedding_function_that_holds_what_sounds_like_a_secret() -> None:
    """Two functions with another `pad_token` or `auth` in what they close over embed differently."""

    def made(token: str, settings: dict[str, str]) -> Any:
        return lambda texts: [[len(token + settings["auth"])] for _ in texts]

    prints = {
        code_fingerprint(made(*held), exact=True)
        for held in (("a", {"auth": "a"}), ("bb", {"auth": "a"}), ("a", {"auth": "bb"}))
    }
    assert 3 == len(prints)


def test_equal_questions_go_by_their_labels() -> None:
    """Three that ask the same are told apart by what they expect, wherever they stand."""
    data = [dspy.Example(question="q", answer=label).with_inputs("question") for label in "xyzy"]
    forth, back = questions_of(data), questions_of(data[::-1])
    assert {(one.occurrence, one.label_key) for one in forth} == {(one.occurrence, one.label_key) for one in back}
    assert sorted(one.occurrence for one in forth) == [0, 1, 2, 3]


def test_an_attribute_is_no_global_of_its_name() -> None:
    """What a script calls `answer` is nothing to a program that has an attribute of that name; its rule is."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("def forward(self, question): return self.answer(question).answer if rule else None", space)
    found = []
    for answer, rule in ((None, 1), ("yesterday's", 1), (None, 2)):
        space.update(answer=answer, rule=rule)
        found.append(code_fingerprint(space["forward"], exact=True))
    assert found[0] == found[1] != found[2]
