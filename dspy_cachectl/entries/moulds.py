"""Responses made of the leaves of an answer, without validating what was valid when it was stored.

The first two answers of a shape are made by the package whose class they are. What became of which part is learned from
the first and tried on the second; the next ones are made likewise: leaves are put where they were put then. What that
does not get exactly right is made by its package each time.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import pydantic

from dspy_cachectl.entries.shapes import Constant, Leaf, Node, Row, Table, plain_at

_FIXED = (str, int, float, bool, type(None))

_NOTHING: tuple[Node, Any] = Table({}), {}


class UnlikeError(Exception):
    """What was made is not made of the answer's parts alone, or not always in the same way."""


class Recipe:
    """How something is made of leaves: Python that is written as that is learned, and compiled to be tried.

    Nothing that an answer says is a part of that Python. It calls values by numbers, and they are handed to it.
    """

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._steps: list[str] = []
        self.new = self.value(object.__new__)
        self.put = self.value(object.__setattr__)

    def value(self, value: Any) -> str:
        """Return what a value is called."""
        name = f"v{len(self._values)}"
        self._values[name] = value
        return name

    def do(self, step: str) -> None:
        """Do something before what is to come."""
        self._steps.append(step)

    def object(self, kind: type) -> str:
        """Make an object with nothing in it. Return what it is called."""
        name = f"o{len(self._steps)}"
        self.do(f"{name} = {self.new}({self.value(kind)})")
        return name

    def mapping(self, fields: Mapping[str, str]) -> str:
        """Return a mapping of names to what is called so."""
        return f"{{{', '.join(f'{self.value(name)}: {field}' for name, field in fields.items())}}}"

    def plain(self, node: Node) -> str:
        """Return what stands at a place of an answer, as JSON has it."""
        if isinstance(node, Leaf):
            return f"leaves[{node.at}]"
        if isinstance(node, Constant):
            return self.value(node.value)
        if isinstance(node, Row):
            return f"[{', '.join(map(self.plain, node.items))}]"
        return self.mapping({name: self.plain(item) for name, item in node.fields.items()})

    def compiled(self, result: str) -> Callable[[list[Any]], Any]:
        """Return what makes of leaves what is called so.

        Raises:
            UnlikeError: If it is nested more deeply than Python reads.
        """
        lines = "\n    ".join(["def make(leaves):", *self._steps, f"return {result}"])
        try:
            exec(compile(lines, "<recipe>", "exec"), self._values)  # noqa: S102 - it holds numbers, and no text
        except (SyntaxError, MemoryError, RecursionError) as error:
            raise UnlikeError from error
        made: Callable[[list[Any]], Any] = self._values["make"]
        return made


Learning = Callable[[Recipe, Node, Any, Any], str]


class Mould:
    """How something is made of the answers of one shape. Thread-safe.

    Args:
        node: What of an answer it is made of.
        learn: Returns how, of the node, what stood there, and what became of that. Raises `UnlikeError`.
    """

    def __init__(self, node: Node, learn: Learning | None = None) -> None:
        self._node, self._learn = node, learn or made_of
        self._first: tuple[list[Any], Any] | None = None
        self._make: Callable[[list[Any]], Any] | None = None
        self._is_unlike = False

    def pour(self, leaves: list[Any], make: Callable[[], Any]) -> Any:
        """Return what is made of an answer.

        Args:
            leaves: Its leaves.
            make: Makes it where that is not known.
        """
        # Two threads may both learn: one of them is as good as the other.
        if self._make is not None:
            return self._make(leaves)
        made = make()
        if not self._is_unlike:
            try:
                self._try(leaves, made)
            except UnlikeError:
                self._is_unlike = True
        return made

    def _try(self, leaves: list[Any], made: Any) -> None:
        if self._first is None:
            recipe = Recipe()
            result = self._learn(recipe, self._node, plain_at(self._node, leaves), made)
            self._first = leaves, functools.partial(recipe.compiled, result)
        elif leaves != self._first[0]:
            make = self._first[1]()
            if not is_same(make(leaves), made):
                raise UnlikeError
            self._make = make


def made_of(recipe: Recipe, node: Node, plain: Any, made: Any) -> str:
    """Return how something is made of the leaves of an answer.

    Args:
        recipe: What it is written in.
        node: What of the answer it is made of.
        plain: What stood there in one of them, as JSON has it.
        made: What became of that.

    Raises:
        UnlikeError: If that is not to be seen from this one.
    """
    if isinstance(made, pydantic.BaseModel):
        return model_of(recipe, node, plain, made)
    if dataclasses.is_dataclass(made) and hasattr(made, "__slots__") and not hasattr(made, "__dict__"):
        return _slotted(recipe, node, plain, made)
    if is_same(made, plain):
        return recipe.plain(node)
    if isinstance(made, dict) and isinstance(node, Table):
        return f"{recipe.value(type(made))}({fields_of(recipe, node, plain, made)})"
    if type(made) in {list, tuple} and isinstance(node, Row) and len(made) == len(node.items):
        items = "".join(f"{made_of(recipe, *parts)}, " for parts in zip(node.items, plain, made, strict=True))
        return f"[{items}]" if type(made) is list else f"({items})"
    raise UnlikeError


def fields_of(recipe: Recipe, node: Node, plain: Any, held: Mapping[str, Any]) -> str:
    """Return likewise how the fields of an object are made: of those of the answer that have the same names."""
    children = parts_of(node)
    return recipe.mapping(
        {name: _field(recipe, children.get(name), plain, name, value) for name, value in held.items()}
    )


def parts_of(node: Node) -> Mapping[str, Node]:
    """Return what stands under the names of a mapping; nothing where it is none."""
    return node.fields if isinstance(node, Table) else {}


def _field(recipe: Recipe, child: Node | None, plain: Any, name: str, value: Any) -> str:
    if type(value) in {list, dict} and not value:
        return repr(value)
    if isinstance(child, (Table, Row)):
        return made_of(recipe, child, plain[name], value)
    if isinstance(child, Leaf):
        if is_same(value, plain[name]):
            return recipe.plain(child)
    elif _is_fixed(value):
        return recipe.value(value)
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


def _slotted(recipe: Recipe, node: Node, plain: Any, made: Any) -> str:
    kind, children = type(made), parts_of(node)
    fields = {name: _field(recipe, children.get(name), plain, name, getattr(made, name)) for name in kind.__slots__}
    another = recipe.object(kind)
    for name, field in fields.items():
        # A frozen class guards its fields, and not those who know where they are.
        recipe.do(f"{recipe.value(getattr(kind, name).__set__)}({another}, {field})")
    return another


def model_of(
    recipe: Recipe, node: Node, plain: Any, made: pydantic.BaseModel, private: tuple[Node, Any] = _NOTHING
) -> str:
    """Return how an object of pydantic's is made. See `made_of`.

    Args:
        recipe: See there.
        node: What of the answer its fields are made of.
        plain: What stood there.
        made: What became of that.
        private: What of the answer its private attributes are made of, and what stood there.
    """
    parts = {
        name: fields_of(recipe, *(private if name == "__pydantic_private__" else (node, plain)), held)
        if held is not None
        else "None"
        for name, held in _parts(made).items()
    }
    parts["__pydantic_fields_set__"] = f"{recipe.value(set)}({recipe.value(frozenset(made.__pydantic_fields_set__))})"
    another = recipe.object(type(made))
    for name, part in parts.items():
        recipe.do(f"{recipe.put}({another}, {recipe.value(name)}, {part})")
    return another


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
