"""Which phase and run an evaluation draws under."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from dspy_cachectl.accounting import runs
from dspy_cachectl.boundary.ages import age_of
from dspy_cachectl.calls.installation import ensure_installed
from dspy_cachectl.context.phases import PhaseContext, new_run_id
from dspy_cachectl.context.ruling import phase_around
from dspy_cachectl.errors import ConfigurationError, StoreError
from dspy_cachectl.phases.phase import phase


def phase_to_evaluate_in(
    run_id: str | None, *, force: bool, max_age: float | None, in_parts: bool = False
) -> tuple[PhaseContext, str | None]:
    """Return the phase to evaluate in, and the run to draw under: an open fresh or replay phase holds.

    A run's draws are served and never made anew. Where others are asked for than an open phase has, they are of a run
    of their own, which is None here.

    Args:
        run_id: The run that is named, or None.
        force: Whether everything is to be drawn anew.
        max_age: How old a kept answer may be, in seconds, or None.
        in_parts: Whether other processes make parts of it.

    Raises:
        ConfigurationError: If others than the named run's draws are asked for, or parts would be of several runs.
    """
    anew = force or max_age is not None
    if in_parts and anew:
        raise ConfigurationError(
            "shard does not go together with force_recompute or max_age: once the first shard is evaluated the run has "
            "draws, and a run's draws are never made anew. Name a new run for all shards instead"
        )
    context, run_id = _context_and_run(run_id, force=force, max_age=max_age, anew=anew)
    if in_parts and run_id is None and context.draws_afresh:
        raise ConfigurationError(
            f"shards are parts of one run: give all of them the same, for example run_id={new_run_id('eval')!r}"
        )
    return context, run_id


def _context_and_run(
    run_id: str | None, *, force: bool, max_age: float | None, anew: bool
) -> tuple[PhaseContext, str | None]:
    oldest = None if force else max_age
    if run_id is not None and anew and _has_draws(run_id, older_than=oldest):
        asked = "force_recompute" if oldest is None else f"max_age={oldest:g}"
        raise ConfigurationError(
            f"run {run_id!r} has draws in the store, and a run's draws are never made anew: {asked} asks for others. "
            f"Name a run that has none, for example run_id={new_run_id('eval')!r}, or none at all"
        )
    ruling = phase_around()
    if ruling is None or not ruling.strays_matter or ruling.is_cassette:
        return replace(phase("eval").context, rates=() if ruling is None else ruling.rates), run_id
    if run_id is not None or ruling.run_id is None:
        return ruling, run_id
    is_other = anew and ruling.policy.fresh and _has_draws(ruling.run_id, older_than=oldest)
    return ruling, None if is_other else ruling.run_id


def _has_draws(run_id: str, *, older_than: float | None) -> bool:
    """Tell whether a run has draws, and began longer ago than so many seconds; None: whenever it began."""
    cache = ensure_installed()
    if cache is None or not any(label.is_answer and label.run == run_id for label in cache.tiers.labels()):
        return False
    began = 0.0
    data = cache.tiers.get(runs.run_key(run_id), behind=True)
    with contextlib.suppress(StoreError):  # what cannot be read says nothing of its age
        began = runs.decode(data)[0].created if data is not None else 0.0
    return older_than is None or age_of(began) > older_than
