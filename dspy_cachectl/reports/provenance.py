"""What the score of an evaluation is made of: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Provenance:
    """What a score is made of.

    Attributes:
        run_id: The run whose draws they are; None where the policy makes none of its own.
        phase: The phase it ran in.
        policy: The policy's preset, or CUSTOM.
        model: The model's name; several are joined with ` + `.
        endpoint: The endpoint's identity, or None for the provider's own.
        version: The model's version or checkpoint hash, or None.
        temperature: The temperature of the program's LM, or None where it leaves it unset.
        temperature_lent: The temperature that the phase lends where the program's is unset or 0, or None.
        program: The hash of the program.
        data: The hash of the data set.
        metric: The metric's name.
        metric_hash: The hash of the metric.
        predictions: `"computed"`, `"loaded"`, `"extended"`, or `"off"`.
        changes: Why saved predictions could not be used, in words.
        snapshot: The file name of the saved predictions, or None.
        unsaved: Predictions that could not be saved.
        counters: The ledger of this evaluation (`Stats.as_dict()`).
        seconds: How long the evaluation took, in wall seconds.
        created: When it ended, in Unix seconds.
        versions: The versions of the packages.
        library_bytes: How many bytes the library of predictions takes up, or None where nothing is kept.
        library_limit: How many it may take up.
    """

    run_id: str | None
    phase: str
    policy: str
    model: str
    endpoint: str | None
    version: str | None
    temperature: float | None
    temperature_lent: float | None
    program: str
    data: str
    metric: str
    metric_hash: str
    predictions: str
    changes: tuple[str, ...]
    snapshot: str | None
    unsaved: int
    counters: Mapping[str, Any]
    seconds: float
    created: float
    versions: Mapping[str, str] = field(default_factory=dict)
    library_bytes: int | None = None
    library_limit: int | None = None
