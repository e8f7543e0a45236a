"""Every setting with its value, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from dspy_cachectl.boundary.encryption import Encryption
from dspy_cachectl.boundary.secrets import HIDDEN, is_secret_name, scrub
from dspy_cachectl.config import normal_location, settings, written_settings
from dspy_cachectl.config.checks import Written
from dspy_cachectl.config.shared import readable
from dspy_cachectl.errors import ConfigurationError


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
        settings: All settings; where there is a problem, those that are written somewhere, as far as they can be read.
        problems: What cannot be used, each with where it comes from.
    """

    settings: list[Setting]
    problems: list[str]


def configuration(*, store: str | None = None) -> Configuration:
    """Return every setting and where it comes from.

    Args:
        store: What `--store` says, or None.

    Raises:
        ConfigurationError: If `--store` names what is no folder.
    """
    written: dict[str, Written] = {}
    values: dict[str, Any] = {}
    problems: list[str] = []
    try:
        written = {".".join(where): one for where, one in written_settings().items()}
        values = {name: one.value for name, one in written.items() if one.value != {}}
        values = dict(_flat(settings()))
    except ConfigurationError as error:
        problems.append(scrub(str(error)))
    origins = {name: one.origin.name for name, one in written.items()}
    if store is not None:
        values["store"], origins["store"] = normal_location(store), "--store"
    found = [Setting(name, _shown(name, value), origins.get(name, "default")) for name, value in sorted(values.items())]
    return Configuration(found, problems)


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    items = {one.name: getattr(value, one.name) for one in fields(value)} if is_dataclass(value) else value
    for name, item in items.items():
        path = f"{prefix}{name}"
        if (isinstance(item, Mapping) and item) or is_dataclass(item):
            yield from _flat(item, f"{path}.")
        else:
            yield path, item


def _shown(name: str, value: Any) -> Any:
    if isinstance(value, Encryption):
        return repr(value)
    if is_secret_name(name.rpartition(".")[2]):
        return value and HIDDEN
    if isinstance(value, tuple):
        return [_shown(name, one) for one in value]
    return readable(scrub(value)) if isinstance(value, str) else value
