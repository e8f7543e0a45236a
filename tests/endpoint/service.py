"""The endpoint's state and its routes: count, log, fail or answer."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections import Counter, deque
from typing import Any

import orjson

from . import replies
from .answers import GARBAGE, Answer, draw
from .batches import Batches, reply_with
from .config import Config
from .faults import Rule
from .protocol import Reply, Request
from .question import Question, read

_APIS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text",
    "/v1/responses": "responses",
    "/v1/embeddings": "embeddings",
}
LOG_LIMIT = 10_000
"""Requests that the log keeps, newest last."""

_PREFIXES = {"chat": "chatcmpl-", "text": "cmpl-", "responses": "resp_", "embeddings": "embd-"}


class Service:
    """What the server knows. One thread, one event loop: no locks."""

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self._first_config = config
        self._loop = loop
        self._identities = itertools.count(1)
        self.held: list[tuple[str, asyncio.Future[None]]] = []
        self.waiters: list[tuple[int, asyncio.Future[None]]] = []
        self.hold_match: str | None = None
        self.in_flight = 0
        self.reset()

    def reset(self) -> None:
        """Forget counts, draws, log and faults, let go what is held, and return to the first configuration."""
        self.config = self._first_config
        self.rules: list[Rule] = []
        self.draws: Counter[bytes] = Counter()
        self._proxy: dict[bytes, Any] = {}
        self.batches = Batches(self._line, lambda name: getattr(self.config, name))
        self.release()
        self.reset_counts()

    def reset_counts(self) -> None:
        """Forget counts and log only: later draws of a prompt still differ from earlier ones."""
        self.requests = 0
        self.peak = self.in_flight
        self.counts: Counter[str] = Counter()
        self.paths: Counter[str] = Counter()
        self.log: deque[dict[str, Any]] = deque(maxlen=LOG_LIMIT)

    def configure(self, options: dict[str, Any]) -> None:
        """Change options from the next request on."""
        self.config = self.config.changed(options)

    def hold(self, match: str) -> None:
        """Keep the answers to matching requests back until `release`."""
        self.hold_match = match

    def release(self) -> int:
        """Answer everything that is held, and hold no more; the number of requests let go."""
        self.hold_match = None
        held, self.held = self.held, []
        for _, future in held:
            if not future.done():
                future.set_result(None)
        return len(held)

    def arrived(self, number: int) -> asyncio.Future[None]:
        """Done as soon as `number` requests have arrived since the counts were reset."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self.requests >= number:
            future.set_result(None)
        else:
            self.waiters.append((number, future))
        return future

    def answer(self, request: Request) -> Reply:
        """Count a request to one of the language-model APIs and answer it, or fail it as the rules say."""
        api = _APIS.get(request.path)
        if request.method == "GET" and request.path == "/v1/models":
            model = {"id": self.config.model, "object": "model", "created": 0, "owned_by": "tests"}
            return json_reply({"object": "list", "data": [model]})
        if request.path.startswith(("/v1/files", "/v1/batches")):
            return self._batched(request)
        if api is None or request.method != "POST":
            return json_reply({"error": {"message": f"no route {request.method} {request.path}"}}, 404)
        try:
            question = read(api, orjson.loads(request.body))
        except (AttributeError, TypeError, ValueError) as error:
            self._record(request, Question(api, {}, [], "", ""), None)
            return json_reply({"error": {"message": f"the body is no question: {error}"}}, 400, done=self._leave)
        rule = next((rule for rule in self.rules if rule.strikes(request.path, question.searched)), None)
        self._record(request, question, rule)
        reply = self._reply(question, rule)
        reply.delay += self.config.delay
        reply.done = self._leave
        if self.hold_match is not None and self.hold_match in question.searched:
            reply.ready = self._loop.create_future()
            self.held.append((question.prompt, reply.ready))
        return reply

    def _batched(self, request: Request) -> Reply:
        """Answer what is asked of files and batches; a rule strikes there whose path begins with the method."""
        where = f"{request.method} {request.path}"
        rule = next((rule for rule in self.rules if " " in rule.path and rule.strikes(where, "")), None)
        if rule is not None and rule.kind == "status":
            return json_reply(rule.error(), rule.status)
        said = self.batches.routed(request)
        if rule is not None:
            return Reply(silent=True, end="close")  # it is done, and nobody is told
        return reply_with(said) if isinstance(said, bytes) else json_reply(*said)

    def _line(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Answer a line of a batch, or fail it by a rule of the path of batches; it is logged, and no request."""
        question = read("chat", body)
        rule = next((rule for rule in self.rules if rule.strikes("/v1/batches", question.searched)), None)
        self._log("/v1/batches", question, rule, query="", headers={})
        if rule is not None and rule.kind == "status":
            return rule.status, rule.error()
        answer = self._ordinary(question, None if rule is None else rule.kind)
        return 200, orjson.loads(answer.chunks[0])

    def _record(self, request: Request, question: Question, rule: Rule | None) -> None:
        self.requests += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        self.counts[question.prompt] += 1
        self.paths[request.path] += 1
        self._log(request.path, question, rule, query=request.query, headers=request.headers)
        for waiter in [item for item in self.waiters if item[0] <= self.requests]:
            self.waiters.remove(waiter)
            if not waiter[1].done():
                waiter[1].set_result(None)

    def _log(self, path: str, question: Question, rule: Rule | None, **request: Any) -> None:
        self.log.append(
            {
                "path": path,
                **request,
                "body": question.body,
                "k": self.draws.get(question.key(), 0),
                "prompt": question.prompt,
                "fault": rule.kind if rule else None,
                "at": time.time(),
            }
        )

    def _leave(self) -> None:
        self.in_flight -= 1

    def _reply(self, question: Question, rule: Rule | None) -> Reply:
        if rule is None:
            return self._ordinary(question, None)
        if rule.kind == "status":
            headers = {} if rule.retry_after is None else {"retry-after": f"{rule.retry_after:g}"}
            return json_reply(rule.error(), rule.status, headers)
        if rule.kind == "hang":
            return Reply(silent=True, end="hang")
        if rule.kind == "drop":
            return Reply(silent=True, end="close")
        reply = self._ordinary(question, rule.kind)
        if rule.kind == "truncate":
            _truncate(reply)
        return reply

    def _ordinary(self, question: Question, fault: str | None) -> Reply:
        identical = hashlib.blake2b(orjson.dumps(question.body, option=orjson.OPT_SORT_KEYS)).digest()
        content = self._proxy.get(identical) if self.config.fixed_id and fault is None else None
        if content is None:
            content = self._content(question, fault)
            if self.config.fixed_id and fault is None:
                self._proxy[identical] = content
        if isinstance(content, list):
            return Reply(list(content), content_type="text/event-stream", stream=True)
        return Reply([content])

    def _content(self, question: Question, fault: str | None) -> bytes | list[bytes]:
        if question.api == "embeddings":
            return orjson.dumps(replies.embeddings(question, self.config.dimensions))
        named = (name for part, name in self.config.answers_as.items() if part in question.searched)
        question.answered_by = next(named, None)
        begun = [number for number in self.config.fingerprints if int(number) <= len(self.log)]
        question.fingerprint = self.config.fingerprints[max(begun, key=int)] if begun else None
        key = question.key()
        first = self.draws[key]
        self.draws[key] += question.n
        answers = [draw(question, first + at, self.config) for at in range(question.n)]
        answers = _spoiled(answers, fault)
        identity = self._identity(question)
        used = self.log[-1]["usage"] = replies.usage(question, answers, self.config)
        if question.stream:
            return replies.stream(question, answers, identity, used)
        return orjson.dumps(replies.body(question, answers, identity, used))

    def _identity(self, question: Question) -> str:
        number = next(self._identities)
        by_chance = int.from_bytes(hashlib.blake2b(b"%d" % number, digest_size=8).digest(), "big") % 999
        named = {"unique": f"{number:08d}", "constant": "0", "small": str(by_chance)}
        return f"{_PREFIXES[question.api]}{named[self.config.ids]}" if self.config.ids in named else ""


def json_reply(value: Any, status: int = 200, headers: dict[str, str] | None = None, **others: Any) -> Reply:
    """A reply whose body is `value` as JSON."""
    return Reply([orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)], status=status, headers=headers or {}, **others)


def _spoiled(answers: list[Answer], fault: str | None) -> list[Answer]:
    if fault in ("content_filter", "length"):
        for answer in answers:
            answer.finish_reason = fault
        return answers
    texts = {"empty": "", "garbage": GARBAGE}
    return [Answer(texts[fault]) for _ in answers] if fault in texts else answers


def _truncate(reply: Reply) -> None:
    if reply.stream:
        reply.chunks = reply.chunks[: max(1, len(reply.chunks) // 2)]
        reply.chunks[-1] = reply.chunks[-1][: len(reply.chunks[-1]) // 2]
    else:
        reply.chunks[0] = reply.chunks[0][: len(reply.chunks[0]) // 2]
