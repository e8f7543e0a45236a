"""The failure of a test that made calls which are not recorded: what is missing, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dspy_cachectl.errors import CacheMissError, ReplayIncompleteError
from dspy_cachectl.reports.texts import plural

if TYPE_CHECKING:
    from dspy_cachectl.replay.open_test_cassette import OpenTestCassette

_SHOWN = 5


class Failure:
    """Why a test failed.

    Attributes:
        text: The explanation.
        told: How many calls it is about.
        exception: What is raised for it.
    """

    def __init__(self, text: str, told: int) -> None:
        self.text = text
        self.told = told
        self.exception: BaseException = pytest.fail.Exception(text, pytrace=False)

    @classmethod
    def of(
        cls,
        opened: OpenTestCassette,
        misses: Sequence[CacheMissError],
        error: BaseException | None = None,
        file: Path | None = None,
    ) -> Failure:
        """Explain calls that are not recorded.

        Args:
            opened: Whose calls they are.
            misses: The calls, one or more.
            error: What the test raised.
            file: The test's file.
        """
        chosen = opened.chosen
        lines = [
            f"{plural(len(misses), 'call')} of {chosen.what} had no recording; no result of it can be trusted.",
            "",
        ]
        lines += [miss.explanation for miss in misses[:_SHOWN]]
        if len(misses) > _SHOWN:
            lines.append(f"... and {len(misses) - _SHOWN} more")
        if error is not None:
            at = _line(error, file)
            if not isinstance(error, (CacheMissError, ReplayIncompleteError)):
                lines += ["", f"The test then ended with {type(error).__name__}: {error}{at}"]
            elif at:
                lines.append(f"  asked for{at}")
        lines.append("")
        if opened.is_recorded:
            lines.append(f"To record what is missing:     pytest --cachectl=new {chosen.command}")
            lines.append(f"To record all of it anew:      pytest --cachectl=all {chosen.command}")
        else:
            lines.append(f"Nothing is recorded for {chosen.what} yet. To record it:")
            lines.append(f"    pytest --cachectl=record {chosen.command}")
        return cls("\n".join(lines), len(misses))

    def override(self, report: pytest.TestReport, raised: BaseException) -> None:
        """Make a report say that the test failed, and why, whatever else it says.

        Args:
            report: The report.
            raised: What it reports.
        """
        report.outcome = "failed"
        vars(report).pop("wasxfail", None)  # that it fails was expected; that it asks something else was not
        if raised is not self.exception:
            report.longrepr = self.text


def _line(error: BaseException, file: Path | None) -> str:
    """Return where in the test's file an exception came from, or nothing."""
    number, trace = None, error.__traceback__
    while trace is not None:
        if file is not None and Path(trace.tb_frame.f_code.co_filename) == file:
            number = trace.tb_lineno
        trace = trace.tb_next
    return "" if file is None or number is None else f" at {file.name}:{number}"
