"""An answer in two parts: its shape, which most answers to a program's calls have in common, and its leaves.

The shape says what stands where, and all that most answers of it say alike: names, kinds, whether something is there.
Leaves are the other texts and numbers, in their order; a long text that an answer says again is one leaf. A shape is
read once, and answers of it are then made of their leaves, without a look at what else they have in common.

A shape is JSON: in the place of each leaf stands a number, which tells its place among the leaves and its type. What is
empty or 0 is no leaf, since packages treat it otherwise: numbers below 0 stand for zeros.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import orjson

from dspy_cachectl.boundary.reading import parsed
from dspy_cachectl.errors import CorruptEntryError

_TYPES = (str, int, float)
_ALIKE = frozenset(
    "$ _dspy_format finish_reason kind model object of reason response_model role service_tier status type".split()  # noqa: SIM905
)
"""Under which names most answers say the same."""
_ZEROS: dict[int, float] = {-1: 0, -2: 0.0, -3: -0.0}
_NUMBERS_OF_ZEROS = {repr(zero): number for number, zero in _ZEROS.items()}  # two of them are equal
_SHORT, _LONG = 80, 16
"""How many characters such a text has at most, and from how many on a leaf is looked for among those before it."""
_MOST_LEAVES, _LONGEST, _LENGTH_BYTES = 250, 8192, 2
"""How many leaves a shape has at most, and bytes: those of larger ones are seldom alike."""
_KNOWN = 200
"""How many shapes are kept in mind."""


class Leaf(NamedTuple):
    """A place that a leaf has, by its number."""

    at: int


class Constant(NamedTuple):
    """A place at which all answers of the shape have the same, which cannot be changed."""

    value: Any


@dataclass(frozen=True)
class Table:
    """A place at which there is a mapping, and what is under its names."""

    fields: Mapping[str, Node]


@dataclass(frozen=True)
class Row:
    """A place at which there is a list, and what is in it."""

    items: tuple[Node, ...]


Node: TypeAlias = Leaf | Constant | Table | Row


class Shape:
    """A shape that was read.

    Attributes:
        root: What an answer consists of.
        mould: How what such answers stand for is made; None where nothing is known of it yet (see `moulds`).
    """

    def __init__(self, text: bytes) -> None:
        types: dict[int, type] = {}
        try:
            self.root = _node(parsed(text), types)
            self._types = [types[at] for at in range(len(types))]
        except (KeyError, RecursionError) as error:
            raise CorruptEntryError("the entry's shape cannot be decoded") from error
        self.mould: Any = None

    def check(self, leaves: Any) -> list[Any]:
        """Return leaves, where they are those of such an answer.

        Raises:
            CorruptEntryError: If they are not.
        """
        if type(leaves) is not list or list(map(type, leaves)) != self._types:
            raise CorruptEntryError("the entry's answer is not of the shape that it says")
        return leaves


class Shaped(NamedTuple):
    """An answer of a known shape."""

    shape: Shape
    leaves: list[Any]

    def plain(self) -> Any:
        """Return it as JSON has it."""
        return plain_at(self.shape.root, self.leaves)


def taken_apart(plain: Any) -> bytes | None:
    """Return the shape and the leaves of an answer; None where answers are seldom of its shape, or JSON lacks a part.

    Args:
        plain: An answer as JSON has it, or anything.
    """
    leaves: list[Any] = []
    try:
        shape, own = orjson.dumps(_SHAPES[type(plain)](plain, "", leaves, {})), orjson.dumps(leaves)
    except (_NoShapeError, KeyError, RecursionError, TypeError):
        return None
    if len(shape) > _LONGEST:
        return None
    return b"".join((len(shape).to_bytes(_LENGTH_BYTES, "big"), shape, own))


def opened(data: bytes) -> Shaped:
    """Return the answer that `taken_apart` took apart.

    Raises:
        CorruptEntryError: If the bytes are none.
    """
    known, leaves = parts(data)
    shape = _known(known)
    return Shaped(shape, shape.check(parsed(leaves)))


def parts(data: bytes) -> tuple[bytes, bytes]:
    """Return the shape and the leaves, each as JSON, of an answer that was taken apart. Raises as `opened` does."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "big")
    if length > _LONGEST:  # it is kept in mind, and takes many times as much memory
        raise CorruptEntryError(f"the entry's shape has {length:,} bytes, and no more than {_LONGEST:,} are written")
    leaves_from = _LENGTH_BYTES + length
    return data[_LENGTH_BYTES:leaves_from], data[leaves_from:]


_known = functools.lru_cache(maxsize=_KNOWN)(Shape)


class _NoShapeError(Exception):
    """A value has too many leaves, or a number has no form in JSON."""


def _table(fields: dict[str, Any], _: str, leaves: list[Any], long: dict[str, int]) -> Any:
    return {name: _SHAPES[type(item)](item, name, leaves, long) for name, item in fields.items()}


def _row(items: list[Any], name: str, leaves: list[Any], long: dict[str, int]) -> Any:
    return [_SHAPES[type(item)](item, name, leaves, long) for item in items]


def _constant(value: Any, *_: Any) -> Any:
    return value


def _text(text: str, name: str, leaves: list[Any], long: dict[str, int]) -> Any:
    if not text or (name in _ALIKE and len(text) <= _SHORT):
        return text
    at = len(leaves)
    if len(text) >= _LONG and (known := long.setdefault(text, at)) != at:
        return known * len(_TYPES)
    return _added(text, leaves)


def _number(number: float, _: str, leaves: list[Any], __: dict[str, int]) -> Any:
    if not number:
        return _NUMBERS_OF_ZEROS[repr(number)]
    if number - number:  # it is infinite, or none
        raise _NoShapeError
    return _added(number, leaves)


def _added(leaf: Any, leaves: list[Any]) -> int:
    at = len(leaves)
    if at >= _MOST_LEAVES:
        raise _NoShapeError
    leaves.append(leaf)
    return at * len(_TYPES) + _TYPES.index(type(leaf))


_SHAPES: dict[type, Callable[..., Any]] = {
    dict: _table,
    list: _row,
    str: _text,
    int: _number,
    float: _number,
    bool: _constant,
    type(None): _constant,
}
"""What makes a shape of a value of each kind, given its name, and adds its leaves."""


def _node(shape: Any, types: dict[int, type]) -> Node:
    if isinstance(shape, dict):
        return Table({name: _node(item, types) for name, item in shape.items()})
    if isinstance(shape, list):
        return Row(tuple([_node(item, types) for item in shape]))
    if type(shape) is not int:
        return Constant(shape)
    if shape < 0:
        return Constant(_ZEROS[shape])
    at, kind = divmod(shape, len(_TYPES))
    if types.setdefault(at, _TYPES[kind]) is not _TYPES[kind]:
        raise KeyError(at)
    return Leaf(at)


def plain_at(node: Node, leaves: list[Any]) -> Any:
    """Return what stands at a place of an answer, as JSON has it."""
    if isinstance(node, Leaf):
        return leaves[node.at]
    if isinstance(node, Constant):
        return node.value
    if isinstance(node, Row):
        return [plain_at(item, leaves) for item in node.items]
    return {name: plain_at(item, leaves) for name, item in node.fields.items()}
