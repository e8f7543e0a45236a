"""What leaves this process: nothing secret, whatever holds it; and what cannot go is refused unpaid."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.evaluation.pools.sending import packed, unpacked
from tests.context.workers import ask
from tests.endpoint import Endpoint
from tests.shards.asking import devset
from tests.shards.pools import Postman, processes

KEY = "sk-proj-4f8a1c6e9b2d7035"
AWAY = "https://models.example/v1"


HIDING: list[dict[str, Any]] = [
    {"extra_headers": {"Authorization": f"Bearer {KEY}"}},
    {"extra_headers": {"Authorization": f"Bearer {KEY}".encode()}},
    {"extra_headers": {"x-gateway": f"Bearer {KEY}"}},
    {"extra_headers": {"x-gateway": f"Bearer {KEY}".encode()}},
    {"extra_headers": {"x-gateway": KEY}},
    {"extra_body": {"a": {"b": [{"password": KEY}]}}},
    {"http_auth": ("me", KEY)},
    {"launch_kwargs": {"api_key": KEY}},
    {"model_list": [{"litellm_params": {"api_key": KEY}}]},
    {"api_base": "http://127.0.0.1:1/v1", "fallbacks": [{"model": "openai/other", "api_key": KEY}]},
]
"""Where else than in `api_key` one has a key."""


@pytest.fixture
def postman() -> Postman:
    """What is sent, as bytes."""
    return Postman()


def evaluated(program: Any, metric: Any, postman: Postman, **options: Any) -> Any:
    """A small evaluation through somebody else's hands."""
    given = {"predictions": False, "display_progress": False, "shards": 2, "max_errors": 1000}
    return cachectl.evaluate(program, devset(2), metric, executor=postman, **{**given, **options})


def length(example: Any, prediction: Any, trace: Any = None) -> float:
    """How long an answer is."""
    return float(len(prediction.answer) % 2)


def program(kind: Any = cachectl.LM, **options: Any) -> Any:
    """One predictor with an LM of its own."""
    made = dspy.Predict("question -> answer")
    made.lm = kind("openai/test-model", **options)
    return made


@pytest.mark.parametrize("kind", [cachectl.LM, dspy.LM])
@pytest.mark.parametrize("where", ["program", "metric", "settings"])
def test_a_key_of_the_environment_stays_there(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, postman: Postman, kind: Any, where: str
) -> None:
    """Whatever holds the LM: its key goes as the name of a variable, and workers ask with what they find there."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    lm = kind("openai/test-model", api_base=endpoint.url, api_key=KEY)
    asks = program(api_base=endpoint.url, api_key=KEY)
    if where == "settings":
        dspy.configure(lm=lm)
        asks = dspy.Predict("question -> answer")
    metric: Any = length
    if where == "metric":

        def metric(example: Any, prediction: Any, trace: Any = None) -> float:
            return float(len(lm(prediction.answer)[0]) % 2)

    report = evaluated(asks, metric, postman)
    assert 0 == report.failures
    assert KEY.encode() not in postman.sent
    assert b"OPENAI_API_KEY" in postman.sent
    assert endpoint.requests == (4 if where == "metric" else 2)


@pytest.mark.parametrize("kind", [cachectl.LM, dspy.LM])
@pytest.mark.parametrize(
    ("model", "option", "variable"),
    [
        ("openai/test-model", {"api_key": KEY}, "OPENAI_API_KEY"),
        ("anthropic/claude", {"api_key": KEY}, "ANTHROPIC_API_KEY"),
        ("cohere/command", {"api_key": KEY}, "CO_API_KEY"),
        ("bedrock/x", {"aws_secret_access_key": KEY}, "AWS_SECRET_ACCESS_KEY"),
        ("azure/test-model", {"azure_ad_token": KEY}, "AZURE_AD_TOKEN"),
        ("openai/test-model", {"langfuse_secret_key": KEY}, "LANGFUSE_SECRET_KEY"),
        *(("openai/test-model", option, "OPENAI_API_KEY") for option in HIDING),
        ("openai/test-model", {"api_base": f"https://me:{KEY}@models.example/v1"}, "OPENAI_API_BASE"),
        ("openai/test-model", {"api_base": f"{AWAY}?api_key={KEY}"}, "OPENAI_API_BASE"),
    ],
)
def test_a_key_of_no_variable_is_refused(
    endpoint: Endpoint, postman: Postman, kind: Any, model: str, option: dict[str, Any], variable: str
) -> None:
    """Before anything is sent, with the variable to set."""
    asks = dspy.Predict("question -> answer")
    asks.lm = kind(model, **{"api_base": AWAY, **option})
    with pytest.raises(ConfigurationError, match=f"set {variable} here and where the workers run") as raised:
        evaluated(asks, length, postman)
    assert KEY not in str(raised.value)
    assert b"" == postman.sent


@pytest.mark.parametrize(("model", "option"), [("azure/m", "azure_ad_token"), ("openai/m", "langfuse_secret_key")])
def test_what_is_said_to_be_set_helps(monkeypatch: pytest.MonkeyPatch, model: str, option: str) -> None:
    """A key in the variable that the refusal names goes as that name."""
    monkeypatch.setenv(option.upper(), KEY)
    sent = packed(cachectl.LM(model, api_base=AWAY, **{option: KEY}))
    assert option.upper().encode() in sent
    assert KEY == unpacked(sent).kwargs[option]


@pytest.mark.parametrize(
    "option",
    [
        {"api_base": "https://gateway.example/v1/0123456789abcdef0123456789abcdef/openai"},
        {"extra_headers": {"x-portkey-provider": "openai", "Authorization": "Bearer none"}},
        {
            "organization": "org-1a2B3c4D5e6F7g8H9i0J1k2L",
            "vertex_project": "team-project-4711",
            "user": "me@example.com",
        },
        {"stop": ["password: secret"], "response_format": {"type": "json_schema"}, "token_limit": 3},
    ],
)
@pytest.mark.parametrize("model", ["openai/ft:gpt-4o-mini:me::9xYzAb12", "vertex_ai/claude-3-5-sonnet@20240620"])
def test_what_is_no_secret_is_sent(model: str, option: dict[str, Any]) -> None:
    """Addresses, names of accounts and models, and headers that route go along."""
    assert option.items() <= unpacked(packed(cachectl.LM(model, **{"api_base": AWAY, **option}))).kwargs.items()


@pytest.mark.parametrize("key", ["none", "EMPTY", "dummy", "sk-no-key-required", "not-needed", KEY])
def test_what_is_no_key_goes_along(endpoint: Endpoint, postman: Postman, key: str) -> None:
    """What people write where none is wanted, and whatever is for a server on loopback."""
    report = evaluated(program(api_base=endpoint.url, api_key=key), length, postman)
    assert 0 == report.failures
    assert 2 == endpoint.requests


def test_a_secret_in_a_closure_is_refused(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, postman: Postman
) -> None:
    """A value of the environment's that a metric holds as text is found in what would be sent."""
    monkeypatch.setenv("WEATHER_API_KEY", KEY)
    held = {"headers": [KEY]}

    def metric(example: Any, prediction: Any, trace: Any = None) -> float:
        return float(bool(held))

    with pytest.raises(ConfigurationError, match="hold a secret that this process knows"):
        evaluated(program(api_base=endpoint.url, api_key="none"), metric, postman)
    assert b"" == postman.sent


def test_what_cannot_be_sent_is_refused(endpoint: Endpoint, postman: Postman) -> None:
    """A lock in a closure: the error says what cannot be, and what to do; nothing is asked."""
    lock = threading.Lock()

    def metric(example: Any, prediction: Any, trace: Any = None) -> float:
        with lock:
            return 1.0

    with pytest.raises(ConfigurationError, match=r"cannot be sent to another process.*lock"):
        evaluated(program(api_base=endpoint.url, api_key="none"), metric, postman)
    assert 0 == endpoint.requests


@pytest.mark.exhaustive
def test_a_worker_without_the_key_writes_nothing_readable(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where what is kept is encrypted, a worker whose environment has no key refuses: nothing is asked or kept."""
    pytest.importorskip("cryptography")
    cachectl.configure(encryption_key=lambda: "A" * 43)
    with processes() as pool, pytest.raises(ConfigurationError, match="set DSPY_CACHECTL_ENCRYPTION_KEY to the same"):
        evaluated(program(api_base=endpoint.url, api_key="none"), length, pool)
    assert 0 == endpoint.requests


ADDRESS = "redis://worker:pa55word-of-the-store@127.0.0.1:1/0"


def carried() -> bytes:
    """A function that takes its phase along."""
    with cachectl.phase("eval"):
        return pickle.dumps(cachectl.carry(ask))


@pytest.mark.parametrize("stores", [ADDRESS, f'["near", "{ADDRESS}"]'])
def test_the_stores_password_stays_in_the_environment(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, postman: Postman, tmp_path: Path, stores: str
) -> None:
    """Of what a pool is sent, and of what is carried: the address goes without it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DSPY_CACHECTL_STORE", stores)
    cachectl.install()
    evaluated(program(api_base=endpoint.url, api_key="none"), length, postman)
    for sent in (postman.sent, carried()):
        assert b"redis://127.0.0.1:1/0" in sent
        assert b"pa55word" not in sent


@pytest.mark.parametrize("how", ["pool", "carry"])
def test_a_password_that_only_code_knows_is_refused(endpoint: Endpoint, postman: Postman, how: str) -> None:
    """The error says which variable takes it."""
    cachectl.configure(store=ADDRESS)
    cachectl.install()
    with pytest.raises(ConfigurationError, match="set DSPY_CACHECTL_STORE") as raised:
        evaluated(program(api_base=endpoint.url, api_key="none"), length, postman) if how == "pool" else carried()
    assert "pa55word" not in str(raised.value)
    assert 0 == endpoint.requests


WORKER = """
    import pathlib, pickle, platform
    from tests.context.workers import make_lm
    %s
    print(pickle.loads(pathlib.Path("carried.bin").read_bytes())(make_lm()))
"""


@pytest.mark.parametrize(
    ("there", "says"),
    [
        ("platform.node = lambda: 'another'", "it was opened on another machine"),
        ("import os; os.environ['DSPY_CACHECTL_STORE'] = 'here'", "the settings here name no store"),
    ],
)
def test_what_is_carried_elsewhere_is_refused(
    child: Any, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: str, says: str
) -> None:
    """On a machine that cannot ask which draw is whose, or without the store's password: nothing is asked."""
    monkeypatch.setenv("DSPY_CACHECTL_STORE", ADDRESS)
    cachectl.install()
    with cachectl.phase("eval"):
        (tmp_path / "carried.bin").write_bytes(pickle.dumps(cachectl.carry(ask)))
        done = child(WORKER % there, check=False)
    assert 0 != done.returncode
    assert says in done.stderr
    assert 0 == endpoint.requests
