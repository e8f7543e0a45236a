"""MLflow's own database: made and migrated by a process of its own, which nothing that befalls its caller ends.

MLflow makes a database in some seconds and some sixty steps, and one that is left in between is good for nothing.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from dspy_cachectl.boundary.ownership import database_head
from dspy_cachectl.boundary.secrets import without_credentials
from dspy_cachectl.boundary.writing import lock_at, make_private
from dspy_cachectl.errors import CachectlError
from dspy_cachectl.tracking import installed
from dspy_cachectl.tracking.record import safe_line

SCHEMES = ("sqlite", "postgresql", "mysql", "mssql")
"""How addresses of databases begin."""

_FILE = re.compile(r"^sqlite(?:\+pysqlite)?:///(?!file:|:memory:)([^?]+)")
_IN_MEMORY = re.compile(r"^sqlite(\+\w+)?:(//|///|///:memory:)?(\?|$)")
_BEGUN = ".begun-by-dspy-cachectl"
_HEAD = b"SQLite format 3\0"
_PATIENCE = 600.0
"""Seconds for which such a process waits for another one."""

_BUSY = 1.0
"""Seconds for which a database that somebody is writing is waited for."""

_BEGIN = (
    "import json, sys; order = json.load(sys.stdin); sys.path[:] = order['path'];"
    "from dspy_cachectl.tracking.database import main; main(order['address'], order['lock'])"
)


class DatabaseError(CachectlError):
    """MLflow cannot use a database, nor make it usable."""


def is_database(address: str) -> bool:
    """Tell whether an address is that of a database which outlives this process, and not of a server or a folder."""
    return address.startswith(SCHEMES) and _IN_MEMORY.match(address) is None


def file_of(address: str) -> Path | None:
    """Return the file of a SQLite database; None where the address is another one, or names it in SQLite's own way."""
    found = _FILE.match(address)
    if found is None:
        return None
    if "%" in found[1]:  # whether it stands for another character depends on the version of SQLAlchemy
        import sqlalchemy

        return Path(str(sqlalchemy.engine.make_url(found[0]).database))
    return Path(found[1])


def is_ready(address: str) -> bool:
    """Tell whether a database is as the installed MLflow wants it. Nothing is written.

    A file is looked at without importing anything. What the address of a server of databases leads to may take any time
    to answer.
    """
    file = file_of(address)
    try:
        revision = _revision_by_sqlalchemy(address) if file is None else _revision(file)
    except Exception:  # noqa: BLE001 - whatever it is, MLflow will meet it and say so
        return False
    return revision is not None and revision == installed.head_revision()


def make_ready(address: str, lock_folder: Path) -> None:
    """See to it that a database is as the installed MLflow wants it.

    It is made, or migrated as MLflow does by itself, by another process, which is waited for here. That goes on to its
    end whatever becomes of this call, of this process, or of the terminal. Two for the same database wait for each
    other.

    Args:
        address: The database, credentials and all.
        lock_folder: Where they meet.

    Raises:
        DatabaseError: MLflow cannot do it, and why.
    """
    file = file_of(address)
    if file is not None and database_head(file) is not None:
        raise DatabaseError(f"{file} is a database of dspy_cachectl, and MLflow's tables do not go in there")
    if installed.head_revision() is None or is_ready(address):
        return  # without MLflow's migrations there is nothing to do
    order = {"path": sys.path, "address": address, "lock": str(lock_folder / f"{_digest(address)}.lock")}
    with tempfile.TemporaryFile() as said:
        # What it says goes into a file: nobody has to be there to read it.
        process = subprocess.Popen(  # noqa: S603 - this interpreter, and what it reads is ours
            [sys.executable, "-I", "-c", _BEGIN],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "MLFLOW_DISABLE_TELEMETRY": "true"},
            **_apart(),
        )
        with contextlib.suppress(BrokenPipeError):  # it has ended already, and has said why
            process.communicate(json.dumps(order).encode())
        if process.wait() != 0:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            why = safe_line(lines[-1], longest=300) if lines else f"the process ended with {process.returncode}"
            raise DatabaseError(
                f"MLflow can neither use nor migrate {without_credentials(address)}: {why}. `mlflow db upgrade` may "
                "help; one that was left half made, by a machine that went down, say, has to be moved away"
            )


def main(address: str, lock: str) -> None:
    """Make a database, or migrate it: what the process of its own does."""
    _ignore_signals()
    make_private(Path(lock).parent)
    with lock_at(Path(lock), timeout=_PATIENCE):
        if not is_ready(address):
            _make(address)


def _make(address: str) -> None:
    file = file_of(address)
    if file is None or file.exists():
        _open(address)
        return
    # Beside it, and put in its place when it is whole: not even a power failure leaves half a database there.
    file.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(file)
    ending = f".{uuid.uuid4().hex[:8]}{_BEGUN}"  # where the others that make it, on other machines, say, do not meet us
    begun = file.with_name(f"{file.name}{ending}")
    _open(_FILE.sub(lambda found: f"{found[0]}{ending}", address))
    try:
        os.link(begun, file)  # never over a file that somebody else has made meanwhile
    except OSError:
        # That, or a file system without links.
        _open(address)
    finally:
        begun.unlink()


def _open(address: str) -> None:
    """Have MLflow open a database, which makes or migrates it."""
    from mlflow.tracking import MlflowClient

    MlflowClient(tracking_uri=address).search_experiments(max_results=1)


def _remove_leftovers(file: Path) -> None:
    """Remove what a machine that went down has begun: databases with a name of ours, which nobody goes on with."""
    for begun in file.parent.glob(f"{glob.escape(file.name)}.*{_BEGUN}"):
        if begun.is_symlink() or not begun.is_file() or time.time() - begun.stat().st_mtime < _PATIENCE:
            continue
        with begun.open("rb") as content:
            is_ours = content.read(len(_HEAD)) in (b"", _HEAD)
        if is_ours:
            begun.unlink()


def _revision(file: Path) -> str | None:
    if not file.is_file():
        return None
    with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY)) as table:
        row = table.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def _revision_by_sqlalchemy(address: str) -> str | None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(address, poolclass=sqlalchemy.pool.NullPool)
    try:
        with engine.connect() as connection:
            found = connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version")).scalar()
    finally:
        engine.dispose()
    return None if found is None else str(found)


def _digest(address: str) -> str:
    file = file_of(address)
    named = without_credentials(address) if file is None else str(file.resolve())
    return hashlib.sha256(named.encode()).hexdigest()[:32]


def _apart() -> dict[str, Any]:
    """Return what makes a process one of a session of its own, which no signal to its caller's group reaches."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS}
    return {"start_new_session": True}


def _ignore_signals() -> None:
    import signal

    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
