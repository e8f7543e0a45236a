"""Fixtures of the tests of cassettes."""

from __future__ import annotations

import pytest

from tests.endpoint import Endpoint
from tests.replay.plugin.suites import Suite


@pytest.fixture
def suite(pytester: pytest.Pytester, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """A folder for tests of a user, run by a pytest of their own."""
    return Suite(pytester, endpoint, monkeypatch)
