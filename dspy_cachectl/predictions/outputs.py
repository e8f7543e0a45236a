"""What a program returned, as plain data, and the object again.

No class is ever imported because a file names it: a pydantic object comes back through the types that the
program's own signatures declare for the field.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pydantic
import pydantic_core

from dspy_cachectl.entries import values
from dspy_cachectl.errors import CorruptEntryError
from dspy_cachectl.fingerprints import canonical
from dspy_cachectl.fingerprints.modules import sub_modules

_VALUE = "value"


@dataclass(frozen=True)
class Output:
    """What a program returned, as plain data.

    Attributes:
        fields: The fields of the prediction; of anything else, the field `value`.
        typed: The fields that were objects, and are to come back as what the signature declares.
        returns: `"prediction"`, `"example"` or `"value"`.
        completions: All completions where there were several, by field.
    """

    fields: Mapping[str, Any]
    typed: tuple[str, ...] = ()
    returns: str = "prediction"
    completions: Mapping[str, list[Any]] = field(default_factory=dict)


def output_of(result: Any, program: Any = None) -> Output:
    """Return what a program returned as plain data from which `restore` makes an equal object.

    Args:
        result: A `dspy.Prediction`, or whatever the program returns instead.
        program: The program, for the types of its fields.

    Raises:
        values.UnstorableError: If a field cannot be kept; the message names it.
    """
    import dspy

    kind = _VALUE
    if isinstance(result, dspy.Example):
        kind = "prediction" if isinstance(result, dspy.Prediction) else "example"
    fields = {_VALUE: result} if kind == _VALUE else dict(result.items(include_dspy=True))
    typed = []
    for name, value in fields.items():
        try:
            values.dumps(value)
        except values.UnstorableError as error:
            fields[name] = _flattened(name, value, program, error)
            typed.append(name)
    return Output(fields, tuple(typed), kind, _completions(result) if kind == "prediction" else {})


def restore(output: Output, program: Any = None) -> Any:
    """Return what the program returned when `output_of` was called.

    Raises:
        CorruptEntryError: If a field does not fit the type that the program declares for it (any more).
    """
    import dspy

    fields = dict(output.fields)
    for name in output.typed:
        fields[name] = _restored(name, fields[name], program)
    if output.returns == _VALUE:
        return fields[_VALUE]
    if output.returns == "example":
        return dspy.Example(**fields)
    several = dict(output.completions)
    prediction = dspy.Prediction.from_completions(several) if several else dspy.Prediction()
    for name, value in fields.items():
        prediction[name] = value
    return prediction


def _flattened(name: str, value: Any, program: Any, error: values.UnstorableError) -> Any:
    try:
        plain = pydantic_core.to_jsonable_python(value)
        values.dumps(plain)
        same = canonical.text(_restored(name, plain, program)) == canonical.text(value)
    except (ValueError, TypeError, CorruptEntryError, canonical.UnstableError):
        # pydantic raises a ValueError for what it has no JSON for.
        same = False
    if not same:
        raise values.UnstorableError(
            f"the field {name!r} of the prediction holds a {type(value).__qualname__}, which cannot be kept: {error}. "
            "Return plain data, or declare the field with that type in a signature of the program"
        ) from error
    return plain


def _restored(name: str, plain: Any, program: Any) -> Any:
    problems = []
    for annotation in _annotations(name, program):
        try:
            return pydantic.TypeAdapter(annotation).validate_python(plain)
        except (pydantic.ValidationError, pydantic.errors.PydanticUserError) as error:
            problems.append(str(error))
    why = "; ".join(problems) or "no signature of the program declares it"
    raise CorruptEntryError(f"the kept field {name!r} cannot be made into an object again: {why}")


def _annotations(name: str, program: Any) -> Iterator[Any]:
    """Yield the types that the program's signatures declare for a field; the last predictor's first."""
    import dspy

    if not isinstance(program, dspy.Module):
        return
    # Of all modules, not only of the predictors that may still be compiled.
    signatures = [module.signature for _, module in sub_modules(program, dspy.Predict)]
    for signature in reversed(signatures):
        for fields in (signature.output_fields, signature.input_fields):
            if name in fields:
                yield fields[name].annotation


def _completions(result: Any) -> dict[str, list[Any]]:
    completions = {name: list(items) for name, items in (getattr(result, "_completions", None) or {}).items()}
    with contextlib.suppress(values.UnstorableError):  # the first one is kept as the prediction's fields
        if any(len(items) > 1 for items in completions.values()):
            values.dumps(completions)
            return completions
    return {}
