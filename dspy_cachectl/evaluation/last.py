"""The report that was made last, also of an evaluation that was cut short: Ctrl-C leaves no return value."""

from __future__ import annotations

from collections.abc import Callable

from dspy_cachectl.context.phases import PhaseRun
from dspy_cachectl.context.process import logger, state
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.reports.results import QuestionResult

ReportOf = Callable[[tuple[QuestionResult, ...], int], EvalReport]
"""Makes a report of results, given how many answers it lacks."""


def last_report() -> EvalReport | None:
    """Return the report that `evaluate()` made last in this process; None where there is none yet.

    Of an evaluation that was cut short it is the report of what was answered until then: `provenance.missing` says how
    many answers it lacks. What was raised has it as its `report`, too.
    """
    report: EvalReport | None = state.last_report
    return report


def cut_short(
    error: BaseException,
    report_of: ReportOf,
    answered: tuple[QuestionResult, ...],
    missing: int,
    *,
    is_part: bool = False,
) -> None:
    """Hand out what there is of an evaluation that was cut short, and say it.

    Args:
        error: What has ended it; it carries the report from now on.
        report_of: Makes the report.
        answered: The results that there are.
        missing: How many answers are missing.
        is_part: Whether it is a part of an evaluation, which is told as a whole.
    """
    report = report_of(answered, missing) if answered else None
    if not is_part:
        state.last_report = report
    if report is not None:
        error.report = report  # type: ignore[attr-defined]  # for who catches it
    if report is None or is_part:
        return
    made = report.provenance
    again = f"evaluate(..., run_id={made.run_id!r})" if made.snapshot is None else "the same evaluation"
    logger.warning(
        "the evaluation %r was cut short, and %d answers are missing: %s goes on from here, and "
        "cachectl.last_report() is the report of what there is",
        report.name,
        missing,
        again,
    )


def log_finished(report: EvalReport, run: PhaseRun, mlflow_run: str | None) -> None:
    """Log a report to MLflow as that of the evaluations of a passage; what fails there is said, and nothing else."""
    from dspy_cachectl.tracking.log import log_report

    try:
        log_report(report, run.evaluations, run_id=mlflow_run)
    except Exception as error:  # noqa: BLE001 - the report is paid for, and reaches the caller whatever MLflow does
        logger.warning("the report %r could not be logged to MLflow: %r", report.name, error)
