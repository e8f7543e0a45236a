"""What is written in pyproject.toml, in the environment and in code, and where. Its form is judged here, no value."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dspy_cachectl.boundary.meant import meant
from dspy_cachectl.boundary.reading import read_toml
from dspy_cachectl.config.checks import Origin, Where, Written, is_blank, named, names_at, shown
from dspy_cachectl.config.other_names import SETTINGS
from dspy_cachectl.errors import ConfigurationError

PREFIX = "DSPY_CACHECTL_"
_PLAIN_PREFIX = re.compile("dspy_?cache_?ctl", re.IGNORECASE)
_FILE = "pyproject.toml"
_TABLE = "dspy_cachectl"
_DEPTH = 8
"""How many folders above the working directory are looked into."""

Found = dict[Where, Written]


def of_file() -> Found:
    """Return what the nearest pyproject.toml says, of the working directory's and those of the folders above it.

    Raises:
        ConfigurationError: If it cannot be read, or says what cannot be set; the message names it.
    """
    path = _nearest()
    if path is None:
        return {}
    origin = Origin(str(path), "file", path.parent)
    tables = read_toml(path)
    _check_table_names(tables, origin)
    for depth, name in enumerate(("tool", _TABLE)):
        tables = tables.get(name, {})
        if not isinstance(tables, dict):
            header = ".".join(("tool", _TABLE)[: depth + 1])
            raise ConfigurationError(
                f"{header} = {shown(tables)} {origin}: write a table, [tool.dspy_cachectl], and the settings below it"
            )
    return dict(_leaves((), tables, origin))


def _check_table_names(tables: dict[str, Any], origin: Origin) -> None:
    """Say of a table that is nearly ours, such as one of the distribution's name, what is meant; others are others'."""
    from difflib import get_close_matches

    headers = {_plain(header): header for header in _headers(tables)}
    near = get_close_matches(_plain(_TABLE), headers, n=1, cutoff=0.85)
    if near:
        raise ConfigurationError(f"[{headers[near[0]]}] {origin}: did you mean [tool.{_TABLE}]?")


def _headers(tables: dict[str, Any]) -> Iterator[str]:
    """Yield the names of the tables that may have been meant for ours, wherever somebody put it."""
    for name, inside in tables.items():
        yield name
        if name.lower() not in ("tool", "tools") or not isinstance(inside, dict):
            continue
        yield from (f"{name}.{tool}" for tool in inside if (name, tool) != ("tool", _TABLE))
        dspy = inside.get("dspy")
        yield from (f"{name}.dspy.{part}" for part in (dspy if isinstance(dspy, dict) else {}))


def _plain(name: str) -> str:
    return re.sub(r"^tools?\.|[-_. ]", "", name.lower())


def of_environment(known: Found, base: Path | None) -> Found:
    """Return what the variables say whose names begin with `DSPY_CACHECTL_`. An empty one says nothing.

    Args:
        known: What pyproject.toml says: the case of a phase's name is as it is there.
        base: What a relative path is relative to.

    Raises:
        ConfigurationError: If one of them is none of ours, or is no JSON where it has to be; the message names it.
    """
    found: Found = {}
    phases = {where[1].lower(): where[1] for where in known if len(where) == 2}
    for variable, value in sorted(os.environ.items()):
        if not _PLAIN_PREFIX.match(variable) or not value.strip():
            continue
        if not variable.upper().startswith(PREFIX):
            raise ConfigurationError(f"there is no setting {Origin(variable, 'variable')}: all begin with {PREFIX}")
        where = tuple(variable[len(PREFIX) :].lower().split("__"))
        if where[0] == "phases":
            where = (*where[:1], *(phases.get(name, name) for name in where[1:2]), *where[2:])
        found.update(_leaves(where, value, Origin(variable, "variable", base)))
    return found


def of_code(changes: Mapping[str, Any]) -> Found:
    """Return what was said in a call of `configure`.

    Raises:
        ConfigurationError: If a name is no setting's.
    """
    return dict(_leaves((), changes, Origin("configure()", "call")))


def variable_of(where: Where) -> str:
    """Return the name of the environment variable of a setting."""
    return PREFIX + "__".join(where).upper()


def _nearest() -> Path | None:
    here = working_directory()
    if here is None:
        return None
    files = (folder / _FILE for folder in (here, *here.parents)[: _DEPTH + 1])
    return next((path for path in files if os.path.lexists(path)), None)


def working_directory() -> Path | None:
    """Return the working directory; None where it was removed."""
    try:
        return Path.cwd()
    except OSError:
        return None


def _leaves(where: Where, value: Any, origin: Origin) -> Iterator[tuple[Where, Written]]:
    """Yield what is set in a value that stands under a name, and, for each phase, that there is one."""
    _check_name(where, origin)
    if is_blank(where, value):
        return
    if not _is_table(where):
        yield where, Written(value, origin)
        return
    if len(where) == 2:
        yield where, Written({}, origin)
    for name, item in _table(where, value, origin).items():
        if not isinstance(name, str):
            raise _no_name(where, name, origin)
        yield from _leaves((*where, name), item, origin)


def _is_table(where: Where) -> bool:
    try:
        names_at(where)
    except KeyError:
        return False
    return True


def _table(where: Where, value: Any, origin: Origin) -> Mapping[Any, Any]:
    what = f"setting {named(where)} {origin}"
    if isinstance(value, str) and origin.kind == "variable":
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(
                f"{what} cannot be read as JSON ({error}): write an object such as {_example(where)}, or a "
                f"variable for each setting such as {PREFIX}PHASES__EVAL__TEMPERATURE"
            ) from error
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{what} cannot be {shown(value)}: it is a table, such as {_example(where)}")
    return value


def _example(where: Where) -> str:
    return '{"tenant": "a"}' if where[-1] == "scope" else _EXAMPLES[len(where)]


_EXAMPLES = {1: '{"eval": {"temperature": 0.7}}', 2: '{"temperature": 0.7}', 3: '{"judge": "REUSE"}'}


def _check_name(where: Where, origin: Origin) -> None:
    """Say of a name that is no setting's which one is close to it."""
    for depth, name in enumerate(where):
        known = names_at(where[:depth]) if _is_table(where[:depth]) else []
        if known is not None and name not in known:
            raise _unknown(where, depth, known, origin)
        if known is None and not name.strip():
            raise _no_name(where[:depth], name, origin)


def _no_name(where: Where, name: object, origin: Origin) -> ConfigurationError:
    inside = f"in {named(where)} " if where else ""
    return ConfigurationError(f"a name {inside}{origin} cannot be {shown(name)}: write a text that is not empty")


def _unknown(where: Where, depth: int, known: list[str], origin: Origin) -> ConfigurationError:
    def full_name(name: str) -> str:
        full = (*where[:depth], name, *where[depth + 1 :])
        return variable_of(full) if origin.kind == "variable" else ".".join(full)

    ours = SETTINGS.get(where[depth]) if depth == 0 else None
    if ours is not None:
        return ConfigurationError(
            f"there is no setting {named(where)} ({origin}): write {shown(full_name(ours[0]))} ({ours[1]})"
        )
    near = meant(where[depth], known)
    guess = f"did you mean {shown(full_name(near[0]))}? " if near else ""
    inside = f" of {named(where[:depth])}" if depth else ""
    return ConfigurationError(
        f"there is no setting {named(where)} ({origin}): {guess}the settings{inside} are: {', '.join(known) or 'none'}"
    )
