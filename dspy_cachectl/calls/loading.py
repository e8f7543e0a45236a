"""LMs that come back from a saved program as they went into it: governed, with role, endpoint and version.

DSPy makes its own LMs for what it loads, and asks nobody. Importing this module changes that where a governed LM was
saved, and nowhere else.
"""

from __future__ import annotations

import functools
from typing import Any

import dspy

from dspy_cachectl.calls.saving import names_in

_ADDRESSES = ("api_base", "base_url")


def _with_governed_lm(original: Any) -> Any:
    @functools.wraps(original)
    def load_state(self: Any, state: dict[str, Any], **options: Any) -> Any:
        own, names = names_in(state.get("lm") or {})
        if names is None:
            return original(self, state, **options)
        loaded = original(self, {**state, "lm": own}, **options)
        self.lm = _governed(self.lm, own, names)
        return loaded

    return load_state


def _governed(lm: Any, saved: dict[str, Any], names: dict[str, str]) -> Any:
    # Only here: this module is imported while DSPy is, by whatever imports that.
    from dspy_cachectl.calls.lm import wrap
    from dspy_cachectl.context.process import state

    lost = [name for name in _ADDRESSES if saved.get(name) and name not in lm.kwargs]
    if lost and "endpoint" in names:
        names = {name: value for name, value in names.items() if name != "endpoint"}
        state.say_once(
            f"endpoint-not-loaded:{lm.model}",
            f"the LM {lm.model!r} was saved with an endpoint and with {lost[0]}, which DSPy does not load unless it is "
            "told allow_unsafe_lm_state=True: it asks whatever server the environment names, so the name of the "
            "endpoint is left out too. Load it with that flag, or set the LM anew",
        )
    return wrap(lm, role=names.get("role"), endpoint=names.get("endpoint"), version=names.get("version"))


for _kind in (dspy.Predict, dspy.Flex):
    _kind.load_state = _with_governed_lm(_kind.load_state)
