"""A file of `to_label` that came back from people: from an editor, or from a spreadsheet of whatever country."""

from __future__ import annotations

import codecs
import csv
import io
import math
import threading
from collections.abc import Iterator
from pathlib import Path

from dspy_cachectl.boundary.reading import read_file
from dspy_cachectl.errors import ConfigurationError

COLUMNS = ("question", "asks", "answered", "label")
_QUESTION, _LABEL = COLUMNS[0], COLUMNS[-1]
_DELIMITERS = ",;\t"
_LIMIT = threading.Lock()
"""The `csv` module has one limit of how long a field may be, for all."""


def as_text(question: str) -> str:
    """Return what identifies a question as a text that a spreadsheet takes for no number, which it would round."""
    return f"'{question}" if question.replace("e", "", 1).isdigit() else question


def read_labels(path: Path) -> dict[str, float]:
    """Return the labels of a file, by question: its columns are separated by commas, semicolons or tabs.

    Where semicolons or tabs separate them, a comma in a number is a decimal one.

    Raises:
        ConfigurationError: If it has no such columns, or a line is wrong; the message says which.
        StoreError: If it cannot be read.
    """
    found: dict[str, float] = {}
    for place, question, label in _labelled(path):
        if question in found:
            raise ConfigurationError(f"line {place} of {path} has a second label for question {question!r}: keep one")
        found[question] = label
    return found


def _labelled(path: Path) -> Iterator[tuple[int, str, float]]:
    delimiter, rows = _rows(path)
    lines = iter(rows)
    _, header = next(lines, (0, []))
    names = [name.strip().lower() for name in header]
    missing = [name for name in (_QUESTION, _LABEL) if names.count(name) != 1]
    if missing:
        raise ConfigurationError(
            f"the first line of {path} has to name the column {missing[0]!r} once, as to_label writes it: "
            f"{','.join(COLUMNS)}"
        )
    for place, row in lines:
        if len(row) > len(names) and any(row[len(names) :]):
            raise ConfigurationError(
                f"line {place} of {path} has {len(row)} columns, and the first one {len(names)}: put a text that "
                "holds the separator into quotation marks"
            )
        question, said = (row[at].strip() if at < len(row) else "" for at in map(names.index, (_QUESTION, _LABEL)))
        question = question.removeprefix("'")
        if said and not question:
            raise ConfigurationError(f"line {place} of {path} has the label {said!r} and no question")
        label = _number(said if delimiter == "," else said.replace(",", "."), path, place)
        if label is not None:
            yield place, question, label


def _rows(path: Path) -> tuple[str, list[tuple[int, list[str]]]]:
    """Return what separates columns, and the rows that are not empty, each with the number of the line it ends in."""
    text = _text(read_file(path, what="the labels"))
    first = text.partition("\n")[0].strip()
    told = first.removeprefix("sep=")  # a line that spreadsheets know, and may write
    start = 1 if first != told and len(told) == 1 else 0
    delimiter = told if start else max(_DELIMITERS, key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    with _LIMIT:
        before = csv.field_size_limit(len(text) + 1)
        try:
            read = [(rows.line_num, row) for row in rows]
        except csv.Error as error:
            raise ConfigurationError(f"line {rows.line_num} of {path} cannot be read: {error}") from error
        finally:
            csv.field_size_limit(before)
    return delimiter, [(place, row) for place, row in read[start:] if any(row)]


def _text(data: bytes) -> str:
    is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if is_wide else "utf-8-sig", "replace")


def _number(said: str, path: Path, place: int) -> float | None:
    try:
        label = float(said) if said else math.nan
    except ValueError:
        label = math.inf
    if math.isinf(label):
        raise ConfigurationError(f"line {place} of {path} has the label {said!r}: write a number, or leave it empty")
    return None if math.isnan(label) else label
