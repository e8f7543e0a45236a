"""A pickle is read as data, whatever it asks for: nothing is imported, called or made because it says so."""

from __future__ import annotations

import contextlib
import pickle
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, strategies as st
from pydantic import BaseModel  # noqa: F401 - pydantic imports it when it is asked for, and not when it is watched

from dspy_cachectl.entries import values
from dspy_cachectl.manage import unpickling
from dspy_cachectl.manage.unpickling import RefusedPickleError, Unpickler
from tests.limits import PATIENCE

WATCHED = {"os.system", "subprocess.Popen", "exec", "compile", "pickle.find_class", "os.exec", "open", "import"}
_SEEN: list[str] = []
_WATCHING = [False]


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _WATCHING[0] and event in WATCHED:
        _SEEN.append(f"{event} {arguments}")


sys.addaudithook(_watch)


@pytest.fixture(scope="module")
def unpickler() -> Iterator[Unpickler]:
    """One process for all that does it no harm."""
    with Unpickler() as made:
        yield made


def answer_of(data: bytes) -> bytes:
    """What the process that reads would answer, looked at in this one: while it reads it runs and opens nothing."""
    _SEEN.clear()
    _WATCHING[0] = True
    try:
        reply = unpickling._reply(data)
    finally:
        _WATCHING[0] = False
    assert [] == _SEEN
    return reply


def stored_form(data: bytes) -> Any:
    """What is kept of a pickle."""
    reply = answer_of(data)
    assert reply.startswith(b"+"), reply
    stored = orjson.loads(reply[1:])
    values.check(stored)
    return stored


def back(value: Any, protocol: int = 5) -> Any:
    return values.loads(orjson.dumps(stored_form(pickle.dumps(value, protocol=protocol))), tagged=True)


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


@given(value=PLAIN, protocol=st.sampled_from([4, 5]))
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
    "BUILD of a state that is a text": b"\x80\x02clitellm.types.utils\nMessage\n)\x81X\x01\x00\x00\x00xb.",
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "PERSID": b"Psome id\n.",
    "BINPERSID": b"\x80\x02X\x01\x00\x00\x00xQ.",
    "NEXT_BUFFER": b"\x80\x05\x97.",
    "a huge LONG": b"L" + b"9" * 5000 + b"L\n.",
    "a LONG4 that claims more than there is": b"\x80\x02\x8b\xff\xff\xff\x7f\x01.",
    "a text that claims more than there is": b"\x80\x04\x8d" + (2**62).to_bytes(8, "little") + b"x.",
    "bytes that claim more than there are": b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"x.",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "a mapping in itself": b"\x80\x02}q\x00K\x01h\x00s.",
    "a mapping with a list as a key": b"\x80\x02}]K\x01s.",
    "an odd mapping": b"\x80\x02}(K\x01u.",
    "an empty stack": b"\x80\x02.",
    "no end": b"\x80\x02N",
    "nothing": b"",
    "no mark": b"\x80\x02]e.",
    "a mark as a value": b"\x80\x02(.",
    "a memo that is not there": b"\x80\x02h\x07.",
    "a name as a value": b"\x80\x02clitellm.types.utils\nMessage\n.",
    "a class of an answer without a state": b"\x80\x02clitellm.types.utils\nModelResponse\n)\x81.",
    "no opcode": b"\x80\x02\xff.",
    "text": b"some text",
    "an array of objects": pickle.dumps(np.array([1, "a"], dtype=object)),
    "a dtype of fields": pickle.dumps(np.zeros(2, dtype=[("a", "<f8")])),
    "an array of the other order": pickle.dumps(np.asfortranarray(np.ones((2, 3)))),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name: str) -> None:
    """Each is refused with a message, and nothing happens; what a pickle names is not so much as looked for."""
    assert answer_of(HOSTILE[name]).startswith(b"-")


def test_the_hostile_ones_are_what_they_say() -> None:
    """They are not merely damaged: read as Python reads pickles, those that are to run something run it."""
    for name in ("os.system by REDUCE", "STACK_GLOBAL", "OBJ", "INST"):
        _SEEN.clear()
        _WATCHING[0] = True
        try:
            with contextlib.suppress(TypeError):
                pickle.loads(HOSTILE[name].replace(b"touch x", b"exit 0 "))
        finally:
            _WATCHING[0] = False
        assert any(event.startswith("pickle.find_class ('os', 'system')") for event in _SEEN)


NESTED = b"\x80\x02})" + b"\x85" * 2_000_000 + b"K\x01s."
LAUGHS = b"\x80\x02]" + b"".join(b"q\x000]h\x00ah\x00a" for _ in range(60)) + b"."


def test_what_ends_the_process_that_reads() -> None:
    """It is refused, whatever became of the process, and the next one is read all the same."""
    with Unpickler() as reading:
        assert 1 == reading.read(pickle.dumps(1))
        with pytest.raises(RefusedPickleError, match="ended the process"):
            reading.read(NESTED)
        assert 2 == reading.read(pickle.dumps(2))


def test_what_takes_too_long() -> None:
    """After the limit the process is ended."""
    with Unpickler(seconds=0.5) as reading, pytest.raises(RefusedPickleError, match=r"took more than 0\.5 s"):
        reading.read(LAUGHS)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not hold a process to a limit of memory")
def test_what_takes_too_much_memory(unpickler: Unpickler) -> None:
    """The limit is the process's own; this one has all that it had."""
    shared = b"x" * 10_000_000
    with Unpickler(memory=1024**3, seconds=PATIENCE) as reading:
        assert 10_000_000 < len(str(reading.read(pickle.dumps([shared]))))
        with pytest.raises(RefusedPickleError, match="MemoryError"):
            reading.read(pickle.dumps([shared] * 200))


def test_too_large(unpickler: Unpickler) -> None:
    """What is larger than an answer is not looked at."""
    with pytest.raises(RefusedPickleError, match="bytes, more than"):
        unpickler.read(bytes(unpickling.LARGEST + 1))


def test_nested_deeply_and_in_itself(unpickler: Unpickler) -> None:
    """Neither ends the process."""
    for data in (b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", b"\x80\x02]q\x00h\x00a."):
        with pytest.raises(RefusedPickleError, match=r"nested|recursion"):
            unpickler.read(data)


@given(data=st.binary(max_size=200))
def test_anything(data: bytes) -> None:
    """Any bytes are read or refused."""
    reply = answer_of(data)
    if reply.startswith(b"+"):
        values.check(orjson.loads(reply[1:]))


@given(data=st.data())
def test_flipped(data: st.DataObject) -> None:
    """So is any pickle with some of its bytes changed."""
    whole = bytearray(pickle.dumps({"a": [1, 2.5, "x", None], "b": (b"y", {3}), "c": {"d": [True] * 3}}))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    reply = answer_of(bytes(whole))
    if reply.startswith(b"+"):
        values.check(orjson.loads(reply[1:]))


def test_secrets_of_an_answer_stay_out() -> None:
    """Of an answer's hidden parameters only the cost is kept: the rest holds headers and addresses."""
    from litellm.types.utils import Choices, Message, ModelResponse

    answer = ModelResponse(id="one", model="m", choices=[Choices(message=Message(content="hello"), index=0)])
    answer._hidden_params = {
        "response_cost": 0.25,
        "additional_headers": {"authorization": "sk-secret"},
        "api_base": "http://x",
    }
    stored = stored_form(pickle.dumps(answer))
    assert "sk-secret" not in str(stored)
    assert "http://x" not in str(stored)
    found = values.loads(orjson.dumps(stored), tagged=True)
    assert ("hello", 0.25) == (found.choices[0].message.content, found._hidden_params["response_cost"])
    assert answer.model_dump() == found.model_dump()
