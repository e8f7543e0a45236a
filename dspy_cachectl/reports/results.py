"""What an evaluation found, answer by answer, and what it was made of: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class DrawResult:
    """One answer to one question.

    Attributes:
        score: What the metric gave; the failure score where it or the program failed.
        failed: Why it failed, or None.
        draw: What identifies the LM's answers behind it. Two results with one draw are one draw.
        output: A hash of what the program answered.
        loaded: Whether it was loaded from the saved predictions.
        requests: Responses bought for it when it was made.
        tokens: Tokens it is made of, whoever paid for them.
        cost: US dollars it is made of.
        seconds: Seconds of the provider it is made of.
        oldest: When its oldest LM answer was bought, in Unix seconds, or None.
        newest: When its newest was.
    """

    score: float
    failed: str | None = None
    draw: str = ""
    output: str = ""
    loaded: bool = False
    requests: int = 0
    tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    oldest: float | None = None
    newest: float | None = None


@dataclass(frozen=True, slots=True)
class QuestionResult:
    """One question of the data set.

    Attributes:
        question: What identifies it: a hash of its inputs, and its number among equals.
        preview: The beginning of its inputs, for people.
        draws: Its answers, one a repeat.
        cluster: The cluster that it belongs to, as text, or None.
    """

    question: str
    preview: str
    draws: tuple[DrawResult, ...]
    cluster: str | None = None


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
