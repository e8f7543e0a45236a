"""One model name at two addresses is two models, wherever LiteLLM gets the address from."""

from __future__ import annotations

import itertools
import os
import sys
import types
from collections.abc import Iterator
from typing import Any

import litellm
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.fingerprints.endpoints import endpoint_of
from tests.endpoint import Endpoint

_TEXTS = itertools.count()

Surroundings = dict[str, str]


@pytest.fixture(scope="module")
def second_process() -> Iterator[Endpoint]:
    """Another server."""
    with Endpoint(seed=2) as running:
        yield running


@pytest.fixture
def second(second_process: Endpoint) -> Endpoint:
    """Another server, with nothing counted."""
    second_process.reset()
    return second_process


_OPTIONS: dict[str, dict[str, Any]] = {
    "openai": {"model": "openai/test-model"},
    "litellm": {"model": "openai/test-model", "engine": "litellm"},
    "text": {"model": "openai/test-model", "model_type": "text"},
    "text-completion-openai": {"model": "text-completion-openai/test-model", "model_type": "text"},
    "responses": {"model": "openai/test-model", "model_type": "responses"},
    "fireworks": {"model": "fireworks_ai/test-model", "engine": "litellm"},
    "hosted_vllm": {"model": "hosted_vllm/test-model", "engine": "litellm"},
    "named provider": {"model": "test-model", "custom_llm_provider": "hosted_vllm", "engine": "litellm"},
    "as openai": {"model": "test-model", "custom_llm_provider": "openai", "engine": "litellm"},
}
_LEADS = [
    *[
        (name, {"OPENAI_BASE_URL": "{}"})
        for name in ("openai", "litellm", "text", "text-completion-openai", "as openai")
    ],
    *[
        (name, {"OPENAI_API_BASE": "{}"})
        for name in ("openai", "litellm", "text", "text-completion-openai", "responses")
    ],
    *[(name, {"litellm": "{}"}) for name in ("litellm", "text", "as openai")],
    ("fireworks", {"FIREWORKS_API_BASE": "{}"}),
    ("hosted_vllm", {"HOSTED_VLLM_API_BASE": "{}"}),
    ("named provider", {"HOSTED_VLLM_API_BASE": "{}"}),
    ("litellm", {"OPENAI_BASE_URL": "{}", "OPENAI_API_BASE": "{other}"}),
    ("litellm", {"litellm": "{}", "OPENAI_BASE_URL": "{other}"}),
    ("litellm", {"api_base": "{}", "OPENAI_BASE_URL": "{other}", "litellm": "{other}"}),
    ("litellm", {"base_url": "{}"}),
]


def _ask(options: dict[str, Any], around: Surroundings, text: str) -> None:
    given = {"api_key": "none", "num_retries": 0, **options}
    with pytest.MonkeyPatch.context() as patch:
        for name, url in around.items():
            if name == "litellm":
                patch.setattr(litellm, "api_base", url)
            elif name.isupper():
                patch.setenv(name, url)
            else:
                given[name] = url
        cachectl.LM(**given)(text)


@pytest.mark.parametrize(
    ("kind", "leads"), _LEADS, ids=lambda value: value if isinstance(value, str) else "+".join(value)
)
def test_two_servers(endpoint: Endpoint, second: Endpoint, kind: str, leads: Surroundings) -> None:
    """What leads to another server asks another model; what leads to the same one is served."""
    text, options = f"question {next(_TEXTS)}", _OPTIONS[kind]
    for _ in range(2):
        for one, other in ((endpoint, second), (second, endpoint)):
            around = {name: url.replace("{}", one.url).replace("{other}", other.url) for name, url in leads.items()}
            _ask(options, around, text)
    assert (1, 1) == (endpoint.requests, second.requests)


def test_where_it_is_said_is_nothing(endpoint: Endpoint) -> None:
    """One address is one endpoint, whether an option, LiteLLM or a variable says so."""
    for around in ({"api_base": endpoint.url}, {"litellm": endpoint.url}, {"OPENAI_API_BASE": f"{endpoint.url}/"}):
        _ask(_OPTIONS["litellm"], around, "one address")
    assert 1 == endpoint.requests


def test_an_address_with_parameters() -> None:
    """What follows the question mark is part of an address; a known credential in it is not."""
    queries = ("?a=1", "?a=2", "?a=1&api-key=one", "?a=1&api-key=another", "?session=1", "?session=2")
    found = [endpoint_of("openai/m", {"api_base": f"http://h/v1{query}"}) for query in queries]
    assert 4 == len(set(found))
    assert found[0] == found[2] == found[3]
    assert "session=1" not in str(found)


def test_on_whose_behalf(endpoint: Endpoint) -> None:
    """An organisation that the environment names is sent, and is another model's."""
    for organization in ("one", "another", "one"):
        _ask(_OPTIONS["litellm"], {"api_base": endpoint.url, "OPENAI_ORGANIZATION": organization}, "whose")
    assert 2 == endpoint.requests
    assert ["one", "another"] == [sent["headers"]["openai-organization"] for sent in endpoint.log()]


def test_the_native_engine_reads_no_variable(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only LiteLLM heeds is no part of what DSPy's own engine asks."""
    for organization in ("one", "another"):
        _ask(_OPTIONS["openai"], {"api_base": endpoint.url, "OPENAI_ORGANIZATION": organization}, "native")
    assert 1 == endpoint.requests


@pytest.mark.exhaustive
@pytest.mark.parametrize("provider", sorted(str(getattr(one, "value", one)) for one in litellm.provider_list))
def test_every_provider(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever variable LiteLLM takes a provider's address from, another value of it is another endpoint."""
    usual = provider.upper().replace("-", "_")
    stems = {usual, usual.removesuffix("_AI"), usual.removesuffix("_CHAT"), f"{usual}_AI", "OPENAI"}
    for name in sorted(f"{stem}_{what}" for stem in stems for what in ("API_BASE", "BASE_URL")):
        found = []
        for value in ("http://one/v1", "http://two/v1"):
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(name, value)
                try:
                    leads = litellm.get_llm_provider(f"{provider}/m")[3]
                except (litellm.BadRequestError, ValueError):
                    leads = None
                found.append((leads, endpoint_of(f"{provider}/m", {})))
        assert (found[0][0] == found[1][0]) or found[0][1] != found[1][1], (name, found)
    assert os.environ.get(f"{usual}_API_BASE") is None


@pytest.mark.parametrize("proxied", ["", "True"])
def test_litellm_that_is_being_imported_has_its_defaults(proxied: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may be at it: the call goes on, and is the one that it is before and afterwards."""
    monkeypatch.setenv("USE_LITELLM_PROXY", proxied)
    options = {"litellm_credential_name": "mine"}
    afterwards = endpoint_of("openai/m", options)
    with monkeypatch.context() as half:
        half.setitem(sys.modules, "litellm", types.ModuleType("litellm"))
        assert endpoint_of("openai/m", options) == afterwards
        half.delitem(sys.modules, "litellm")
        assert endpoint_of("openai/m", options) == afterwards
