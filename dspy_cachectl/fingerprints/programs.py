"""Which program made a prediction: its prompts, its demos, its settings and its code, part by part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pydantic

from dspy_cachectl.entries.secrets import is_secret_name
from dspy_cachectl.fingerprints import canonical, sources

_PART_DIGITS = 16

_NOT_THE_PROGRAM = frozenset(
    {"history", "callbacks", "traces", "train", "stage", "lm", "demos", "config", "signature", "_compiled"}
)
"""Attributes of modules that are their past, or are looked at apart."""

_WORDS = {
    "signature": "the fields of {}",
    "instructions": "instructions of {}",
    "descriptions": "descriptions of the fields of {}",
    "demos": "demos of {}",
    "config": "configuration of {}",
    "class": "the class of {}",
}


@dataclass(frozen=True)
class Fingerprint:
    """What tells one program from another.

    Attributes:
        hash: 64 hexadecimal digits over all parts.
        parts: The hash of each part, by name: `"predict.instructions"`, `"source:module.Class"`, `"adapter"`, ...
    """

    hash: str
    parts: Mapping[str, str]

    @classmethod
    def of(cls, parts: Mapping[str, Any]) -> Fingerprint:
        """Make the fingerprint of parts that are plain, or are hashed already."""
        hashed = {
            name: canonical.digest(part, path=name, fallback=_described)[:_PART_DIGITS] for name, part in parts.items()
        }
        ordered = dict(sorted(hashed.items()))
        return cls(hash=canonical.digest(ordered), parts=ordered)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {"hash": self.hash, "parts": dict(self.parts)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Fingerprint:
        """Return what `as_dict` was made of."""
        return cls(hash=str(stored["hash"]), parts={str(name): str(part) for name, part in stored["parts"].items()})


def program_fingerprint(program: Any, adapter: Any = None) -> Fingerprint:
    """Return what tells a program from others; the same in every process.

    It covers signatures, instructions, demos in their order, configuration, nested modules, plain attributes, the
    source of the modules' classes with the helpers of the user's that they call, DSPy's version and the adapter.
    It does not cover LMs, callbacks, history or traces.

    Args:
        program: A `dspy.Module`, or any callable.
        adapter: The adapter; by default the one that DSPy would use now.
    """
    import dspy

    parts: dict[str, Any] = {"dspy": dspy.__version__}
    if isinstance(program, dspy.Module):
        for name, module in program.named_sub_modules(dspy.Module):
            parts.update(_module_parts(_short(name), module))
    else:
        parts[f"source:{_callable_name(program)}"] = sources.function_source(program)
    parts.update(_adapter_parts(adapter or dspy.settings.adapter or dspy.ChatAdapter()))
    return Fingerprint.of(parts)


def changed(before: Fingerprint, after: Fingerprint) -> list[str]:
    """Say in words what differs between two programs, one line for each part; none where nothing does."""
    lines = []
    for name in sorted({*before.parts, *after.parts}):
        old, new = before.parts.get(name), after.parts.get(name)
        if old != new:
            verb = "added" if old is None else "removed" if new is None else "changed"
            lines.append(f"{_in_words(name)} {verb}")
    return lines


def _module_parts(name: str, module: Any) -> Iterator[tuple[str, Any]]:
    import dspy

    kind = type(module)
    yield f"{name}.class", canonical.type_name(kind)
    for base in kind.__mro__:
        if base is not object and not _is_dspys(base):
            yield f"source:{canonical.type_name(base)}", sources.class_source(base)
    if isinstance(module, dspy.Predict):
        yield from _predict_parts(name, module)
    for attribute, value in vars(module).items():
        skipped = attribute in _NOT_THE_PROGRAM and (isinstance(module, dspy.Predict) or attribute not in _PREDICTS)
        if not skipped:
            yield from _attribute_parts(f"{name}.{attribute}", attribute, value)


_PREDICTS = frozenset({"traces", "train", "stage", "demos", "config", "signature"})
"""Names that only mean something special on a predictor; a module's own attribute of that name counts."""


def _predict_parts(name: str, predict: Any) -> Iterator[tuple[str, Any]]:
    signature = predict.signature
    yield f"{name}.instructions", signature.instructions
    yield f"{name}.signature", _fields(signature)
    yield f"{name}.descriptions", _descriptions(signature)
    yield f"{name}.demos", [_demo(demo) for demo in predict.demos]
    yield f"{name}.config", _without_secrets(predict.config)


def _attribute_parts(part: str, attribute: str, value: Any) -> Iterator[tuple[str, Any]]:
    import dspy

    if is_secret_name(attribute) or isinstance(value, (dspy.Module, dspy.BaseLM)):
        return
    if isinstance(value, type):
        yield part, _class(value)
        return
    yield part, canonical.as_json(_without_secrets(value), path=part, fallback=_described)


def _fields(signature: Any) -> list[Any]:
    fields = []
    for name, field in signature.fields.items():
        extra = field.json_schema_extra or {}
        kept = {key: value for key, value in extra.items() if key not in {"desc", "prefix"}}
        shown = [canonical.without_addresses(repr(part)) for part in (field.annotation, field.metadata, field.default)]
        fields.append([name, *shown, _schema(field.annotation), _plain(kept)])
    return fields


def _descriptions(signature: Any) -> list[Any]:
    found = []
    for name, field in signature.fields.items():
        extra = field.json_schema_extra or {}
        found.append([name, _plain(extra.get("desc")), _plain(extra.get("prefix"))])
    return found


def _schema(annotation: Any) -> Any:
    if isinstance(annotation, type) and annotation.__module__ == "builtins":
        return None
    try:
        return pydantic.TypeAdapter(annotation).json_schema()
    except (pydantic.errors.PydanticUserError, TypeError, ValueError, AttributeError, NameError):
        return None  # the annotation's name is in the hash all the same


def _demo(demo: Any) -> Any:
    items = demo.items() if hasattr(demo, "items") else demo
    return _plain(dict(items))


def _class(value: Any) -> Any:
    import dspy

    if issubclass(value, dspy.Signature):
        return [value.instructions, _fields(value), _descriptions(value)]
    if sources.is_own(value):
        return sources.class_source(value)
    return canonical.type_name(value)


def _adapter_parts(adapter: Any) -> Iterator[tuple[str, Any]]:
    import dspy

    kind = type(adapter)
    yield "adapter", canonical.type_name(kind)
    for base in kind.__mro__:
        if base is not object and not _is_dspys(base):
            yield f"source:{canonical.type_name(base)}", sources.class_source(base)
    settings = {}
    for name, value in vars(adapter).items():
        if name == "callbacks":
            continue
        settings[name] = sources.object_source(value) if isinstance(value, (dspy.BaseLM, dspy.Module)) else value
    yield "adapter.config", canonical.as_json(_without_secrets(settings), fallback=_described)


def _described(value: Any, _path: str) -> Any:
    """Stand for a value that is not plain: by its code where it is the user's, else by its class."""
    import dspy

    if isinstance(value, (dspy.Module, dspy.BaseLM)):
        return canonical.type_name(type(value))  # looked at on its own
    if callable(value) and any(hasattr(value, name) for name in ("__code__", "__func__", "func")):
        return {"$source": sources.function_source(value)}
    return {"$like": sources.object_source(value)}


def _plain(value: Any) -> Any:
    return canonical.as_json(value, fallback=_described)


def _without_secrets(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            key: _without_secrets(item)
            for key, item in value.items()
            if not (isinstance(key, str) and is_secret_name(key))
        }
    return value


def _is_dspys(kind: type) -> bool:
    return kind.__module__.split(".")[0] in {"dspy", "builtins", "dspy_cachectl", "abc", "typing"}


def _callable_name(program: Any) -> str:
    named = getattr(program, "func", program)
    named = named if hasattr(named, "__qualname__") else type(named)
    return canonical.type_name(named)


def _short(name: str) -> str:
    """`self.generate.predict` is called `generate.predict`, and the program itself `self`."""
    return name.removeprefix("self.").removeprefix("self") or "self"


def _in_words(part: str) -> str:
    if part.startswith("source:"):
        return f"source of {part.removeprefix('source:').rsplit('.', 1)[-1]}"
    if part == "dspy":
        return "the version of DSPy"
    if part in {"adapter", "adapter.config"}:
        return "adapter" if part == "adapter" else "configuration of the adapter"
    owner, _, what = part.rpartition(".")
    whose = "the program" if owner == "self" else f"'{owner}'"
    return _WORDS[what].format(whose) if what in _WORDS else f"attribute {what!r} of {whose}"
