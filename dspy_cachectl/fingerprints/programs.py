"""Which program made a prediction: its prompts, its demos, its settings and its code, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dspy_cachectl.fingerprints import canonical
from dspy_cachectl.fingerprints.code import CALLED, Walk
from dspy_cachectl.fingerprints.kinds import name_of
from dspy_cachectl.fingerprints.modules import class_parts, lms_of, module_parts, sub_modules
from dspy_cachectl.fingerprints.tallies import Tallies

_PART_DIGITS = 16

_WHOLE = {
    "dspy": "the version of DSPy",
    "adapter": "adapter",
    "adapter.config": "configuration of the adapter",
    "rm": "the retriever of the settings",
}
_WORDS = {
    "signature": "the fields of {}",
    "instructions": "instructions of {}",
    "types": "the code of the types of {}",
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


def program_fingerprint(program: Any, adapter: Any = None) -> Fingerprint:
    """Return what tells a program from others; the same in every process.

    It covers signatures, instructions, demos in their order, configuration, nested modules, plain attributes, the
    source of the modules' classes with the helpers of the user's that they call, DSPy's version and the adapter.
    It does not cover LMs, callbacks, history or traces.

    Args:
        program: A `dspy.Module`, or any callable.
        adapter: The adapter; by default the one that DSPy would use now.
    """
    tallies, known = Tallies(), -1
    while known != tallies.marks:  # what counts may be learned from a later part only
        known = tallies.marks
        hashed = _hashes(program, adapter, tallies)
    ordered = {name: whole[:_PART_DIGITS] for name, whole in sorted(hashed.items())}
    return Fingerprint(hash=canonical.digest(ordered), parts=ordered)


def _hashes(program: Any, adapter: Any, tallies: Tallies) -> dict[str, str]:
    """Return the hash of each part. What two of them share counts in both."""
    import dspy

    parts: dict[str, Any] = {"dspy": dspy.__version__}
    apart, used = {}, CALLED
    if isinstance(program, dspy.Module):
        modules = [module for _, module in sub_modules(program)]
        used |= frozenset().union(*(tallies.of_object(module, CALLED) for module in modules))
        apart = {id(one): one for one in (*modules, *(lm for _, lm in lms_of(program)))}
        parts.update(module_parts(program, tallies.names_of))
    else:
        parts[f"source:{name_of(program)}"] = program
    adapter = adapter or dspy.settings.adapter or dspy.ChatAdapter()
    parts["adapter"] = canonical.type_name(type(adapter))
    parts["adapter.config"] = {name: value for name, value in vars(adapter).items() if name != "callbacks"}
    parts.update(class_parts(type(adapter)))
    if dspy.settings.rm is not None:
        parts["rm"] = dspy.settings.rm
    return {name: canonical.digest(Walk(tallies).text_of_part(part, name, apart, used)) for name, part in parts.items()}


def changed(before: Fingerprint, after: Fingerprint) -> list[str]:
    """Say in words what differs between two programs, one line for each part; none where nothing does."""
    lines = []
    for name in sorted({*before.parts, *after.parts}):
        old, new = before.parts.get(name), after.parts.get(name)
        if old != new:
            verb = "added" if old is None else "removed" if new is None else "changed"
            lines.append(f"{_in_words(name)} {verb}")
    return lines


def _in_words(part: str) -> str:
    if part.startswith("source:"):
        return f"source of {part.removeprefix('source:').rsplit('.', 1)[-1]}"
    if part in _WHOLE:
        return _WHOLE[part]
    owner, _, what = part.rpartition(".")
    whose = "the program" if owner == "self" else f"'{owner}'"
    return _WORDS[what].format(whose) if what in _WORDS else f"attribute {what!r} of {whose}"
