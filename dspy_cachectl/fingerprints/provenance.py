"""What an evaluation is made of: what tells its program, model, data and metric from any other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dspy_cachectl.fingerprints.data import Question, hash_of_questions
from dspy_cachectl.fingerprints.models import model_identity
from dspy_cachectl.fingerprints.program_text import program_text
from dspy_cachectl.fingerprints.programs import program_fingerprint
from dspy_cachectl.fingerprints.reached import lm_of_settings, metric_fingerprint


def provenance_of(program: Any, questions: Sequence[Question], metric: Any) -> dict[str, Any]:
    """Return what an evaluation is made of, by the fields of a report's provenance.

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
        "program_text": program_text(program, lm),
    }
