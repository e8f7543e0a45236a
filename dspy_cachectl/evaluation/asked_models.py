"""Which models a program asked, and how: counted from the calls that were made, whatever the settings say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dspy_cachectl.calls.answering import is_by_another
from dspy_cachectl.calls.call import Call
from dspy_cachectl.reports.measurement import AskedModel


class AskedModels:
    """Counts the answered calls of a program by the model and its temperature. Used under a lock."""

    def __init__(self) -> None:
        self._calls: Counter[AskedModel] = Counter()
        self._seeds: set[Any] = set()

    def add(self, call: Call) -> None:
        """Count a call that has ended, unless a metric made it or nothing answered it."""
        asked, origin = call.asked, call.answered.origin
        if asked.ruling.context.judging or origin is None:
            return
        how = AskedModel(
            asked.model,
            asked.endpoint,
            asked.version,
            asked.temperature,
            origin.lent,
            answered_by=" + ".join(origin.answered_by) or None,
            is_other=is_by_another(asked.model, origin),
        )
        self._calls[how] += 1
        self._seeds.add(_seed_in(asked.request or {}))

    def facts(self) -> dict[str, Any]:
        """Return what is known, as fields of a report's provenance; nothing where no call was answered."""
        models = tuple(replace(how, calls=calls) for how, calls in self._calls.most_common())
        if not models:
            return {}
        names = dict.fromkeys(one.model for one in models)
        seeds = tuple(sorted(self._seeds - {None}, key=str))
        return {"model": " + ".join(names), "models": models, "seeds": seeds}


def _seed_in(request: Any) -> Any:
    """Return the seed that a provider is sent: an option, or a part of the body that is given as it is."""
    body = request.get("extra_body")
    return request.get("seed", body.get("seed") if isinstance(body, Mapping) else None)
