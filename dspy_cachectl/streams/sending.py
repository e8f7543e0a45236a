"""What a stored answer sends to a streamed program: the pieces that its listeners wait for, where DSPy sends none.

They go the way of a provider's, between the status messages that a call begins and ends, and wait for nobody but their
reader.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from anyio import from_thread

from dspy_cachectl.context import carried
from dspy_cachectl.context.process import state
from dspy_cachectl.streams.pieces import chunks_of

_STREAM = "send_stream"
"""Where DSPy's settings have what a streamed program reads."""


def is_streamed() -> bool:
    """Tell whether a streamed program waits for pieces of the call that is made here."""
    return carried.found(_STREAM) is not None


def in_pieces(original: Any) -> Any:
    """Around what looks for a stored answer: one that is there is sent in pieces, where a thread asks."""

    def cached(lm: Any, prepared: Any, asynchronous: bool) -> Any:
        result = original(lm, prepared, asynchronous)
        if result is not None and not asynchronous and (stream := carried.found(_STREAM)) is not None:
            _send(stream, _chunks(result))
        return result

    return cached


def in_pieces_async(original: Any) -> Any:
    """Do the same around the coroutine that answers a call, which is only another one where a program is streamed."""

    def execute(lm: Any, prepared: Any) -> Any:
        stream = carried.found(_STREAM)
        return original(lm, prepared) if stream is None else _executed(original(lm, prepared), stream)

    return execute


async def _executed(answering: Any, stream: Any) -> Any:
    result = await answering
    if result.cache_hit:
        await _sent(stream, _chunks(result))
    return result


def _chunks(result: Any) -> Iterable[Any]:
    predict = carried.found("caller_predict")
    are_handed_on = not carried.found("stream_listeners")
    return chunks_of(result, None if predict is None else id(predict), are_handed_on=are_handed_on)


def _send(stream: Any, chunks: Iterable[Any]) -> None:
    try:
        from_thread.run(_sent, stream, chunks)
    except RuntimeError:
        # DSPy, too, sends from threads of the stream's own only; here there is an answer without its pieces.
        state.say_once(
            "no-pieces",
            "a stored answer was not sent to the stream in pieces: the call was made in a thread that the stream did "
            "not start, or inside its loop. Call with acall() in an async program",
        )


async def _sent(stream: Any, chunks: Iterable[Any]) -> None:
    for chunk in chunks:
        await stream.send(chunk)
