"""What stands for a result where nobody is asked, in a dry run."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_SAID = "(dry run)"


class StandIn:
    """Stands for what a dry run does not find out: whatever is asked of it is a stand-in again."""

    def __getattr__(self, name: str) -> StandIn:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: Any, **__: Any) -> StandIn:
        """Return it, whatever is called."""
        return self

    def __getitem__(self, _: Any) -> StandIn:
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        return True

    def __int__(self) -> int:
        return 0

    def __float__(self) -> float:
        return math.nan

    def __format__(self, _: str) -> str:
        return _SAID

    def __repr__(self) -> str:
        return _SAID

    def _same(self, *_: Any) -> Any:
        return self

    def _never(self, _: Any) -> bool:
        return False

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _same
    __neg__ = __abs__ = __round__ = _same
    __lt__ = __le__ = __gt__ = __ge__ = _never


def passes_on(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function of reports return the stand-in that it is given in the place of one, alone or among others."""

    @functools.wraps(function)
    def passing(*args: P.args, **kwargs: P.kwargs) -> R:
        found: Any = next(_stand_ins((*args, *kwargs.values())), None)
        return function(*args, **kwargs) if found is None else found

    return passing


def _stand_ins(given: Iterable[Any]) -> Iterator[StandIn]:
    for one in given:
        several = one.values() if isinstance(one, Mapping) else one if isinstance(one, (list, tuple)) else (one,)
        yield from (item for item in several if isinstance(item, StandIn))
