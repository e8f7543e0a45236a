"""Whether everything around a store is as it has to be, and what to do where it is not. Without importing dspy.

Each check is a function of its own that returns what it found. A new one is a function, and its name in `CHECKS`.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from dspy_cachectl.boundary import file_systems
from dspy_cachectl.boundary.ages import age_of
from dspy_cachectl.boundary.checkouts import checkout_problems
from dspy_cachectl.boundary.ownership import database_head
from dspy_cachectl.boundary.privacy import problems_of
from dspy_cachectl.boundary.secrets import scrub, without_credentials
from dspy_cachectl.config import settings, shared_of
from dspy_cachectl.errors import CachectlError, ConfigurationError, FormatVersionError, StoreError
from dspy_cachectl.manage import snapshots
from dspy_cachectl.manage.repair import quarantine_of
from dspy_cachectl.manage.verification import database_problem
from dspy_cachectl.reports.texts import age as shown_age, plural, size
from dspy_cachectl.stores.missed import waiting_beside
from dspy_cachectl.stores.reader import DATABASE, FolderReader
from dspy_cachectl.tracking.deadline import TimeLimiter

Level = Literal["ok", "warning", "error"]

COMPROMISED = {"litellm": frozenset({"1.82.7", "1.82.8", "1.107.0"})}
"""Releases that steal credentials."""

_SHOWN = ("dspy-cachectl", "dspy", "litellm", "diskcache", "mlflow")
_OPTIONAL = frozenset({"mlflow"})
_LARGE_LOG = 64 * 1024 * 1024
_LITTLE_ROOM = 200 * 1000**2


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        name: What was checked.
        level: Whether it is as it has to be.
        message: What was found.
        remedy: What to do about it, or "".
    """

    name: str
    level: Level
    message: str
    remedy: str = ""


@dataclass(frozen=True)
class Surroundings:
    """What is looked at.

    Attributes:
        folder: Returns the store's folder, None for a store in memory, or raises what keeps it from being told.
        timeout: How long a tracking server may take to answer, in seconds.
        shared: Returns the addresses of the shared stores; likewise.
    """

    folder: Callable[[], Path | None]
    timeout: float = 3.0
    shared: Callable[[], Sequence[str]] = tuple


Check = Callable[[Surroundings], Iterator[Finding]]


def diagnose(around: Surroundings) -> list[Finding]:
    """Run all checks. One that fails itself is an error among the findings; what keeps several from it is said once."""
    found: list[Finding] = []
    for check in CHECKS:
        name = check.__name__.removeprefix("check_").replace("_", " ")
        try:
            found.extend(check(around))
        except CachectlError as error:
            if str(error) not in {finding.message for finding in found}:
                found.append(Finding(name, "error", str(error)))
        except Exception as error:  # noqa: BLE001 - whatever is wrong here, the other checks are worth having
            found.append(Finding(name, "error", f"could not be checked: {error!r}"))
    return found


def check_versions(_: Surroundings) -> Iterator[Finding]:
    """Look at what is installed."""
    yield Finding("python", "ok", platform.python_version())
    for name in _SHOWN:
        version = _version(name)
        if version is None:
            level: Level = "ok" if name in _OPTIONAL else "error"
            remedy = "" if name in _OPTIONAL else f"pip install {name}"
            yield Finding(name, level, "not installed", remedy)
        elif version in COMPROMISED.get(name, ()):
            yield Finding(
                name,
                "error",
                f"{version} is a compromised release",
                f"pip install --upgrade {name}, and replace every key that this environment could see",
            )
        elif not (wanted := _wanted(name)).contains(version, prereleases=True):
            yield Finding(name, "warning", f"{version}, and {wanted} is supported", f"pip install '{name}{wanted}'")
        else:
            yield Finding(name, "ok", version)


def check_configuration(_: Surroundings) -> Iterator[Finding]:
    """Read the configuration."""
    try:
        keys = settings().encryption_key
    except CachectlError as error:
        yield Finding("configuration", "error", str(error), "`dspy-cachectl config show` names where it comes from")
    else:
        yield Finding("configuration", "ok", "readable")
        yield Finding("encryption", "ok", "no key: nothing is encrypted from now on" if keys is None else repr(keys))


def check_caches(around: Surroundings) -> Iterator[Finding]:
    """Tell which cache a program gets."""
    from dspy_cachectl.manage.dspy_cache import default_folder

    own = default_folder().expanduser().absolute()
    folder = around.folder()
    if folder is not None and (own == folder or own in folder.parents or folder in own.parents):
        yield Finding(
            "dspy.cache",
            "error",
            f"DSPy's own cache {own} and the store {folder} lie within one another; DSPy's holds pickles",
            "give one of them another folder: DSPY_CACHEDIR, or DSPY_CACHECTL_STORE",
        )
    else:
        yield Finding(
            "dspy.cache",
            "ok",
            "the managed cache once a program uses cachectl.LM, wrap, phase or install(); "
            f"DSPy's own ({own}) in programs that do not",
        )


def check_store(around: Surroundings) -> Iterator[Finding]:
    """Look at the store's folder and database, or at its server."""
    folder = around.folder()
    yield from _shared(around.shared(), is_all=folder is None)
    if folder is None:
        return
    reader = FolderReader(folder)
    if not reader.exists():
        parent = next((path for path in (folder, *folder.parents) if path.exists()), folder)
        if os.access(parent, os.W_OK):
            yield Finding("store", "ok", f"{folder} is not there yet, and can be made")
        else:
            yield Finding("store", "error", f"{folder} cannot be made", "name another folder in DSPY_CACHECTL_STORE")
        return
    yield from _database(reader)
    refused = [path for path in (folder, folder / DATABASE) if not os.access(path, os.W_OK)]
    if refused:
        yield Finding(
            "store",
            "warning",
            f"{refused[0]} cannot be written: its answers are served, new ones are not kept",
            "give this user the right to write, or name another folder in DSPY_CACHECTL_STORE",
        )
    log = folder / f"{DATABASE}-wal"
    taken = log.stat().st_size if log.exists() else 0
    if taken > _LARGE_LOG:
        yield Finding(
            "store log",
            "warning",
            f"the write-ahead log has {size(taken)}",
            "a process has been reading for long; it is written back when that ends",
        )
    for where, count in waiting_beside(folder).items():
        yield Finding(
            "waiting",
            "warning",
            f"{plural(count, 'entry waits', 'entries wait')} for {where}, which was away when they were stored",
            "they are given to it by the next program that uses both, when it is there",
        )
    quarantine = quarantine_of(folder)
    if quarantine.exists():
        yield Finding(
            "quarantine",
            "warning",
            f"{quarantine} holds what `verify --repair` has moved aside",
            "look at it, and remove it",
        )


def check_privacy(around: Surroundings) -> Iterator[Finding]:
    """Look at who else may read or change what is kept: answers are served to programs, and prompts are private."""
    from dspy_cachectl.tracking.outbox import state_dir

    store = around.folder()
    others = [state_dir(), settings().predictions_folder]
    if store is not None:
        others.append(quarantine_of(store))
    folders = [*([] if store is None else [store]), *(folder for folder in others if folder.exists())]
    found = [problem for folder in folders for look in (problems_of, checkout_problems) for problem in look(folder)]
    for message, remedy in dict.fromkeys(found):
        yield Finding("privacy", "warning", message, remedy)
    if not found:
        yield Finding("privacy", "ok", "what is kept on this machine is for this user alone")


def check_disk(around: Surroundings) -> Iterator[Finding]:
    """Look at the disk that the store is on."""
    folder = around.folder()
    if folder is None:
        return
    there = next((path for path in (folder, *folder.parents) if path.exists()), Path.cwd())
    free = shutil.disk_usage(there).free
    reader = FolderReader(folder)
    wanted = settings().disk_bytes - (reader.bytes_used() if reader.exists() else 0)
    if free < _LITTLE_ROOM:
        yield Finding("disk", "error", f"{size(free)} are free", "make room, or `dspy-cachectl prune --max-size`")
    elif free < wanted:
        yield Finding(
            "disk",
            "warning",
            f"{size(free)} are free, and the store may grow by {size(wanted)}",
            "lower disk_bytes, or make room",
        )
    else:
        yield Finding("disk", "ok", f"{size(free)} are free")
    kind = file_systems.kind_of(there)
    if kind is not None and file_systems.is_remote(kind):
        yield Finding(
            "file system",
            "warning",
            f"{folder} is on {kind}, and SQLite needs locks that network disks often do not keep",
            "keep the store on a local disk",
        )
    elif kind is not None:
        yield Finding("file system", "ok", kind)


def check_outbox(_: Surroundings) -> Iterator[Finding]:
    """Look at what waits for a tracking server."""
    from dspy_cachectl.tracking.outbox import Outbox

    waiting = Outbox().waiting()
    if not waiting:
        yield Finding("outbox", "ok", "nothing waits")
        return
    age = max(age_of(entry.written) for entry in waiting)
    yield Finding(
        "outbox",
        "warning",
        f"{len(waiting):,} waiting for an MLflow server, the first for "
        + (shown_age(age) if math.isfinite(age) else "a time that is not known: a clock is or was wrong"),
        "`dspy-cachectl mlflow sync` delivers; `dspy-cachectl mlflow status` says why it waits",
    )


def check_mlflow(around: Surroundings) -> Iterator[Finding]:
    """Ask the configured tracking server, within a limit."""
    from dspy_cachectl.tracking.resolve import absolute, default_uri

    uri = default_uri(sys.modules.get("mlflow"))
    if uri is None:
        yield Finding("mlflow server", "ok", "none is configured in MLFLOW_TRACKING_URI")
        return
    try:
        absolute(uri)
    except ConfigurationError as error:
        yield Finding("mlflow server", "warning", str(error), "results wait in the outbox until then")
        return
    shown, problem = scrub(without_credentials(uri)), None
    try:
        limiter = TimeLimiter()
        problem = limiter.run(lambda: _problem_of(uri), limit=around.timeout, target=shown)
    except CachectlError as error:
        problem = str(error)
    if problem is None:
        yield Finding("mlflow server", "ok", f"{shown} answers")
    else:
        yield Finding(
            "mlflow server",
            "warning",
            f"{shown}: {problem}",
            "start it, or correct MLFLOW_TRACKING_URI; results wait in the outbox until then",
        )


def check_predictions(_: Surroundings) -> Iterator[Finding]:
    """Look at what of kept predictions is not where it is to be."""
    for level, message, remedy in snapshots.findings(settings().predictions_place):
        yield Finding("predictions", level, message, remedy)


CHECKS: tuple[Check, ...] = (
    check_versions,
    check_configuration,
    check_store,
    check_caches,
    check_privacy,
    check_disk,
    check_predictions,
    check_outbox,
    check_mlflow,
)


def _shared(addresses: Sequence[str], *, is_all: bool) -> Iterator[Finding]:
    if is_all and not addresses:
        yield Finding("store", "ok", "in the memory of each program, and gone when that ends")
    for address in addresses:
        from dspy_cachectl.manage import shared_store

        for level, message, remedy in shared_store.findings(shared_of(address)):
            yield Finding("store", level, message, remedy)


def _database(reader: FolderReader) -> Iterator[Finding]:
    repair = "`dspy-cachectl verify --repair` keeps what can be read"
    try:
        problem = database_problem(reader, quick=True)
        entries = sum(count for label, count in reader.labels().items() if label.is_answer)
        used = reader.bytes_used()
    except FormatVersionError as error:
        message = f"{error}. Its answers are not served, and new ones not kept: all are bought"
        yield Finding("store", "error", message, "upgrade dspy-cachectl, or name another folder in DSPY_CACHECTL_STORE")
        return
    except StoreError as error:
        is_ours = database_head(reader.path / DATABASE) is not None
        yield Finding("store", "error", str(error), repair if is_ours else "move it away, or name another folder")
        return
    if problem:
        yield Finding("store", "error", f"its database is damaged: {problem}", repair)
    else:
        yield Finding("store", "ok", f"{reader.path}: {plural(entries, 'entry', 'entries')}, {size(used)}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _wanted(name: str) -> SpecifierSet:
    """Return which versions of a package this one asks for, as it is installed."""
    asked = map(Requirement, metadata.requires("dspy-cachectl") or [])
    return next((one.specifier for one in asked if one.name == name), SpecifierSet())


def _problem_of(uri: str) -> str | None:
    """Return what is wrong with a server's address, perhaps with credentials; None where somebody answers there."""
    try:
        parts = urlsplit(uri)
        if parts.scheme in {"http", "https"}:
            return _asked(parts.scheme, parts.netloc.rpartition("@")[2], parts.path)
    except ValueError as error:
        return scrub(f"it is no address: {error}")
    if parts.scheme in {"", "file", "sqlite"} or len(parts.scheme) == 1:
        path = Path(uri.removeprefix("sqlite:///") if parts.scheme == "sqlite" else unquote(parts.path))
        there = next((one for one in (path, *path.parents) if one.exists()), None)
        return None if there is not None else f"{path} cannot be reached"
    return None  # MLflow's own business: nothing is known of it here


def _asked(scheme: str, host: str, path: str) -> str | None:
    # Without credentials: any answer shows that somebody is there.
    request = urllib.request.Request(f"{scheme}://{host}{path.rstrip('/')}/health")  # noqa: S310 - http(s) only
    try:
        with urllib.request.urlopen(request, timeout=30):  # noqa: S310 - the limiter's is the shorter one
            return None
    except urllib.error.HTTPError as error:
        return None if error.code < 500 else f"it answers with status {error.code}"
    except Exception as error:  # noqa: BLE001 - nobody may be there, or somebody who does not speak HTTP
        return scrub(f"it does not answer as a server does: {getattr(error, 'reason', error)!r}")
