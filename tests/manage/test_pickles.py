"""A pickle is read as data, whatever it asks for: nothing is imported, called or made because it says so."""

from __future__ import annotations

import builtins
import contextlib
import importlib
import pickle
import pickletools
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_cachectl.entries import values
from dspy_cachectl.manage import pickles
from dspy_cachectl.manage.pickles import RefusedPickleError

WATCHED = {"os.system", "subprocess.Popen", "exec", "compile", "pickle.find_class", "os.exec", "open", "import"}
_SEEN: list[str] = []
_WATCHING = [False]


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _WATCHING[0] and event in WATCHED:
        _SEEN.append(f"{event} {arguments}")


sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def _nothing_runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """While a pickle is read nothing is run, opened, imported or unpickled."""
    yield
    assert [] == _SEEN
    _SEEN.clear()


def read(data: bytes) -> Any:
    _WATCHING[0] = True
    try:
        return pickles.read(data)
    finally:
        _WATCHING[0] = False


def back(value: Any, protocol: int = 5) -> Any:
    stored = read(pickle.dumps(value, protocol=protocol))
    values.check(stored)
    return values.loads(orjson.dumps(stored), tagged=True)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**100), 2**100)
    | st.floats(allow_nan=False)
    | st.text(st.characters())
    | st.binary(max_size=50),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.sets(st.integers() | st.text(max_size=5), max_size=4)
    ),
    max_leaves=20,
)


@given(value=PLAIN, protocol=st.sampled_from([3, 4, 5]))
def test_plain_data(value: Any, protocol: int) -> None:
    """Plain data comes back as it was."""
    assert value == back(value, protocol)


@pytest.mark.parametrize("kind", ["<f4", ">f8", "<i8", "|b1", "<u2", "<c16"])
def test_arrays(kind: str) -> None:
    """Arrays of numbers come back."""
    array = np.arange(6).astype(np.dtype(kind)).reshape(2, 3)
    found = back(array)
    assert (array.dtype, array.tolist()) == (found.dtype, found.tolist())


def test_shared_and_numbers_that_are_none() -> None:
    """What is named twice is there twice; infinities come back."""
    shared = ["again"]
    assert [shared, shared, float("inf")] == back([shared, shared, float("inf")])


def _global(module: str, name: str, arguments: bytes = b"(X\x08\x00\x00\x00touch x\nt") -> bytes:
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + arguments + b"R."


def _text(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


HOSTILE: dict[str, bytes] = {
    "os.system by REDUCE": _global("os", "system"),
    "posix.system": _global("posix", "system"),
    "builtins.eval": _global("builtins", "eval"),
    "builtins.getattr": _global("builtins", "getattr"),
    "subprocess": _global("subprocess", "Popen"),
    "importlib": _global("importlib", "import_module"),
    "a class of LiteLLM that is no answer": _global("litellm.types.utils", "os"),
    "a name within a name": _global("litellm.types.utils", "Message.__init__.__globals__"),
    "a module that begins like LiteLLM's": _global("litellm.types.evil", "system"),
    "an answer that is called": _global("litellm.types.utils", "Message"),
    "a set that is called with more": b"\x80\x02cbuiltins\nset\n(]]tR.",
    "a set of what cannot be hashed": b"\x80\x02cbuiltins\nset\n(]]atR.",
    "STACK_GLOBAL": b"\x80\x04" + _text("os") + _text("system") + b"\x93" + _text("touch x") + b"\x85R.",
    "STACK_GLOBAL out of the memo": b"\x80\x04"
    + _text("os")
    + b"\x94"
    + _text("system")
    + b"\x94000"[:1]
    + b"h\x00h\x01\x93)R.",
    "STACK_GLOBAL of numbers": b"\x80\x04K\x01K\x02\x93.",
    "STACK_GLOBAL of what was swapped": b"\x80\x04"
    + _text("litellm.types.utils")
    + b"\x94q\x00"
    + _text("os")
    + b"q\x00"
    + b"0h\x00"
    + _text("system")
    + b"\x93)R.",
    "INST": b"(X\x01\x00\x00\x00xios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nX\x01\x00\x00\x00xo.",
    "NEWOBJ of os": b"\x80\x02cos\nsystem\n)\x81.",
    "NEWOBJ of a text": b"\x80\x02X\x02\x00\x00\x00os)\x81.",
    "NEWOBJ with arguments": b"\x80\x02clitellm.types.utils\nMessage\nK\x01\x85\x81.",
    "NEWOBJ of a set": b"\x80\x02cbuiltins\nset\n)\x81.",
    "NEWOBJ_EX": b"\x80\x04clitellm.types.utils\nMessage\n)}\x92.",
    "BUILD on a list": b"\x80\x02]}b.",
    "BUILD with slots": b"\x80\x02clitellm.types.utils\nMessage\n)\x81N}\x86b.",
    "BUILD twice": b"\x80\x02clitellm.types.utils\nMessage\n)\x81}b}b.",
    "BUILD of a state that is a text": b"\x80\x02clitellm.types.utils\nMessage\n)\x81X\x01\x00\x00\x00xb.",
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "PERSID": b"Psome id\n.",
    "BINPERSID": b"\x80\x02X\x01\x00\x00\x00xQ.",
    "NEXT_BUFFER": b"\x80\x05\x97.",
    "READONLY_BUFFER": b"\x80\x05C\x01a\x98.",
    "a huge LONG": b"L" + b"9" * 5000 + b"L\n.",
    "a huge LONG4": b"\x80\x02\x8b" + (2_000_000).to_bytes(4, "little") + b"\x7f" * 2_000_000 + b".",
    "a LONG4 that claims more than there is": b"\x80\x02\x8b\xff\xff\xff\x7f\x01.",
    "a text that claims more than there is": b"\x80\x04\x8d" + (2**62).to_bytes(8, "little") + b"x.",
    "bytes that claim more than there are": b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"x.",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "a mapping in itself": b"\x80\x02}q\x00K\x01h\x00s.",
    "nested deeply": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "a tuple nested deeply, as a key": b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"K\x01s.",
    "laughs": b"\x80\x02]" + b"".join(b"q\x000]h\x00ah\x00a" for _ in range(60)) + b".",
    "a mapping with a list as a key": b"\x80\x02}]K\x01s.",
    "an odd mapping": b"\x80\x02}(K\x01u.",
    "an empty stack": b"\x80\x02.",
    "two values": b"\x80\x02NN.",
    "no end": b"\x80\x02N",
    "nothing": b"",
    "no mark": b"\x80\x02]e.",
    "a mark as a value": b"\x80\x02(.",
    "a memo that is not there": b"\x80\x02h\x07.",
    "a name as a value": b"\x80\x02clitellm.types.utils\nMessage\n.",
    "a class of an answer without a state": b"\x80\x02clitellm.types.utils\nModelResponse\n)\x81.",
    "no opcode": b"\x80\x02\xff.",
    "text": b"some text",
    "a text of the old kind": b"S'text'\n.",
    "an array of objects": pickle.dumps(np.array([1, "a"], dtype=object)),
    "a dtype of fields": pickle.dumps(np.zeros(2, dtype=[("a", "<f8")])),
    "an array of the other order": pickle.dumps(np.asfortranarray(np.ones((2, 3)))),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is refused with a message, and nothing happens; what a pickle names is not so much as looked for."""

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("something was imported")

    monkeypatch.setattr(importlib, "import_module", never)
    monkeypatch.setattr(pickle, "loads", never)
    real = builtins.__import__
    names = {"os", "posix", "subprocess", "litellm", "litellm.types.evil"}

    def watched(module: str, *arguments: Any, **options: Any) -> Any:
        assert module not in names
        return real(module, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", watched)
    with pytest.raises(RefusedPickleError) as error:
        read(HOSTILE[name])
    if "system" in str(HOSTILE[name]) and name not in {"INST", "OBJ"}:
        assert "asks for" in str(error.value)  # at once, and not where it would be called


def test_the_hostile_ones_are_what_they_say() -> None:
    """They are not merely damaged: those that are to run something have all the opcodes that it takes."""
    for name in ("os.system by REDUCE", "STACK_GLOBAL", "STACK_GLOBAL out of the memo", "OBJ", "INST", "NEWOBJ of os"):
        assert "STOP" == list(pickletools.genops(HOSTILE[name]))[-1][0].name


def test_too_large() -> None:
    """What is larger than an answer is not looked at."""
    with pytest.raises(RefusedPickleError, match="bytes, more than"):
        read(bytes(pickles.LARGEST + 1))


@given(data=st.binary(max_size=200))
def test_anything(data: bytes) -> None:
    """Any bytes are read or refused."""
    with contextlib.suppress(RefusedPickleError):
        values.check(read(data))


@given(data=st.data())
def test_flipped(data: st.DataObject) -> None:
    """So is any pickle with some of its bytes changed."""
    whole = bytearray(pickle.dumps({"a": [1, 2.5, "x", None], "b": (b"y", {3}), "c": {"d": [True] * 3}}))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(RefusedPickleError):
        values.check(read(bytes(whole)))


def test_secrets_of_an_answer_stay_out() -> None:
    """Of an answer's hidden parameters only the cost is kept: the rest holds headers and addresses."""
    from litellm.types.utils import Choices, Message, ModelResponse

    answer = ModelResponse(id="one", model="m", choices=[Choices(message=Message(content="hello"), index=0)])
    answer._hidden_params = {
        "response_cost": 0.25,
        "additional_headers": {"authorization": "sk-secret"},
        "api_base": "http://x",
    }
    stored = read(pickle.dumps(answer))
    assert "sk-secret" not in str(stored)
    assert "http://x" not in str(stored)
    found = values.loads(orjson.dumps(stored), tagged=True)
    assert ("hello", 0.25) == (found.choices[0].message.content, found._hidden_params["response_cost"])
    assert answer.model_dump() == found.model_dump()
