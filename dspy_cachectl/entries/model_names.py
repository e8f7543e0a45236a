"""Whether an answer is of the model that was asked: by the name under which the provider says that it answered.

A name that only dates, tags, prefixes or otherwise qualifies the other is the same model. A date, tag or organization
that was asked for is another's where both names have one and they differ.
"""

from __future__ import annotations

import re
from functools import lru_cache

_CONTAINERS = frozenset({"accounts", "models", "publishers", "deployments", "converse", "invoke", "responses"})
"""Parts of a path that say where a model lies, and not which it is."""
_NAMES_NOTHING = frozenset({"", "local", "local-model", "default", "model", "unknown", "none", "llm"})
"""What servers answer that have no names for models."""
_DEPLOYMENTS = frozenset({"azure", "azure_text", "sagemaker", "sagemaker_chat", "sagemaker_nova"})
"""Providers where one asks for a deployment, which has any name and serves one model: the answer says which."""

_VENDOR = re.compile(
    r"^(?:(?:us|us-gov|eu|apac|jp|au|ca|global)\.)?(?:ai21|amazon|anthropic|cohere|deepseek|google|luma|meta|minimax"
    r"|mistral|moonshot|nvidia|openai|qwen|stability|twelvelabs|writer|zai)\.(?=[a-z])"
)
"""What stands before a model's name at Bedrock; any other word before a dot is part of the name."""
_FILE = re.compile(r"\.(?:gguf|safetensors|bin)$")
_MONTH = r"(?:0[1-9]|1[0-2])"
_QUALIFIERS = (
    (
        "date",
        rf"(?:preview|exp)-\d{{2}}-(?:\d{{2}}|20\d{{2}})|20\d{{2}}-[01]\d-[0-3]\d|20\d{{6}}|{_MONTH}-20\d{{2}}|0\d{{2}}"
        rf"|(?:preview-|exp-)?(?!1024)(?:{_MONTH}(?:[0-2]\d|3[01])|2\d{_MONTH})",
    ),
    ("stage", r"latest|stable"),
    ("release", r"v\d+"),
    (
        "bits",
        r"(?:ud-)?i?q\d(?:-[0-9a-z])*(?:-(?:xxs|xs|s|m|l|xl|nl))?|fp8(?:-dynamic)?|f16|f32|fp16|bf16|(?:gptq-)?int[48]"
        r"|awq|gptq|gguf|mlx|(?:bnb-)?[48]bit|w\d{1,2}a\d{1,2}",
    ),
)
_SIZE = re.compile(r"(\d+(?:\.\d+)?[bm]|\d+x\d+b)(?:-|\Z)")
_ZERO = re.compile(r"(?<=-\d)-0\Z")
"""The first of a series, as in `claude-sonnet-4-0`."""
_TOLD_BY_BOTH = ("size", "release")
"""What two names of one model both have, or neither: `llama3` is none of `llama3:70b`, `coder` not `coder-v2`."""
_ENDS = [(kind, re.compile(f"^(.+?)-({pattern})$")) for kind, pattern in _QUALIFIERS]


@lru_cache(maxsize=1024)
def is_asked_model(asked: str, answered: tuple[str, ...]) -> bool:
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
    if base != other_base or any(mine.get(kind) != others.get(kind) for kind in _TOLD_BY_BOTH):
        return False
    return all((others.get(kind) or said) == said for kind, said in mine.items() if said)


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
    size = _SIZE.match(tag)
    if size is not None:
        tag = tag[size.end() :]
    found = {"tag": "" if tag in {"latest", "0"} else tag, **({"size": size[1]} if size is not None else {})}
    base = re.sub(r"[._ @]", "-", f"{name}-{dated}" if dated else name)
    while True:
        for kind, pattern in _ENDS:
            end = pattern.match(base)
            if end is not None and kind not in found:
                base = end[1]
                found[kind] = "" if kind == "stage" else re.sub(r"\D", "", end[2]) if kind == "date" else end[2]
                break
        else:
            break
    if "date" in found:
        found.pop("release", None)  # which only says how often it was put up
    return _ZERO.sub("", base), found
