"""Responses made as those of their shape were made before, without validating what was valid when it was stored.

The first two responses of a shape are made by the package whose class it is. What became of which field is learned from
them, and the next ones are made likewise: fields are put where they were put then. Two are of one shape where they have
the same names and types all the way down, so that what differs in more than texts and numbers is made by its package.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import pydantic

from dspy_cachectl.boundary.forks import free_after_fork

_CONSTANT = frozenset({str, int, float, bool, type(None)})
_MOST_WAYS = 500
"""How many ways to make something are kept in mind of one kind of response: then it is begun anew."""


class Moulds:
    """What was learned of some kinds of responses. Thread-safe."""

    def __init__(self) -> None:
        self._lock = free_after_fork(threading.Lock())
        self._places: dict[str, _Place] = {}

    def poured(self, kind: str, plain: dict[str, Any], make: Callable[[dict[str, Any]], Any]) -> Any:
        """Return a response that is made of plain fields, of which it takes parts over.

        Args:
            kind: What kind of response it is.
            plain: Its fields, as JSON has them.
            make: Makes it of them where none of its shape was made before. It may change nothing in them.
        """
        place = self._places.get(kind)
        if place is not None:
            try:
                return place.pour(plain)
            except KeyError:
                pass
        made = make(plain)
        with self._lock:
            place = self._places.get(kind)
            if place is None or place.size() > _MOST_WAYS:
                place = self._places[kind] = _Place()
            try:
                place.learn(plain, made)
            except _UnlikeError:
                place.refuse(plain)
        return made


class _UnlikeError(Exception):
    """What was made is not made of the fields alone, or not always in the same way."""


class _Place:
    """A place in a response, and what was made of what stood there: by the names and types of that."""

    def __init__(self) -> None:
        self._seen: dict[Any, _Way] = {}
        self._ways: dict[Any, _Way] = {}  # those of them that held twice

    def pour(self, plain: Any) -> Any:
        """Return what is made of a list or a mapping. Raises KeyError where that is not known."""
        return self._ways[_outline(plain)].pour(plain)

    def learn(self, plain: Any, made: Any) -> None:
        """Learn what was made of something. Raises `_UnlikeError` where that is not always made alike."""
        outline = _outline(plain)
        way = self._seen.get(outline)
        if way is None:
            self._seen[outline] = way = _way(plain, made)
            way.learn(plain, made)
        else:
            way.learn(plain, made)
            self._ways[outline] = way

    def refuse(self, plain: Any) -> None:
        """Make nothing any more of what has this outline."""
        self._seen[_outline(plain)] = self._ways[_outline(plain)] = _Way()

    def size(self) -> int:
        return sum(1 + sum(place.size() for place in way.places()) for way in self._seen.values())


def _outline(plain: Any) -> tuple[Any, ...]:
    if type(plain) is dict:
        kind = plain.get("type")  # by which providers tell parts of one outline apart
        return tuple(plain), tuple(map(type, plain.values())), kind if type(kind) is str else None
    return type(plain), bool(plain)


def _way(plain: Any, made: Any) -> _Way:
    if isinstance(made, pydantic.BaseModel):
        return _Model(plain, made)
    if dataclasses.is_dataclass(made) and hasattr(made, "__slots__") and not hasattr(made, "__dict__"):
        return _Dataclass(plain, made)
    if type(made) is tuple or (type(plain) is list and type(made) is list and made != plain):
        return _Several(type(made))
    return _AsItIs()


class _Way:
    """How something is made of what has one outline; this one: not at all."""

    def pour(self, _: Any) -> Any:
        """Return what is made of it. Raises KeyError where that is not known."""
        raise KeyError

    def learn(self, _: Any, __: Any) -> None:
        """Learn from what was made of something. Raises `_UnlikeError` where it was made in another way before."""
        raise _UnlikeError

    def places(self) -> list[_Place]:
        """Return the places in it."""
        return []


class _AsItIs(_Way):
    """Plain data that stays what it is, where its shape did."""

    def __init__(self) -> None:
        self._shapes: set[Any] = set()

    def pour(self, plain: Any) -> Any:
        if _shape(plain) not in self._shapes:
            raise KeyError
        return plain

    def learn(self, plain: Any, made: Any) -> None:
        if type(made) is not type(plain) or made != plain or len(self._shapes) > _MOST_WAYS:
            raise _UnlikeError
        self._shapes.add(_shape(plain))


def _shape(plain: Any) -> Any:
    kind = type(plain)
    if kind is dict:
        return tuple(plain), tuple(map(_shape, plain.values()))
    return (kind, frozenset(map(_shape, plain))) if kind is list else kind


class _Several(_Way):
    """A list, or a tuple in its place, of things that are each made."""

    def __init__(self, kind: type[list[Any] | tuple[Any, ...]]) -> None:
        self._kind = kind
        self._place = _Place()

    def pour(self, plain: Any) -> Any:
        pour = self._place.pour
        made = [pour(one) for one in plain]
        return made if self._kind is list else tuple(made)

    def learn(self, plain: Any, made: Any) -> None:
        if type(made) is not self._kind or len(made) != len(plain):
            raise _UnlikeError
        for one, its in zip(plain, made, strict=True):
            self._place.learn(one, its)

    def places(self) -> list[_Place]:
        return [self._place]


class _Fields:
    """The fields of an object: those that are plain ones, those that are made of them, and those always the same."""

    def __init__(
        self, plain: dict[str, Any], held: dict[str, Any], is_opaque: Callable[[Any], bool] = lambda _: False
    ) -> None:
        self._always = dict(held)
        there = [name for name in held if name in plain]
        self._taken = [name for name in there if type(plain[name]) in _CONSTANT or is_opaque(held[name])]
        self.made = [(name, _Place()) for name in there if name not in self._taken]
        rest = [name for name in held if name not in plain]
        self._empty = [(name, type(held[name])) for name in rest if held[name] in ([], {})]
        self._constant = [name for name in rest if (name, type(held[name])) not in self._empty]

    def pour(self, plain: dict[str, Any]) -> dict[str, Any]:
        filled = self._always.copy()
        for name in self._taken:
            filled[name] = plain[name]
        for name, place in self.made:
            filled[name] = place.pour(plain[name])
        for name, kind in self._empty:
            filled[name] = kind()
        return filled

    def learn(self, plain: dict[str, Any], held: dict[str, Any]) -> None:
        if list(held) != list(self._always) or any(held[name] != kind() for name, kind in self._empty):
            raise _UnlikeError
        if any(type(held[name]) is not type(plain[name]) or held[name] != plain[name] for name in self._taken):
            raise _UnlikeError
        if not all(_is_same(held[name], self._always[name]) for name in self._constant):
            raise _UnlikeError
        for name, place in self.made:
            place.learn(plain[name], held[name])


def _is_same(value: Any, other: Any) -> bool:
    """Tell whether two values are the same, and cannot be changed."""
    if type(value) not in _CONSTANT:
        try:
            hash(value)  # what has a hash, of a tuple or a frozen dataclass, is frozen all through
        except TypeError:
            return False
        if not (isinstance(value, tuple) or dataclasses.is_dataclass(value)):
            return False
    return type(value) is type(other) and bool(value == other)


class _Dataclass(_Way):
    """An object of a dataclass. A list or a mapping that one of its fields is, is so whatever it holds."""

    def __init__(self, plain: dict[str, Any], made: Any) -> None:
        self._kind = type(made)
        self._fields = _Fields(plain, _held(made), is_opaque=lambda value: type(value) in {list, dict})
        self._setters = [(name, getattr(self._kind, name).__set__) for name in _held(made)]

    def pour(self, plain: Any) -> Any:
        made = object.__new__(self._kind)
        filled = self._fields.pour(plain)
        for name, put in self._setters:
            put(made, filled[name])
        return made

    def learn(self, plain: Any, made: Any) -> None:
        if type(made) is not self._kind:
            raise _UnlikeError
        self._fields.learn(plain, _held(made))

    def places(self) -> list[_Place]:
        return [place for _, place in self._fields.made]


def _held(made: Any) -> dict[str, Any]:
    return {name: getattr(made, name) for name in type(made).__slots__}


class _Model(_Way):
    """An object of pydantic's: its fields, what it has beside them, and what is private."""

    def __init__(self, plain: dict[str, Any], made: pydantic.BaseModel) -> None:
        self._kind, self._set = type(made), frozenset(made.__pydantic_fields_set__)
        self._parts = [
            (name, None if held is None else _Fields({} if name == "__pydantic_private__" else plain, held))
            for name, held in _parts(made)
        ]

    def pour(self, plain: Any) -> Any:
        made, put = object.__new__(self._kind), object.__setattr__
        put(made, "__pydantic_fields_set__", set(self._set))
        for name, fields in self._parts:
            put(made, name, None if fields is None else fields.pour(plain))
        return made

    def learn(self, plain: Any, made: Any) -> None:
        if type(made) is not self._kind or self._set != made.__pydantic_fields_set__:
            raise _UnlikeError
        for (_, fields), (_, held) in zip(self._parts, _parts(made), strict=True):
            if (fields is None) is not (held is None):
                raise _UnlikeError
            if fields is not None and held is not None:
                fields.learn(plain, held)

    def places(self) -> list[_Place]:
        return [place for _, fields in self._parts if fields is not None for _, place in fields.made]


def _parts(made: pydantic.BaseModel) -> list[tuple[str, dict[str, Any] | None]]:
    names = ("__dict__", "__pydantic_extra__", "__pydantic_private__")
    return [(name, getattr(made, name)) for name in names]
