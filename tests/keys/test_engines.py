"""One model name that two engines, providers or gateways of the user's own lead elsewhere is two models."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import dspy
import litellm
import pytest
from dspy._vendor.lm15.features import AccessPolicy
from dspy.lm15 import Message, OpenAIChatCompat, ProviderDefinition, Request, register_provider, unregister_provider
from litellm.types.utils import CredentialItem

import dspy_cachectl as cachectl
from dspy_cachectl.fingerprints.endpoints import endpoint_of
from dspy_cachectl.fingerprints.engines import asked_of_lm
from dspy_cachectl.fingerprints.models import generation_config
from tests.calls.engines import OwnEngine
from tests.endpoint import Endpoint

_TEXTS = itertools.count()
_MAKES: list[Callable[..., Any]] = [cachectl.LM, dspy.LM]


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


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Declare the provider `acme` anew."""
    monkeypatch.setenv("ACME_API_KEY", "none-at-all")

    def declared(url: str, *, compat: OpenAIChatCompat | None = None, **access: Any) -> None:
        policy = AccessPolicy("acme", base_url=url, env_keys=("ACME_API_KEY",), **access)
        register_provider(ProviderDefinition.chat(policy, compat=compat or OpenAIChatCompat()), replace=True)

    yield declared
    unregister_provider("acme")


def _ask(make: Callable[..., Any], text: str, model: str = "openai/test-model", **options: Any) -> None:
    make(model, num_retries=0, **options)(text)


@pytest.mark.parametrize("make", _MAKES)
def test_a_declared_provider_is_what_it_declares(
    endpoint: Endpoint, second: Endpoint, declare: Callable[..., None], make: Callable[..., Any]
) -> None:
    """Another address, another header or another manner of asking is another model under one name."""
    cachectl.install()
    declared: list[tuple[str, dict[str, Any]]] = [
        (endpoint.url, {}),
        (second.url, {}),
        (endpoint.url, {"headers": (("x-tenant", "a"),)}),
        (endpoint.url, {"headers": (("x-tenant", "b"), ("x-api-key", "one"))}),
        (endpoint.url, {"compat": OpenAIChatCompat.preset("groq")}),
    ]
    text = f"question {next(_TEXTS)}"
    for _ in range(2):
        for url, said in declared:
            declare(url, **said)
            _ask(make, text, "acme/test-model", max_tokens=50)
    declare(endpoint.url, headers=(("x-tenant", "b"), ("x-api-key", "another")))
    _ask(make, text, "acme/test-model", max_tokens=50)
    assert (4, 1) == (endpoint.requests, second.requests)


class _Keyed(OwnEngine):
    """It asks for a tenant, and holds what nothing tells from another of its kind."""

    def __init__(self, url: str, tenant: str, *, held: object = None) -> None:
        super().__init__(url)
        self.tenant, self.held = tenant, held


@pytest.mark.parametrize("make", _MAKES)
def test_an_engine_is_told_by_what_it_holds(endpoint: Endpoint, second: Endpoint, make: Callable[..., Any]) -> None:
    """Two of one class are two, and two that hold the same are one; one that cannot be told is only itself."""
    cachectl.install()
    text = f"question {next(_TEXTS)}"
    itself = _Keyed(endpoint.url, "a", held=object())
    for engine in (
        *(_Keyed(endpoint.url, "a"), _Keyed(endpoint.url, "b"), _Keyed(second.url, "a"), _Keyed(endpoint.url, "a")),
        *(itself, _Keyed(endpoint.url, "a", held=object()), itself),
    ):
        _ask(make, text, "own/test-model", engine=engine)
    assert (4, 1) == (endpoint.requests, second.requests)


@pytest.mark.parametrize("make", _MAKES)
@pytest.mark.parametrize("typed", [False, True])
def test_an_engine_that_writes_it_otherwise_asks_otherwise(
    endpoint: Endpoint, make: Callable[..., Any], typed: bool
) -> None:
    """`max_tokens` of LiteLLM's is another field than the native engine's."""
    cachectl.install()
    text = f"question {next(_TEXTS)}"
    asked: Any = Request(model="openai/test-model", messages=(Message.user(text),)) if typed else text
    for engine in ("lm15", "litellm") * 2:
        lm = make("openai/test-model", engine=engine, api_base=endpoint.url, api_key="none", max_tokens=50)
        lm(asked)
    assert 2 == endpoint.requests
    one, other = (received["body"] for received in endpoint.log())
    assert one != other


def _credential(url: str) -> dict[str, Any]:
    named = CredentialItem(credential_name="c", credential_values={"api_base": url, "api_key": "k"}, credential_info={})
    return {"credential_list": [named]}


class _Custom(litellm.CustomLLM):
    """A handler of the user's."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def completion(self, *args: Any, **kwargs: Any) -> Any:
        return litellm.completion("openai/test-model", kwargs["messages"], api_base=self.url, api_key="none")


def _handler(url: str) -> dict[str, Any]:
    return {"custom_provider_map": [{"provider": "custo", "custom_handler": _Custom(url)}]}


_GATEWAYS: dict[str, tuple[Callable[[str], dict[str, Any]], str, dict[str, Any]]] = {
    "proxy": (
        lambda url: {"USE_LITELLM_PROXY": "True", "LITELLM_PROXY_API_BASE": url},
        "openai/test-model",
        {"api_key": "none"},
    ),
    "credential": (_credential, "openai/test-model", {"litellm_credential_name": "c"}),
    "handler": (_handler, "custo/test-model", {}),
}


@pytest.mark.parametrize("make", _MAKES)
@pytest.mark.parametrize("kind", _GATEWAYS)
def test_what_litellm_is_set_to_leads_elsewhere(
    endpoint: Endpoint, second: Endpoint, kind: str, make: Callable[..., Any]
) -> None:
    """Whatever leads LiteLLM to another server asks another model; what leads to the same one is served."""
    around, model, options = _GATEWAYS[kind]
    cachectl.install()
    text = f"question {next(_TEXTS)}"
    for server in (endpoint, second) * 2:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in around(server.url).items():
                if name.isupper():
                    patch.setenv(name, value)
                else:
                    patch.setattr(litellm, name, value)
            if kind == "handler":
                patch.setattr(litellm, "_custom_providers", list(litellm._custom_providers))
                patch.setattr(litellm, "provider_list", list(litellm.provider_list))
                litellm.utils.custom_llm_setup()
            _ask(make, text, model, engine="litellm", **options)
    assert (1, 1) == (endpoint.requests, second.requests)


def test_azures_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client of Azure reads its address itself, where LiteLLM gives it none."""
    found = []
    for url in ("http://one", "http://two"):
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", url)
        found.append(endpoint_of("azure/deployment", {}))
    assert found[0] != found[1]


@pytest.mark.parametrize("setting", ["enable_preview_features", "use_litellm_proxy"])
def test_a_setting_that_changes_what_is_sent(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    """LiteLLM's `metadata` is part of the body where it is told so; a proxy is asked by another model's name."""
    text = f"question {next(_TEXTS)}"
    for _ in range(2):
        for value in (False, True):
            monkeypatch.setattr(litellm, setting, value)
            options = {"engine": "litellm", "api_base": endpoint.url, "api_key": "none"}
            _ask(cachectl.LM, text, **options, metadata={"a": "b"})
    assert 2 == endpoint.requests
    one, other = (received["body"] for received in endpoint.log())
    assert one != other


def test_metadata_that_is_sent() -> None:
    """Anthropic is told a user, which LiteLLM reads from its own `metadata`; nothing else of it is sent."""
    lm = cachectl.LM("anthropic/test-model", engine="litellm")
    told: list[dict[str, Any]] = [{"user_id": "one"}, {"user_id": "another"}, {"user_id": "one", "trace": "b"}, {}]
    asked = [asked_of_lm(lm, {"metadata": metadata}) for metadata in told]
    assert asked[0] == asked[2] != asked[1]
    assert {} == asked[3]


@pytest.mark.parametrize("engine", ["litellm", "auto"])
def test_predictions_are_kept_whatever_litellm_keeps_to_itself(engine: str) -> None:
    """What of an LM's options is sent decides for kept predictions too."""
    plain, traced, other = (
        generation_config(cachectl.LM("openai/test-model", engine=engine, extra_headers={"x-a": "a"}, **options))
        for options in ({}, {"metadata": {"trace": "a"}, "tags": ["a"]}, {"tools": []})
    )
    assert plain == traced != other


@pytest.mark.parametrize("options", [{"tools": []}, {"stop": []}, {"n": 1}])
def test_what_says_nothing(endpoint: Endpoint, options: dict[str, Any]) -> None:
    """The native engine leaves it out, and LiteLLM sends it."""
    text = f"question {next(_TEXTS)}"
    for engine in ("lm15", "litellm"):
        for given in ({}, options):
            _ask(cachectl.LM, text, engine=engine, api_base=endpoint.url, api_key="none", **given)
    assert 2 == endpoint.requests
