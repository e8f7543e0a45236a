"""DSPy's settings, overridden for a while: how a phase travels to wherever DSPy carries them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from dspy.dsp.utils.settings import thread_local_overrides


@contextlib.contextmanager
def settings_overridden(**overrides: Any) -> Iterator[None]:
    """Override DSPy's settings in a block, and wherever DSPy carries them, as `dspy.context` does.

    That takes a copy of all settings, so that a `dspy.configure()` in its block has no effect before its end. Only
    what is named here is overridden.
    """
    own = thread_local_overrides.get()
    token = thread_local_overrides.set(type(own)({**own, **overrides}))
    try:
        yield
    finally:
        thread_local_overrides.reset(token)
