"""Which cassette a test or a fixture opens, and how: from markers, options and where it is defined.

Each test has a scope of its own in the cassette of its module, and so has each fixture that outlives a test. Who runs
first, who is left out and which worker runs whom then makes no difference to what anybody replays.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from dspy_cachectl.errors import ConfigurationError

if TYPE_CHECKING:
    from dspy_cachectl.context.open_cassette import Mode
    from dspy_cachectl.entries.cleaning import Redact

Node: TypeAlias = "pytest.Item | pytest.Collector"

MARKER = "cachectl"
FIXTURE = "cachectl_cassette"
MODES = ("replay", "record", "new", "all", "off")

_ARGUMENTS = ("cassette", "mode", "redact")
_PLAIN = (str, int, float, bool, type(None))
_FIXTURE_SUFFIX = " (fixture"


def check(config: pytest.Config) -> None:
    """Look at what the configuration file says.

    Raises:
        pytest.UsageError: If it cannot be used.
    """
    mode, folder = str(config.getini("cachectl_mode")), str(config.getini("cachectl_folder"))
    if mode not in MODES:
        raise pytest.UsageError(f"cachectl_mode is one of {', '.join(MODES)}, not {mode!r}")
    if "://" in folder:
        try:
            _objects(folder)
        except ConfigurationError as error:
            raise pytest.UsageError(f"cachectl_folder: {error}") from None
    elif not folder or Path(folder).is_absolute() or ".." in Path(folder).parts:
        raise pytest.UsageError(
            f"cachectl_folder names a folder beside each test file, or s3://bucket/prefix, not {folder!r}"
        )


@dataclass(frozen=True)
class TestCassette:
    """The cassette that a test or a fixture opens.

    Attributes:
        path: Its file, or its address.
        module: What the scopes of this test file begin with in there; empty in the file's own cassette.
        name: The test or the fixture within its file.
        mode: What is done with calls.
        redact: Applied to each text before it is written, or None.
        what: What it is called in messages.
        command: What pytest is given to run it.
    """

    path: Path | str
    module: str
    name: str
    mode: Mode
    redact: Redact | None
    what: str
    command: str

    @property
    def scope(self) -> str:
        """Whose recordings it replays and makes."""
        return self.module + self.name


def asks(item: pytest.Item) -> bool:
    """Tell whether a test asks for a cassette, whatever the mode."""
    marked = item.get_closest_marker(MARKER) is not None
    everything = bool(item.config.getini("cachectl_all"))
    return item.config.getoption("cachectl") != "off" and (marked or everything or FIXTURE in _fixtures(item))


def of_test(item: pytest.Item) -> TestCassette | None:
    """Return the cassette of a test, or None where it has none.

    Raises:
        ConfigurationError: If a marker of it cannot be used.
    """
    if not asks(item):
        return None
    said = _said(item.iter_markers(MARKER))
    mode = _mode(said, item.config)
    if mode is None:
        return None
    path, module = _place(item, item.path, said.get("cassette"))
    name = name_of(item)
    command = shlex.quote(f"{_relative(item.path, item.config.invocation_params.dir)}::{name}")
    return TestCassette(path, module, name, mode, said.get("redact"), "this test", command)


def of_fixture(
    fixturedef: pytest.FixtureDef[Any],
    node: Node,
    item: pytest.Item,
    asking: Iterable[pytest.Item],
) -> TestCassette | None:
    """Return the cassette of a fixture that outlives a test, or None where it has none.

    It has one if a test that asks for a cassette uses it. That of a class or a module has it in the cassette of the
    test file; that of a package or the session in the cassette of the file that defines it.

    Args:
        fixturedef: The fixture.
        node: What it is set up for: a class, a module, a package or the session.
        item: The test that needs it first.
        asking: The tests that ask for a cassette.
    """
    argument = fixturedef.argname
    users = [one for one in asking if (one is item or argument in _fixtures(one)) and node in one.listchain()]
    at_node = list(node.iter_markers(MARKER))
    said = _said_by_first(sorted(users, key=lambda one: one.nodeid), at_node)
    mode = None if said is None else _mode(said, item.config)
    home = _home(fixturedef, item.config.rootpath)
    if said is None or mode is None:
        return None
    name = f"{argument}{_parameters(fixturedef, item)}{_FIXTURE_SUFFIX})"
    if fixturedef.scope in {"class", "module"}:
        path, module = _place(item, item.path, _said(at_node).get("cassette"))
        if home is not None and home != item.path.resolve():
            name = name.removesuffix(")") + f" of {_relative(home, item.path.resolve().parent)})"
        name = "::".join(filter(None, [name_of(node), name]))
    elif home is not None:
        path, module = _place(item, home, None)
    else:
        return None
    command = shlex.quote(_relative(item.path, item.config.invocation_params.dir))
    return TestCassette(path, module, name, mode, said.get("redact"), f"the fixture {argument!r}", command)


def name_of(node: Node) -> str:
    """Return the name of a test or a class within its file: no plugin changes it, as it may change the node id."""
    chain = node.listchain()
    files = [place for place, one in enumerate(chain) if isinstance(one, pytest.File)]
    return "::".join(one.name for one in chain[files[-1] + 1 if files else -1 :])


def gone(scopes: Iterable[str], module: str, items: Sequence[pytest.Item]) -> set[str]:
    """Return the scopes that were a test's or a fixture's of a test file, and are nobody's any more.

    Args:
        scopes: Those in a cassette.
        module: What the scopes of this file begin with in there.
        items: All tests of the file.
    """
    tests = {name_of(item) for item in items}
    fixtures = {name for item in items for name in _fixtures(item)}

    def is_known(scope: str) -> bool:
        if not scope.startswith(module) or (not module and scope.startswith(("./", "../"))):
            return True
        name = scope.removeprefix(module)
        if name.endswith(")") and _FIXTURE_SUFFIX in name:
            return name[: name.rindex(_FIXTURE_SUFFIX)].split("[")[0].rpartition("::")[2] in fixtures
        return not name or name in tests

    return {scope for scope in scopes if not is_known(scope)}


def _said(marks: Iterable[pytest.Mark]) -> dict[str, Any]:
    """Return what markers say, the closest first: each argument is the closest's that gives it."""
    said: dict[str, Any] = {}
    for mark in marks:
        unknown = [repr(value) for value in mark.args] + [name for name in mark.kwargs if name not in _ARGUMENTS]
        if unknown:
            raise ConfigurationError(
                f"the marker {MARKER!r} takes {', '.join(f'{name}=' for name in _ARGUMENTS)}, not {', '.join(unknown)}"
            )
        for name, value in mark.kwargs.items():
            if value is not None:
                said.setdefault(name, value)
    mode, cassette, redact = (said.get(name) for name in ("mode", "cassette", "redact"))
    if mode is not None and mode not in MODES:
        raise ConfigurationError(f"the marker's mode= is one of {', '.join(map(repr, MODES))}, not {mode!r}")
    if cassette is not None and not (isinstance(cassette, (str, os.PathLike)) and os.fspath(cassette)):
        raise ConfigurationError(f"the marker's cassette= is the name of a file, not {cassette!r}")
    if redact is not None and not callable(redact):
        raise ConfigurationError(f"the marker's redact= is a function from text to text, not {redact!r}")
    return said


def _said_by_first(users: Iterable[pytest.Item], at_node: Sequence[pytest.Mark]) -> dict[str, Any] | None:
    """Return what markers say of the first test that can be understood: the others fail by themselves."""
    for user in users:
        with contextlib.suppress(ConfigurationError):
            return _said([*at_node, *user.iter_markers(MARKER)])
    return None


def _mode(said: dict[str, Any], config: pytest.Config) -> Mode | None:
    """Return what is done with calls, or None without a cassette. A test whose marker says so never has one."""
    if said.get("mode") == "off":
        return None
    mode = config.getoption("cachectl") or said.get("mode") or config.getini("cachectl_mode")
    return None if mode == "off" else mode


def _place(item: pytest.Item, file: Path, cassette: Any) -> tuple[Path | str, str]:
    """Return a cassette's file or address, and what the scopes of a test file begin with in there."""
    folder = str(item.config.getini("cachectl_folder"))
    if "://" in folder or "://" in str(cassette):
        name = _relative(file, item.config.rootpath)
        if cassette is None:
            return f"{_objects(folder)}/{name.removesuffix('.py')}.jsonl", ""
        return _objects(str(cassette) if "://" in str(cassette) else f"{_objects(folder)}/{cassette}"), f"./{name}::"
    own = file.parent / folder / f"{file.stem}.jsonl"
    if cassette is None:
        return own, ""
    path = Path(os.path.normpath(own.parent / cassette))
    if path == own:
        return own, ""
    relative = _relative(file, path.parent)
    return path, f"{relative if relative.startswith('../') else f'./{relative}'}::"


def _objects(address: str) -> str:
    """Return an address in an object store. Raises `ConfigurationError` if it is none."""
    from dspy_cachectl.config import is_objects, objects_of

    if not is_objects(address):
        raise ConfigurationError(f"{address.partition('://')[0]!r} is no object store: s3://, gs:// and az:// are")
    return objects_of(address)


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # on another drive
        return path.as_posix()


def _home(fixturedef: pytest.FixtureDef[Any], root: Path) -> Path | None:
    """Return the file that defines a fixture, or None for an installed plugin's."""
    # Not the file that its code was compiled from: that may have been moved since.
    file = getattr(inspect.unwrap(fixturedef.func), "__globals__", {}).get("__file__")
    path = None if file is None else Path(file).resolve()
    if path is None or not path.is_relative_to(root.resolve()) or "site-packages" in path.parts:
        return None
    return path


def _parameters(fixturedef: pytest.FixtureDef[Any], item: pytest.Item) -> str:
    """Return which of its values a fixture is set up with, by its own parameters and those of the fixtures it uses."""
    callspec = getattr(item, "callspec", None)
    if callspec is None:
        return ""
    definitions = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    used, waiting = {fixturedef.argname}, list(fixturedef.argnames)
    while waiting:
        name = waiting.pop()
        if name not in used:
            used.add(name)
            waiting += [argument for one in definitions.get(name, ()) for argument in one.argnames]
    values = []
    for name in sorted(used & callspec.params.keys()):
        value = callspec.params[name]
        values.append(f"{name}={value!r}" if isinstance(value, _PLAIN) else f"{name}#{callspec.indices[name]}")
    return f"[{', '.join(values)}]" if values else ""


def _fixtures(item: pytest.Item) -> Sequence[str]:
    names: Sequence[str] = getattr(item, "fixturenames", ())
    return names
