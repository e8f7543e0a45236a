"""Build wheel and sdist, and look at what a user would get: `python scripts/release.py --output FOLDER`.

Beside them the sdist lies unpacked in `unpacked`, without the package, so that its tests are those of the wheel.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "dspy_cachectl"
LINK = re.compile(r"\]\((?!https?:|#)([^)]*)\)")
OF_THE_CHECKOUT = (".ci/", ".editorconfig")
"""What is tracked, and in no sdist."""


def build(folder: Path) -> tuple[Path, Path]:
    """Build both in an empty folder; return the wheel and the sdist."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", folder.absolute()], cwd=ROOT, check=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def unpack(sdist: Path) -> Path:
    """Unpack the sdist beside it, without the package; return where it lies."""
    folder = sdist.parent / "unpacked"
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (top,) = folder.iterdir()
    for path in list(top.iterdir()):
        path.rename(folder / path.name)
    top.rmdir()
    return folder


def faults_of_wheel(wheel: Path) -> Iterator[str]:
    """Yield what is wrong with a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (described,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = BytesParser().parsebytes(archive.read(described))
    tracked = {name for name in _tracked() if name.startswith(f"{PACKAGE}/")}
    yield from (f"the wheel has no {name}" for name in sorted(tracked - names))
    strangers = {name for name in names - tracked if ".dist-info/" not in name}
    yield from (f"the wheel has {name}, which is not tracked" for name in sorted(strangers))
    version = metadata["Version"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if f"## [{version}]" not in changes:
        yield f"the changelog has no {version}"
    if f"version: {version}" not in (ROOT / "CITATION.cff").read_text(encoding="utf-8"):
        yield f"CITATION.cff does not name {version}"
    yield from (f"the extra all does not bring {requirement}" for requirement in _not_in_all(metadata))
    for link in LINK.findall(str(metadata.get_payload())):
        yield f"the description links to {link}, which is nowhere without the checkout"


def _not_in_all(metadata: Message) -> list[str]:
    """Return what an extra of users brings, and `all` does not."""
    brought: dict[str, set[str]] = {extra: set() for extra in metadata.get_all("Provides-Extra", [])}
    for requirement in metadata.get_all("Requires-Dist", []):
        name, _, extra = requirement.partition("; extra == ")
        if extra:
            brought[extra.strip("'\"")].add(name)
    users = {extra: names for extra, names in brought.items() if extra not in {"all", "dev"}}
    return sorted(set().union(*users.values()) - brought["all"])


def faults_of_sdist(folder: Path) -> Iterator[str]:
    """Yield what is wrong with an unpacked sdist."""
    wanted = [name for name in _tracked() if not name.startswith((*OF_THE_CHECKOUT, f"{PACKAGE}/"))]
    yield from (f"the sdist has no {name}" for name in wanted if not (folder / name).exists())


def _tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    return [name for name in listed.stdout.split("\0") if name]


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where both go; it is emptied")
    options = parser.parse_args()
    wheel, sdist = build(options.output)
    folder = unpack(sdist)
    faults = [*faults_of_wheel(wheel), *faults_of_sdist(folder)]
    shutil.rmtree(folder / PACKAGE)
    for path in (wheel, sdist):
        print(f"{path.name}  {path.stat().st_size / 1e6:.2f} MB")
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
