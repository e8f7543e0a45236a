"""Devices of a test's own: one that fails must not take the machine's away from everybody."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def make_device(path: Path) -> None:
    """Make a device like `/dev/null`; where only root may, and this is not root, a named pipe."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        os.mkfifo(path)
