"""Files are written whole, for whom they are, through links, and over nothing but files."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from dspy_cachectl.boundary.writing import check_writable, lock_at, make_private, write_whole, writing_whole
from dspy_cachectl.errors import StoreUnavailableError
from tests.faults.devices import make_device
from tests.faults.disks import read_only, small_disk


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o022, 0o077, 0o000], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_modes(tmp_path: Path, umask: int) -> None:
    """Private is 0600 and 0700 whatever the umask, the rest is as that says, and what is there keeps its mode."""
    write_whole(tmp_path / "a" / "b" / "private", b"1", what="it", private=True)
    write_whole(tmp_path / "c" / "d" / "shared", b"1", what="it")
    assert [0o700, 0o700, 0o600] == [mode(tmp_path / "a" / rest) for rest in ("", "b", "b/private")]
    assert [0o777 & ~umask, 0o666 & ~umask] == [mode(tmp_path / "c" / rest) for rest in ("d", "d/shared")]
    for path in (tmp_path / "a" / "b" / "private", tmp_path / "c" / "d" / "shared"):
        for kept in (0o640, 0o400):
            path.chmod(kept)
            write_whole(path, b"2", what="it", private=True)
            assert (kept, b"2") == (mode(path), path.read_bytes())


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root gives files away")
def test_what_root_writes_stays_its_owners(tmp_path: Path) -> None:
    """Who runs it as root once does not lose the right to write the file."""
    path = tmp_path / "file"
    path.write_text("1")
    os.chown(path, 4321, 4322)
    write_whole(path, b"2", what="it")
    assert (4321, 4322, b"2") == (path.stat().st_uid, path.stat().st_gid, path.read_bytes())


@pytest.mark.parametrize("there", [True, False])
def test_links_are_followed(tmp_path: Path, there: bool) -> None:
    """What they lead to is written, if it is there or not, and the links stay."""
    target = tmp_path / "elsewhere" / "target"
    (tmp_path / "folder").symlink_to("elsewhere")
    (tmp_path / "first").symlink_to("folder/target")
    (tmp_path / "second").symlink_to(tmp_path / "first")
    if there:
        target.parent.mkdir()
        target.write_text("old")
        target.chmod(0o640)
    write_whole(tmp_path / "second", b"new", what="it")
    assert b"new" == target.read_bytes()
    assert all((tmp_path / name).is_symlink() for name in ("folder", "first", "second"))
    assert not there or 0o640 == mode(target)
    assert [target] == list(target.parent.iterdir())


@pytest.mark.parametrize(
    "kind", ["folder", "pipe", "socket", "circle", "device", "link to a device", "standard output"]
)
def test_only_files_are_written(tmp_path: Path, kind: str) -> None:
    """A folder, a pipe, a socket, a device or an open file of a process is an error at once, and stays what it is."""
    path = tmp_path / "place"
    make_device(tmp_path / "device")
    listening = socket.socket(socket.AF_UNIX)
    {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "socket": lambda: listening.bind(str(path)),
        "circle": lambda: path.symlink_to(path),
        "device": lambda: make_device(path),
        "link to a device": lambda: path.symlink_to(tmp_path / "device"),
        "standard output": lambda: path.symlink_to("/proc/self/fd/1"),
    }[kind]()
    before = path.lstat()
    for write in (
        lambda: write_whole(path, b"x", what="the report"),
        lambda: check_writable(path, what="the report"),
    ):
        with pytest.raises(StoreUnavailableError, match=r"the report .* cannot be written"):
            write()
    after = path.lstat()
    assert (before.st_mode, before.st_ino, before.st_rdev) == (after.st_mode, after.st_ino, after.st_rdev)
    listening.close()


def test_whole_or_not_at_all(tmp_path: Path) -> None:
    """Where writing fails what was there is as it was, and nothing is left."""
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with writing_whole(path, what="it") as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (["file"], "old") == ([one.name for one in tmp_path.iterdir()], path.read_text())


def test_a_full_disk(tmp_path: Path) -> None:
    """It is known before anything is paid for, and what was there is as it was."""
    with small_disk(tmp_path / "disk") as disk:
        path = disk.path / "file"
        path.write_bytes(b"old" * 10_000)
        disk.fill()
        before = sorted(disk.path.iterdir())
        with pytest.raises(StoreUnavailableError, match="cannot be written"):
            write_whole(path, b"new" * 100_000, what="it")
        assert (before, b"old" * 10_000) == (sorted(disk.path.iterdir()), path.read_bytes())


def test_what_can_be_written_is_told_beforehand(tmp_path: Path) -> None:
    """Nothing is left behind, neither a file nor a folder."""
    (tmp_path / "file").write_text("x")
    check_writable(tmp_path / "below" / "below" / "new", what="it")
    check_writable(tmp_path / "file", what="it")
    assert [tmp_path / "file"] == list(tmp_path.iterdir())
    with pytest.raises(StoreUnavailableError):
        check_writable(tmp_path / "file" / "new", what="it")
    folder = tmp_path / "folder"
    folder.mkdir()
    with read_only(folder, tmp_path / "view") as view, pytest.raises(StoreUnavailableError):
        check_writable(view / "below" / "new", what="it")


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    """It is named, and not written to."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="file is a file"):
        make_private(tmp_path / "file" / "below")


@pytest.mark.parametrize("kind", ["file", "pipe", "link"])
def test_what_is_no_lock_is_not_taken(tmp_path: Path, kind: str) -> None:
    """Who takes a lock empties its file."""
    path, other = tmp_path / "lock", tmp_path / "other"
    other.write_text("precious")
    {
        "file": lambda: path.write_text("precious"),
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to(other),
    }[kind]()
    with pytest.raises(StoreUnavailableError, match="not a lock"):
        lock_at(path, timeout=0)
    assert "precious" == other.read_text()
    path.unlink()
    with lock_at(path, timeout=0).acquire():
        assert 0o600 == mode(path)


def test_the_address_of_an_object_store_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only files are written it is refused, and no folder of its name is made."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreUnavailableError, match="address of an object store"):
        write_whole(Path("s3://bucket/answers.jsonl"), b"1", what="it")
    assert [] == list(tmp_path.iterdir())
