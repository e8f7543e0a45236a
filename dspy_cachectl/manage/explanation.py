"""Why a request was, or would be, bought: the nearest one that is stored, and what differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from dspy_cachectl.entries import differences, draws
from dspy_cachectl.entries.nearest import Nearest, nearest
from dspy_cachectl.errors import ConfigurationError, StoreError
from dspy_cachectl.manage import entries
from dspy_cachectl.reports.progress_bar import Advance, watched
from dspy_cachectl.stores.listing import Reader, read_entries, row_numbers
from dspy_cachectl.stores.rows import Rows

MOST_SEARCHED = 50_000
"""Among how many entries, the newest ones, the nearest is looked for."""

_CHAT = "dspy.clients.lm.litellm_completion"
_DESCRIBED = ("request", "endpoint", "version", "rollout_id", "scope")


@dataclass(frozen=True)
class Explanation:
    """Why a request was, or would be, bought.

    Attributes:
        key: Its key.
        stored: Whether its answer is stored under this key.
        reason: Why no other stored answer serves it; or that one does.
        nearest: The key of the nearest entry, or None.
        differences: What differs from that entry, one line each.
        searched: Among how many entries the nearest was looked for.
    """

    key: str
    stored: bool
    reason: str
    nearest: str | None = None
    differences: tuple[str, ...] = ()
    searched: int = 0


def explain_entry(reader: Reader, prefix: str, *, advance: Advance | None = None) -> Explanation:
    """Say why the answer of an entry was bought, though others were stored before.

    Args:
        reader: Reads the store.
        prefix: What the entry's key begins with.
        advance: Called with how many entries were looked at, and with how many there are.

    Raises:
        ConfigurationError: If not exactly one key begins with that.
        StoreError: If the entry is damaged, or the store cannot be read.
    """
    shown = entries.find(reader, prefix)
    if not shown.request:
        raise ConfigurationError(f"the entry {shown.key} keeps no request, so there is nothing to compare")
    run_id, model = shown.origin.run_id, shown.label.model
    known = Explanation(shown.key, True, _why_bought(run_id, None))
    found, near = _with_nearest(reader, known, shown.request, model, before=shown.stored, advance=advance)
    is_same = near is not None and near.asks_the_same(shown.request, run_id)
    return replace(found, reason=_why_bought(run_id, near if is_same else None))


def _why_bought(run_id: str | None, near: Nearest | None) -> str:
    """Say why an entry was bought; of what was stored before it, `near` asks the same, or nothing does."""
    what = "it is an answer outside runs"
    if run_id is not None:
        what = f"it is a draw of the run {run_id!r}, and a fresh run serves only its own"
    if near is None:
        return f"{what}; nothing that asks the same was stored before it"
    its = near.origin.run_id
    if its == run_id:
        return f"{what}; the same request was there, and this is a further draw of it, or one for another example"
    return f"{what}; the same request was there {'outside runs' if its is None else f'as a draw of the run {its!r}'}"


def explain_request(reader: Reader, request: Mapping[str, Any], *, advance: Advance | None = None) -> Explanation:
    """Say whether the answer to a request is stored, outside runs, and what is nearest to it where it is not.

    Args:
        reader: Reads the store.
        request: What would be asked: `model`, `messages` and options, as DSPy gives them to an LM; or a description
            as `show --json` prints it under `request`.
        advance: Called with how many entries were looked at, and with how many there are.

    Raises:
        ConfigurationError: If it is no request.
        StoreError: If the store cannot be read.
    """
    asked = _description(request)
    key = draws.described_key(asked, rollout_id=asked["rollout_id"])
    if key is None:
        raise ConfigurationError("the request has no key: something in it has no canonical form")
    if reader.get(key) is not None:
        return Explanation(key, True, "it is stored: a phase that reuses answers serves it")
    known = Explanation(key, False, "nothing like it is stored")
    found, near = _with_nearest(reader, known, asked, asked["request"]["model"], advance=advance)
    return found if near is None else replace(found, reason=near.reason(asked, None))


def _with_nearest(
    reader: Reader,
    known: Explanation,
    asked: Mapping[str, Any],
    model: str,
    *,
    before: float | None = None,
    advance: Advance | None = None,
) -> tuple[Explanation, Nearest | None]:
    numbers: Sequence[int] = ()
    # An entry of the same model is nearer than any other; only where there is none are the others looked at.
    for same in (lambda one: one.is_answer and one.model == model, lambda one: one.is_answer):
        numbers = numbers or row_numbers(reader, Rows(same, before=before), limit=MOST_SEARCHED)
    found = nearest(asked, _entries(reader, numbers, advance))
    if found is None:
        return replace(known, searched=len(numbers)), None
    differing = tuple(differences.between(asked, found.description))
    return replace(known, nearest=found.key, differences=differing, searched=len(numbers)), found


def _entries(reader: Reader, numbers: Sequence[int], advance: Advance | None) -> Iterator[tuple[str, bytes]]:
    for entry, value in watched(read_entries(reader, numbers), len(numbers), advance):
        try:
            yield entry.key, value()
        except StoreError:
            continue  # a damaged entry is nobody's nearest; `verify` finds it


def _description(request: Mapping[str, Any]) -> dict[str, Any]:
    inner = request.get("request")
    described: Mapping[str, Any] = request if isinstance(inner, dict) else {"request": request}
    asked: dict[str, Any] = {name: described.get(name) for name in _DESCRIBED}
    of_lm: dict[str, Any] = {"_fn_identifier": _CHAT, **asked["request"]}
    if not isinstance(of_lm.get("model"), str):
        raise ConfigurationError('a request names its model: {"model": "openai/gpt-4o-mini", "messages": [...]}')
    if asked["endpoint"] is None:
        asked["endpoint"] = draws.clean_endpoint(of_lm.get("api_base") or of_lm.get("base_url"))
    asked["request"] = orjson.loads(draws.canonical(draws.clean_request(of_lm)))
    return asked
