"""Which kind of file system a path is on: databases need locks that network disks often do not keep."""

from __future__ import annotations

from pathlib import Path

_REMOTE = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "smb3", "smbfs"}
)
_REMOTE_FUSE = ("fuse.sshfs", "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse", "fuse.glusterfs")


def kind_of(path: Path) -> str | None:
    """Return the kind of file system that a path is on, where the system tells."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    best, kind = "", None
    where = str(path.resolve())
    for line in lines:
        _, point, name, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if (where == point or where.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, name
    return kind


def is_remote(kind: str) -> bool:
    """Tell whether a kind of file system is that of a network disk."""
    return kind in _REMOTE or kind.startswith(_REMOTE_FUSE)
