"""OpenAI's wire shapes: one body, or the pieces of a stream, for every API."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import struct
import time
from typing import Any

import orjson

from .answers import Answer
from .config import Config
from .question import Question

_PIECE = re.compile(r"\s*\S+\s*?(?=\s|$)|\s+")
_DONE = b"data: [DONE]\n\n"


def body(question: Question, answers: list[Answer], identity: str, used: Any) -> dict[str, Any]:
    """The whole answer to a request that does not stream; `used` is its usage."""
    if question.api == "responses":
        return _response(question, answers, identity, used)
    chat = question.api == "chat"
    return {
        "id": identity,
        "object": "chat.completion" if chat else "text_completion",
        "created": int(time.time()),
        **_served_by(question),
        "choices": [_choice(answer, at, chat=chat) for at, answer in enumerate(answers)],
        "usage": used,
    }


def stream(question: Question, answers: list[Answer], identity: str, used: Any) -> list[bytes]:
    """The server-sent events of a request that streams, one piece each."""
    if question.api == "responses":
        return _response_events(question, answers, identity, used)
    chat = question.api == "chat"
    base = {
        "id": identity,
        "object": "chat.completion.chunk" if chat else "text_completion",
        "created": int(time.time()),
        **_served_by(question),
    }
    pieces = []
    for at, answer in enumerate(answers):
        for delta in _deltas(answer) if chat else [{"text": part} for part in split(answer.text)]:
            choice = {"index": at, "finish_reason": None, **({"delta": delta} if chat else delta)}
            pieces.append({**base, "choices": [choice]})
        last = {"delta": {}} if chat else {"text": ""}
        pieces.append({**base, "choices": [{"index": at, **last, "finish_reason": answer.finish_reason}]})
    if (question.body.get("stream_options") or {}).get("include_usage"):
        pieces.append({**base, "choices": [], "usage": used})
    return [b"data: %b\n\n" % orjson.dumps(piece) for piece in pieces] + [_DONE]


def _served_by(question: Question) -> dict[str, str]:
    fingerprint = {} if question.fingerprint is None else {"system_fingerprint": question.fingerprint}
    return {"model": question.answered_by or question.model, **fingerprint}


def usage(question: Question, answers: list[Answer], config: Config) -> Any:
    """Tokens, counted as words, and over them what is configured; the Responses API has its own names for them."""
    said = [given for part, given in config.usage.items() if part in question.searched]
    counted = _counted(question, answers)
    for given in said:
        counted = _over(counted, given)
    return counted


def _over(counted: Any, given: Any) -> Any:
    if not isinstance(given, dict) or not isinstance(counted, dict):
        return given
    return {**counted, **{name: _over(counted.get(name), value) for name, value in given.items()}}


def _counted(question: Question, answers: list[Answer]) -> dict[str, Any]:
    sent, received = question.words(), sum(answer.words() for answer in answers)
    if question.api == "responses":
        return {
            "input_tokens": sent,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": received,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": sent + received,
        }
    return {"prompt_tokens": sent, "completion_tokens": received, "total_tokens": sent + received}


def split(text: str) -> list[str]:
    """The text in pieces of a word each; joined they are the text."""
    return _PIECE.findall(text)


def embeddings(question: Question, dimensions: int) -> dict[str, Any]:
    """One unit vector per input; texts that share words are near each other."""
    source = question.body.get("input", "")
    texts = source if isinstance(source, list) else [source]
    size = question.body.get("dimensions") or dimensions
    packed = question.body.get("encoding_format") == "base64"
    vectors = [_vector(str(text), size) for text in texts]
    words = question.words()
    return {
        "object": "list",
        "model": question.answered_by or question.model,
        "data": [
            {"object": "embedding", "index": at, "embedding": _packed(vector) if packed else vector}
            for at, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": words, "total_tokens": words},
    }


def _choice(answer: Answer, at: int, *, chat: bool) -> dict[str, Any]:
    if not chat:
        return {"index": at, "text": answer.text, "logprobs": None, "finish_reason": answer.finish_reason}
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None, **answer.beside}
    if answer.tool is not None:
        message |= {"content": None, "tool_calls": [_call(answer)]}
    return {"index": at, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}


def _call(answer: Answer) -> dict[str, Any]:
    function = {"name": answer.tool, "arguments": answer.arguments}
    return {"id": _call_id(answer), "type": "function", "function": function}


def _call_id(answer: Answer) -> str:
    return "call_" + hashlib.blake2b(f"{answer.tool}{answer.arguments}".encode(), digest_size=8).hexdigest()


def _deltas(answer: Answer) -> list[dict[str, Any]]:
    opening: dict[str, Any] = {"role": "assistant", "content": ""}
    if answer.tool is None:
        return [opening, *({"content": part} for part in split(answer.text))]
    call = {"index": 0, **_call(answer)}
    call["function"] = {"name": answer.tool, "arguments": ""}
    half = len(answer.arguments) // 2
    arguments = (answer.arguments[:half], answer.arguments[half:])
    return [
        {**opening, "content": None, "tool_calls": [call]},
        *({"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in arguments),
    ]


def _item(answer: Answer, identity: str, at: int) -> dict[str, Any]:
    name = identity.removeprefix("resp_")
    if answer.tool is not None:
        return {
            "type": "function_call",
            "id": f"fc_{name}_{at}",
            "call_id": _call_id(answer),
            "name": answer.tool,
            "arguments": answer.arguments,
            "status": "completed",
        }
    part = {"type": "output_text", "text": answer.text, "annotations": []}
    return {
        "type": "message",
        "id": f"msg_{name}_{at}",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }


def _response(question: Question, answers: list[Answer], identity: str, used: Any) -> dict[str, Any]:
    reasons = {"length": "max_output_tokens", "content_filter": "content_filter"}
    cut = next((reasons[answer.finish_reason] for answer in answers if answer.finish_reason in reasons), None)
    return {
        "id": identity,
        "object": "response",
        "created_at": int(time.time()),
        "status": "incomplete" if cut else "completed",
        "error": None,
        "incomplete_details": {"reason": cut} if cut else None,
        "instructions": question.body.get("instructions"),
        "metadata": {},
        "model": question.answered_by or question.model,
        "output": [_item(answer, identity, at) for at, answer in enumerate(answers)],
        "parallel_tool_calls": True,
        "temperature": question.temperature,
        "tool_choice": question.body.get("tool_choice") or "auto",
        "tools": question.body.get("tools") or [],
        "top_p": question.body.get("top_p"),
        "usage": used,
    }


def _response_events(question: Question, answers: list[Answer], identity: str, used: Any) -> list[bytes]:
    whole = _response(question, answers, identity, used)
    opened = {**whole, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": opened},
        {"type": "response.in_progress", "response": opened},
    ]
    for at, item in enumerate(whole["output"]):
        events += _item_events(item, at)
    ending = "response.incomplete" if whole["incomplete_details"] else "response.completed"
    events.append({"type": ending, "response": whole})
    return [
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps({**event, "sequence_number": number}))
        for number, event in enumerate(events)
    ]


def _item_events(item: dict[str, Any], at: int) -> list[dict[str, Any]]:
    where = {"output_index": at, "item_id": item["id"]}
    if item["type"] == "function_call":
        opened = {**item, "arguments": "", "status": "in_progress"}
        written = item["arguments"]
        inner = [
            {"type": "response.function_call_arguments.delta", **where, "delta": written},
            {"type": "response.function_call_arguments.done", **where, "arguments": written},
        ]
    else:
        opened = {**item, "content": [], "status": "in_progress"}
        part = item["content"][0]
        here = {**where, "content_index": 0}
        inner = [
            {"type": "response.content_part.added", **here, "part": {**part, "text": ""}},
            *(
                {"type": "response.output_text.delta", **here, "delta": piece, "logprobs": []}
                for piece in split(part["text"])
            ),
            {"type": "response.output_text.done", **here, "text": part["text"], "logprobs": []},
            {"type": "response.content_part.done", **here, "part": part},
        ]
    return [
        {"type": "response.output_item.added", "output_index": at, "item": opened},
        *inner,
        {"type": "response.output_item.done", "output_index": at, "item": item},
    ]


def _vector(text: str, size: int) -> list[float]:
    total = [0.0] * size
    for word in text.lower().split() or [""]:
        stream_of_bytes = hashlib.shake_128(word.encode()).digest(2 * size)
        for at, number in enumerate(struct.unpack(f"<{size}h", stream_of_bytes)):
            total[at] += number / 32768
    norm = math.sqrt(sum(value * value for value in total)) or 1.0
    return [value / norm for value in total]


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
