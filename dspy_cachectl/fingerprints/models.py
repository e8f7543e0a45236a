"""Which model made a prediction, and how it was told to generate."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import Any

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.fingerprints import canonical, engines
from dspy_cachectl.fingerprints.code import Walk, code_fingerprint
from dspy_cachectl.fingerprints.content import checkpoint_of
from dspy_cachectl.fingerprints.endpoints import endpoint_of_lm
from dspy_cachectl.fingerprints.modules import lms_of
from dspy_cachectl.fingerprints.source_text import is_own

_SLUG_LENGTH = 60


@dataclass(frozen=True)
class ModelIdentity:
    """Which model it is.

    Attributes:
        model: The model's name, as DSPy is given it.
        version: The user's name for a version of it, or None.
        endpoint: Where it is served: the LM's own name for it, or the address without credentials; None for the
            provider's usual one.
        checkpoint: The hash of the weights, where the model is a local file or folder; else None.
        kind: The LM's class, and the hash of its source and of what it holds of its own, where it is the user's; else
            None.
        others: The LMs that parts of the program carry themselves, each with the part's name, in the order of these;
            none that is asked for the same as the program's.
    """

    model: str
    version: str | None = None
    endpoint: str | None = None
    checkpoint: str | None = None
    kind: str | None = None
    others: tuple[tuple[str, ModelIdentity], ...] = ()

    @property
    def slug(self) -> str:
        """The name for files: lower case, only letters that every file system takes, at most 60 of them."""
        version = f"-{self.version}" if self.version else ""
        ascii_ = unicodedata.normalize("NFKD", f"{self.model}{version}").encode("ascii", "ignore").decode().lower()
        return re.sub(r"[^a-z0-9]+", "-", ascii_).strip("-")[:_SLUG_LENGTH].strip("-") or "model"


def model_identity(lm: Any, *, program: Any = None) -> ModelIdentity:
    """Return which model an LM is, with those that the program carries itself.

    Args:
        lm: A `dspy.BaseLM`. None: the program has its own for each of its parts, and is named by those.
        program: The program, where its parts may have LMs of their own.

    Raises:
        ConfigurationError: If there is no LM at all, or a checkpoint cannot be read.
    """
    lm, apart = _asked(lm, program)
    others = tuple((name, _identity(other)) for name, other in sorted(apart, key=lambda found: found[0]))
    if lm is None and not others:
        raise ConfigurationError("no LM is loaded: call dspy.configure(lm=cachectl.LM(...)) first")
    if lm is not None:
        return _identity(lm, others)
    first = others[0][1]
    is_one = all(other == first for _, other in others)
    names = " + ".join(dict.fromkeys(other.model for _, other in others))
    return replace(first, others=others) if is_one else ModelIdentity(names, others=others)


def generation_config(lm: Any, temperature: float | None = None, *, program: Any = None) -> dict[str, Any]:
    """Return how an LM is told to generate: its options without secrets and transport.

    Args:
        lm: A `dspy.BaseLM`, or None.
        temperature: The temperature that the phase lends where the LM has none, or 0; None where it lends none.
        program: The program, where its parts may have LMs of their own.

    Raises:
        UnstableError: If an option cannot be told from others.
    """
    lm, apart = _asked(lm, program)
    config = _options(lm, temperature) if lm is not None else {}
    others = {name: _options(other, temperature) for name, other in apart}
    return {**config, "others": others} if others else config


def _asked(lm: Any, program: Any) -> tuple[Any, list[tuple[str, Any]]]:
    """Return an LM, and those that parts of a program carry beside it, with where they are.

    One that is the same is none beside it, whoever carries it; and where all parts carry the same, it is the LM.
    """
    carried = list(lms_of(program))
    if lm is not None:
        return lm, [(name, other) for name, other in carried if not _is_same(other, lm)]
    if carried and all(_is_same(other, carried[0][1]) for _, other in carried[1:]):
        return carried[0][1], []
    return None, carried


def _is_same(lm: Any, other: Any) -> bool:
    """Tell whether two LMs are one model that is told to generate in one way."""
    return lm is other or (_identity(lm) == _identity(other) and _options(lm, None) == _options(other, None))


def _identity(lm: Any, others: tuple[tuple[str, ModelIdentity], ...] = ()) -> ModelIdentity:
    kind = type(lm)
    return ModelIdentity(
        model=str(getattr(lm, "model", None) or kind.__name__),
        version=getattr(lm, "version", None),
        endpoint=endpoint_of_lm(lm),
        checkpoint=checkpoint_of(lm),
        kind=f"{canonical.type_name(kind)}#{_own(lm)[:16]}" if is_own(kind) else None,
        others=others,
    )


def _own(lm: Any) -> str:
    walk = Walk()
    walk.digest(type(lm))
    list(walk.own_of_lm(lm))
    return canonical.digest([code_fingerprint(type(lm)), list(Walk(walk.tallies).own_of_lm(lm))])


def _options(lm: Any, temperature: float | None) -> dict[str, Any]:
    options = dict(getattr(lm, "kwargs", None) or {})
    if temperature is not None and not options.get("temperature"):
        options["temperature"] = temperature  # which is the same number where the LM has it itself
    plain: dict[str, Any] = canonical.as_json(
        engines.asked_of_lm(lm, options), path="the LM's options", fallback=lambda value, _path: code_fingerprint(value)
    )
    return plain
