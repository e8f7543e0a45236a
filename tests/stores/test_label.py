"""Labels: what an entry is filed under."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from dspy_cachectl.stores import Label, MemoryStore, Store
from dspy_cachectl.stores.disk import DiskStore

TEXT = st.text(st.characters(exclude_characters="\x1f", exclude_categories=["Cs"]))
LABELS = st.builds(Label, kind=TEXT, model=TEXT, phase=TEXT, role=TEXT, run=TEXT)


@given(LABELS)
def test_round_trip(label: Label) -> None:
    """A label comes back from its text as it was."""
    assert label == Label.decode(label.encode())


@given(LABELS, LABELS)
def test_no_two_labels_share_a_text(one: Label, other: Label) -> None:
    """Different labels are never counted as one."""
    assert (one == other) == (one.encode() == other.encode())


@given(st.one_of(st.none(), st.text()))
def test_any_text_is_a_label(text: str | None) -> None:
    """A tag that somebody else wrote is read as an empty label, or as one of five parts."""
    label = Label.decode(text)
    assert label in {Label(), Label.decode(label.encode())}


ODD = [
    Label(kind="lm", model="a\x00b", phase="größe ☃"),
    Label(kind="lm", model="", run="it's"),
    Label(kind="", model="'; DROP TABLE Cache; --", phase="%", role="_"),
]


@pytest.mark.parametrize("label", ODD)
@pytest.mark.parametrize("make", [lambda path: MemoryStore(), DiskStore], ids=["memory", "disk"])
def test_a_store_keeps_any_label(tmp_path: Path, label: Label, make: type[Store]) -> None:
    """Labels of any text are stored and counted as they are."""
    store = make(tmp_path / "entries")
    store.put("key", b"value", label)

    assert {label: 1} == store.labels()
    assert ["key"] == list(store.keys(label.kind))


def test_a_separator_in_a_name_does_not_shift_the_others() -> None:
    """The separator itself becomes a space: the parts stay in their places."""
    label = Label(kind="lm", model="a\x1fb", phase="eval", role="judge", run="r")

    assert Label(kind="lm", model="a b", phase="eval", role="judge", run="r") == Label.decode(label.encode())
