"""What the cassettes of a test session did, for the end of pytest's output. Workers send it as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

_SHOWN = 3


@dataclass(frozen=True)
class Unused:
    """A recording that no test asked for.

    Attributes:
        key: Its key.
        scope: The test or fixture that recorded it.
        text: What it answers, in a few words.
    """

    key: str
    scope: str
    text: str


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
        unused: The recordings that are surely not used.
    """

    path: str
    replayed: int = 0
    recorded: int = 0
    tokens_saved: int = 0
    cost_saved: float = 0.0
    tokens_spent: int = 0
    cost_spent: float = 0.0
    unused: list[Unused] = field(default_factory=list)

    def as_data(self) -> dict[str, Any]:
        """Return it as dictionaries, lists, texts and numbers."""
        return asdict(self)

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> Note:
        """Return what `as_data` gave."""
        return cls(**{**data, "unused": [Unused(**one) for one in data["unused"]]})


class Summary:
    """The notes of a session, added up."""

    def __init__(self) -> None:
        self._notes: list[Note] = []

    def add(self, note: Note) -> None:
        """Add a note."""
        self._notes.append(note)

    @property
    def unused(self) -> dict[str, dict[str, Unused]]:
        """The recordings that are surely not used, by file and key."""
        found: dict[str, dict[str, Unused]] = {}
        for note in self._notes:
            for one in note.unused:
                found.setdefault(note.path, {})[one.key] = one
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
            parts.append(f"{_count(replayed, 'call')} replayed, {saved:,} tokens{cost} not spent")
        if recorded:
            cost = _dollars(sum(note.cost_spent for note in self._notes))
            parts.append(f"{_count(recorded, 'answer')} recorded, {spent:,} tokens{cost} spent")
        lines = ["; ".join(parts)] if parts else []
        for path, unused in sorted(self.unused.items()):
            name = shorten.get(path, path)
            number = _count(len(unused), "recording")
            lines.append(f"{name}: {number} not used; --cachectl=all removes what no test asks for")
            shown = sorted(unused.values(), key=lambda one: (one.scope, one.text))
            lines += [f"  {one.scope}: {one.text}" for one in shown[:_SHOWN]]
            if len(shown) > _SHOWN:
                lines.append(f"  ... and {len(shown) - _SHOWN} more")
        return lines


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _dollars(cost: float) -> str:
    return f" and ${cost:.4g}" if cost else ""
