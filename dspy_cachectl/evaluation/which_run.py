"""Which phase and run an evaluation draws under."""

from __future__ import annotations

import contextlib

import dspy

from dspy_cachectl.accounting import runs
from dspy_cachectl.boundary.ages import age_of
from dspy_cachectl.calls.installation import ensure_installed
from dspy_cachectl.context.phases import PhaseContext, new_run_id
from dspy_cachectl.context.process import SETTING
from dspy_cachectl.errors import ConfigurationError, StoreError
from dspy_cachectl.phases.phase import phase


def phase_to_evaluate_in(run_id: str | None, *, force: bool, max_age: float | None) -> tuple[PhaseContext, str | None]:
    """Return the phase to evaluate in, and the run to draw under: an open fresh or replay phase holds.

    Raises:
        ConfigurationError: If others than the named run's draws are asked for.
    """
    if run_id is not None and (force or max_age is not None):
        _check_is_new(run_id, max_age=None if force else max_age)
    ruling: PhaseContext | None = dspy.settings.get(SETTING)
    if ruling is not None and ruling.strays_matter and not ruling.is_cassette:
        return ruling, run_id or ruling.run_id
    return phase("eval").context, run_id


def _check_is_new(run_id: str, *, max_age: float | None) -> None:
    # A run's draws are served and never made anew; of an age None it may have none at all.
    cache = ensure_installed()
    if cache is None or not any(label.is_answer and label.run == run_id for label in cache.tiers.labels()):
        return
    began = 0.0
    data = cache.tiers.get(runs.run_key(run_id), behind=True)
    with contextlib.suppress(StoreError):  # what cannot be read says nothing of its age
        began = runs.decode(data)[0].created if data is not None else 0.0
    if max_age is None or age_of(began) > max_age:
        asked = "force_recompute" if max_age is None else f"max_age={max_age:g}"
        raise ConfigurationError(
            f"run {run_id!r} has draws in the store, and a run's draws are never made anew: {asked} asks for others. "
            f"Name a run that has none, for example run_id={new_run_id('eval')!r}, or none at all"
        )
