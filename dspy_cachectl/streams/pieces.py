"""An answer cut into pieces: the chunks that DSPy's listeners read, in the form in which its engine sends them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dspy.clients.call_result import CallResult, attributes
from dspy.clients.engines.streaming import EngineChunk
from dspy.clients.legacy_outputs import plain, value

_MARKS = r"\[\]<>{}\"#\\"
"""What the fields of adapters begin and end with: listeners look for it, a piece after the other."""
_KEY = r"(?:\"\s*,|\{)?\s*\"[^\"\\\s]{1,64}\"\s*:\s*\"?"
"""A key of JSON, from the end of the value before it to the beginning of its own: cut, the value has both in it."""
_LONG = 250
"""After so many characters, and as many more each time, a piece is a word longer: listeners take time for each."""

Make = Callable[[int, dict[str, Any], "str | None"], Any]
"""Makes a chunk of a candidate's number, what it says, and why it ended where it did."""


def pieces_of(text: str) -> list[str]:
    """Return a text in pieces as models make them, which come to it again: words, and the marks between them."""
    words = 1 + len(text) // _LONG
    return re.findall(rf"{_KEY}|(?:\s?[^\s{_MARKS}]{{1,16}}){{1,{words}}}| ?[{_MARKS}]{{1,2}}|\s+", text)


def chunks_of(result: CallResult, predict_id: int | None, *, are_handed_on: bool) -> Iterator[Any]:
    """Return the chunks of an answer, each candidate's after those of the one before.

    Args:
        result: The answer.
        predict_id: What the listeners know their predictor by.
        are_handed_on: Whether the program's reader is given the chunks themselves, and not what listeners make of them,
            for which those of DSPy's own engines do, and take a tenth of the time.
    """
    is_litellms = are_handed_on and type(result.raw).__module__.partition(".")[0] == "litellm"
    make = _litellms(result, predict_id) if is_litellms else _engines(result, predict_id)
    for index, output in enumerate(result.outputs):
        for delta in _deltas(output if isinstance(output, Mapping) else {"text": output}):
            yield make(index, delta, None)
        yield make(index, {"content": None}, _why_it_ended(result, index))


def _deltas(output: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for piece in pieces_of(output.get("reasoning_content") or ""):
        yield {"content": None, "reasoning_content": piece}
    for piece in pieces_of(output.get("text") or ""):
        yield {"content": piece}
    for index, call in enumerate(output.get("tool_calls") or ()):
        yield {"content": None, "tool_calls": [{**plain(call), "index": index}]}
    for citation in output.get("citations") or ():
        yield {"content": None, "provider_specific_fields": {"citation": plain(citation)}}


def _why_it_ended(result: CallResult, index: int) -> str:
    ends = result.responses or value(result.raw, "choices") or ()
    reason = value(ends[index], "finish_reason") if index < len(ends) else None
    return "tool_calls" if reason == "tool_call" else str(reason or "stop")


def _engines(result: CallResult, predict_id: int | None) -> Make:
    """Return what makes chunks as DSPy's own engines do."""
    known = {"id": value(result.responses[0], "id") if result.responses else None, "model": result.response_model}

    def chunk(index: int, delta: dict[str, Any], finish: str | None) -> EngineChunk:
        choice = attributes({"index": index, "delta": delta, "finish_reason": finish})
        return EngineChunk(**known, predict_id=predict_id, choices=[choice])

    return chunk


def _litellms(result: CallResult, predict_id: int | None) -> Make:
    """Return what makes chunks as LiteLLM does."""
    from litellm import ModelResponseStream
    from litellm.types.utils import Delta, StreamingChoices

    known = {name: value(result.raw, name) for name in ("id", "model")}

    def chunk(index: int, delta: dict[str, Any], finish: str | None) -> Any:
        made = ModelResponseStream(
            **known, choices=[StreamingChoices(index=index, delta=Delta(**delta), finish_reason=finish)]
        )
        made.predict_id = predict_id
        return made

    return chunk
