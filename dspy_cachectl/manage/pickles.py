"""What a pickle of DSPy's own cache holds, read without unpickling it.

A pickle is a program for a machine with a stack. Here that machine makes plain data and nothing else: nothing is
imported, called or constructed because a pickle names it. The objects of LiteLLM's answers become their fields.
Whatever else a pickle asks for refuses it.
"""

from __future__ import annotations

import base64
import math
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dspy_cachectl.entries.values import RESPONSE_CLASSES, TAG, dumped_text
from dspy_cachectl.errors import CorruptEntryError

LARGEST = 64 * 1024 * 1024
"""Up to so many bytes a pickle is looked at, and so many its value may take as JSON."""

_DEEPEST = 100
_LEAST = 16
_LARGEST_INT_BITS = 8192
_INT64 = range(-(2**63), 2**64)
_MARK = object()

_PACKAGES = ("litellm.types.", "openai.types.")
_FIELDS_OF = frozenset(
    {"CacheCreationTokenDetails", "ChatCompletionAudioResponse", "ChatCompletionMessageToolCall"}
    | {"ChatCompletionMessageCustomToolCall", "ChatCompletionTokenLogprob", "ChoiceLogprobs", "Choices"}
    | {"CompletionTokensDetails", "CompletionTokensDetailsWrapper", "Content", "Embedding", "Function", "FunctionCall"}
    | {"GenericResponseOutputItem", "HiddenParams", "IncompleteDetails", "InputTokensDetails", "Logprobs", "Message"}
    | {"OutputFunctionToolCall", "OutputText", "OutputTokensDetails", "PromptTokensDetails"}
    | {"PromptTokensDetailsWrapper", "Reasoning", "ResponseAPIUsage", "ResponseFunctionToolCall"}
    | {"ResponseOutputMessage", "ResponseOutputRefusal", "ResponseOutputText", "ResponseReasoningItem"}
    | {"ResponseTextConfig", "ServerToolUse", "Summary", "TextChoices", "TopLogprob", "Usage"}
)
"""The classes of LiteLLM and OpenAI whose objects are taken for their fields, inside an answer."""

_FROM_BUFFER = {("numpy._core.numeric", "_frombuffer"), ("numpy.core.numeric", "_frombuffer")}
_DTYPE = ("numpy", "dtype")
_SET = {("builtins", "set"), ("__builtin__", "set")}
_NUMBERS = re.compile(r"[biufc]\d{1,2}")


class RefusedPickleError(CorruptEntryError):
    """A pickle asks for more than plain data, or is damaged."""


@dataclass(frozen=True)
class _Name:
    """Something that the pickle names. It stays a name."""

    module: str
    name: str

    @property
    def pair(self) -> tuple[str, str]:
        return self.module, self.name


@dataclass(eq=False)
class _Fields:
    """An object of LiteLLM's, or of NumPy's: what it is called, and what it holds."""

    of: _Name
    state: Any = None
    arguments: tuple[Any, ...] = ()


@dataclass
class _Machine:
    """One reading. Strictly private."""

    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise RefusedPickleError("the pickle is damaged: its stack is empty")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise RefusedPickleError("the pickle is damaged: it fills what cannot be filled")
        return self.stack[-1]

    def since_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise RefusedPickleError("the pickle is damaged: it has no mark")

    def some(self, count: int) -> tuple[Any, ...]:
        return tuple(reversed([self.pop() for _ in range(count)]))

    def name(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise RefusedPickleError("the pickle names something in another way than by a text")
        found = _Name(module, name)
        is_field = module.startswith(_PACKAGES) and (name in _FIELDS_OF or RESPONSE_CLASSES.get(name) == module)
        if not (is_field or found.pair == _DTYPE or found.pair in _FROM_BUFFER or found.pair in _SET):
            raise RefusedPickleError(
                f"the pickle asks for {module[:80]!r}.{name[:80]!r}, which is nothing of an answer"
            )
        self.stack.append(found)

    def new(self) -> None:
        of, arguments = self.some(2)
        if not (isinstance(of, _Name) and of.module.startswith(_PACKAGES) and arguments == ()):
            raise RefusedPickleError("the pickle makes an object of what is no class of an answer")
        self.stack.append(_Fields(of))

    def call(self) -> None:
        of, arguments = self.some(2)
        if not isinstance(of, _Name) or type(arguments) is not tuple or of.module.startswith(_PACKAGES):
            raise RefusedPickleError("the pickle calls something")
        if of.pair in _SET:
            self.stack.append(_checked_set(*arguments))
        else:
            self.stack.append(_Fields(of, arguments=arguments))

    def build(self) -> None:
        state, made = self.pop(), self.top(_Fields)
        if made.state is not None or type(state) is not (tuple if made.of.pair == _DTYPE else dict):
            raise RefusedPickleError("the pickle gives an object a state that answers do not have")
        made.state = state


def read(data: bytes) -> Any:
    """Return the value that a pickle holds, in its stored form (see `values`).

    Raises:
        RefusedPickleError: If it is anything but plain data, the answers of LiteLLM and arrays of numbers; if it is
            damaged; or if it is too large.
    """
    if len(data) > LARGEST:
        raise RefusedPickleError(f"the pickle has {len(data)} bytes, more than {LARGEST}")
    machine = _Machine()
    try:
        for code, argument, _ in pickletools.genops(data):
            if code.name == "STOP":
                value = machine.pop()
                if machine.stack:
                    raise RefusedPickleError("the pickle is damaged: it leaves something behind")
                return _Writer().write(value, 0)
            _step(machine, code.name, argument)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError, UnicodeError) as error:
        raise RefusedPickleError(f"the pickle is damaged: {error}") from error
    raise RefusedPickleError("the pickle is damaged: it does not end")


def _step(machine: _Machine, code: str, argument: Any) -> None:
    if code in _VALUES:
        machine.stack.append(_plain(argument))
    elif code in _CONSTANTS:
        machine.stack.append(_CONSTANTS[code]())
    elif code in _ACTIONS:
        _ACTIONS[code](machine, argument)
    elif code not in {"PROTO", "FRAME"}:
        raise RefusedPickleError(f"the pickle does what no answer needs: {code}")


def _plain(value: Any) -> Any:
    if type(value) is int and value.bit_length() > _LARGEST_INT_BITS:
        raise RefusedPickleError("the pickle holds a number of thousands of digits")
    return value


def _set_items(machine: _Machine, items: list[Any]) -> None:
    target = machine.top(dict)
    for key, value in zip(items[::2], items[1::2], strict=True):
        # No other key is made by hashing: what is nested deeply would exhaust the stack.
        if type(key) not in {str, int, float, bool, type(None)}:
            raise RefusedPickleError(f"the pickle has a mapping with a {type(key).__name__} as a key")
        target[key] = value


def _checked_set(items: Any = ()) -> set[Any]:
    found = list(items) if type(items) in {list, tuple, set} else [object()]
    if any(type(item) not in {str, int, float, bool, type(None)} for item in found):
        raise RefusedPickleError("the pickle has a set of what is no number and no text")
    return set(found)


def _add_items(machine: _Machine, _: Any) -> None:
    items = machine.since_mark()
    machine.top(set).update(_checked_set(items))


def _remember(machine: _Machine, place: Any) -> None:
    if not machine.stack or machine.stack[-1] is _MARK:
        raise RefusedPickleError("the pickle is damaged: it remembers nothing")
    machine.memo[len(machine.memo) if place is None else place] = machine.stack[-1]


_VALUES = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE"}
    | {"SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "MARK": lambda: _MARK,
}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "POP": lambda machine, _: _drop(machine),
    "POP_MARK": lambda machine, _: machine.since_mark().clear(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "APPEND": lambda machine, _: _append(machine, [machine.pop()]),
    "APPENDS": lambda machine, _: _append(machine, machine.since_mark()),
    "LIST": lambda machine, _: machine.stack.append(machine.since_mark()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.stack.append(machine.some(1)),
    "TUPLE2": lambda machine, _: machine.stack.append(machine.some(2)),
    "TUPLE3": lambda machine, _: machine.stack.append(machine.some(3)),
    "DICT": lambda machine, _: _dict(machine),
    "SETITEM": lambda machine, _: _set_items(machine, list(machine.some(2))),
    "SETITEMS": lambda machine, _: _set_items(machine, machine.since_mark()),
    "ADDITEMS": _add_items,
    "FROZENSET": lambda machine, _: machine.stack.append(_checked_set(machine.since_mark())),
    "MEMOIZE": lambda machine, _: _remember(machine, None),
    "PUT": _remember,
    "BINPUT": _remember,
    "LONG_BINPUT": _remember,
    "GET": lambda machine, place: machine.stack.append(machine.memo[place]),
    "BINGET": lambda machine, place: machine.stack.append(machine.memo[place]),
    "LONG_BINGET": lambda machine, place: machine.stack.append(machine.memo[place]),
    "GLOBAL": lambda machine, named: machine.name(*named.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.name(*machine.some(2)),
    "NEWOBJ": lambda machine, _: machine.new(),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
}


def _drop(machine: _Machine) -> None:
    machine.stack.pop()


def _append(machine: _Machine, items: list[Any]) -> None:
    machine.top(list).extend(items)


def _dict(machine: _Machine) -> None:
    items = machine.since_mark()
    machine.stack.append({})
    _set_items(machine, items)


class _Writer:
    """Turns what was read into its stored form. What is named again and again is written as often: so it counts."""

    def __init__(self) -> None:
        self._left = LARGEST

    def write(self, value: Any, depth: int) -> Any:
        self._take(_LEAST)
        if depth > _DEEPEST:
            raise RefusedPickleError("the pickle is nested too deeply, or holds itself")
        if value is None or type(value) is bool:
            return value
        if type(value) is str:
            self._take(len(value))
            return dumped_text(value)
        if type(value) is int:
            return value if value in _INT64 else {TAG: "int", "v": hex(value)}
        if type(value) is float:
            return value if math.isfinite(value) else {TAG: "float", "v": repr(value)}
        if type(value) in {bytes, bytearray}:
            self._take(2 * len(value))
            return {TAG: type(value).__name__, "v": base64.b64encode(value).decode("ascii")}
        if type(value) is list:
            return [self.write(item, depth + 1) for item in value]
        if type(value) in {tuple, set}:
            return {TAG: type(value).__name__, "v": [self.write(item, depth + 1) for item in value]}
        if type(value) is dict:
            return self._mapping(value, depth)
        if type(value) is _Fields:
            return self._object(value, depth)
        raise RefusedPickleError("the pickle leaves a name where a value has to be")

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise RefusedPickleError(f"the pickle unfolds to more than {LARGEST} bytes")

    def _mapping(self, value: dict[Any, Any], depth: int) -> Any:
        if TAG not in value and all(type(key) is str and key.isascii() for key in value):
            return {self._named(key): self.write(item, depth + 1) for key, item in value.items()}
        pairs = [[self.write(key, depth + 1), self.write(item, depth + 1)] for key, item in value.items()]
        return {TAG: "map", "v": pairs}

    def _named(self, key: str) -> str:
        self._take(len(key))
        return key

    def _object(self, value: _Fields, depth: int) -> Any:
        if value.of.pair in _FROM_BUFFER:
            return self._array(*value.arguments)
        if not value.of.module.startswith(_PACKAGES) or value.state is None:
            raise RefusedPickleError(f"the pickle leaves a {value.of.name} where a value has to be")
        state = value.state
        parts = [state.get("__dict__", {}), state.get("__pydantic_extra__") or {}]
        private = state.get("__pydantic_private__") or {}
        if not all(type(part) is dict for part in (*parts, private)):
            raise RefusedPickleError("the pickle gives an object a state that answers do not have")
        fields = {**parts[0], **parts[1]}
        hidden = {**fields, **private}.get("_hidden_params")
        fields = {name: item for name, item in fields.items() if not (type(name) is str and name.startswith("_"))}
        written = self._mapping(fields, depth)
        if RESPONSE_CLASSES.get(value.of.name) != value.of.module:
            return written
        return {TAG: "response", "v": written, "of": value.of.name, "cost": _cost_in(hidden)}

    def _array(self, buffer: Any, dtype: Any, shape: Any, order: Any) -> Any:
        if type(buffer) not in {bytes, bytearray} or type(dtype) is not _Fields or dtype.of.pair != _DTYPE:
            raise RefusedPickleError("the pickle makes an array of what is none")
        code, little = dtype.arguments[0], (dtype.state or (0, "<"))[1]
        if type(code) is not str or not _NUMBERS.fullmatch(code) or little not in {"<", ">", "|"}:
            raise RefusedPickleError(f"the pickle makes an array of {code!r}")
        if order != "C" or type(shape) is not tuple or not all(type(size) is int and size >= 0 for size in shape):
            raise RefusedPickleError("the pickle makes an array of no shape")
        if len(buffer) != int(code[1:]) * math.prod(shape):
            raise RefusedPickleError("the pickle makes an array of another size than its numbers")
        self._take(2 * len(buffer))
        data = base64.b64encode(buffer).decode("ascii")
        return {TAG: "array", "v": data, "dtype": f"{little}{code}", "shape": list(shape)}


def _cost_in(hidden: Any) -> float | None:
    if type(hidden) is _Fields and type(hidden.state) is dict:
        parts = [hidden.state.get("__dict__"), hidden.state.get("__pydantic_extra__")]
        hidden = {name: item for part in parts if type(part) is dict for name, item in part.items()}
    cost = hidden.get("response_cost") if type(hidden) is dict else None
    return cost if type(cost) is float and math.isfinite(cost) else None
