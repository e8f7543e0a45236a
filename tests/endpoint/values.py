"""Plausible values for the types that prompts and JSON schemas ask for."""

from __future__ import annotations

import random
import re
from typing import Any

import orjson

_SCHEMA = "must adhere to the JSON schema: "
_ONE_OF = re.compile(r"one of: (.*)$")


def for_hint(hint: str, rng: random.Random, token: str, keys: tuple[str, ...] = ()) -> Any:
    """A value for one of DSPy's notes ("must be a single int value"); without a note, a text with `token`."""
    if not hint:
        return text(rng, token)
    if hint.startswith(_SCHEMA):
        return for_schema(orjson.loads(hint[len(_SCHEMA) :]), rng, token, keys)
    choices = _ONE_OF.search(hint)
    if choices:
        return rng.choice(choices[1].split("; "))
    if "True or False" in hint:
        return rng.random() < 0.5
    if "single int" in hint:
        return rng.randrange(100)
    if "single float" in hint:
        return round(rng.random(), 4)
    return text(rng, token)


def from_text(given: str, hint: str) -> Any:
    """A given text as the value of a field: parsed as JSON where the field is not text."""
    if not hint or _ONE_OF.search(hint):
        return given
    if "True or False" in hint:
        return given.strip().lower() == "true"
    try:
        return orjson.loads(given)
    except orjson.JSONDecodeError:
        return given


def text(rng: random.Random, token: str) -> str:
    """A short text that no other draw repeats."""
    return f"{rng.choice(('Answer', 'Result', 'Reply', 'Finding'))} {token}"


def for_schema(
    schema: dict[str, Any],
    rng: random.Random,
    token: str,
    keys: tuple[str, ...] = (),
    definitions: dict[str, Any] | None = None,
) -> Any:
    """A value that is valid for a JSON schema of the kinds that pydantic writes."""
    definitions = schema.get("$defs") or schema.get("definitions") or definitions or {}
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rsplit("/", 1)[1]]
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return rng.choice(schema["enum"])
    unions = (option for union in ("anyOf", "oneOf", "allOf") for option in schema.get(union, ()))
    chosen = next((option for option in unions if option.get("type") != "null"), None)
    if chosen is not None:
        return for_schema(chosen, rng, token, keys, definitions)
    kind = _kind(schema)
    if kind == "object":
        return _object(schema, rng, token, keys, definitions)
    if kind == "array":
        size = max(1, schema.get("minItems", 2))
        return [for_schema(schema.get("items") or {}, rng, f"{token}-{at}", keys, definitions) for at in range(size)]
    return _scalar(kind, schema, rng, token)


def _kind(schema: dict[str, Any]) -> str:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    return next((name for name in kind if name != "null"), "null") if isinstance(kind, list) else str(kind)


def _object(
    schema: dict[str, Any], rng: random.Random, token: str, keys: tuple[str, ...], definitions: dict[str, Any]
) -> dict[str, Any]:
    properties = schema.get("properties") or {}
    value = {name: for_schema(inner, rng, token, keys, definitions) for name, inner in properties.items()}
    extra = schema.get("additionalProperties")
    if not properties and extra:
        inner = extra if isinstance(extra, dict) else {"type": "string"}
        value = {name: for_schema(inner, rng, token, keys, definitions) for name in keys or ("key",)}
    return value


def _scalar(kind: str, schema: dict[str, Any], rng: random.Random, token: str) -> Any:
    if kind in ("integer", "number"):
        low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
        high = schema.get("maximum", schema.get("exclusiveMaximum", low + 100))
        if kind == "integer":
            first = int(low) + ("exclusiveMinimum" in schema)
            return rng.randint(first, max(first, int(high) - ("exclusiveMaximum" in schema)))
        return round(low + (high - low) * rng.uniform(0.01, 0.99), 6)
    if kind == "boolean":
        return rng.random() < 0.5
    return None if kind == "null" else text(rng, token)
