"""Which name was probably meant by one that is not known."""

from __future__ import annotations

from collections.abc import Iterable

_MOST = 3


def meant(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> list[str]:
    """Return the names that are near to one that is not among them, the nearest first; three at most.

    Near is what differs in case, what is written without its provider (`Phi-4` for `openai/Phi-4`), what holds the name
    or is held by it, and what is spelt alike.

    Args:
        name: The name that is not known.
        known: The names that are.
        cutoff: How alike two spellings have to be, from 0 to 1; from 0.75 on, nothing but the spelling counts.
    """
    from difflib import SequenceMatcher

    wanted = name.casefold()
    found: list[tuple[float, str]] = []
    for one in dict.fromkeys(known):
        other = one.casefold()
        likeness = max(SequenceMatcher(None, wanted, text).ratio() for text in {other, other.rpartition("/")[2]})
        if cutoff < 0.75 and min(len(wanted), len(other)) >= 3 and (wanted in other or other in wanted):
            likeness = max(likeness, 0.9)
        if likeness >= cutoff:
            found.append((likeness, one))
    return [one for _, one in sorted(found, key=lambda pair: -pair[0])[:_MOST]]


def question(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return "did you mean ...?" of the names that `meant` returns; nothing where there are none."""
    near = meant(name, known, cutoff=cutoff)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else ""
