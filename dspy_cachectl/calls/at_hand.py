"""A hit that is at hand, without DSPy's way to its cache: only what can be seen of that way is done.

DSPy calls callbacks, makes a call ready, asks its cache, and notes the answer in its histories. Where nobody listens,
where it has made such a call ready before, and where nothing but its own code would run on the way, what is seen of all
that is its warning, the outputs and the entry in the histories. Otherwise, and in a DSPy that is not the one known
here, DSPy goes its way. A test holds one to the other.
"""

from __future__ import annotations

import datetime as dt
import functools
import os
import random
from collections.abc import Mapping
from typing import Any

import dspy
from dspy.clients import base_lm
from dspy.clients._deprecation import warn_openai_messages
from dspy.clients.base_lm import BaseLM
from dspy.clients.call_result import CallResult

from dspy_cachectl.calls.call import Asking, Call
from dspy_cachectl.context import carried

KNOWN_DSPY = "3.4.1"
"""The version of DSPy whose way is known here."""

_IS_KNOWN = dspy.__version__ == KNOWN_DSPY
_CALL, _CALL_ASYNC, _NOTE = BaseLM.__call__, BaseLM.acall, BaseLM.update_history
"""DSPy's own methods; others may stand in their place later."""

_IDS = random.Random()  # noqa: S311 - they tell entries of histories apart, and a system call takes longer than the rest
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_IDS.seed)


def goes_by_itself(lm: Any, parent: Any, call: Call) -> bool:
    """Tell whether a call whose answer is at hand needs nothing more of DSPy.

    Args:
        lm: Its LM.
        parent: The LM's methods without ours.
        call: The call.
    """
    alike, kind = call.asked.alike, type(lm)
    if alike is None or alike.made_by is not kind or not _IS_KNOWN:
        return False
    if lm.callbacks or carried.found("callbacks") or _would_warn(lm, call):
        return False
    return (
        getattr(parent.__call__, "__func__", None) is _CALL and getattr(parent.acall, "__func__", None) is _CALL_ASYNC
    )


def _would_warn(lm: Any, call: Call) -> bool:
    """Tell whether DSPy would warn of a rollout id that changes nothing, which it does once for each LM."""
    asked = call.asked
    is_draw = asked.key.rollout_id is not None
    return is_draw and asked.temperature == 0 and not getattr(lm, "_warned_zero_temp_rollout", True)


def served(lm: Any, parent: Any, call: Call, prompt: Any, kwargs: Mapping[str, Any], *, notes_itself: bool) -> Any:
    """Return what the program is given for a call whose answer is at hand.

    Args:
        lm: Its LM.
        parent: The LM's methods without ours.
        call: The call.
        prompt: What it is asked, or None.
        kwargs: The options of the call, without its messages.
        notes_itself: Whether the LM's class has a way of its own to note calls in histories.
    """
    warn_openai_messages(lm, call.messages)
    result = call.serve_at_hand().result(lm, kwargs, functools.partial(_sent, lm, call, prompt, kwargs))
    if not carried.found("disable_history"):
        entry = _entry(lm, call, prompt, kwargs, result)
        if notes_itself or parent.update_history.__func__ is not _NOTE:
            with Asking(call, None):
                lm.update_history(entry)
        else:
            entry["cachectl"] = call.noted()
            _note(lm, entry)
    return result.outputs


def _sent(lm: Any, call: Call, prompt: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what DSPy would send."""
    merged = {**lm.kwargs, **kwargs}
    merged.pop("cache", None)
    if merged.get("rollout_id") is None:
        merged.pop("rollout_id", None)
    return {"model": lm.model, "messages": call.messages or [{"role": "user", "content": prompt}], **merged}


def _note(lm: Any, entry: dict[str, Any]) -> None:
    """Note an entry in the histories of the process, the LM and the modules that call, as DSPy does."""
    _put(base_lm.GLOBAL_HISTORY, entry, base_lm.MAX_HISTORY_SIZE)
    most = carried.found("max_history_size")
    if most:
        for owner in (lm, *(carried.found("caller_modules") or ())):
            _put(owner.history, entry, most)


def _put(history: list[Any], entry: dict[str, Any], most: int) -> None:
    if len(history) >= most:
        history.pop(0)
    history.append(entry)


def _random_id() -> str:
    """Return a version 4 UUID as text, in half of the time that it takes by way of an object (RFC 9562, 5.4)."""
    digits = f"{_IDS.getrandbits(128):032x}"
    variant = "89ab"[int(digits[16], 16) % 4]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def _entry(lm: Any, call: Call, prompt: Any, kwargs: Mapping[str, Any], result: CallResult) -> dict[str, Any]:
    """Return what DSPy notes of a call in its histories."""
    entry = {
        "prompt": prompt,
        "messages": call.messages,
        "kwargs": {name: value for name, value in kwargs.items() if not name.startswith("api_")},
        "response": result.responses if result.raw is None else result.raw,
        "outputs": result.outputs,
        "usage": result.usage,
        "cost": result.cost,
        "timestamp": dt.datetime.now().isoformat(),
        "uuid": _random_id(),
        "model": lm.model,
        "response_model": result.response_model,
        "model_type": lm.model_type,
    }
    if result.cost_details:
        entry["cost_details"] = result.cost_details
    adaptations = tuple([one for response in result.responses for one in getattr(response, "adaptations", ())])
    if adaptations:
        entry["adaptations"] = adaptations
    return entry
