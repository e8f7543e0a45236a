"""What an evaluation is made of: what tells its program, model, data and metric from any other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from dspy_cachectl.fingerprints.data import Question, hash_of_questions
from dspy_cachectl.fingerprints.models import model_identity
from dspy_cachectl.fingerprints.program_text import program_text
from dspy_cachectl.fingerprints.programs import program_fingerprint
from dspy_cachectl.fingerprints.reached import lm_of_settings, metric_fingerprint
from dspy_cachectl.policy import Policy, decide


def provenance_of(
    program: Any,
    questions: Sequence[Question],
    metric: Any,
    policy_for: Callable[[str | None], Policy] = lambda _: Policy.REUSE,
) -> dict[str, Any]:
    """Return what an evaluation is made of, by the fields of a report's provenance.

    Args:
        program: The program.
        questions: What it is asked.
        metric: What judges it.
        policy_for: Tells the policy for LMs of a role: what is lent to them is what they are told.

    Raises:
        ConfigurationError: If there is no LM at all, or something cannot be told from others.
    """
    import dspy

    lm = lm_of_settings(program)
    identity = model_identity(lm, program=program)
    return {
        "model": identity.model,
        "version": identity.checkpoint or identity.version,
        "endpoint": identity.endpoint,
        "temperature": lm.kwargs.get("temperature") if isinstance(lm, dspy.BaseLM) else None,
        "program": program_fingerprint(program).hash,
        "data": hash_of_questions(questions),
        "metric_hash": metric_fingerprint(metric),
        "program_text": program_text(program, lm, functools.partial(_lent_to, policy_for)),
    }


def _lent_to(policy_for: Callable[[str | None], Policy], lm: Any) -> float | None:
    given = (getattr(lm, "kwargs", None) or {}).get("temperature")
    policy, model = policy_for(getattr(lm, "role", None)), str(getattr(lm, "model", ""))
    return decide(policy, temperature=given, model=model, has_run=True).lent_temperature
