"""The settings in force: what is written, what was changed in code, and who is told of a change."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from dspy_cachectl.boundary.encryption import Encryption
from dspy_cachectl.boundary.forks import free_after_fork
from dspy_cachectl.boundary.meant import question
from dspy_cachectl.boundary.shown import logger_for
from dspy_cachectl.budget import Budget
from dspy_cachectl.config import sources
from dspy_cachectl.config.checks import OFF, ON, Origin, Written, checked, named, pairs_of
from dspy_cachectl.config.location import MEMORY, Stores, folder_of, normal_location
from dspy_cachectl.config.objects import is_objects, mirror_of
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.policy import Policy

DEFAULT_PREDICTIONS = "outputs/cache/predictions"
"""Where predictions are kept where nothing else is said, in the working directory."""
_BUILT_IN = {"compile": "REUSE", "eval": "FRESH"}
_SAID: set[str] = set()
"""The names of phases of which it was said that they are like others."""

logger = logger_for(__name__)


def _store_folder() -> str:
    # Who has moved DSPy's cache, off a network's disk say, means the answers.
    moved = os.environ.get("DSPY_CACHEDIR", "")
    if not moved.strip():
        return _user_folder("cache")
    try:
        folder = folder_of(os.path.join(moved, "dspy_cachectl"))  # noqa: PTH118 - it may be no path
    except ConfigurationError as error:
        raise ConfigurationError(
            f"the store is in what the environment variable DSPY_CACHEDIR names: {error}"
        ) from error
    return str(folder)


def _disk_bytes() -> int:
    limit = os.environ.get("DSPY_CACHE_LIMIT", "").strip()
    if not limit.isdecimal() or not limit.strip("0"):
        return 30 * 10**9
    found: int = checked(("disk_bytes",), Written(limit, Origin("DSPY_CACHE_LIMIT", "variable")))
    return found


def _user_folder(kind: str) -> str:
    import platformdirs

    found: str = getattr(platformdirs, f"user_{kind}_dir")("dspy_cachectl", appauthor=False)
    return found


@dataclass(frozen=True)
class PhaseSettings:
    """What a phase of this name does, as configuration writes it: a preset, and what differs from it.

    Attributes:
        policy: The preset's name. None: the phase's usual one, or REUSE for a new name.
        temperature: As in `Policy`; likewise the next two.
        max_age: As in `Policy`, in seconds.
        scope: As in `Policy`.
        on_drift: As in `Policy`.
        roles: The preset's name for each role that is treated differently.
        budget: What its calls may spend, as `"cost=4, requests=10_000"`; None for no budget.
    """

    policy: str | None = None
    temperature: float | None = None
    max_age: float | None = None
    scope: Mapping[str, str] | None = None
    on_drift: Literal["note", "raise"] | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    budget: str | None = None

    def changes(self) -> dict[str, Any]:
        """Return what differs from the preset."""
        names = ("temperature", "max_age", "scope", "on_drift")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class Settings:
    """What can be set: `[tool.dspy_cachectl]` in pyproject.toml, `DSPY_CACHECTL_*`, and `configure()`.

    Attributes:
        store: Where entries live: a folder's path, `memory://`, or the address of a shared store; or several of these,
            the nearest first. A folder in DSPy's, where DSPY_CACHEDIR names that, and else the user's for caches.
        memory_bytes: The budget of the memory in front of the folder, in bytes; 0 for none.
        disk_bytes: The size at which the folder's oldest entries are removed, in bytes; that of DSPY_CACHE_LIMIT, or 30
            GB.
        policy: The preset that holds outside any phase.
        phases: What phases do, by name.
        predictions: Whether and where `evaluate()` keeps its predictions: "on" for `outputs/cache/predictions` of the
            working directory, "off", a folder's path, or `s3://bucket/prefix` (likewise `gs://` and `az://`).
        predictions_max_age: How old a kept prediction may be to be served, in seconds. Older ones stay, and are asked
            again.
        predictions_compress: Whether files of predictions are compressed.
        force_recompute: Whether no answer is served that is older than the process, and `evaluate()` draws anew.
        guard: Whether a fresh or replay phase looks after calls from bare threads, which carry no phase; for scripts
            and notebooks.
        state: The folder for what has to survive a process, such as what waits for an MLflow server.
        mlflow: Whether anything is logged to MLflow.
        answers_as: Under which other names a model's answers are its own, such as those of a deployment or an alias:
            `"openai/local=llama-3*, openai/auto=*"`, patterns on both sides.
        budget: What all calls of a process may spend, as `"cost=4, requests=10_000, name=nightly"` (see `Budget`);
            with a name it is that of all processes that have it and share a store.
        encryption_key: With which keys entries, predictions and new cassettes are encrypted; None: they are not. Set
            by the environment variable, where several are divided by commas, or by a function in code. The first
            encrypts, and each of them decrypts.
    """

    store: Stores = field(default_factory=_store_folder, repr=False)  # its address may hold a password
    memory_bytes: int = 256 * 1024 * 1024
    disk_bytes: int = field(default_factory=_disk_bytes)
    policy: str = "REUSE"
    phases: Mapping[str, PhaseSettings] = field(default_factory=dict)
    predictions: str = ON
    predictions_max_age: float = 30 * 86400.0
    predictions_compress: bool = False
    force_recompute: bool = False
    guard: bool = True
    state: str = field(default_factory=lambda: _user_folder("state"))
    mlflow: bool = True
    answers_as: str = ""
    budget: str = ""
    encryption_key: Encryption | None = None

    @property
    def predictions_folder(self) -> Path:
        """The folder where predictions are kept, or were before they were switched off. It need not exist.

        Of an object store it is that from which they are sent.
        """
        place = self.predictions_place
        return mirror_of(place, self.state) if is_objects(place) else Path(place)

    @property
    def predictions_place(self) -> str:
        """The same: a folder, or the address of an object store."""
        where = DEFAULT_PREDICTIONS if self.predictions in (ON, OFF) else self.predictions
        return where if is_objects(where) else normal_location(where)

    def names_alike(self, asked: str, answered: Iterable[str]) -> bool:
        """Tell whether it is said that a model answers under these names."""
        said = [pattern for model, pattern in pairs_of(self.answers_as) if fnmatchcase(asked, model)]
        return bool(said) and all(any(fnmatchcase(name, pattern) for pattern in said) for name in answered)

    def phase_budget(self, name: str) -> Budget | None:
        """Return what the calls of a phase may spend; None where nothing is said."""
        configured = self.phases.get(name)
        return Budget.read(configured.budget) if configured is not None and configured.budget else None

    def unknown_phase(self, name: str) -> str | None:
        """Say that no phase is called so, and which ones are known; None where it is one of them."""
        known = sorted({*_BUILT_IN, *self.phases})
        if name in known:
            return None
        guess, ones = question(name, known), ", ".join(map(repr, known))
        return f"no phase is called {name!r}{f': {guess} The' if guess else '; the'} known ones are {ones}."

    def phase_policy(self, name: str) -> tuple[Policy, dict[str, Policy]]:
        """Return the policy of a phase, and the policies of its roles.

        Raises:
            ConfigurationError: If the name is not known; the message lists the known ones.
        """
        configured = self.phases.get(name)
        preset = (configured.policy if configured else None) or _BUILT_IN.get(name)
        if preset is None and configured is None:
            raise ConfigurationError(f"{self.unknown_phase(name)} Give it a policy: phase({name!r}, Policy.REUSE)")
        policy = Policy.named(preset or "REUSE")
        if configured is None:
            return policy, {}
        roles = {role: Policy.named(preset) for role, preset in configured.roles.items()}
        return policy.with_overrides(**configured.changes()), roles


class _Change(AbstractContextManager[Settings]):
    """What one call of `configure` changed, until its block is left. Strictly private."""

    def __init__(self, found: sources.Found) -> None:
        self.found = found

    def __enter__(self) -> Settings:
        return settings()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _CURRENT.lock:
            # Its own change and no other: blocks of several threads end in any order.
            _CURRENT.replace([layer for layer in _CURRENT.layers if layer.change() is not self])
        _CURRENT.tell()


@dataclass(frozen=True)
class _Layer:
    """What a call of `configure` said. Nobody can take it back once nobody holds its block. Strictly private."""

    found: sources.Found
    change: Callable[[], _Change | None]


class _Current:
    """The settings in force. Strictly private."""

    def __init__(self) -> None:
        self.lock = free_after_fork(threading.RLock())
        self.layers: list[_Layer] = []
        self.of_file: sources.Found | None = None
        self.base: Path | None = None
        self.settings: Settings | None = None
        self.told: list[Callable[[], None]] = []

    def written(self, layers: list[_Layer]) -> sources.Found:
        """Return what is written anywhere, later over earlier. A file is read once, the environment each time."""
        with self.lock:
            if self.of_file is None:
                self.of_file, self.base = sources.of_file(), sources.working_directory()
            found = {**self.of_file, **sources.of_environment(self.of_file, self.base)}
            for layer in layers:
                found.update(layer.found)
            return found

    def replace(self, layers: list[_Layer]) -> None:
        """Let other changes be in force."""
        self.layers = layers
        self.settings = None

    def tell(self) -> None:
        """Tell who has to know of a change. Not under the lock: who is told has locks of its own."""
        for tell in self.told:
            tell()


_CURRENT = _Current()


def settings() -> Settings:
    """Return the settings in force. Files and environment are read once, and the latter again after `configure()`.

    Raises:
        ConfigurationError: If a setting cannot be used; the message says which, where it stands and what to write.
    """
    current = _CURRENT.settings
    if current is not None:
        return current
    with _CURRENT.lock:
        if _CURRENT.settings is None:
            _CURRENT.settings = _made_of(_CURRENT.written(_CURRENT.layers))
        return _CURRENT.settings


def setting_now(name: Literal["state", "mlflow"]) -> Any:
    """Return one setting as the environment says at this moment: it may be switched while a process runs.

    Raises:
        ConfigurationError: As for `settings`, but for what is wrong with the value of another.
    """
    one = _CURRENT.written(_CURRENT.layers).get((name,))
    return getattr(Settings(**({} if one is None else {name: checked((name,), one)})), name)


def written_settings() -> sources.Found:
    """Return what is written anywhere, as it is written, by its name and with where that is.

    Raises:
        ConfigurationError: If something cannot be read, or is no setting.
    """
    return _CURRENT.written(_CURRENT.layers)


def configure(**changes: Any) -> AbstractContextManager[Settings]:
    """Change settings for this process, over what pyproject.toml and the environment say, from the next call on.

    Args:
        **changes: Fields of `Settings`: `store`, `memory_bytes`, `disk_bytes`, `policy`, `phases`, `predictions`,
            `predictions_max_age`, `predictions_compress`, `force_recompute`, `guard`, `state`, `mlflow`, `answers_as`,
            `budget`, `encryption_key`. An empty text, or None, leaves a setting as it is.

    Returns:
        A context manager that undoes the change; it may be ignored.

    Raises:
        ConfigurationError: If a name is unknown or a value cannot be used. Nothing is changed then.
    """
    change = _Change(_fixed(sources.of_code(changes)))
    with _CURRENT.lock:
        layers = [*_without_the_dead(_CURRENT.layers), _Layer(change.found, weakref.ref(change))]
        _made_of(_CURRENT.written(layers))
        _CURRENT.replace(layers)
    _CURRENT.tell()
    return change


def on_change(tell: Callable[[], None]) -> None:
    """Call this whenever settings have changed."""
    _CURRENT.told.append(tell)


def reload() -> None:
    """Forget what `configure()` changed, and read files and environment anew at the next use."""
    with _CURRENT.lock:
        _CURRENT.layers, _CURRENT.of_file, _CURRENT.settings = [], None, None


def _fixed(found: sources.Found) -> sources.Found:
    """Return what was said in code with its values checked: a relative path is meant where it was said."""
    return {where: Written(checked(where, one), one.origin) if len(where) != 2 else one for where, one in found.items()}


def _without_the_dead(layers: list[_Layer]) -> list[_Layer]:
    """Put neighbours together that nobody can take back, so that there are no more of them than open blocks."""
    kept: list[_Layer] = []
    for layer in layers:
        if kept and layer.change() is None and kept[-1].change() is None:
            kept[-1] = _Layer({**kept[-1].found, **layer.found}, layer.change)
        else:
            kept.append(layer)
    return kept


def _made_of(found: sources.Found) -> Settings:
    top = {where[0]: checked(where, one) for where, one in found.items() if len(where) == 1}
    phases: dict[str, dict[str, Any]] = {}
    for where, one in found.items():
        if len(where) == 1:
            continue
        of_phase = phases.setdefault(where[1], {})
        if len(where) == 3:
            of_phase[where[2]] = checked(where, one)
        elif len(where) == 4:
            of_phase.setdefault(where[2], {})[where[3]] = checked(where, one)
    made = Settings(**top, phases={name: PhaseSettings(**values) for name, values in phases.items()})
    if made.store == MEMORY and not made.memory_bytes:
        origin = found[("memory_bytes",)].origin
        raise ConfigurationError(
            f"setting 'memory_bytes' {origin} cannot be 0: nothing fits into a store in memory then"
        )
    for name in phases:
        _look_at_name(name, found)
        _check_phase(made, name, found)
    return made


def _look_at_name(name: str, found: sources.Found) -> None:
    """Say once of a phase in the settings that its name is nearly a known one. It may be the user's own."""
    near = "" if name.startswith(tuple(_BUILT_IN)) else question(name, _BUILT_IN, cutoff=0.8)
    if near and name not in _SAID:
        _SAID.add(name)
        origin = next(one.origin for where, one in found.items() if where[1:2] == (name,))
        logger.warning(
            "setting %s %s: no phase is called so but by phase(%r): %s", named(("phases", name)), origin, name, near
        )


def _check_phase(made: Settings, name: str, found: sources.Found) -> None:
    """Say of values that do not go together, such as a temperature of a phase that reuses, where they stand."""
    try:
        made.phase_policy(name)
    except ConfigurationError as error:
        said = dict.fromkeys(f"{named(where)} {one.origin}" for where, one in found.items() if where[1:2] == (name,))
        raise ConfigurationError(f"setting {', '.join(said)}: {error}") from error
