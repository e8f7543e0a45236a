"""What of an LM travels: to another process by pickle, and into a saved program.

A credential that the environment holds travels as the name of its variable. What a governed LM is called travels where
DSPy's own LM keeps it and does nothing with it, so that a program loads anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dspy_cachectl.boundary.secret_names import KNOWN_OF, KNOWN_OPTIONS, is_secret_variable

NAMES = ("role", "endpoint", "version")
"""What a governed LM has beside what DSPy's has."""

CREDENTIALS = KNOWN_OPTIONS | frozenset(KNOWN_OF)
"""Options that a variable of the environment can stand for."""
_OURS = "_governed"
_KEPT_IN = "launch_kwargs"
_CALLED = {
    "bedrock": ("AWS",),
    "cohere": ("CO_", "COHERE"),
    "cohere_chat": ("CO_", "COHERE"),
    "gemini": ("GEMINI", "GOOGLE"),
    "huggingface": ("HUGGINGFACE", "HF_"),
    "meta_llama": ("LLAMA",),
    "sagemaker": ("AWS",),
    "vertex_ai": ("VERTEX", "GOOGLE"),
    "volcengine": ("VOLCENGINE", "ARK"),
    "watsonx": ("WATSONX", "WX_", "WML_"),
}
"""How the variables of providers begin that are called otherwise."""


class _OfVariable(str):
    """A credential that is pickled as the name of the variable that holds it, without anything of this package."""

    __slots__ = ("variable",)
    variable: str

    def __reduce__(self) -> Any:
        return os.getenv, (self.variable,)


def as_variables(model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an LM with those credentials as names of variables that the environment holds.

    Args:
        model: The LM's model.
        options: Its options.
    """
    found = dict(options)
    for option, variable in held_in_environment(model, options).items():
        held = _OfVariable(found[option])
        held.variable = variable
        found[option] = held
    return found


def held_in_environment(model: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Return the credentials among options that equal a variable that LiteLLM reads for the provider, with its name."""
    given = {name: value for name, value in options.items() if name in CREDENTIALS and value and type(value) is str}
    given |= {name: str(value) for name, value in options.items() if isinstance(value, _OfVariable)}
    if not given:
        return {}
    beginnings = _beginnings(model, options.get("custom_llm_provider"))
    own = {variable_of(model, options, option) for option in given}
    variables: dict[str, str] = {}
    # The key as such is preferred to another variable of the same value.
    for name, value in sorted(os.environ.items(), key=lambda item: (not item[0].endswith("_API_KEY"), item[0])):
        if (name in own or name.startswith(beginnings)) and is_secret_variable(name):
            variables.setdefault(value, name)
    return {option: variables[value] for option, value in given.items() if value in variables}


def variable_of(model: str, options: Mapping[str, Any], option: str) -> str:
    """Return the environment variable that can stand for an option; of others that of the provider's key."""
    if option in CREDENTIALS - {"api_key"}:
        return option.upper()
    option = option if option == "api_base" else "api_key"
    return f"{_beginnings(model, options.get('custom_llm_provider'))[0].rstrip('_')}_{option.upper()}"


def _beginnings(model: str, provider: Any) -> tuple[str, ...]:
    name = str(provider or (model.partition("/")[0] if "/" in model else "openai")).removeprefix("text-completion-")
    return _CALLED.get(name, (name.upper().replace("-", "_").removesuffix("_AI").removesuffix("_CHAT"),))


def with_names(lm: Any, dumped: dict[str, Any]) -> dict[str, Any]:
    """Return the state of an LM that DSPy saves, with what the LM is called, without what the environment holds."""
    held = held_in_environment(lm.model, lm.kwargs)
    kept = {name: value for name, value in dumped.items() if name not in held}
    if _KEPT_IN in kept:
        names = {name: getattr(lm, name) for name in NAMES if getattr(lm, name) is not None}
        kept[_KEPT_IN] = {**(kept[_KEPT_IN] or {}), _OURS: names}
    return kept


def names_in(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str] | None]:
    """Return a saved state as DSPy alone writes it, and what the LM was called; None: it was none of ours."""
    kept = state.get(_KEPT_IN)
    names = kept.get(_OURS) if isinstance(kept, dict) else None
    if not isinstance(names, dict):
        return dict(state), None
    rest = {name: value for name, value in dict(kept or {}).items() if name != _OURS}
    known = {name: value for name, value in names.items() if name in NAMES and isinstance(value, str) and value.strip()}
    return {**state, _KEPT_IN: rest}, known
