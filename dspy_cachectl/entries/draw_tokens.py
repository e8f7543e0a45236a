"""What tells one answer of a provider from another, wherever it is met again.

An answer is told by the provider's ids of it and by its content together: an id of a small range comes twice by chance,
and a proxy repeats both. An id that came with two contents is no identity, and the key of the entry stands in for it.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

_PARTS = 3
_LENGTH = 16


def token_of(response_ids: Sequence[str], content: str, key: str) -> str:
    """Return the token of an answer: `ids.content.key`, each a short hash; the first two empty where unknown.

    Args:
        response_ids: The provider's ids, or none.
        content: The hash of what was answered (see `AnswerFacts`).
        key: The key of the entry, or what else is the answer's own.
    """
    return ".".join((_hash("\0".join(response_ids)) if response_ids else "", content, _hash(key)))


def identities(tokens: Iterable[str]) -> dict[str, str]:
    """Return for each token what it is told by; two tokens of one answer have the same.

    Args:
        tokens: All tokens that are to be told apart: an id's contents are looked for among them.
    """
    parts = {token: token.split(".") for token in tokens}
    contents: defaultdict[str, set[str]] = defaultdict(set)
    for found in parts.values():
        if len(found) == _PARTS:
            contents[found[0]].add(found[1])
    return {
        token: f"{found[0]}.{found[1]}"
        if len(found) == _PARTS and found[0] and len(contents[found[0]]) == 1
        else found[-1]
        for token, found in parts.items()
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_LENGTH]
