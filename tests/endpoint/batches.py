"""Files and batches: what is uploaded, what is made of it, and how far a test lets that come."""

from __future__ import annotations

import email
import email.policy
import hashlib
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from .protocol import Reply, Request

AnswerLine = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]
"""Answers a request of a batch: with a status and a body."""


@dataclass
class Batch:
    """One batch.

    Attributes:
        identity: Its id.
        lines: Its requests, in order.
        metadata: What it was made with.
        looks: How often it is looked at before it ends; None: until a test finishes it.
        status: The state that it is in.
        ending: The state that it ends in.
        output: The id of the file with answers, or None.
        errors: The id of the file with errors, or None.
    """

    identity: str
    lines: list[dict[str, Any]]
    metadata: dict[str, Any]
    looks: int | None
    ending: str
    status: str = "in_progress"
    output: str | None = None
    errors: str | None = None
    why: str = ""
    created: float = field(default_factory=time.time)

    def shown(self) -> dict[str, Any]:
        """The batch in OpenAI's shape."""
        done = len(self.lines) if self.output else 0
        errors = {"object": "list", "data": [{"code": "bad", "message": self.why, "line": None, "param": None}]}
        return {
            "id": self.identity,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "input_file_id": f"file-of-{self.identity}",
            "created_at": int(self.created),
            "status": self.status,
            "output_file_id": self.output,
            "error_file_id": self.errors,
            "errors": errors if self.why else None,
            "metadata": self.metadata,
            "request_counts": {"total": len(self.lines), "completed": done, "failed": 0},
        }


class Batches:
    """The files and batches of a service.

    Args:
        answer: Answers one of their lines.
        options: Returns what they are to do: `looks`, `ending`, `answered`, `shuffled` (see `Config`).
    """

    def __init__(self, answer: AnswerLine, options: Callable[[str], Any]) -> None:
        self._answer, self._option = answer, options
        self._ids = itertools.count(1)
        self.files: dict[str, bytes] = {}
        self.made: dict[str, Batch] = {}

    def routed(self, request: Request) -> tuple[Any, int] | bytes:
        """The reply to a request of these interfaces, or the bytes of a file."""
        parts = request.path.removeprefix("/v1/").split("/")
        if parts[0] == "files":
            return self._file(request, parts[1:])
        if parts[1:]:
            return self._one(*parts[1:])
        if request.method == "POST":
            return self._create(orjson.loads(request.body)), 200
        listed = [batch.shown() for batch in reversed(self.made.values())]
        return {"object": "list", "data": listed, "has_more": False}, 200

    def _one(self, identity: str, *what: str) -> tuple[Any, int]:
        batch = self.made.get(identity)
        if batch is None:
            return {"error": {"message": f"no batch {identity}"}}, 404
        if what == ("cancel",):
            self.finish(batch, "cancelled")
        elif batch.status == "in_progress" and batch.looks is not None:
            batch.looks -= 1
            if batch.looks <= 0:
                self.finish(batch, batch.ending)
        return batch.shown(), 200

    def _file(self, request: Request, parts: list[str]) -> tuple[Any, int] | bytes:
        if request.method == "POST":
            return self._keep(_uploaded(request)), 200
        data = self.files.get(parts[0])
        if data is None:
            return {"error": {"message": f"no file {parts[0]}"}}, 404
        return data if parts[1:] == ["content"] else (self._shown(parts[0]), 200)

    def _keep(self, data: bytes) -> dict[str, Any]:
        identity = f"file-{next(self._ids):06d}"
        self.files[identity] = data
        return self._shown(identity)

    def _shown(self, identity: str) -> dict[str, Any]:
        return {
            "id": identity,
            "object": "file",
            "bytes": len(self.files[identity]),
            "created_at": 0,
            "filename": "lines.jsonl",
            "purpose": "batch",
            "status": "processed",
        }

    def _create(self, options: dict[str, Any]) -> dict[str, Any]:
        lines = [orjson.loads(line) for line in self.files[options["input_file_id"]].splitlines()]
        batch = Batch(
            identity=f"batch_{next(self._ids):06d}",
            lines=lines,
            metadata=options.get("metadata") or {},
            looks=self._option("batch_looks"),
            ending=self._option("batch_ending"),
        )
        self.made[batch.identity] = batch
        return batch.shown()

    def finish(self, batch: Batch, ending: str) -> None:
        """Let a batch come to its end: each line that it answers before that is answered now."""
        batch.status = ending
        if ending == "failed":
            batch.why = "the file is not what was agreed"
            return
        answered = len(batch.lines) if ending == "completed" else self._option("batch_answered")
        good, bad = list[bytes](), list[bytes]()
        for line in batch.lines[:answered]:
            status, body = self._answer(line["body"])
            row = {
                "id": f"batch_req_{hashlib.blake2b(line['custom_id'].encode(), digest_size=6).hexdigest()}",
                "custom_id": line["custom_id"],
                "response": {"status_code": status, "request_id": "r", "body": body},
                "error": None,
            }
            (good if status == 200 else bad).append(orjson.dumps(row))
        # The order of answers is nobody's promise.
        batch.output = self._keep(b"\n".join(reversed(good)))["id"] if good else None
        batch.errors = self._keep(b"\n".join(bad))["id"] if bad else None


def _uploaded(request: Request) -> bytes:
    """The file in a form of several parts."""
    head = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + request.body, policy=email.policy.HTTP)
    part = next(one for one in message.iter_parts() if one.get_param("name", header="content-disposition") == "file")
    data = part.get_payload(decode=True)
    assert isinstance(data, bytes)
    return data


def reply_with(data: bytes) -> Reply:
    """A reply that is a file."""
    return Reply([data], content_type="application/octet-stream")
