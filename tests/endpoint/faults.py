"""Rules that make chosen requests fail in a chosen way."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from typing import Any

KINDS = frozenset(
    {
        "status",
        "hang",
        "drop",
        "truncate",
        "empty",
        "garbage",
        "content_filter",
        "length",
    }
)

_CHANCE = random.Random(0)
_CODES = {
    400: ("invalid_request_error", "bad_request"),
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", "forbidden"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}


@dataclass(slots=True)
class Rule:
    """One fault.

    Attributes:
        kind: One of `KINDS`.
        status: HTTP status of kind `status`.
        retry_after: Value of the Retry-After header of kind `status`.
        code: `error.code` of kind `status`, such as `context_length_exceeded`.
        message: `error.message` of kind `status`.
        times: Requests it strikes; None is all of them.
        skip: Matching requests that it lets pass first.
        chance: The probability with which it strikes a request that matches; those it spares are not counted off.
        match: Substring of the system prompt or the last user message; empty is every request.
        path: Substring of the path; empty is every path.
    """

    kind: str = "status"
    status: int = 500
    retry_after: float | None = None
    code: str | None = None
    message: str | None = None
    times: int | None = None
    skip: int = 0
    chance: float = 1.0
    match: str = ""
    path: str = ""

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Rule:
        """The rule that `options` describe; a wrong name or kind is a ValueError."""
        known = {item.name for item in fields(cls)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise ValueError(f"endpoint fault: no option {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        rule = cls(**options)
        if rule.kind not in KINDS:
            raise ValueError(f"endpoint fault: no kind {rule.kind!r}; known are {', '.join(sorted(KINDS))}")
        return rule

    def strikes(self, path: str, text: str) -> bool:
        """Whether this request is hit; counts it off `skip` or `times`."""
        if self.times == 0 or self.path not in path or self.match not in text:
            return False
        if self.chance < 1 and _CHANCE.random() >= self.chance:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True

    def error(self) -> dict[str, Any]:
        """The body of kind `status`, in OpenAI's shape."""
        kind, code = _CODES.get(self.status, ("server_error", "server_error"))
        message = self.message or f"The test endpoint was told to answer {self.status}."
        return {"error": {"message": message, "type": kind, "param": None, "code": self.code or code}}
