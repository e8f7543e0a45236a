"""Responses made of the leaves of an answer, without validating what was valid when it was stored.

The first two answers of a shape are made by the package whose class they are. What became of which part is learned from
the first and tried on the second; the next ones are made likewise: leaves are put where they were put then. What that
does not get exactly right is made by its package each time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pydantic

from dspy_cachectl.entries.shapes import Constant, Fill, Leaf, Node, Row, Table, filling, filling_fields

_FIXED = (str, int, float, bool, type(None))

_NOTHING: tuple[Node, Any] = Table({}), {}

Learning = Callable[[Node, Any, Any], Fill]


class UnlikeError(Exception):
    """What was made is not made of the answer's parts alone, or not always in the same way."""


class Mould:
    """How something is made of the answers of one shape. Thread-safe.

    Args:
        node: What of an answer it is made of.
        learn: Returns how, of the node, what stood there, and what became of that. Raises `UnlikeError`.
    """

    def __init__(self, node: Node, learn: Learning | None = None) -> None:
        self._node, self._learn = node, learn or recipe
        self._first: tuple[list[Any], Fill] | None = None
        self._recipe: Fill | None = None
        self._is_unlike = False

    def pour(self, leaves: list[Any], make: Callable[[], Any]) -> Any:
        """Return what is made of an answer.

        Args:
            leaves: Its leaves.
            make: Makes it where that is not known.
        """
        # Two threads may both learn: one of them is as good as the other.
        if self._recipe is not None:
            return self._recipe(leaves)
        made = make()
        if not self._is_unlike:
            try:
                self._try(leaves, made)
            except UnlikeError:
                self._is_unlike = True
        return made

    def _try(self, leaves: list[Any], made: Any) -> None:
        if self._first is None:
            self._first = leaves, self._learn(self._node, filling(self._node)(leaves), made)
        elif leaves != self._first[0]:
            if not is_same(self._first[1](leaves), made):
                raise UnlikeError
            self._recipe = self._first[1]


def recipe(node: Node, plain: Any, made: Any) -> Fill:
    """Return how something is made of the leaves of an answer.

    Args:
        node: What of the answer it is made of.
        plain: What stood there in one of them, as JSON has it.
        made: What became of that.

    Raises:
        UnlikeError: If that is not to be seen from this one.
    """
    if isinstance(made, pydantic.BaseModel):
        return recipe_of_model(node, plain, made)
    if dataclasses.is_dataclass(made) and hasattr(made, "__slots__") and not hasattr(made, "__dict__"):
        return _slotted(node, plain, made)
    if is_same(made, plain):
        return filling(node)
    if isinstance(made, dict) and isinstance(node, Table):
        kind, fields = type(made), recipe_of_fields(node, plain, made)
        return lambda leaves: kind(fields(leaves))
    if type(made) in {list, tuple} and isinstance(node, Row) and len(made) == len(node.items):
        items = [recipe(*parts) for parts in zip(node.items, plain, made, strict=True)]
        if type(made) is list:
            return lambda leaves: [item(leaves) for item in items]
        return lambda leaves: tuple([item(leaves) for item in items])
    raise UnlikeError


def recipe_of_fields(node: Node, plain: Any, held: Mapping[str, Any]) -> Fill:
    """Return likewise how the fields of an object are made: of those of the answer that have the same names."""
    children = fields_of(node)
    return filling_fields({name: _field(children.get(name), plain, name, value) for name, value in held.items()})


def fields_of(node: Node) -> Mapping[str, Node]:
    """Return what stands under the names of a mapping; nothing where it is none."""
    return node.fields if isinstance(node, Table) else {}


def _field(child: Node | None, plain: Any, name: str, value: Any) -> Leaf | Constant | Fill:
    if type(value) in {list, dict} and not value:
        kind = type(value)
        return lambda _: kind()
    if isinstance(child, (Table, Row)):
        return recipe(child, plain[name], value)
    if isinstance(child, Leaf):
        if is_same(value, plain[name]):
            return child
    elif _is_fixed(value):
        return Constant(value)
    raise UnlikeError


def _is_fixed(value: Any) -> bool:
    """Tell whether a value cannot be changed."""
    if type(value) in _FIXED:
        return True
    try:
        hash(value)  # what has a hash, of a tuple or a frozen dataclass, is frozen all through
    except TypeError:
        return False
    return isinstance(value, tuple) or dataclasses.is_dataclass(value)


def _slotted(node: Node, plain: Any, made: Any) -> Fill:
    kind, new, children = type(made), object.__new__, fields_of(node)
    constants, taken, inner = [], [], []
    for name in kind.__slots__:
        put, field = getattr(kind, name).__set__, _field(children.get(name), plain, name, getattr(made, name))
        if isinstance(field, Constant):
            constants.append((put, field.value))
        elif isinstance(field, Leaf):
            taken.append((put, field.at))
        else:
            inner.append((put, field))

    def make(leaves: list[Any]) -> Any:
        another = new(kind)
        for put, value in constants:
            put(another, value)
        for put, at in taken:
            put(another, leaves[at])
        for put, make_one in inner:
            put(another, make_one(leaves))
        return another

    return make


def recipe_of_model(node: Node, plain: Any, made: pydantic.BaseModel, private: tuple[Node, Any] = _NOTHING) -> Fill:
    """Return how an object of pydantic's is made. See `recipe`.

    Args:
        node: What of the answer its fields are made of.
        plain: What stood there.
        made: What became of that.
        private: What of the answer its private attributes are made of, and what stood there.
    """
    kind, set_ = type(made), frozenset(made.__pydantic_fields_set__)
    put, new = object.__setattr__, object.__new__
    parts = [
        (name, recipe_of_fields(*(private if name == "__pydantic_private__" else (node, plain)), held))
        for name, held in _parts(made).items()
        if held is not None
    ]
    absent = [name for name, held in _parts(made).items() if held is None]

    def make(leaves: list[Any]) -> Any:
        another = new(kind)
        put(another, "__pydantic_fields_set__", set(set_))
        for name, fields in parts:
            put(another, name, fields(leaves))
        for name in absent:
            put(another, name, None)
        return another

    return make


def _parts(made: pydantic.BaseModel) -> dict[str, dict[str, Any] | None]:
    return {name: getattr(made, name) for name in ("__dict__", "__pydantic_extra__", "__pydantic_private__")}


def is_same(one: Any, other: Any) -> bool:
    """Tell whether two things are alike in all that they are, their types and the order of their fields included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, pydantic.BaseModel):
        are_set = one.__pydantic_fields_set__ == other.__pydantic_fields_set__
        return are_set and is_same(_parts(one), _parts(other))
    if dataclasses.is_dataclass(one):
        return all(is_same(getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(one))
    if isinstance(one, dict):
        return list(one) == list(other) and all(is_same(value, other[name]) for name, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(is_same, one, other))
    return bool(one == other)
