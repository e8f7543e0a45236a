"""The scene in which each fault plays, once in a phase that reuses and once in one that draws afresh."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import dspy_cachectl as cachectl
from tests.endpoint import Endpoint
from tests.faults.support import PHASES, MakeLM, Scene


@pytest.fixture(params=PHASES)
def scene(
    request: pytest.FixtureRequest, tmp_path: Path, lm: MakeLM, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> Iterator[Scene]:
    playing = Scene(request.param, tmp_path / "entries", lm, endpoint, caplog)
    playing.install()
    yield playing
    cachectl.uninstall()
