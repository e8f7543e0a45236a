"""Where a model is served: two servers with one model name are two models."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import orjson

from dspy_cachectl.entries.draws import clean_endpoint
from dspy_cachectl.fingerprints.canonical import type_name

UNNAMED = "dummy:"
"""How the endpoint of an LM begins that has none but has to be told from others of its name."""


def endpoint_of(model: str, options: Mapping[str, Any], engine: Any = None) -> str | None:
    """Return the identity of the endpoint that a call goes to; None for the provider's own.

    Args:
        model: The model's name, whose prefix names the provider.
        options: The call's options, the LM's own included.
        engine: A custom engine, which owns its connection.
    """
    if engine is not None and not isinstance(engine, str):
        return _engine_identity(engine)
    url = options.get("api_base") or options.get("base_url")
    if not url:
        provider = (model.split("/", 1)[0] if "/" in model else "openai").upper()
        url = os.environ.get(f"{provider}_API_BASE") or os.environ.get(f"{provider}_BASE_URL")
    return clean_endpoint(None if url is None else str(url))


def endpoint_of_lm(lm: Any) -> str | None:
    """Return where an LM is served: under the user's name for it, or as `endpoint_of` says."""
    model = str(getattr(lm, "model", None) or type(lm).__name__)
    named: str | None = getattr(lm, "endpoint", None)
    return named or endpoint_of(model, getattr(lm, "kwargs", None) or {}, getattr(lm, "_engine_spec", None))


def _engine_identity(engine: Any) -> str:
    name = f"engine:{type_name(type(engine))}"
    dump = getattr(engine, "dump_state", None)
    if not callable(dump):
        return name
    # By DSPy's contract the state is plain and holds no secret.
    state = orjson.dumps(dump(), option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=repr)
    return f"{name}#{hashlib.sha256(state).hexdigest()[:16]}"
