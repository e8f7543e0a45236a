"""The stored request that is nearest to one that has no answer, and why the one is not the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dspy_cachectl.entries import differences, records
from dspy_cachectl.entries.records import Origin
from dspy_cachectl.errors import StoreError

_ASKED = ("request", "endpoint", "version", "scope")
"""What of a description says what is asked; the rest says which draw of it."""

NEVER_STORED = "it was never stored, or not for this model, endpoint, options and draw"


@dataclass(frozen=True)
class Nearest:
    """A stored entry that is near to what was asked.

    Attributes:
        key: Its key.
        description: What it answers (`Call.description`).
        origin: Where it came from.
    """

    key: str
    description: Mapping[str, Any]
    origin: Origin

    def reason(self, asked: Mapping[str, Any], run_id: str | None) -> str:
        """Say why it does not answer what was asked.

        Args:
            asked: The description of the request.
            run_id: The run that a draw was wanted of, or None.
        """
        if not self.asks_the_same(asked, run_id):
            return NEVER_STORED
        its = self.origin.run_id
        if its == run_id:
            same = "this run" if run_id is not None else "the store"
            return f"the same request is in {same}, but this is a further draw of it, or one for another example"
        if its is None:
            return f"the same request is stored, but not as a draw of the run {run_id!r} that is asked for"
        wanted = "an answer outside runs" if run_id is None else f"a draw of the run {run_id!r}"
        return f"the same request is stored, but as a draw of the run {its!r}, and {wanted} is asked for"

    def asks_the_same(self, asked: Mapping[str, Any], run_id: str | None) -> bool:
        """Tell whether it answers the same request, whichever draw of it; see `reason`."""
        one, other = ({name: description.get(name) for name in _ASKED} for description in (asked, self.description))
        temperatures = {_temperature(one["request"]) or 0, _temperature(other["request"]) or 0}
        if self.origin.run_id != run_id and 0 in temperatures:
            # A run lends its calls a temperature where they have none: that does not tell two requests apart.
            one, other = ({**said, "request": _without_temperature(said["request"])} for said in (one, other))
        return one == other


def _temperature(request: Any) -> Any:
    return request.get("temperature") if isinstance(request, Mapping) else None


def _without_temperature(request: Any) -> Any:
    if not isinstance(request, Mapping):
        return request
    return {name: value for name, value in request.items() if name != "temperature"}


def nearest(asked: Mapping[str, Any], entries: Iterable[tuple[str, bytes]]) -> Nearest | None:
    """Return the entry whose request is most like the one that was asked, the first of those that are equally so.

    Args:
        asked: The description of the request.
        entries: Keys and entries. Damaged ones are nobody's nearest.
    """
    best: tuple[float, str, bytes, Mapping[str, Any]] | None = None
    for key, data in entries:
        try:
            stored = records.decode_request(data)
        except StoreError:
            continue
        if not stored:
            continue
        likeness = differences.similarity(asked, stored)
        if best is None or likeness > best[0]:
            best = likeness, key, data, stored
    if best is None:
        return None
    return Nearest(best[1], best[3], records.decode_origin(best[2]))
