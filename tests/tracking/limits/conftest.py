"""What slow and hanging work waits for."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a hanging function waits for; opened at the end, so that no thread outlives its test."""
    event = threading.Event()
    yield event
    event.set()
