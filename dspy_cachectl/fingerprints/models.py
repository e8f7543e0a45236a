"""Which model made a prediction, and how it was told to generate."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from dspy_cachectl.entries import draws
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.fingerprints import canonical, sources
from dspy_cachectl.fingerprints.content import content_hash
from dspy_cachectl.fingerprints.endpoints import endpoint_of

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
        kind: The LM's class and the hash of its source, where it is the user's own; else None.
        others: The LMs that parts of the program carry themselves, each with the part's name, in order.
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

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {**asdict(self), "others": [[name, other.as_dict()] for name, other in self.others]}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> ModelIdentity:
        """Return what `as_dict` was made of."""
        known = {name: stored.get(name) for name in ("version", "endpoint", "checkpoint", "kind")}
        others = tuple((str(name), cls.from_dict(other)) for name, other in stored.get("others", ()))
        return cls(model=str(stored["model"]), **known, others=others)


def model_identity(lm: Any, *, program: Any = None) -> ModelIdentity:
    """Return which model an LM is, with those that the program carries itself.

    Args:
        lm: A `dspy.BaseLM`. None: the program has its own for each of its parts.
        program: The program, where its parts may have LMs of their own.

    Raises:
        ConfigurationError: If there is no LM at all, or a checkpoint cannot be read.
    """
    others = tuple((name, _identity(other, ())) for name, other in lms_of(program))
    if lm is None and not others:
        raise ConfigurationError("no LM is loaded: call dspy.configure(lm=cachectl.LM(...)) first")
    return ModelIdentity("none", others=others) if lm is None else _identity(lm, others)


def generation_config(lm: Any, temperature: float | None = None, *, program: Any = None) -> dict[str, Any]:
    """Return how an LM is told to generate: its options without secrets and transport.

    Args:
        lm: A `dspy.BaseLM`, or None.
        temperature: The temperature that the phase lends where the LM has none, or 0; None where it lends none.
        program: The program, where its parts may have LMs of their own.

    Raises:
        ConfigurationError: If an option cannot be told from others.
    """
    config = _options(lm, temperature) if lm is not None else {}
    others = {name: _options(other, temperature) for name, other in lms_of(program)}
    return {**config, "others": others} if others else config


def lms_of(program: Any) -> Iterator[tuple[str, Any]]:
    """Yield the LMs that a program carries itself, with where they are, in the order of its attributes."""
    import dspy

    if not isinstance(program, dspy.Module):
        return
    for name, module in program.named_sub_modules(dspy.Module):
        for attribute, value in vars(module).items():
            held = value.items() if isinstance(value, dict) else enumerate(value) if _is_list(value) else [("", value)]
            for key, item in held:
                if isinstance(item, dspy.BaseLM):
                    where = f"{name}.{attribute}" + (f"[{key}]" if key != "" else "")
                    yield where.removeprefix("self."), item


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and not hasattr(value, "_fields")


def _identity(lm: Any, others: tuple[tuple[str, ModelIdentity], ...]) -> ModelIdentity:
    model = str(getattr(lm, "model", None) or type(lm).__name__)
    options = getattr(lm, "kwargs", None) or {}
    engine = getattr(lm, "_engine_spec", None)
    served = getattr(lm, "endpoint", None) or endpoint_of(model, options, engine)
    kind = type(lm)
    own = sources.is_own(kind)
    path = _checkpoint(model, [getattr(lm, "endpoint", None), options.get("api_base"), options.get("base_url")])
    return ModelIdentity(
        model=model,
        version=getattr(lm, "version", None),
        endpoint=served,
        checkpoint=content_hash(path) if path is not None else None,
        kind=f"{canonical.type_name(kind)}#{sources.class_source(kind)[:16]}" if own else None,
        others=others,
    )


def _checkpoint(model: str, places: list[Any]) -> Path | None:
    _, _, unprefixed = model.partition("/")
    candidates = [model, *(place for place in places if isinstance(place, str))]
    if unprefixed.startswith(("/", ".", "~")) or re.match(r"[A-Za-z]:[\\/]", unprefixed):
        candidates.append(unprefixed)
    for candidate in candidates:
        parts = urlsplit(candidate)
        text = unquote(parts.path) if parts.scheme == "file" else candidate
        if "://" in text:
            continue
        try:
            path = Path(text).expanduser()
            if path.exists():
                return path
        except (OSError, RuntimeError, ValueError):
            continue  # a name that is no path
    return None


def _options(lm: Any, temperature: float | None) -> dict[str, Any]:
    options = draws.clean_request(getattr(lm, "kwargs", None) or {})
    if temperature is not None and not options.get("temperature"):
        options["temperature"] = temperature
    try:
        plain: dict[str, Any] = canonical.as_json(
            options, path="the LM's options", fallback=lambda value, _path: sources.object_source(value)
        )
    except canonical.UnstableError as error:
        raise ConfigurationError(f"{error}: give the LM plain options") from error
    return plain
