"""An option of an LM that is misspelt is refused with the one that was meant; a provider's own goes through."""

from __future__ import annotations

from typing import Any

import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.errors import ConfigurationError
from tests.endpoint import Endpoint

MISSPELT = {
    "roles": "role",
    "endpoints": "endpoint",
    "verison": "version",
    "temprature": "temperature",
    "max_token": "max_tokens",
    "num_retires": "num_retries",
    "Cache": "cache",
    "api_bse": "api_base",
    "top_P": "top_p",
    "seeds": "seed",
    "cahce": "cache",
}


@pytest.mark.parametrize("written", MISSPELT)
def test_a_misspelt_option_is_refused(written: str, endpoint: Endpoint) -> None:
    """It would be sent, and change nothing here: it says what was meant, and where what is meant so belongs."""
    with pytest.raises(ConfigurationError) as raised:
        cachectl.LM("openai/test", api_key="k", **{written: "judge"})
    said = str(raised.value)
    with pytest.raises(ConfigurationError, match=f"has no option {written!r}"):
        cachectl.LM("openai/test", api_key="k").copy(**{written: "judge"})
    assert f"LM has no option {written!r}: did you mean {MISSPELT[written]!r}?" in said
    assert f"extra_body={{{written!r}: ...}}" in said
    assert 0 == endpoint.requests


@pytest.mark.parametrize(
    "options",
    [
        {"role": "judge", "endpoint": "lab", "version": "2"},
        {"top_k": 3, "min_p": 0.1, "top_a": 0.2, "repetition_penalty": 1.1, "num_ctx": 8192, "keep_alive": "5m"},
        {"api_version": "2025-01-01", "organization": "o", "model_version": "3", "extra_body": {"roles": "x"}},
        {"thinking": {"type": "enabled"}, "modalities": ["text"], "stop_sequences": ["x"], "user_id": "u"},
        {
            "min_tokens": 3,
            "max_new_tokens": 5,
            "stream_timeout": 3,
            "max_retries": 2,
            "safety_settings": [],
            "guided_json": {},
        },
    ],
)
def test_a_providers_own_option_is_none_of_ours(options: dict[str, object], caplog: pytest.LogCaptureFixture) -> None:
    """What is not nearly one of the known names is passed on as it is."""
    made = cachectl.LM("openai/test", api_key="k", **options)
    assert made.copy(**options).kwargs == made.kwargs
    assert all(getattr(made, name, made.kwargs.get(name)) == value for name, value in options.items())
    assert [] == caplog.messages


@pytest.mark.parametrize(
    ("written", "meant"), [("num_retry", "num_retries"), ("retries", "num_retries"), ("catch", "cache")]
)
def test_what_may_be_a_providers_own_is_said_and_sent(
    written: str, meant: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody knows all providers, and nothing is silent that is nearly a known name."""
    made = cachectl.LM("openai/test", api_key="k", **{written: 3})
    assert 3 == made.kwargs[written]
    assert [
        f"LM has no option {written!r}, so it goes to the provider as it is: did you mean {meant!r}?"
    ] == caplog.messages


def test_an_embedders_option_is_looked_at_too() -> None:
    """Its options are others."""
    with pytest.raises(ConfigurationError, match="Embedder has no option 'cacheing': did you mean 'caching'"):
        cachectl.Embedder("openai/text-embedding-3-small", cacheing=False)


def test_what_a_phase_is_given_is_looked_at_too() -> None:
    """A policy's option, and a phase's name."""
    with pytest.raises(ConfigurationError, match="'temprature': did you mean 'temperature'"):
        cachectl.phase("eval", temprature=0.5)
    with pytest.raises(ConfigurationError, match="no phase is called 'evil': did you mean 'eval'"):
        cachectl.phase("evil")
    with pytest.raises(ConfigurationError, match="'FRSH': did you mean 'FRESH'"):
        cachectl.Policy.named("FRSH")


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        ((3,), {}, "a phase's name is a text that is not empty, not 3"),
        ((" ",), {}, "a text that is not empty"),
        (("eval",), {"roles": "judge"}, "roles are policies by role"),
        (("eval", "FRSH"), {}, r"not 'FRSH': did you mean Policy.FRESH or Policy.REFRESH\?"),
        (("eval",), {"roles": {"judge": "RUSE"}}, r"'judge' is a Policy, not 'RUSE': did you mean Policy.REUSE\?"),
        (("eval",), {"runid": "mine"}, "'runid': did you mean 'run_id'"),
        (("eval",), {"everywere": True}, "'everywere': did you mean 'everywhere'"),
        (("eval",), {"role": {}}, "'role': did you mean 'roles'"),
    ],
)
def test_an_option_of_a_phase_that_is_none(arguments: Any, options: dict[str, Any], says: str) -> None:
    """It says what a phase takes, in a word of its own."""
    with pytest.raises(ConfigurationError, match=says):
        cachectl.phase(*arguments, **options)
