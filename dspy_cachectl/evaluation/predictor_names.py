"""What a predictor is called that a program calls: as the program names it, whether it is the program's or a copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dspy

from dspy_cachectl.evaluation.observed_program import runs
from dspy_cachectl.fingerprints.modules import sub_modules
from dspy_cachectl.reports.texts import cut

NO_PREDICTOR = "(no predictor)"
"""Who asks where a module calls an LM itself."""

_ITSELF = "self"
_LONGEST = 80


class PredictorNames:
    """The names of a program's predictors. Used under a lock.

    `dspy.BestOfN` and `dspy.Refine` call copies of what they hold. A copy goes by the name of what it is a copy of: the
    one part, within the module that calls it, that is of the same class and has the same predictors.

    Args:
        program: The program that is evaluated.
    """

    def __init__(self, program: Any) -> None:
        self._program = program
        # Now, and not when something goes wrong: a program's threads may then be setting attributes.
        is_module = isinstance(program, dspy.Module)
        self._parts: dict[str, Any] = dict(sub_modules(program)) if is_module else {}
        self._paths = {id(part): path for path, part in self._parts.items()}
        self._shapes = {path: _shape(part) for path, part in self._parts.items()}
        named = program.named_predictors() if is_module else ()
        self._names = {self._paths[id(held)]: name for name, held in named if id(held) in self._paths}

    def of(self, callers: Sequence[Any]) -> str:
        """Return the name of the predictor that calls an LM.

        Args:
            callers: The modules that are being called, as DSPy's settings list them, the innermost last.

        Returns:
            Its name in the program's `named_predictors()`; its signature where it is not of the program.
        """
        if not callers or not isinstance(callers[-1], dspy.Predict):
            return NO_PREDICTOR
        path = self._paths.get(id(callers[-1])) or self._path_along(callers)
        if path is None:
            return cut(callers[-1].signature.signature, _LONGEST)
        return self._names.get(path) or path.removeprefix(f"{_ITSELF}.")

    def _path_along(self, callers: Sequence[Any]) -> str | None:
        """Return the path of the innermost module, followed from the program on: it may be made while that runs."""
        path: str | None = None
        caller: Any = None
        paths = dict(self._paths)
        for module in callers:
            found = _ITSELF if runs(module, self._program) else paths.get(id(module))
            if found is None and path is not None:
                found = self._copied(path, module) or _attribute(path, caller, module)
                paths |= _paths_within(found, module)
            path, caller = found, module
        return path

    def _copied(self, path: str, module: Any) -> str | None:
        shape = _shape(module)
        inside = (path + ".", path + "[")
        alike = [
            name
            for name, part in self._parts.items()
            if name.startswith(inside) and type(part) is type(module) and self._shapes[name] == shape
        ]
        return alike[0] if len(alike) == 1 else None


def _paths_within(path: str | None, module: Any) -> dict[int, str]:
    if path is None:
        return {}
    inside = sub_modules(module)
    return {id(part): path + name.removeprefix(_ITSELF) for name, part in inside}


def _attribute(path: str, caller: Any, module: Any) -> str | None:
    """Return the path of a module that its caller has set as an attribute since the evaluation began."""
    return next((f"{path}.{name}" for name, held in list(vars(caller).items()) if held is module), None)


def _shape(module: Any) -> list[tuple[str, str, str]]:
    return [
        (name, predictor.signature.signature, predictor.signature.instructions)
        for name, predictor in sub_modules(module, dspy.Predict)
    ]
