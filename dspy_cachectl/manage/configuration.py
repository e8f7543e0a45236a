"""Every setting with its value, and where it comes from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, PyprojectTomlConfigSettingsSource

from dspy_cachectl.config import PhaseSettings, Settings, settings
from dspy_cachectl.entries.secrets import HIDDEN, is_secret_name, scrub
from dspy_cachectl.errors import ConfigurationError

_PREFIX = "DSPY_CACHECTL_"


@dataclass(frozen=True)
class Setting:
    """A setting.

    Attributes:
        name: Its name; `phases.eval.temperature` for one of a phase.
        value: Its value, without what is secret in it.
        origin: Where it comes from: `default`, a file's path, an environment variable, or the option `--store`.
    """

    name: str
    value: Any
    origin: str


@dataclass(frozen=True)
class Configuration:
    """What is configured.

    Attributes:
        settings: All settings; where there is a problem, those that are written somewhere.
        problems: What cannot be used, each with where it comes from.
    """

    settings: list[Setting]
    problems: list[str]


def configuration(*, store: str | None = None) -> Configuration:
    """Return every setting and where it comes from.

    Args:
        store: What `--store` says, or None.

    Raises:
        ConfigurationError: If pyproject.toml cannot be read at all.
    """
    written = dict(_written())
    try:
        values = dict(_flat(_dumped(settings())))
        problems: list[str] = []
    except ConfigurationError as error:
        values = {name: value for name, (value, _) in written.items()}
        problems = [*_problems(error, written)]
    known = {**values}
    if store is not None:
        known["store"] = store
    found = []
    for name, value in sorted(known.items()):
        origin = "--store" if name == "store" and store is not None else written.get(name, (None, "default"))[1]
        found.append(Setting(name, _shown(name, value), origin))
    return Configuration(found, [scrub(problem) for problem in problems])


def _written() -> Iterator[tuple[str, tuple[Any, str]]]:
    """Yield what is written in pyproject.toml and the environment, the latter last."""
    try:
        file = PyprojectTomlConfigSettingsSource(Settings)
        for name, value in _flat(file()):
            yield name, (value, str(file.toml_file_path))
        for name, value in _flat(EnvSettingsSource(Settings)()):
            yield name, (value, _variable(name))
    except ValueError as error:
        raise ConfigurationError(f"the settings cannot be read: {scrub(str(error))}") from error


def _variable(name: str) -> str:
    parts = name.split(".")
    there = {known.upper(): known for known in os.environ}
    for end in range(len(parts), 0, -1):
        candidate = _PREFIX + "__".join(parts[:end]).upper()
        if candidate in there:
            return there[candidate]
    return f"{_PREFIX}{name.upper()}"


def _problems(error: ConfigurationError, written: Mapping[str, tuple[Any, str]]) -> Iterator[str]:
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        yield str(error)
        return
    for item in cause.errors(include_url=False, include_input=False):
        name = ".".join(map(str, item["loc"]))
        origins = {origin for known, (_, origin) in written.items() if f"{known}.".startswith(f"{name}.")}
        yield f"{name or 'the settings'}: {item['msg']} (from {', '.join(sorted(origins)) or 'default'})"


def _dumped(known: Settings) -> dict[str, Any]:
    plain = known.model_dump()
    plain["phases"] = {
        name: {**PhaseSettings().model_dump(), **phase} for name, phase in sorted(plain["phases"].items())
    }
    return plain


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        path = f"{prefix}{name}"
        if isinstance(item, Mapping) and item:
            yield from _flat(item, f"{path}.")
        else:
            yield path, item


def _shown(name: str, value: Any) -> Any:
    if is_secret_name(name.rpartition(".")[2]):
        return HIDDEN
    return scrub(value) if isinstance(value, str) else value
