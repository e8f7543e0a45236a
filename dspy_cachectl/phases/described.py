"""What a store says of the run of a phase: when it was opened, at which temperature, and whether it came to its end."""

from __future__ import annotations

from dataclasses import replace

import dspy

from dspy_cachectl.accounting import runs
from dspy_cachectl.calls.cache import ManagedCache
from dspy_cachectl.calls.installation import ensure_installed, installed
from dspy_cachectl.context.phases import PhaseContext, PhaseRun
from dspy_cachectl.context.process import state
from dspy_cachectl.entries import records
from dspy_cachectl.errors import ConfigurationError, StoreError
from dspy_cachectl.policy import Policy


def described(context: PhaseContext) -> PhaseContext:
    """Put the cache in place, describe a fresh run, and look up the temperature of a replayed one.

    Returns:
        The context to open.

    Raises:
        ConfigurationError: If another package's cache is in place, and the phase needs ours.
    """
    cache = ensure_installed()
    if cache is None:
        if any(policy != Policy.REUSE for policy in context.policies):
            raise ConfigurationError(
                f"phase {context.name!r} needs the managed cache, and dspy.cache is a {type(dspy.cache).__name__} of "
                "another package; call cachectl.install() to replace it"
            )
        return context
    if context.run_id is None or context.cassette_token:
        return context  # a cassette knows its runs
    drawn_at = _run_temperature(cache, context.run_id)
    policy = context.policy
    if policy.replays and policy.temperature is None:
        return replace(context, policy=replace(policy, temperature=drawn_at))
    if _is_described(context):
        if drawn_at is not None and drawn_at != policy.temperature:
            state.say_once(
                f"run-temperature:{context.run_id}",
                f"run {context.run_id!r} was drawn with the temperature {drawn_at:g} lent, and now "
                f"{policy.temperature!r} is: its stored draws do not answer these calls",
            )
        runs.note_opening(
            cache.tiers,
            context.run_id,
            phase=context.name,
            policy=policy.name,
            temperature=policy.temperature,
            token=context.token,
        )
    return context


def describe_end(run: PhaseRun, error: BaseException | None) -> None:
    """Note that a run is complete, if nothing failed, and keep the statistics of use."""
    cache = installed()
    context = run.context
    if cache is not None and error is None and context.run_id is not None and _is_described(context):
        runs.note_end(cache.tiers, context.run_id, token=context.token, tally=run.stats)
    if state.usage is not None:
        state.usage.flush()


def _is_described(context: PhaseContext) -> bool:
    return context.policy.fresh and context.policy.stores and not context.cassette_token


def _run_temperature(cache: ManagedCache, run_id: str) -> float | None:
    """Return the temperature that a run's draws were lent; None where none was, or the run is not known."""
    data = cache.tiers.get(runs.run_key(run_id))
    if data is None:
        return None
    try:
        return records.decode_origin(data).temperature
    except StoreError as error:
        state.say_once(f"run:{run_id}", f"the description of run {run_id!r} cannot be read: {error}")
        return None
