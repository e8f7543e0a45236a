"""What code does, as a hash: functions, classes, objects, DSPy's modules and LMs, and all that they reach.

One walk serves programs, metrics, judges and embedding functions. A method that calls a helper changes when the helper
does, so functions, classes and constants that the code names are followed through its globals as long as they are the
user's own. Of installed packages code is not followed, but objects are looked into.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from dspy_cachectl.boundary.secrets import is_known_credential
from dspy_cachectl.fingerprints import canonical, classes
from dspy_cachectl.fingerprints.canonical import UnstableError, type_name
from dspy_cachectl.fingerprints.changes import changes_in, globals_used, names_used
from dspy_cachectl.fingerprints.content import checkpoint_of
from dspy_cachectl.fingerprints.endpoints import endpoint_of_lm
from dspy_cachectl.fingerprints.engines import asked_of_lm
from dspy_cachectl.fingerprints.kinds import (
    HIDDEN,
    attributes_of,
    decides_nothing,
    is_code,
    is_dspys,
    is_pythons,
    is_retrieve,
    is_users,
    name_of,
    named,
    owner_of,
    read,
    says_who_asks,
    wrapped,
)
from dspy_cachectl.fingerprints.modules import dspys_in, lms_of, module_parts, sub_modules
from dspy_cachectl.fingerprints.source_text import (
    MAKING,
    imports_in,
    is_own,
    is_own_module,
    names_in,
    source_of,
    text_of_function,
    users_module,
)
from dspy_cachectl.fingerprints.tallies import Tallies

_FOLLOW_AT_MOST = 2000
_PACKAGES_AT_MOST = 100
"""How many things are followed, and into how many objects of packages is looked."""
_DEEPEST = 40
"""How many things are looked at within one another; those further within have their turn after them."""

CALLED = frozenset({"__call__", "forward", "aforward"})
"""The methods of an object that is called."""
_OF_DSPY = frozenset({"callbacks", "history", "stage"})
"""Attributes of DSPy's objects that are their past, or chance."""


def code_fingerprint(value: Any, *, exact: bool = False) -> str:
    """Hash what code does, or what an object is; the same in every process.

    Args:
        value: A function, method, lambda, `functools.partial`, class, or any object.
        exact: Whether everything that it depends on has to be told apart; otherwise what cannot be is left out.

    Returns:
        64 hexadecimal digits.

    Raises:
        UnstableError: If it has to be exact, and rests on something that cannot be told from others of its kind.
    """
    walk = Walk(exact=exact)
    return walk.settled(walk.digest(value)) or Walk(walk.tallies, exact=exact).digest(value)


class Walk:
    """One walk over code and objects. What was met is not looked at again, so that it ends.

    Args:
        tallies: What the code is known to change itself, from an earlier walk: that decides nothing.
        exact: See `code_fingerprint`.
    """

    def __init__(self, tallies: Tallies | None = None, *, exact: bool = False) -> None:
        self._exact = exact
        self.tallies = tallies or Tallies()
        self._marks = self.tallies.marks
        self._packages = self._depth = 0
        self._later: list[Any] = []
        # With the things themselves, so that no other one gets the id of one that was met.
        self._met: dict[int, tuple[Any, str]] = {}

    @property
    def is_cut(self) -> bool:
        """Whether it reached so much that it did not look at all of it."""
        return len(self._met) > _FOLLOW_AT_MOST

    def settled(self, digest: str) -> str | None:
        """Return what this walk found; None where it learned only on its way what counts."""
        return digest if self.tallies.marks == self._marks else None

    def digest(self, value: Any, *, used: frozenset[str] = CALLED) -> str:
        """Hash one thing. Of an object, `used` are its methods that are called."""
        if id(value) not in self._met:
            name = name_of(value)
            if self.is_cut:
                said = f"only the first {_FOLLOW_AT_MOST} things that the code reaches are looked at"
                self.cannot_see(said, name, "reaches too much to be told from others")
                return name
            self._met[id(value)] = value, f"under way: {name}"
            if self._depth >= _DEEPEST:
                self._later.append((value, used))
            else:
                self._met[id(value)] = value, self._hash(value, used)
        return self._met[id(value)][1]

    def _hash(self, value: Any, used: frozenset[str]) -> str:
        self._depth += 1
        try:
            parts = [*self._parts(value, used)]
            while self._depth == 1 and self._later:
                parts += self._parts(*self._later.pop(0))
        finally:
            self._depth -= 1
        return hashlib.sha256("\x1e".join(parts).encode("utf-8", "surrogatepass")).hexdigest()

    def text(self, value: Any, path: str = "", used: frozenset[str] = CALLED) -> str:
        """Return the canonical JSON of a value; what is not plain in it stands there as its hash."""
        stands = functools.partial(self._stands_for, used)
        return canonical.text(value, path=path, fallback=stands, without=self._without)

    def text_of_part(self, value: Any, path: str, apart: Mapping[int, Any], used: frozenset[str]) -> str:
        """Return likewise a part of a program; the modules and LMs that are looked at apart are only named."""

        def stands(held: Any, path: str) -> Any:
            return type_name(type(held)) if id(held) in apart else self._stands_for(used, held, path)

        return canonical.text(value, path=path, fallback=stands, without=self._without)

    def cannot_see(self, said: str, kind: str, why: str = "may hold more than can be seen") -> None:  # noqa: ARG002
        """Note that something is not told from others of its kind; `said` says so in words."""
        if self._exact:
            raise UnstableError("", kind, why=why)

    def _stands_for(self, used: frozenset[str], held: Any, _: str) -> Any:
        """Return what stands for something that is no plain value."""
        if isinstance(held, contextvars.ContextVar):
            with contextlib.suppress(LookupError):  # it has no value here
                held = {"value": held.get()} if not self.tallies.is_changed(held) else dict(dspys_in("", held.get()))
            return {"$is": self.text(held, "", used)} if isinstance(held, dict) else held.name
        if isinstance(held, types.ModuleType):
            return [held.__name__, *self._of_module("", held, used, {held.__name__})]
        if decides_nothing(held) and not self._exact:
            return type_name(type(held))
        if is_code(held) and not is_own(named(held)):
            return [name_of(held), *self._of_package(held)]
        return {"$is": self.digest(held, used=used)}

    def _of_package(self, held: Any) -> Iterator[str]:
        """Describe what of the user's the code of a package closes over, as what a decorator returns does."""
        for cell in getattr(held, "__closure__", None) or ():
            with contextlib.suppress(ValueError):  # not bound yet
                inner = cell.cell_contents
                if is_dspys(inner) or is_users(inner) or (is_code(inner) and is_own(named(inner))):
                    yield self.digest(inner)

    def _without(self, held: Any) -> Any:
        """Return a container without known credentials, and without what the code changes in it."""
        is_changed = self.tallies.is_changed(held) and not self._exact
        changes = functools.partial(self.tallies.has, held)
        if isinstance(held, dict):
            kept = {
                key: item for key, item in list(held.items()) if not (isinstance(key, str) and is_known_credential(key))
            }
            return self._kept(kept, changes) if is_changed else kept
        if not is_changed:
            return held
        if isinstance(held, (set, frozenset)):
            return list(self._kept({item: item for item in held}, changes).values())
        return list(self._kept(dict(enumerate(held)), changes).items())

    def _kept(self, items: Mapping[Any, Any], is_changed: Callable[[Any], bool]) -> dict[Any, Any]:
        """Return of items, or attributes, those that code does not change, and the modules and LMs in the others."""
        kept = {}
        for key, item in items.items():
            if not is_changed(key):
                kept[key] = item
            elif found := [each for _, each in dspys_in("", item)]:
                kept[key] = found  # they decide, whatever else is there
        return kept

    def _parts(self, value: Any, used: frozenset[str]) -> Iterator[str]:
        if isinstance(value, types.MethodType):
            yield self._name_and_text(value.__func__)
            yield self.digest(value.__self__, used=frozenset({value.__name__}))
        elif isinstance(value, types.FunctionType):
            yield from self._function(value)
        elif isinstance(value, type):
            yield from self._class(value, used)
        elif (inner := wrapped(value)) is not None:
            yield self.digest(inner)
        elif isinstance(value, (types.BuiltinFunctionType, types.MethodWrapperType)):
            yield name_of(value)
            yield self.text(owner_of(value), "", used)
        elif is_dspys(value):
            yield from self._module(value) if isinstance(value, sys.modules["dspy"].Module) else self._lm(value)
        else:
            yield from self._object(value, used)

    def _name_and_text(self, function: Any) -> str:
        return self.digest(function) if isinstance(function, types.FunctionType) else self.text(function)

    def _function(self, function: types.FunctionType) -> Iterator[str]:
        if function.__name__ not in MAKING:
            self.tallies.of_code(function)
        used = names_used(function.__code__)
        yield type_name(function)
        yield text_of_function(function)
        yield self.text([list(function.__defaults__ or ()), function.__kwdefaults__ or {}], function.__name__, used)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name != "__class__":
                with contextlib.suppress(ValueError):  # not bound yet
                    yield from self._named(cell, function, name, cell.cell_contents, used)
        for name, held in sorted(vars(function).items()):
            if name not in {"__wrapped__", "_clear_cache"}:  # the latter of a `singledispatch`
                yield from self._named(function, None, name, held, used)
        yield from self._reached(function)
        if (inner := wrapped(function)) is not None:
            # What a decorator closes over counts as much as what it wraps.
            yield self.digest(inner)

    def _reached(self, function: types.FunctionType) -> Iterator[str]:
        used, space = names_used(function.__code__), function.__globals__
        for name in sorted(globals_used(function.__code__) & space.keys()):
            held = space[name]
            if function.__name__ == "__init__" and classes.is_signature(held):
                continue  # what it is used for is in the object, and perhaps tuned there
            yield from self._named(space, function, name, held, used)
        yield from self._imported(function, used)

    def _imported(self, function: types.FunctionType, used: frozenset[str]) -> Iterator[str]:
        """Describe what a function imports as it runs, of the user's modules."""
        found = [*imports_in(function.__code__)]
        found += [(name, 0, ()) for name in sorted(changes_in(function.__code__).imported)]
        for name, level, taken in found:
            try:
                module = users_module(name, level, function.__globals__.get("__package__"))
            except ImportError as error:
                self.cannot_see(f"{function.__qualname__}() imports {name} (not found)", name, f"({error})")
                continue
            if module is None:
                continue
            if not taken:
                yield from self._of_module(name, module, used, {module.__name__})
            for one in taken:
                yield from self._held(f"{name}.{one}", getattr(module, one, None), used)

    def _of_module(self, name: str, module: types.ModuleType, used: frozenset[str], met: set[str]) -> Iterator[str]:
        """Describe what code uses of a module of the user's, and of those in it."""
        if not is_own_module(module.__name__):
            return
        for inner in sorted(used & vars(module).keys()):
            held, path = vars(module)[inner], f"{name}.{inner}"
            if not isinstance(held, types.ModuleType):
                yield from self._named(vars(module), None, inner, held, used, path=path)
            elif held.__name__ not in met:
                yield from self._of_module(path, held, used, met | {held.__name__})

    def _named(
        self,
        space: Any,
        function: types.FunctionType | None,
        name: str,
        held: Any,
        used: frozenset[str],
        *,
        path: str = "",
    ) -> Iterator[str]:
        """Describe what stands under a name, but for a tally: the modules and LMs in that decide all the same."""
        if self._exact:
            # A function that uses a name for nothing but to count in it is the same whatever it has counted.
            if function is not None and name in changes_in(function.__code__).idle:
                return
        elif self.tallies.sets(space, name):
            held = [found for _, found in dspys_in(name, held)]
            if not held:
                return
        yield from self._held(path or name, held, used)

    def _held(self, name: str, held: Any, used: frozenset[str]) -> Iterator[str]:
        """Describe what code reaches under a name."""
        if says_who_asks(name, held) or (not self._exact and decides_nothing(held)):
            return
        try:
            yield f"{name}={self.text(held, name, used)}"
        except UnstableError as error:
            if self._exact:
                raise
            self.cannot_see(f"{name} is nested too deeply to be seen", error.kind)

    def _class(self, kind: type, outer: frozenset[str]) -> Iterator[str]:
        yield type_name(kind)
        if classes.is_signature(kind):
            yield self.text(dict(classes.parts("", kind)))
            return
        used = classes.names_of_class(kind)
        self.tallies.of_object(kind, used)
        yield source_of(kind) or ""
        yield from (self.digest(base) for base in (*kind.__bases__, type(kind)) if is_own(base))
        for name, item in classes.members_of(kind):
            yield from self._named(kind, None, name, item, used)
        yield from (self.digest(one) for one in classes.types_in(kind))
        if "__subclasses__" in used | outer:
            yield from sorted(map(self.digest, filter(is_own, cast("Any", kind).__subclasses__())))

    def _object(self, value: Any, used: frozenset[str]) -> Iterator[str]:
        kind = type(value)
        yield from self._kind(kind)
        if not self._is_looked_into(value):
            return
        attributes, content = read(value)
        if content is HIDDEN:
            self._hides(kind)
            content = None
        names = self.tallies.of_partial(value) if isinstance(value, functools.partial) else used
        names |= self.tallies.of_object(value, used)
        if kind.__module__.startswith("dspy."):
            attributes = {name: item for name, item in attributes.items() if name not in _OF_DSPY}
        if is_retrieve(value):
            yield f"rm:{self.text(sys.modules['dspy'].settings.rm)}"  # it asks the retriever of the settings
        if self.tallies.is_changed(value) and not self._exact:
            attributes = self._kept(attributes, functools.partial(self.tallies.sets, value))
            if isinstance(content, (dict, list, set)):
                items = content if isinstance(content, dict) else dict(enumerate(content))
                content = self._kept(items, functools.partial(self.tallies.has, value))
        for name, item in sorted(attributes.items()):
            yield from self._held(name, item, names)
        yield from self._held("its content", content, names)

    def _is_looked_into(self, value: Any) -> bool:
        if is_users(value) or is_pythons(type(value)):
            return True
        self._packages += 1
        if not self._exact and self._packages <= _PACKAGES_AT_MOST:
            return True
        self._hides(type(value))
        return False

    def _hides(self, kind: type) -> None:
        self.cannot_see(f"what a {type_name(kind)} holds cannot be seen", type_name(kind))

    def _kind(self, kind: type) -> Iterator[str]:
        yield type_name(kind)
        yield from (self.digest(base) for base in kind.__mro__ if is_own(base))

    def _module(self, module: Any) -> Iterator[str]:
        predict, modules = sys.modules["dspy"].Predict, [one for _, one in sub_modules(module)]
        used = frozenset().union(*(self.tallies.of_object(one, CALLED) for one in modules))
        for part, value in module_parts(module, self.tallies.names_of):
            yield f"{part}={self.text(value, part, used)}"
        for name, lm in lms_of(module):
            yield f"{name}:{self.digest(lm)}"
        settings = sys.modules["dspy"].settings
        yield f"adapter:{self.text(settings.adapter)}"
        if any(one.lm is None for one in modules if isinstance(one, predict)):
            yield f"settings:{self.digest(settings.lm)}"

    def _lm(self, lm: Any) -> Iterator[str]:
        yield from self._kind(type(lm))
        facts = [getattr(lm, name, None) for name in ("model", "version", "model_type")]
        facts += [endpoint_of_lm(lm), checkpoint_of(lm)]
        yield self.text([*facts, asked_of_lm(lm, getattr(lm, "kwargs", None) or {})])
        yield from self.own_of_lm(lm)

    def own_of_lm(self, lm: Any) -> Iterator[str]:
        """Describe the attributes of an LM that its class of the user's, or of a package's, has given it."""
        kind = type(lm)
        if kind.__module__.partition(".")[0] not in {"dspy", "dspy_cachectl"}:
            used = self.tallies.of_object(lm, CALLED | {"acall"})
            for name, item in sorted(self._kept(attributes_of(lm), functools.partial(self.tallies.sets, lm)).items()):
                if name not in _of_dspys_lms(cast("Any", kind)):
                    yield from self._held(name, item, used)


@functools.lru_cache(maxsize=64)
def _of_dspys_lms(kind: type) -> frozenset[str]:
    """Return the attributes that DSPy's own code gives an LM, or cachectl's."""
    own = [base for base in kind.__mro__ if base.__module__.partition(".")[0] in {"dspy", "dspy_cachectl"}]
    made = [vars(base)["__init__"] for base in own if "__init__" in vars(base)]
    return frozenset().union({"history", "callbacks"}, *(names_in(function.__code__) for function in made))
