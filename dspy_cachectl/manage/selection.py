"""Which entries a command is about: by what they are filed under, by age, and by what was asked."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from dspy_cachectl.boundary.meant import question
from dspy_cachectl.boundary.shown import stands_for
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.stores import Label

_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_FIELDS = {"models": "model", "phases": "phase", "runs": "run", "roles": "role", "kinds": "kind"}
_FEW = 5
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True)
class Selection:
    """Which entries are meant: those that fit in every respect that is named.

    Names are exact, or patterns with `*`, `?` and `[...]`, or as a table shows them in a narrow terminal, with their
    middle left out. An empty name, or `-`, means the entries that have none.

    Attributes:
        models: Models, any of them; likewise the next four. Empty: all.
        phases: Phases.
        runs: Run ids.
        roles: Roles.
        kinds: Kinds. Empty: answers, and not what the store keeps about itself (`Label.is_answer`); `*` is all.
        older_than: Only entries stored longer ago than this, in seconds.
        newer_than: Only entries stored less long ago than this, in seconds.
        text: Only entries whose request contains this text, in whatever case.
    """

    models: tuple[str, ...] = ()
    phases: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    older_than: float | None = None
    newer_than: float | None = None
    text: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is named, so that every answer is meant."""
        return self == EVERYTHING

    def matches(self, label: Label) -> bool:
        """Tell whether entries filed under a label may be meant. Age and text are not in a label."""
        return (
            (_fits(label.kind, self.kinds) if self.kinds else label.is_answer)
            and _fits(label.model, self.models)
            and _fits(label.phase, self.phases)
            and _fits(label.run, self.runs)
            and _fits(label.role, self.roles)
        )

    def unknown(self, labels: Iterable[Label]) -> dict[str, list[str]]:
        """Return of the names that nothing has which ones there are, in words: for each field, those of its names.

        Args:
            labels: What is in the store.

        Raises:
            ConfigurationError: If a name with its middle left out may be more than one.
        """
        found = {several: list(self._unknown(several, one, labels)) for several, one in _FIELDS.items()}
        return {several: said for several, said in found.items() if said}

    def _unknown(self, several: str, one: str, labels: Iterable[Label]) -> Iterator[str]:
        wanted = getattr(self, several)
        # A run is known by its description, before it has an answer.
        there = {str(getattr(label, one)) for label in labels if label.is_answer or one == "run" or "*" in self.kinds}
        for name in wanted:
            standing = sorted(known for known in there if stands_for(name, known))
            if len(standing) > 1 and name not in there:
                raise ConfigurationError(f"the {one} {name!r} may be any of {', '.join(map(repr, standing))}")
            if any(_fits(known, (name,)) for known in there):
                continue
            yield f"none has the {one} {name!r}{_instead(name, there - {''})}" if name != "-" else f"all have a {one}"


def _instead(name: str, there: Collection[str]) -> str:
    near = question(name, sorted(there))
    if near:
        return f"; {near}"
    return f"; there are {', '.join(map(repr, sorted(there)))}" if 0 < len(there) <= _FEW else ""


EVERYTHING = Selection()
"""Every answer."""


def parse_age(text: str) -> float:
    """Return an age that people write, `90s`, `15m`, `24h`, `7d` or `2w`, in seconds.

    Raises:
        ConfigurationError: If it is written in another way.
    """
    found = _AGE.fullmatch(text.strip().lower())
    if found is None:
        what = "an option, and an age stands before it" if text.startswith("--") else "no age"
        raise ConfigurationError(
            f"{text!r} is {what}: write a number and a unit (s, m, h, d or w), such as 90s, 15m, 24h, 7d or 2w"
        )
    return float(found[1]) * _SECONDS[found[2]]


def parse_size(text: str) -> int:
    """Return a size that people write, `500MB`, `10GB`, `1.5GiB` or `1000000`, in bytes.

    Raises:
        ConfigurationError: If it is written in another way, or is nothing.
    """
    found = _SIZE.fullmatch(text.strip().lower())
    size = 0 if found is None else int(float(found[1]) * (1024 if found[3] else 1000) ** _POWERS[found[2]])
    if not size:
        raise ConfigurationError(f"{text!r} is no size: write a number and a unit, such as 500MB, 10GB or 1.5GiB")
    return size


def _fits(name: str, wanted: Collection[str]) -> bool:
    if not name and "-" in wanted:
        return True
    return not wanted or any(name == one or fnmatchcase(name, one) or stands_for(one, name) for one in wanted)
