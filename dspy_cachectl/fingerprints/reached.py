"""Which LMs a program or a metric reaches: found by the walk that makes fingerprints."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import dspy

from dspy_cachectl.fingerprints import canonical
from dspy_cachectl.fingerprints.code import Walk
from dspy_cachectl.fingerprints.endpoints import endpoint_of_lm
from dspy_cachectl.fingerprints.modules import sub_modules
from dspy_cachectl.fingerprints.source_text import functions_of, names_in

Asked = tuple[str, str | None]
"""A model's name, and the identity of its endpoint."""


def metric_fingerprint(metric: Any) -> str:
    """Hash what a metric does: its name, its source, what it closes over, its defaults, helpers and judges.

    Where it makes modules as it runs, or looks at DSPy's settings, the LM that DSPy is set to is a part of it.
    """
    reaching = _Reaching()
    reaching.digest(metric)
    found = Walk(reaching.tallies).digest(metric)
    if not reaching.asks_settings:
        return found
    settings = dspy.settings
    return canonical.digest([found, Walk().digest(settings.lm), Walk().text([settings.adapter, settings.rm])])


def lm_of_settings(program: Any) -> Any:
    """Return the LM that DSPy is set to, where a program may ask it; None where each of its parts has its own.

    It may where a predictor has none, where code makes modules as it runs or looks at the settings, and where not all
    of it can be seen, as that of a function.
    """
    if not isinstance(program, dspy.Module):
        return dspy.settings.lm
    reaching = _Reaching()
    reaching.digest(program)
    return dspy.settings.lm if reaching.asks_settings or reaching.is_cut or not reaching.found else None


def only_judges_ask(program: Any, metric: Any) -> frozenset[Asked]:
    """Return the models that a metric reaches, and the program does not."""
    of_program, of_metric = _Reaching(), _Reaching()
    for value in (program, lm_of_settings(program)):
        of_program.digest(value)
    of_metric.digest(metric)
    return frozenset(of_metric.found - of_program.found)


class _Reaching(Walk):
    """The walk that makes fingerprints, which notes the LMs on its way, and whether the settings' may be asked."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[Asked] = set()
        self.asks_settings = False

    def _lm(self, lm: Any) -> Iterator[str]:
        self.found.add((str(getattr(lm, "model", None)), endpoint_of_lm(lm)))
        yield from super()._lm(lm)

    def _module(self, module: Any) -> Iterator[str]:
        self.asks_settings |= any(predictor.lm is None for _, predictor in sub_modules(module, dspy.Predict))
        for _, part in sub_modules(module):
            kinds = [kind for kind in type(part).__mro__ if kind.__module__.split(".")[0] == "dspy"]
            functions = (function for kind in kinds if kind not in _PLAIN for function in functions_of(kind))
            self.asks_settings |= any(_makes_modules(function) for function in functions)
        yield from super()._module(module)

    def _reached(self, function: types.FunctionType) -> Iterator[str]:
        if function.__name__ == "__init__":
            return  # what it made is in the object
        self.asks_settings |= _makes_modules(function, or_looks=True)
        yield from super()._reached(function)


_PLAIN = frozenset({dspy.Module, dspy.Predict, *dspy.Module.__mro__})


def _makes_modules(function: types.FunctionType, *, or_looks: bool = False) -> bool:
    """Tell whether a function that is no constructor names a class of modules, or DSPy's settings."""
    if function.__name__ == "__init__":
        return False
    used, space = names_in(function.__code__), function.__globals__
    of_dspy = [held for name in used if isinstance(held := space.get(name), types.ModuleType) and _is_dspys(held)]
    named = [space.get(name) for name in used]
    named += [vars(module).get(name) for module in of_dspy for name in used]
    return any(
        (isinstance(held, type) and issubclass(held, dspy.Module)) or (or_looks and held is dspy.settings)
        for held in named
    )


def _is_dspys(module: types.ModuleType) -> bool:
    return module.__name__.split(".")[0] == "dspy"
