"""What the page is made with is installed with the package."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.exhaustive
def test_style_and_script_are_in_the_wheel(tmp_path: Path) -> None:
    """Every file of the assets: the page is made where there is no checkout."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assets = {path.relative_to(ROOT).as_posix() for path in (ROOT / "dspy_cachectl/page/assets").iterdir()}
    assert {"page.css", "page.html", "page.js"} < {Path(name).name for name in assets}
    assert assets <= set(zipfile.ZipFile(wheel).namelist())
