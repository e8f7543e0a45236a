"""Every setting with its value, and where it comes from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_settings import EnvSettingsSource, PyprojectTomlConfigSettingsSource

from dspy_cachectl.boundary.secrets import HIDDEN, is_secret_name, scrub
from dspy_cachectl.config import Settings, settings
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
    problems: list[str] = []
    try:
        values = dict(_flat(settings().model_dump()))
    except ConfigurationError as error:
        problems.append(scrub(str(error)))
        values = {name: value for name, (value, _) in written.items()}
    if store is not None:
        values["store"] = store
        written["store"] = (store, "--store")
    origins = {name: origin for name, (_, origin) in written.items()}
    found = [Setting(name, _shown(name, value), origins.get(name, "default")) for name, value in sorted(values.items())]
    return Configuration(found, problems)


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
    """Return the environment variable that a setting comes from: one of its own, or one that holds several as JSON."""
    parts = name.upper().split(".")
    there = {known.upper(): known for known in os.environ}
    candidates = (_PREFIX + "__".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next(there[one] for one in candidates if one in there)


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
