"""What travels in DSPy's settings: one key, put there and taken back without a copy of all the others.

`dspy.context` copies every setting, so that a `dspy.configure()` in its block has no effect before its end. What is put
here leaves all other keys alone. It is taken back by its value where that is not the place it was put into, so that a
block may be left in another context than the one it was entered in, as generators are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import Token
from typing import Any, NamedTuple

from dspy.dsp.utils.settings import main_thread_config, thread_local_overrides


def found(name: str) -> Any:
    """Return what stands under a key of DSPy's settings here, or None."""
    # What is not there, as most is, costs DSPy's own way an exception.
    own = thread_local_overrides.get()
    return own[name] if name in own else main_thread_config.get(name)


class Put(NamedTuple):
    """What was put under a key, for `take_back`.

    Attributes:
        value: What was put.
        before: What was there before; None for nothing.
        made: All settings with it.
        token: Tells the context that it was put into.
    """

    value: Any
    before: Any
    made: Any
    token: Token[Any]


def put(name: str, value: Any) -> Put:
    """Put a value under a key of DSPy's settings here, and wherever DSPy carries them."""
    own = thread_local_overrides.get()
    made = type(own)({**own, name: value})
    return Put(value, own.get(name), made, thread_local_overrides.set(made))


class Taken(NamedTuple):
    """How something was taken back.

    Attributes:
        here: Whether from the context that it was put into, and no copy of it.
        wholly: Whether all there is as it was. Where not, it may be left behind there, or come back at the end of a
            `dspy.context` block.
    """

    here: bool
    wholly: bool


def take_back(name: str, put: Put, before: Any) -> Taken:
    """Take back what was put under a key, where it is there.

    Args:
        name: The key.
        put: What was put.
        before: What is there from now on; None for nothing.
    """
    own = thread_local_overrides.get()
    try:
        thread_local_overrides.reset(put.token)
        here = True
    except ValueError:
        here = False
    wholly = here and own is put.made and before is put.before
    if not wholly:
        thread_local_overrides.set(own)
        exchange(name, put.value, before)
    return Taken(here, wholly)


def exchange(name: str, value: Any, before: Any) -> None:
    """Put what was there before in the place of a value, where that is there; None for nothing."""
    own = thread_local_overrides.get()
    if own.get(name) is value:
        rest = {key: kept for key, kept in own.items() if key != name}
        thread_local_overrides.set(type(own)(rest if before is None else {**rest, name: before}))


@contextlib.contextmanager
def held(name: str, value: Any) -> Iterator[None]:
    """Have a value under a key of DSPy's settings in a block."""
    made = put(name, value)
    try:
        yield
    finally:
        take_back(name, made, made.before)
