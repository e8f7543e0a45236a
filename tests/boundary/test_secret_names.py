"""What the installed LiteLLM calls a credential is known as one."""

from __future__ import annotations

import re
from collections.abc import Iterable

import litellm
from litellm.types import utils
from litellm.types.router import CredentialLiteLLMParams

from dspy_cachectl.boundary.secret_names import NOT_SECRET, OPTIONS, is_secret_name

_SOUNDS = re.compile(
    r"(?:^|_)(?:api_?key|key|keys|token|password|secret|credentials?|auth|jwt|signer)(?:$|_)", re.IGNORECASE
)

# Which account, and how much, is no secret: read through when they were added here.
NONE = re.compile(
    r"token_exchange|_tokens?_|cost|per_token|tpm|rpm|token_count|tokens$|_key_name$|keycloak_(?:scope|client_id)$"
)

BEARING_KEYS: Iterable[str] = getattr(utils, "WIF_SECRET_BEARING_KEYS", ())
"""A list of LiteLLM's that came after the oldest release that is allowed."""


def test_litellms_lists_are_known() -> None:
    """A release with a new option that sounds like a credential fails here: it goes to OPTIONS or to NOT_SECRET."""
    named = {*utils.all_litellm_params, *BEARING_KEYS, *CredentialLiteLLMParams.model_fields}
    sounding = {name for name in named if _SOUNDS.search(name) and not NONE.search(name)}
    assert len(sounding) > 20
    assert set() == {name for name in sounding if name not in OPTIONS and name not in NOT_SECRET}
    assert set() == {name for name in BEARING_KEYS if not is_secret_name(name)}


def test_the_keys_that_litellm_itself_holds_are_known() -> None:
    """Its module's own variables for keys are secrets by the name."""
    held = {
        name for name in vars(litellm) if re.search(r"(?:^|_)(?:api_)?key$", name) and not callable(vars(litellm)[name])
    }
    assert len(held) > 10
    assert set() == {name for name in held if not is_secret_name(name) and name not in NOT_SECRET}
