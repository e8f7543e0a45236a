"""Settings: from pyproject.toml, then the environment, then code; later over earlier."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from platformdirs import user_cache_dir
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    PyprojectTomlConfigSettingsSource,
    SettingsConfigDict,
)

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.policy import Policy

_BUILT_IN = {"compile": "REUSE", "eval": "FRESH"}


class PhaseSettings(BaseModel):
    """What a phase of this name does, as configuration writes it: a preset, and what differs from it.

    Attributes:
        policy: The preset's name. None: the phase's usual one, or REUSE for a new name.
        temperature: As in `Policy`; likewise the next two.
        max_age: As in `Policy`, in seconds.
        scope: As in `Policy`.
        roles: The preset's name for each role that is treated differently.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: str | None = None
    temperature: float | None = None
    max_age: float | None = None
    scope: dict[str, str] | None = None
    roles: dict[str, str] = Field(default_factory=dict)


class Settings(BaseSettings):
    """What can be set: `[tool.dspy_cachectl]` in pyproject.toml, `DSPY_CACHECTL_*`, and `configure()`.

    Attributes:
        store: Where entries live: a folder's path, or `memory://`.
        memory_bytes: The budget of the memory in front of the folder, in bytes; 0 for none.
        disk_bytes: The size at which the folder's oldest entries are removed, in bytes.
        policy: The preset that holds outside any phase.
        phases: What phases do, by name.
        force_recompute: Whether no answer is served that is older than the process, and `evaluate()` draws anew.
    """

    model_config = SettingsConfigDict(
        env_prefix="DSPY_CACHECTL_",
        env_nested_delimiter="__",
        pyproject_toml_table_header=("tool", "dspy_cachectl"),
        pyproject_toml_depth=8,
        extra="forbid",
        frozen=True,
    )

    store: str = Field(default_factory=lambda: user_cache_dir("dspy_cachectl", appauthor=False))
    memory_bytes: int = Field(default=256 * 1024 * 1024, ge=0)
    disk_bytes: int = Field(default=30 * 10**9, gt=0)
    policy: str = "REUSE"
    phases: dict[str, PhaseSettings] = Field(default_factory=dict)
    force_recompute: bool = False

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Code over environment over pyproject.toml."""
        return init_settings, env_settings, PyprojectTomlConfigSettingsSource(settings_cls)

    def phase_policy(self, name: str) -> tuple[Policy, dict[str, Policy]]:
        """Return the policy of a phase, and the policies of its roles.

        Raises:
            ConfigurationError: If the name is not known; the message lists the known ones.
        """
        configured = self.phases.get(name)
        preset = (configured.policy if configured else None) or _BUILT_IN.get(name)
        if preset is None and configured is None:
            known = ", ".join(repr(known) for known in sorted({*_BUILT_IN, *self.phases}))
            raise ConfigurationError(
                f"no phase is called {name!r}; the known ones are {known}. "
                f"Give it a policy: phase({name!r}, Policy.REUSE), or configure it"
            )
        policy = Policy.named(preset or "REUSE")
        if configured is None:
            return policy, {}
        changes = configured.model_dump(include={"temperature", "max_age", "scope"}, exclude_none=True)
        roles = {role: Policy.named(preset) for role, preset in configured.roles.items()}
        return policy.with_overrides(**changes), roles


class _Current:
    """The settings in force. Strictly private."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.overrides: dict[str, Any] = {}
        self.settings: Settings | None = None


_CURRENT = _Current()


def settings() -> Settings:
    """Return the settings in force. Files and environment are read once, and again after `configure()`.

    Raises:
        ConfigurationError: If a setting cannot be used; the message says which, and where it may come from.
    """
    with _CURRENT.lock:
        if _CURRENT.settings is None:
            _CURRENT.settings = _load(_CURRENT.overrides)
        return _CURRENT.settings


def configure(**changes: Any) -> AbstractContextManager[Settings]:
    """Change settings for this process, over what pyproject.toml and the environment say.

    Args:
        **changes: Fields of `Settings`: `store`, `memory_bytes`, `disk_bytes`, `policy`, `phases`,
            `force_recompute`.

    Returns:
        A context manager that undoes the change; it may be ignored.

    Raises:
        ConfigurationError: If a name is unknown or a value cannot be used. Nothing is changed then.
    """
    if isinstance(changes.get("store"), Path):
        changes["store"] = str(changes["store"])
    previous = dict(_CURRENT.overrides)
    merged = {**previous, **changes}
    _load(merged)
    _replace(merged)
    return _until_left(previous)


@contextmanager
def _until_left(previous: dict[str, Any]) -> Iterator[Settings]:
    try:
        yield settings()
    finally:
        _replace(previous)


def reload() -> None:
    """Forget what `configure()` changed, and read files and environment anew at the next use."""
    _replace({})


def _replace(overrides: dict[str, Any]) -> None:
    with _CURRENT.lock:
        _CURRENT.overrides = overrides
        _CURRENT.settings = None


def _load(overrides: dict[str, Any]) -> Settings:
    try:
        loaded = Settings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the settings"
        message = (
            f"setting {where!r}: {first['msg']}. It comes from [tool.dspy_cachectl] in pyproject.toml, "
            f"DSPY_CACHECTL_{where.replace('.', '__').upper()} or configure(); the settings are: "
            f"{', '.join(Settings.model_fields)}"
        )
        raise ConfigurationError(message) from error
    except ValueError as error:
        raise ConfigurationError(f"the settings cannot be read: {error}") from error
    Policy.named(loaded.policy)
    for name in loaded.phases:
        loaded.phase_policy(name)
    return loaded
