"""Real disks that are full or read-only, for a test's own folder.

Where it is allowed to mount, a small tmpfs or a read-only bind mount is used. Elsewhere a limit on the size of files
takes the place of a full disk, and permission bits make a folder read-only, for root as well. A test that can do with
neither is skipped on a developer's desk, and fails in CI.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class SmallDisk:
    """A disk that can be filled to the last byte, and freed again."""

    def __init__(self, path: Path, *, mounted: bool) -> None:
        self.path = path
        self._mounted = mounted
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def need_of_its_own(self) -> None:
        """Skip the test where this is no disk of its own; CI has to have one."""
        if not self._mounted:
            assert os.environ.get("CI", "").lower() != "true", "CI may not mount a disk, which this test needs"
            pytest.skip("needs a disk of its own")

    def fill(self) -> None:
        """Leave no room for another byte."""
        if not self._mounted:
            largest = max(path.stat().st_size for path in self.path.rglob("*"))
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, self._limits[1]))
            return
        with (self.path / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            for size in (65_536, 4096, 1):
                with contextlib.suppress(OSError):
                    while filler.write(bytes(size)) == size:
                        pass

    def free(self) -> None:
        """Make room again."""
        if self._mounted:
            (self.path / "filler").unlink(missing_ok=True)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[SmallDisk]:
    """Mount a disk of 2 MB at a path."""
    path.mkdir()
    mounted = _run("mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs", str(path))
    disk = SmallDisk(path, mounted=mounted)
    try:
        yield disk
    finally:
        disk.free()
        if mounted:
            _run("umount", "--lazy", str(path))


@contextlib.contextmanager
def read_only(folder: Path, view: Path) -> Iterator[Path]:
    """Give a path at which a folder cannot be written."""
    view.mkdir()
    mounted = _run("mount", "--bind", str(folder), str(view))
    if mounted and _run("mount", "-o", "remount,bind,ro", str(view)):
        try:
            yield view
        finally:
            _run("umount", "--lazy", str(view))
        return
    modes = {path: path.stat().st_mode for path in [folder, *folder.rglob("*")]}
    for path in modes:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        with _bound_by_permissions():
            yield folder
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


@contextlib.contextmanager
def _bound_by_permissions() -> Iterator[None]:
    """Lay down, in this thread, what lets root write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    if libc.capget(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    before = sets[0]
    sets[0] = before & ~(1 << 1)  # CAP_DAC_OVERRIDE
    if libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    try:
        yield
    finally:
        sets[0] = before
        libc.capset(header, sets)


def _run(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
