"""What the cassettes of a test session did, for the end of pytest's output. Workers send it as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dspy_cachectl.reports.texts import harmless, plural

_SHOWN = 3


@dataclass(frozen=True)
class Note:
    """What one cassette did while it was open once.

    Attributes:
        path: Its file.
        replayed: The calls that it answered.
        recorded: The answers that were recorded.
        tokens_saved: Tokens that were not paid.
        cost_saved: US dollars that were not paid.
        tokens_spent: Tokens that were paid.
        cost_spent: US dollars that were paid.
        unused: Of each recording that is surely not used: its key, the test or fixture that recorded it, and what it
            answers in a few words.
    """

    path: str
    replayed: int = 0
    recorded: int = 0
    tokens_saved: int = 0
    cost_saved: float = 0.0
    tokens_spent: int = 0
    cost_spent: float = 0.0
    unused: list[tuple[str, str, str]] = field(default_factory=list)


class Summary:
    """The notes of a session, added up."""

    def __init__(self) -> None:
        self._notes: list[Note] = []

    def add(self, note: Note) -> None:
        """Add a note."""
        self._notes.append(note)

    @property
    def unused(self) -> dict[str, set[tuple[str, str, str]]]:
        """The recordings that are surely not used, by file; see `Note`."""
        found: dict[str, set[tuple[str, str, str]]] = {}
        for note in self._notes:
            if note.unused:
                found.setdefault(note.path, set()).update((key, scope, text) for key, scope, text in note.unused)
        return found

    def lines(self, shorten: Mapping[str, str]) -> list[str]:
        """Return what to print; empty where no cassette did anything.

        Args:
            shorten: What to call each file.
        """
        replayed, recorded, saved, spent = (
            sum(getattr(note, name) for note in self._notes)
            for name in ("replayed", "recorded", "tokens_saved", "tokens_spent")
        )
        parts = []
        if replayed:
            cost = _dollars(sum(note.cost_saved for note in self._notes))
            parts.append(f"{plural(replayed, 'call')} replayed, {saved:,} tokens{cost} not spent")
        if recorded:
            cost = _dollars(sum(note.cost_spent for note in self._notes))
            parts.append(f"{plural(recorded, 'answer')} recorded, {spent:,} tokens{cost} spent")
        lines = ["; ".join(parts)] if parts else []
        for path, unused in sorted(self.unused.items()):
            name = shorten.get(path, path)
            number = plural(len(unused), "recording")
            lines.append(f"{name}: {number} not used; --cachectl=all removes what no test asks for")
            shown = sorted((scope, text) for _, scope, text in unused)
            lines += [harmless(f"  {scope}: {text}") for scope, text in shown[:_SHOWN]]
            if len(shown) > _SHOWN:
                lines.append(f"  ... and {len(shown) - _SHOWN} more")
        return lines


def _dollars(cost: float) -> str:
    return f" and ${cost:.4g}" if cost else ""
