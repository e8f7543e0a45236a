"""Texts lose their secrets in a time in proportion to their length, and nothing else."""

from __future__ import annotations

import base64
import keyword
import pkgutil
import pydoc_data.topics
import random
import re
import sys
import time
from pathlib import Path

import pydantic
import pytest

from dspy_cachectl.boundary.held import HELD
from dspy_cachectl.boundary.secrets import scrub, scrub_head, scrub_surely, without_credentials
from dspy_cachectl.entries.asked import asked_of

# Not whole in here: what has the form of a key is taken for one by whoever looks for them in source code.
DRAWN = "q8Zx" + "V3nT7pLw2RkY9sBd4HfC"
KEYS = [f"sk-proj-{DRAWN}{DRAWN}", f"hf_{DRAWN}Abcdefghij", f"ghp_{DRAWN}aB3dE5gH7jK9", f"xai-{DRAWN}{DRAWN}"]


@pytest.mark.parametrize("key", KEYS, ids=["openai", "hugging face", "github", "xai"])
@pytest.mark.parametrize("around", ["{}", "the key {} was refused", '{{"error": "{}"}}', "Bearer {}\\n", "x={}&y=1"])
def test_a_key_in_a_text(key: str, around: str) -> None:
    """It goes, wherever it stands, and what stands around it stays."""
    for clean in (scrub, scrub_surely):
        cleaned = clean(around.format(key))
        assert DRAWN not in cleaned
        assert around.format("").strip("{}")[:1] in cleaned


@pytest.mark.parametrize(
    "address",
    [
        "http://me:s3cr/3t@host",
        "http://me:pw#s3cr3t@host",
        "me:s3cr3t@host",
        "//me:s3cr3t@host",
        "http://me:s3cr3t@[::1/x",
        "http://host/x#access_token=s3cr3t",
        "http://host/?jwt=s3cr3t&a=1",
        "http://host/?a=1&pw=s3cr3t",
        "https://other/?next=https://me:s3cr3t@host",
        "https://me%40work:s3cr3t%2F@host/x",
    ],
)
def test_an_address(address: str) -> None:
    """However it is written, it has neither login nor secret parameters, and still says whose it is."""
    bare = without_credentials(address)
    assert not re.search("s3cr", bare)
    assert re.search(r"host|\[::1", bare)
    assert not re.search("s3cr", scrub(f"could not reach {address}: refused"))


def _words() -> list[str]:
    source = "".join(path.read_text(encoding="utf-8") for path in sorted(Path(pkgutil.__file__).parent.glob("*.py")))
    modules = [name for _, name, _ in pkgutil.iter_modules()]
    topics = " ".join(pydoc_data.topics.topics.values())
    written = "skip_special_tokens hf-internal-testing sk-learn-datasets pk_orders_2024 Schlüsselbund mot-de-passe"
    words = [*re.findall(r"\S+", f"{topics} {written}"), *re.findall(r"[\w.\-]+", source)]
    return [*words, *modules, *keyword.kwlist, *sys.builtin_module_names]


def test_ordinary_text_is_not_altered() -> None:
    """What a program is served again is what the model said: English, names in source code, German and French."""
    words = _words()
    assert len(words) > 100_000
    for start in range(0, len(words), 1000):
        text = " ".join(words[start : start + 1000])
        assert text == scrub_surely(text)


def test_bytes_in_base64_are_not_altered() -> None:
    """What a model thought, encrypted, is handed back to it as it was, though it holds what begins like a key."""
    drawn = random.Random(3)
    for prefix in ("-pa-", "_hf_", "-sk-", "_r8_", "-key-"):
        for _ in range(20):
            before, after = (base64.urlsafe_b64encode(drawn.randbytes(600)).decode().strip("=") for _ in range(2))
            text = f'{{"encrypted_content": "gAAAA{before}{prefix}{after}"}}'
            assert text == scrub_surely(text)


SHAPES = ["a-", "password", "-token", "://", "@", "Bearer ", "eyJ", "sk-", "x:y@", "//", "=", "&key=", "%40", '"', "\\"]


@pytest.mark.parametrize("shape", SHAPES, ids=repr)
def test_time_grows_with_the_text(shape: str) -> None:
    """Twice the text takes at most 2.2 times as long, whatever it is made of."""

    def seconds(size: int) -> float:
        text = shape * (size // len(shape))
        began = time.process_time()
        scrub(text)
        scrub_surely(text)
        return time.process_time() - began

    ratios = []
    for _ in range(5):  # a busy machine makes one of them slow now and then
        ratios.append(seconds(400_000) / max(seconds(200_000), 0.005))
        if ratios[-1] <= 2.2:
            return
    raise AssertionError(f"twice the text took {min(ratios):.2f} times as long")


def test_what_is_known_is_left_out_and_what_is_doubtful_is_hashed() -> None:
    """A known credential may be rotated; what only sounds like one tells two gateways apart, and cannot be read."""

    def options(secret: str) -> dict[str, object]:
        headers = {"Authorization": f"Bearer {secret}"}
        return {"aws_web_identity_token": secret, "extra_query": {"key": secret}, "extra_headers": headers}

    assert {} == asked_of(options(DRAWN)) == asked_of(options("another-" + DRAWN))
    one, other = ({"extra_headers": {"x-gateway-token-kind": kind}} for kind in ("first-kind", "other-kind"))
    assert asked_of(one) != asked_of(other)
    schema = {"response_format": {"schema": {"properties": {"password": {"type": "string"}}}}}
    assert schema == asked_of(schema)


@pytest.mark.parametrize(
    "name", ["key", "github_token", "db_pass", "passcode", "pin", "sas_token", "licenseKey", "pat"]
)
def test_what_is_sent_in_the_body_tells_calls_apart_and_cannot_be_read(name: str) -> None:
    """Nothing of it is left out, whatever it is called and however a secret stands in it."""

    def asked(secret: str) -> list[str]:
        given: list[object] = [
            {name: secret},
            {"headers": {name: secret, "x-bearer": secret, "cookie": secret}},
            {"query": {name: secret}},
            {"url": f"http://me:{secret}@h/x"},
            {"url": f"http://h/x?{name}={secret}"},
            f'{{"password": "{secret}"}}',
            f"Server=h;Password={secret};",
            {"properties": {"password": {"type": "string", "default": secret}}},
            pydantic.create_model("M", **{name: (str, ...)})(**{name: secret}),  # type: ignore[call-overload]
        ]
        return [repr(asked_of({"extra_body": {"a": one}})) for one in given]

    first, second = asked(DRAWN), asked("another-" + DRAWN)
    assert DRAWN not in repr(first)
    assert all(one != other for one, other in zip(first, second, strict=True))


def test_a_secret_in_an_object_of_pydantics_is_held() -> None:
    """A field of an object that a call is made with is a secret as an option is, wherever it turns up again."""
    kind = pydantic.create_model("Login", password=(str, ...))
    HELD.learn({"extra_body": {"login": [kind(password="held-in-a-field-77")]}})
    assert "held-in-a-field-77" not in scrub("you said held-in-a-field-77")
    HELD.forget()


@pytest.mark.parametrize("before", range(0, 6_000, 497))
def test_the_head_of_a_text_has_no_half_of_a_secret(monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    """Wherever the text is cut, and however much of what stood before it was a secret."""
    held = "geheim" + "7-" * 1_500
    monkeypatch.setenv("SOME_API_KEY", held)
    text = "x " * (before % 20) + held * (before // 1_000) + held + "y" * 9_000
    assert "7-7" not in scrub_head(text, 80)
    assert scrub_head(text[:200], 80) == scrub(text[:200])
