"""Kept predictions as a table for other programs: CSV, or Parquet through pandas."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dspy_cachectl.boundary.shown import harmless_cell
from dspy_cachectl.boundary.writing import STANDARD_OUTPUT, check_new, write_output_of_command
from dspy_cachectl.errors import ConfigurationError, MissingExtraError
from dspy_cachectl.predictions.rows import PredictionRow
from dspy_cachectl.reports.texts import as_json

_PLAIN = (
    "example_key",
    "occurrence",
    "repeat",
    "cost",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "cache_creation_tokens",
    "reasoning_tokens",
    "seconds",
    "created",
)


def export(rows: Sequence[PredictionRow], target: Path, *, force: bool = False) -> None:
    """Write rows to a file, wholly or not at all: CSV, or Parquet where its name ends so.

    Cells of a CSV that a spreadsheet would take for a formula get an apostrophe in front, which spreadsheets do not
    show.

    Args:
        rows: The rows.
        target: The file, ending in `.csv` or `.parquet`. `-` is standard output, and CSV.
        force: Write over a file that is there.

    Raises:
        ConfigurationError: If the name has another ending, or the file is there, or is one this package works with.
        MissingExtraError: If pandas, or what it writes Parquet with, is not installed.
        StoreUnavailableError: If the file cannot be written.
    """
    ending = ".csv" if str(target) == STANDARD_OUTPUT else target.suffix.lower()
    if ending not in {".csv", ".parquet"}:
        raise ConfigurationError(f"cannot tell the format of {str(target)!r}: end its name in .csv or .parquet")
    check_new(target, what="a table", force=force)
    table = [_cells(row) for row in rows]
    columns = list(dict.fromkeys(name for cells in table for name in cells)) or list(_PLAIN)
    data = _csv(table, columns) if ending == ".csv" else _parquet(table, columns)
    write_output_of_command(target, data, what="the table")


def _cells(row: PredictionRow) -> dict[str, Any]:
    cells: dict[str, Any] = {name: getattr(row, name) for name in _PLAIN[:3]}
    for part, fields in (("inputs", row.inputs), ("prediction", row.output.fields if row.output else {})):
        cells.update({f"{part}.{name}": _scalar(value) for name, value in fields.items()})
    cells.update({f"reference.{name}": _scalar(value) for name, value in row.reference.items()})
    for metric, score in sorted(row.scores.items()):
        cells[f"score.{metric[:12]}"] = score.score
        if score.feedback is not None:
            cells[f"feedback.{metric[:12]}"] = score.feedback
    cells["error"] = None if row.error is None else f"{row.error.kind}: {row.error.message}"
    cells.update({name: getattr(row, name) for name in _PLAIN[3:]})
    cells["draws"] = json.dumps(as_json(row.draws), ensure_ascii=False)
    return cells


def _scalar(value: Any) -> Any:
    plain = as_json(value)
    return json.dumps(plain, ensure_ascii=False) if isinstance(plain, (dict, list)) else plain


def _csv(table: list[dict[str, Any]], columns: list[str]) -> bytes:
    text = io.StringIO(newline="")
    rows: list[list[Any]] = [columns, *([cells.get(name) for name in columns] for cells in table)]
    csv.writer(text).writerows(map(_harmless, row) for row in rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _harmless(value: Any) -> Any:
    return harmless_cell(value) if isinstance(value, str) else value


def _parquet(table: list[dict[str, Any]], columns: list[str]) -> bytes:
    data = {name: _alike([cells.get(name) for cells in table]) for name in columns}
    buffer = io.BytesIO()
    try:
        import pandas as pd

        pd.DataFrame(data).to_parquet(buffer, index=False)
    except ImportError as error:  # of pandas, or of what it writes Parquet with
        raise MissingExtraError("writing Parquet", extra="pandas", detail=str(error)) from error
    return buffer.getvalue()


def _alike(column: list[Any]) -> list[Any]:
    """Return a column of one type: numbers where all are, texts otherwise."""
    kinds = {type(value) for value in column if value is not None}
    if kinds <= {bool} or kinds <= {int, float}:
        return column
    return [value if isinstance(value, str) or value is None else json.dumps(value) for value in column]
