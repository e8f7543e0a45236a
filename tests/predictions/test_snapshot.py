"""Rows and files come back as they went in, or are known to be damaged."""

from __future__ import annotations

import datetime as dt
import enum
import json
import math
from pathlib import Path
from typing import Any, Literal

import dspy
import numpy as np
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from dspy_cachectl.entries import values
from dspy_cachectl.errors import CorruptEntryError, FormatVersionError
from dspy_cachectl.predictions.outputs import Output, output_of, restore
from dspy_cachectl.predictions.rows import Failure, PredictionRow, Score, decode, encode
from dspy_cachectl.predictions.snapshot import FORMAT_VERSION, open_snapshot, write_snapshot
from tests.processes import ROOT, python

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec=None))
    | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=4) | st.just("$"), inner, max_size=3)
    ),
    max_leaves=8,
)
fields = st.dictionaries(st.text(max_size=5) | st.just("$"), plain, max_size=4)
rows_ = st.builds(
    PredictionRow,
    example_key=st.text("0123456789abcdef", min_size=64, max_size=64),
    occurrence=st.integers(0, 9),
    repeat=st.integers(0, 9),
    inputs=fields,
    output=st.none() | st.builds(Output, fields, returns=st.sampled_from(["prediction", "value"])),
    reference=fields,
    scores=st.dictionaries(
        st.text(max_size=5), st.builds(Score, st.text(max_size=5), st.floats(allow_nan=False)), max_size=2
    ),
    draws=st.lists(plain, max_size=3).map(tuple),
    cost=st.none() | st.floats(0, 1),
    seconds=st.none() | st.floats(0, 1),
    error=st.none() | st.builds(Failure, st.just("Error"), st.just("it failed")),
    created=st.floats(0, 1e10),
)


@given(rows_)
def test_any_row_survives_the_trip(row: PredictionRow) -> None:
    """Decoding what was encoded gives an equal row, on one line of strict JSON."""
    line = encode(row)

    assert row == decode(line)
    assert b"\n" not in line
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@given(st.lists(rows_, max_size=5), fields, st.sampled_from(["x.json", "x.json.zst"]))
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_any_file_survives_the_trip(
    tmp_path: Path, rows: list[PredictionRow], facts: dict[str, Any], name: str
) -> None:
    """Metadata, rows and metrics come back, compressed or not."""
    facts = {name: value for name, value in facts.items() if name not in {"format", "file", "$"}}
    path = tmp_path / name
    lines = [encode(row) for row in rows]

    write_snapshot(path, facts, lines, facts)
    with open_snapshot(path) as reader:
        assert {**facts, "format": FORMAT_VERSION} == reader.metadata
        assert lines == list(reader.rows())
        assert facts == reader.metrics


def test_nan_scores_survive() -> None:
    """A score that is no number is kept as one."""
    row = PredictionRow("e", scores={"m": Score("l", math.nan)})

    assert math.isnan(decode(encode(row)).scores["m"].score)


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """No single damaged byte of a file passes for whole."""
    path = tmp_path / "x.json"
    write_snapshot(
        path,
        {"a": 1},
        [encode(PredictionRow("e", created=1.0)), encode(PredictionRow("f", created=2.0))],
        {"score": 0.5},
    )
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises((CorruptEntryError, FormatVersionError)), open_snapshot(path) as reader:
            list(reader.rows())
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptEntryError), open_snapshot(path) as reader:
            list(reader.rows())


def test_metadata_are_read_without_the_rows(tmp_path: Path) -> None:
    """A file whose rows are damaged still says what it was."""
    path = tmp_path / "x.json"
    write_snapshot(path, {"model": "m"}, [encode(PredictionRow("e"))] * 3, {})
    path.write_bytes(path.read_bytes()[:200])

    with open_snapshot(path) as reader:
        assert "m" == reader.metadata["model"]


def test_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    """A snapshot is written wholly or not at all."""
    path = tmp_path / "x.json"
    write_snapshot(path, {}, [encode(PredictionRow("e"))], {})
    before = path.read_bytes()

    def broken() -> Any:
        yield encode(PredictionRow("f"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_snapshot(path, {}, broken(), {})
    assert before == path.read_bytes()
    assert [path] == [one for one in tmp_path.rglob("*") if one.is_file()]


class Colour(enum.Enum):
    RED = "red"


class Person(pydantic.BaseModel):
    name: str
    born: dt.date


class Extract(dspy.Signature):
    """Find the people."""

    text: str = dspy.InputField()
    people: list[Person] = dspy.OutputField()
    colour: Colour = dspy.OutputField()
    when: dt.datetime = dspy.OutputField()
    kind: Literal["a", "b"] = dspy.OutputField()


def test_typed_fields_come_back_through_the_signature() -> None:
    """Pydantic objects, enumerations and dates are kept as plain data and restored as what the program declares."""
    program = dspy.ChainOfThought(Extract)
    when = dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc)
    prediction = dspy.Prediction(
        people=[Person(name="Ada", born=dt.date(1815, 12, 10))], colour=Colour.RED, when=when, kind="a"
    )

    stored = decode(encode(PredictionRow("e", output=output_of(prediction, program)))).output

    assert prediction == restore(stored, program)
    assert [{"name": "Ada", "born": "1815-12-10"}] == stored.fields["people"]


@pytest.mark.parametrize("value", [object(), dspy.Predict("a -> b"), Person(name="Ada", born=dt.date(1815, 12, 10))])
def test_what_cannot_be_restored_is_refused(value: Any) -> None:
    """A field that would come back as something else is an error that names it."""
    with pytest.raises(values.UnstorableError, match="'answer'"):
        output_of(dspy.Prediction(answer=value), dspy.Predict("question -> answer"))


def test_field_that_fits_no_more_is_an_error() -> None:
    """A stored object that the program's types refuse is never handed out as something else."""
    stored = Output({"people": 3}, typed=("people",))
    with pytest.raises(CorruptEntryError, match="'people'"):
        restore(stored, dspy.Predict(Extract))


@pytest.mark.parametrize("value", ["text", 3, None, {"a": (1, 2)}, [1.5], True])
def test_other_results_are_kept(value: Any) -> None:
    """A program need not return a Prediction."""
    back = restore(decode(encode(PredictionRow("e", output=output_of(value)))).output)

    assert value == back
    assert type(value) is type(back)


def test_examples_arrays_and_completions_are_kept() -> None:
    """Examples stay examples, arrays arrays, and all completions of a prediction are there."""
    several = dspy.Prediction.from_completions([{"a": "1"}, {"a": "2"}])

    assert dspy.Example(a=1) == restore(output_of(dspy.Example(a=1)))
    assert ["1", "2"] == restore(output_of(several)).completions.a
    assert np.array_equal(
        np.arange(3), restore(decode(encode(PredictionRow("e", output=output_of(np.arange(3))))).output)
    )


@pytest.mark.exhaustive
def test_memory_stays_flat(tmp_path: Path) -> None:
    """Eight times the rows take no more memory, whatever a session does with them."""
    script = """
import json, resource, sys, tracemalloc
from dspy_cachectl.fingerprints.data import Question
from dspy_cachectl.fingerprints.models import ModelIdentity
from dspy_cachectl.fingerprints.programs import Fingerprint
from dspy_cachectl.predictions.keys import SnapshotKey
from dspy_cachectl.predictions.library import Library
from dspy_cachectl.predictions.outputs import Output
from dspy_cachectl.predictions.rows import PredictionRow
count = int(sys.argv[2])
key = SnapshotKey(ModelIdentity("m"), Fingerprint("0" * 64, {}), {}, str(count))
class Questions:
    def __len__(self): return count
    def __iter__(self): return (self[i] for i in range(count))
    def __getitem__(self, i): return Question(f"{i:064x}", "l")
tracemalloc.start()
peaks = []
for again in range(2):  # what is imported and remembered once is no matter of rows
    library, before = Library(f"{sys.argv[1]}/{again}"), tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    for turn in range(2):
        with library.open(key, Questions()) as session:
            for question in Questions() if turn == 0 else ():
                session.keep(PredictionRow(question.example_key, output=Output({"answer": "x" * 200})))
            session.finish()
            rows = sum(1 for _ in session.kept.in_order())
    assert (rows, session.status) == (count, "loaded")
    peaks.append(tracemalloc.get_traced_memory()[1] - before)
print(json.dumps([min(peaks), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""
    peaks = [python("-c", script, tmp_path / str(count), str(count), cwd=ROOT).data for count in (500, 4_000)]

    # Holding 3,500 more rows of some 600 bytes would take over 2 MB more of Python's memory.
    assert peaks[1][0] < peaks[0][0] + 1_000_000
    # SQLite's page cache is bounded, and outside of Python's memory.
    assert peaks[1][1] < peaks[0][1] * 1.3
