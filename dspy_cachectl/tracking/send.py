"""Delivering a record to an MLflow server, from its run to the last file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspy_cachectl.tracking import feedback, models
from dspy_cachectl.tracking.attachments import attach

if TYPE_CHECKING:
    from dspy_cachectl.tracking.push import Push


def send(push: Push) -> str:
    """Deliver a record. It may take as long as the server likes: call it through a limiter.

    Returns:
        The id of the run that holds the results now; empty for feedback whose traces are in no run.

    Raises:
        UnreachableError: Nobody listens at the address.
        LeaseLostError: Somebody else is delivering it, or has delivered it.
        FeedbackLeftError: There is feedback that could not be logged yet.
        Exception: Whatever MLflow raises.
    """
    if push.record.feedback:
        return feedback.deliver(push)
    run_id = push.open_run()
    model_id = models.model_id(push, run_id)
    push.log_numbers(run_id, model_id)
    attach(push, run_id, model_id=model_id)
    if push.is_in_own_run:
        push.end_run(run_id)
    return run_id
