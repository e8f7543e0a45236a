"""LMs that come back from a saved program as they went into it: governed, with role, endpoint and version.

DSPy makes its own LMs for what it loads, and asks nobody. Importing this module changes that where a governed LM was
saved, and nowhere else.
"""

from __future__ import annotations

import functools
from typing import Any

import dspy

from dspy_cachectl.calls.lm import wrap
from dspy_cachectl.calls.saving import names_in


def _with_governed_lm(original: Any) -> Any:
    @functools.wraps(original)
    def load_state(self: Any, state: dict[str, Any], **options: Any) -> Any:
        own, names = names_in(state.get("lm") or {})
        if names is None:
            return original(self, state, **options)
        loaded = original(self, {**state, "lm": own}, **options)
        self.lm = wrap(self.lm, **names)
        return loaded

    return load_state


for _kind in (dspy.Predict, dspy.Flex):
    _kind.load_state = _with_governed_lm(_kind.load_state)
