"""What the cassettes of a test session did, for the end of pytest's output. Workers send it as plain data."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dspy_cachectl.boundary.shown import harmless, harmless_lines
from dspy_cachectl.reports.texts import plural

COUNTED = ("served", "tokens_saved", "cost_saved", "tokens_spent", "cost_spent")
"""What of a ledger's tally is in the summary."""

_SHOWN = 3


@dataclass(frozen=True)
class Note:
    """What one cassette did while it was open once.

    Attributes:
        path: Its file, or its address.
        counts: How many answers were `recorded`, and what is `COUNTED`.
        unused: Of each recording that is surely not used: its key, the test or fixture that recorded it, and what it
            answers in a few words.
        unfinished: The test or fixture whose recording was cut short; empty where none was.
    """

    path: str
    counts: dict[str, Any] = field(default_factory=dict)
    unused: list[tuple[str, str, str]] = field(default_factory=list)
    unfinished: str = ""


def failure(text: str) -> BaseException:
    """Return what pytest is to show for a test that fails without a trace."""
    import pytest

    return pytest.fail.Exception(harmless_lines(text), pytrace=False)


def unused(notes: Iterable[Note]) -> dict[str, set[tuple[str, str, str]]]:
    """Return the recordings that are surely not used, by file; see `Note`."""
    found: dict[str, set[tuple[str, str, str]]] = defaultdict(set)
    for note in notes:
        for key, scope, text in note.unused:
            found[note.path].add((key, scope, text))
    return found


def lines(notes: Collection[Note], folder: Path) -> list[str]:
    """Return what to print; empty where no cassette did anything.

    Args:
        notes: What each did.
        folder: Where pytest was called: files are named from there.
    """
    total: Counter[str] = Counter()
    for note in notes:
        total.update(note.counts)
    parts = []
    if total["served"]:
        saved = f"{total['tokens_saved']:,} tokens{_dollars(total['cost_saved'])}"
        parts.append(f"{plural(total['served'], 'call')} replayed, {saved} not spent")
    if total["recorded"]:
        spent = f"{total['tokens_spent']:,} tokens{_dollars(total['cost_spent'])}"
        parts.append(f"{plural(total['recorded'], 'answer')} recorded, {spent} spent")
    found = ["; ".join(parts)] if parts else []
    for path, scopes in sorted(_unfinished(notes).items()):
        found.append(f"{_short(path, folder)}: {plural(len(scopes), 'recording')} cut short; --cachectl=record goes on")
        found += _shown(sorted(scopes))
    for path, recordings in sorted(unused(notes).items()):
        number = plural(len(recordings), "recording")
        found.append(f"{_short(path, folder)}: {number} not used; --cachectl=all removes what no test asks for")
        found += _shown(sorted(f"{scope}: {text}" for _, scope, text in recordings))
    return [harmless(line) for line in found]


def _short(path: str, folder: Path) -> str:
    return path if "://" in path else os.path.relpath(path, folder)


def _unfinished(notes: Iterable[Note]) -> dict[str, set[str]]:
    """Return whose recordings were cut short, by file."""
    found: dict[str, set[str]] = defaultdict(set)
    for note in notes:
        if note.unfinished:
            found[note.path].add(note.unfinished)
    return found


def _shown(lines: list[str]) -> list[str]:
    more = [f"  ... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return [f"  {line}" for line in lines[:_SHOWN]] + more


def _dollars(cost: float) -> str:
    return f" and ${cost:.4g}" if cost else ""
