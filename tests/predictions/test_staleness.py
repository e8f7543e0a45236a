"""Every way in which a prediction could be stale gives another key, in another process as well."""

from __future__ import annotations

import functools
import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl
from dspy_cachectl.fingerprints.content import content_hash
from dspy_cachectl.fingerprints.data import hash_of_questions, questions_of
from dspy_cachectl.fingerprints.models import generation_config, model_identity
from dspy_cachectl.fingerprints.programs import changed, program_fingerprint
from dspy_cachectl.predictions.keys import SnapshotKey, differences
from tests.predictions.support import examples, key_of
from tests.processes import DSPY_MODULES, ROOT, python

PROGRAM = '''
import dspy
from helpers import clean

PREFIX = "Please: "


class Classify(dspy.Signature):
    """Classify the text."""

    text: str = dspy.InputField(desc="what was said")
    label: str = dspy.OutputField()


class Program(dspy.Module):
    def __init__(self):
        super().__init__()
        self.tags = {"b", "a", "c"}
        self.predict = dspy.ChainOfThought(Classify)

    def forward(self, text):
        return self.predict(text=PREFIX + clean(text))


def metric(example, prediction, trace=None):
    return clean(example.label) == clean(prediction.label)
'''
HELPERS = "def clean(text):\n    return text.strip()\n"

ASK = """
    import json, sys
    sys.path.insert(0, sys.argv[1])
    import program
    from dspy_cachectl.fingerprints.reached import metric_fingerprint
    from dspy_cachectl.fingerprints.programs import program_fingerprint
    found = program_fingerprint(program.Program())
    print(json.dumps([found.hash, dict(found.parts), metric_fingerprint(program.metric)]))
"""


def run_in(folder: Path, program: str = PROGRAM, helpers: str = HELPERS, **env: str) -> Any:
    """Return the fingerprint's hash and parts, and the metric's, as another process sees them."""
    (folder / "program.py").write_text(program)
    (folder / "helpers.py").write_text(helpers)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    # The seed of hashes is a new interpreter's.
    return python("-c", textwrap.dedent(ASK), folder, warm=() if env else DSPY_MODULES, env=environment).data


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run_in(tmp_path_factory.mktemp("unchanged"), PYTHONHASHSEED="1")


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., Any]:
    return functools.partial(run_in, tmp_path)


def test_two_processes_agree(ask: Callable[..., Any], unchanged: Any) -> None:
    """No memory address and no order of a set is in a fingerprint; comments and layout are not either."""
    reformatted = PROGRAM.replace("        return", "        # a remark\n\n        return")

    assert unchanged == ask(reformatted, PYTHONHASHSEED="2")


@pytest.mark.parametrize(
    ("before", "after", "parts"),
    [
        ("return self.predict(text=PREFIX", "return self.predict(text=''", {"source:program.Program"}),
        ('PREFIX = "Please: "', 'PREFIX = "Now: "', {"source:program.Program"}),
        ("Classify the text.", "Classify this text.", {"predict.predict.instructions"}),
        ("what was said", "what was meant", {"predict.predict.descriptions"}),
        ("label: str", "label: bool", {"predict.predict.signature"}),
        ('{"b", "a", "c"}', '{"b", "a"}', {"source:program.Program", "self.tags"}),
        ("dspy.ChainOfThought(", "dspy.Predict(", None),
    ],
)
def test_changed_line_changes_the_parts_it_is_in(
    ask: Callable[..., Any], unchanged: Any, before: str, after: str, parts: set[str] | None
) -> None:
    """A line of forward, a constant it uses, a word of an instruction: each is another program, and named."""
    _, old, _ = unchanged
    _, new, _ = ask(PROGRAM.replace(before, after))

    differing = {name for name in {*old, *new} if old.get(name) != new.get(name)}
    assert differing
    assert parts is None or parts == differing


def test_changed_helper_changes_program_and_metric(ask: Callable[..., Any], unchanged: Any) -> None:
    """What forward and the metric call in the user's other modules counts."""
    _, old, metric = unchanged
    _, new, other = ask(helpers=HELPERS.replace("strip", "lower"))

    assert old["source:program.Program"] != new["source:program.Program"]
    assert metric != other


def test_changed_metric_leaves_the_program_alone(ask: Callable[..., Any], unchanged: Any) -> None:
    """A metric is no part of the program that it judges."""
    program, _, metric = unchanged
    same, _, other = ask(PROGRAM.replace("== clean", "!= clean"))

    assert (program, True) == (same, metric != other)


def test_demos_and_their_order_count() -> None:
    """One changed demo, or two that changed places, make another program."""
    program = dspy.ChainOfThought("question -> answer")
    demos = [dspy.Example(question="1", answer="2"), dspy.Example(question="3", answer="4")]
    prints = []
    for given in ([], demos, demos[::-1], [demos[0], demos[1].copy(answer="5")]):
        program.predict.demos = given
        prints.append(program_fingerprint(program))

    assert 4 == len({one.hash for one in prints})
    assert ["demos of 'predict' changed"] == changed(prints[1], prints[2])


def test_configuration_of_a_predictor_counts() -> None:
    """`Predict(..., temperature=0.3)` is another program."""
    one, two = (program_fingerprint(dspy.Predict("a -> b", temperature=value)) for value in (0.3, 0.4))

    assert ["configuration of the program changed"] == changed(one, two)


def test_adapter_and_its_settings_count() -> None:
    """The adapter writes the prompt."""
    program = dspy.Predict("a -> b")
    default = program_fingerprint(program)
    with dspy.context(adapter=dspy.JSONAdapter()):
        other = program_fingerprint(program)

    assert ["adapter changed", "configuration of the adapter changed"] == changed(default, other)
    assert default == program_fingerprint(program, dspy.ChatAdapter())
    assert ["configuration of the adapter changed"] == changed(
        default, program_fingerprint(program, dspy.ChatAdapter(use_json_adapter_fallback=False))
    )


def test_history_traces_and_lm_do_not_count() -> None:
    """A program is the same after it was used, and with another LM."""
    program = dspy.ChainOfThought("a -> b")
    before = program_fingerprint(program)
    program.predict.traces.append("x")
    program.history.append({"a": 1})
    program.set_lm(dspy.LM("openai/x"))

    assert before == program_fingerprint(program)
    assert before == program_fingerprint(program.deepcopy())


def test_functions_count_by_source_and_closure() -> None:
    """A program that is a plain function is told by what it does and what it closes over."""

    def make(suffix: str, tally: list[int]) -> Callable[[str], str]:
        def run(question: str) -> str:
            tally.append(1)
            return question + suffix

        return run

    tally: list[int] = []
    one = make("a", tally)
    before = program_fingerprint(one)
    one("x")

    assert before == program_fingerprint(one)
    assert before != program_fingerprint(make("b", tally))


class Counting(dspy.Module):
    """Counts its questions, as it was told to answer them."""

    def __init__(self, ending: str) -> None:
        self.ending, self.calls, self.log = ending, 0, list[str]()

    def forward(self, question: str) -> str:
        """Answer, and note it."""
        self.calls += 1
        self._note(question)
        return question + self.ending

    def _note(self, question: str) -> None:
        self.log.append(question)


def test_what_a_module_counts_is_not_the_program() -> None:
    """Attributes that it changes while it answers decide nothing; the others do."""
    program = Counting("!")
    before = program_fingerprint(program)
    program(question="x")
    assert (1, ["x"]) == (program.calls, program.log)
    assert before == program_fingerprint(program)
    program.ending = "?"
    assert before != program_fingerprint(program)


def test_class_without_source_counts_by_its_code() -> None:
    """What is typed at a prompt has no source; its code tells it apart."""
    prints = []
    for line in ("return self.p(a=a)", "return self.p(a=a + '!')", "return self.p(a=a)"):
        space: dict[str, Any] = {"dspy": dspy, "__name__": "__main__"}
        exec(f"class P(dspy.Module):\n    def forward(self, a):\n        {line}\n", space)
        prints.append(program_fingerprint(space["P"]()).hash)

    assert prints[0] == prints[2] != prints[1]


def test_endpoint_version_and_name_count() -> None:
    """Another model of the same name at another endpoint is another model; a key in the address is none."""
    lms = [
        dspy.LM("openai/m"),
        dspy.LM("openai/m", api_base="http://one/v1"),
        dspy.LM("openai/m", api_base="http://two/v1"),
        dspy_cachectl.LM("openai/m", api_base="http://two/v1", version="2"),
        dspy_cachectl.LM("openai/m", api_base="http://two/v1", endpoint="mine"),
    ]

    assert 5 == len({model_identity(lm) for lm in lms})
    assert model_identity(lms[1]) == model_identity(
        dspy.LM("openai/m", api_base="http://user:pass@one/v1/", api_key="k")
    )


def test_lms_of_parts_count() -> None:
    """A predictor with an LM of its own is answered by another model."""
    program = dspy.ChainOfThought("a -> b")
    lm = dspy.LM("openai/m")
    alone = model_identity(lm, program=program)
    program.predict.lm = dspy.LM("openai/other")

    assert alone == model_identity(lm)
    assert [("predict.lm", "openai/other")] == [
        (name, other.model) for name, other in model_identity(lm, program=program).others
    ]


@pytest.mark.parametrize("place", ["model", "endpoint"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_retrained_checkpoint_at_the_same_path_counts(tmp_path: Path, place: str, kind: str) -> None:
    """Weights are told by their content, also where size and date are the old ones'."""
    weights = tmp_path / "model" / "weights.bin" if kind == "folder" else tmp_path / "weights.bin"
    weights.parent.mkdir(exist_ok=True)
    path = weights.parent if kind == "folder" else weights

    def identity() -> Any:
        if place == "model":
            return model_identity(dspy.LM(f"local/{path}"))
        return model_identity(dspy_cachectl.LM("openai/m", endpoint=str(path)))

    weights.write_bytes(b"a" * 2_000_000)
    os.utime(weights, (1e9, 1e9))
    first = identity()
    weights.write_bytes(b"b" * 2_000_000)
    os.utime(weights, (1e9, 1e9))

    assert first.checkpoint
    assert first != (second := identity())
    assert second == identity()


def test_hash_of_a_large_file_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that did not change is read once."""
    monkeypatch.setattr("dspy_cachectl.fingerprints.content._RACY", -1.0)
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"a" * 2_000_000)
    first = content_hash(weights)

    monkeypatch.setattr(Path, "open", lambda *_, **__: pytest.fail("it is read again"))
    assert first == content_hash(weights)


@pytest.mark.parametrize(
    ("model", "slug"),
    [
        ("openai/gpt-4o-mini", "openai-gpt-4o-mini"),
        ("local//Data/Ä B/x:y.gguf", "local-data-a-b-x-y-gguf"),
        ("m" * 99, "m" * 60),
        ("模型", "model"),
    ],
)
def test_slug_is_safe_for_every_file_system(model: str, slug: str) -> None:
    """Lower case, letters that every system takes, 60 at most."""
    assert slug == model_identity(dspy.LM(model, model_type="chat")).slug


def test_temperature_counts_lent_or_own() -> None:
    """The temperature is part of the key where the phase lends it as well; a key and time-outs are not."""
    data = examples(1)
    one = key_of(data, temperature=1.0)

    assert one.base != key_of(data, temperature=0.7).base
    assert key_of(data, max_tokens=5).base != key_of(data, max_tokens=6).base
    assert key_of(data, api_key="one").base == key_of(data, api_key="two", num_retries=9).base


def test_data_count_by_content_and_not_by_order() -> None:
    """One edited example is another data set, a reordered one is the same, a duplicate counts."""
    data = examples(5)
    edited = [data[0].copy(question="other").with_inputs("question"), *data[1:]]

    assert hash_of_questions(questions_of(data)) == hash_of_questions(questions_of(data[::-1]))
    assert 4 == len({hash_of_questions(questions_of(each)) for each in (data, edited, data[1:], [*data, data[0]])})


def test_changes_tell_what_an_lm_of_the_programs_own_is_told() -> None:
    """One that is told the same as the one that all ask is that one; another is compared with it."""
    shared, own = dspy.LM("openai/test"), dspy.Predict("question -> answer")

    def key(lm: Any) -> SnapshotKey:
        own.lm = lm
        asked = shared if lm is None else None
        told = generation_config(asked, 1.0, program=own)
        return SnapshotKey(model_identity(asked, program=own), program_fingerprint(own), told)

    before, alike, colder, other = (
        key(None),
        key(dspy.LM("openai/test", temperature=0)),  # what was lent is lent to both
        key(dspy.LM("openai/test", temperature=0.3)),
        key(dspy.LM("openai/other")),
    )
    assert before.hash == alike.hash
    assert ["generation: temperature 1 is now 0.3"] == differences(alike, colder)
    assert ["generation: temperature 0.3 is now 1"] == differences(colder, before)
    assert ["model: name 'openai/test' is now 'openai/other'"] == differences(before, other)


def test_changes_tell_of_an_lm_of_the_programs_own() -> None:
    """One that parts of a program have beside the one that all ask comes and goes."""
    shared, pair = dspy.LM("openai/test"), dspy.ChainOfThought("question -> answer")

    def key(lm: Any) -> SnapshotKey:
        pair.predict.lm = lm
        told = generation_config(shared, 1.0, program=pair)
        return SnapshotKey(model_identity(shared, program=pair), program_fingerprint(pair), told)

    none, alike, colder = key(None), key(dspy.LM("openai/test")), key(dspy.LM("openai/test", temperature=0.3))
    assert none.hash == alike.hash
    assert [
        "model: 'predict.lm' is an LM of the program's own now",
        "generation: temperature 1 is now 0.3 for 'predict.lm'",
    ] == differences(none, colder)
    assert [
        "model: 'predict.lm' was an LM of the program's own",
        "generation: temperature 0.3 is now 1 for 'predict.lm'",
    ] == differences(colder, alike)
