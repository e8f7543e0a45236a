"""Whether an answer is of the model that was asked: by the name under which the provider says that it answered.

A name that only dates, tags, prefixes or otherwise qualifies the other is the same model. A date, tag or organization
that was asked for is another's where both names have one and they differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

_CONTAINERS = frozenset({"accounts", "models", "publishers", "deployments", "converse", "invoke", "responses"})
"""Parts of a path that say where a model lies, and not which it is."""
_NAMES_NOTHING = frozenset({"", "local", "local-model", "default", "model", "unknown", "none", "llm"})
"""What servers answer that have no names for models."""
_DEPLOYMENTS = frozenset({"azure", "azure_text", "sagemaker", "sagemaker_chat", "sagemaker_nova"})
"""Providers where one asks for a deployment, which has any name and serves one model: the answer says which."""

_VENDOR = re.compile(r"^(?:[a-z]+(?:-[a-z]+)?\.)+(?=[a-z])")
_FILE = re.compile(r"\.(?:gguf|safetensors|bin)$")
_QUALIFIERS = (
    ("date", r"(?:preview|exp)-\d{2}-(?:\d{2}|20\d{2})|20\d{2}-[01]\d-[0-3]\d|20\d{6}|(?:preview-|exp-)?\d{4}|0\d{2}"),
    ("stage", r"latest|stable"),
    ("release", r"v\d+"),
    ("bits", r"q\d(?:-[0-9a-z])*(?:-[sml])?|fp8|fp16|bf16|int4|int8|awq|gptq|gguf|mlx|[48]bit"),
)
_ENDS = [(kind, re.compile(f"^(.+)-({pattern})$")) for kind, pattern in _QUALIFIERS]


def is_asked_model(asked: str, answered: Iterable[str]) -> bool:
    """Tell whether an answer is of the model that was asked.

    Args:
        asked: The model's name as LiteLLM takes it, with its provider in front.
        answered: The names that the provider said; none where it said none.
    """
    return all(_is_same(asked, name) for name in answered)


def is_same_name(one: str, other: str) -> bool:
    """Tell whether two answers are of one model, down to the date: what both names say of themselves is equal."""
    return one == other or _is_qualified(_path(one), _path(other))


@lru_cache(maxsize=1024)
def _is_same(asked: str, answered: str) -> bool:
    provider, _, rest = asked.lower().partition("/")
    if asked == answered or answered.strip().lower() in _NAMES_NOTHING or (rest and provider in _DEPLOYMENTS):
        return True
    said = _path(answered)
    return _is_qualified(_path(asked), said) or bool(rest and _is_qualified(_path(rest), said))


def _path(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.strip().lower().split("/") if part and part not in _CONTAINERS)


def _is_qualified(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    if not one or not other:
        return one == other
    shorter = min(len(one), len(other)) - 1
    if shorter and one[-shorter - 1 : -1] != other[-shorter - 1 : -1]:
        return False
    (base, mine), (other_base, others) = _parts(one[-1]), _parts(other[-1])
    return base == other_base and all((others.get(kind) or said) == said for kind, said in mine.items() if said)


@lru_cache(maxsize=1024)
def _parts(name: str) -> tuple[str, dict[str, str]]:
    """Return the name without what qualifies it, and that by its kind."""
    if name.startswith("ft:"):
        # A model that was tuned is another than what it was made of: base, organization, name and id tell it.
        base, *rest = name[3:].split(":")
        base, found = _parts(base)
        return ":".join(("ft", base, *rest)), found
    name, _, tag = _FILE.sub("", _VENDOR.sub("", name)).partition(":")
    name, _, dated = name.partition("@")
    found = {"tag": "" if tag in {"latest", "0"} else tag}
    base = re.sub(r"[._ @]", "-", f"{name}-{dated}" if dated else name)
    while True:
        for kind, pattern in _ENDS:
            end = pattern.match(base)
            if end is not None and kind not in found:
                base = end[1]
                found[kind] = "" if kind == "stage" else re.sub(r"\D", "", end[2]) if kind == "date" else end[2]
                break
        else:
            return base, found
