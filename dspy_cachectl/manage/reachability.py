"""Whether a tracking server answers, within a limit and without MLflow."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dspy_cachectl.entries.secrets import scrub
from dspy_cachectl.errors import CachectlError
from dspy_cachectl.tracking.deadline import TimeLimiter
from dspy_cachectl.tracking.record import without_credentials


def reach(uri: str, *, limit: float) -> tuple[str, str | None]:
    """Ask whether somebody answers at an address.

    Args:
        uri: The address, perhaps with credentials.
        limit: Seconds. Whatever the address does, it does not take longer.

    Returns:
        The address as it may be shown, and what is wrong; None where it answers.
    """
    shown = scrub(without_credentials(uri))
    try:
        return shown, TimeLimiter(exit_wait=0.0).run(lambda: _problem(uri), limit=limit, target=shown)
    except CachectlError as error:
        return shown, str(error)


def _problem(uri: str) -> str | None:
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
    except (OSError, ValueError) as error:
        return scrub(f"it cannot be reached: {getattr(error, 'reason', error)}")
    except Exception as error:  # noqa: BLE001 - what speaks there may be no HTTP at all
        return scrub(f"it does not answer as a server does: {error!r}")
