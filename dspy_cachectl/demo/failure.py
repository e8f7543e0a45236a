"""The error of a demo that cannot go on."""

from __future__ import annotations

from dspy_cachectl.errors import CachectlError


class DemoError(CachectlError):
    """The model's server or a child process failed in the middle of the demo; the message says what it said."""
