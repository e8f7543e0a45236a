"""`Embedder`: a `dspy.Embedder` whose vectors are kept under an identity that the user gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dspy

from dspy_cachectl.calls.installation import ensure_installed
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.fingerprints.versioned import VersionedFunction, VersionedName


class Embedder(dspy.Embedder):  # type: ignore[misc]
    """A `dspy.Embedder` that obeys the phase, for a hosted model or for a function of one's own.

    A function is told from others by all that it rests on: its source, its defaults, what it closes over. Where that
    cannot be seen, as with a method of an object of a package that holds weights, it is computed each time, unless it
    has a version.

    Args:
        model: As for `dspy.Embedder`: a model's name, or a function of a list of texts.
        batch_size: As for `dspy.Embedder`; likewise the next one.
        caching: Whether vectors are kept and served.
        version: A name for the model's version. What it embeds is served as long as the name and the function's own are
            the same, whatever else changes: change it with the weights.
        **kwargs: Options of `dspy.Embedder`.

    Raises:
        ConfigurationError: If the version is no text, or an empty one.
    """

    def __init__(
        self,
        model: str | Callable[..., Any],
        batch_size: int = 200,
        caching: bool = True,
        *,
        version: str | None = None,
        **kwargs: Any,
    ) -> None:
        named: Any = version
        if named is not None and not (isinstance(named, str) and named.strip()):
            raise ConfigurationError(f"version is a text that is not empty, not {version!r}")
        if version is not None:
            model = VersionedName(model, version) if isinstance(model, str) else VersionedFunction(model, version)
        super().__init__(model, batch_size, caching, **kwargs)
        ensure_installed()
