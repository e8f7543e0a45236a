"""What travels in DSPy's settings: one key, put there and taken back without a copy of all the others.

`dspy.context` copies every setting, so that a `dspy.configure()` in its block has no effect before its end. What is put
here leaves all other keys alone. It is taken back by its value and not by a token, so that a block may be left in
another context than the one it was entered in, as generators are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from dspy.dsp.utils.settings import thread_local_overrides

_ABSENT: Any = object()


def put(name: str, value: Any) -> Any:
    """Put a value under a key of DSPy's settings here, and wherever DSPy carries them.

    Returns:
        What was there in this context before, for `take_back`.
    """
    own = thread_local_overrides.get()
    thread_local_overrides.set(type(own)({**own, name: value}))
    return own.get(name, _ABSENT)


def take_back(name: str, value: Any, before: Any) -> bool:
    """Put what was there before in the place of a value, and tell whether the value was there."""
    own = thread_local_overrides.get()
    if own.get(name, _ABSENT) is not value:
        return False
    rest = {key: kept for key, kept in own.items() if key != name}
    thread_local_overrides.set(type(own)(rest if before is _ABSENT else {**rest, name: before}))
    return True


@contextlib.contextmanager
def held(name: str, value: Any) -> Iterator[None]:
    """Have a value under a key of DSPy's settings in a block."""
    before = put(name, value)
    try:
        yield
    finally:
        take_back(name, value, before)
