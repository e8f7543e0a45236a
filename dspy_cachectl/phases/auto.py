"""Phases by themselves: a DSPy callback that enters `compile` and `eval` where DSPy says that they begin."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dspy.utils.callback import BaseCallback

from dspy_cachectl.context.phases import PhaseContext, PhaseRun
from dspy_cachectl.context.process import logger
from dspy_cachectl.context.ruling import phase_around
from dspy_cachectl.phases.phase import phase


class AutoPhase(BaseCallback):  # type: ignore[misc]
    """Enters a phase for each optimizer and each evaluation: `dspy.configure(callbacks=[cachectl.AutoPhase()])`.

    `optimizer.compile()` enters `compile`; an `Evaluate` outside of one enters `eval`; an `Evaluate` inside a
    compile stays in it. An explicit `phase` always wins.

    Args:
        **options: Options of `phase` for the evaluations, for example `temperature=0.7`.

    Attributes:
        runs: The passages it opened, oldest first.
    """

    def __init__(self, **options: Any) -> None:
        self.runs: list[PhaseRun] = []
        self._options = options
        self._entered: dict[str, phase] = {}

    def on_compile_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:  # noqa: ARG002
        """Enter `compile`, unless a phase was opened by hand or it is entered already."""
        ruling = _ruling()
        if ruling is None or (ruling.automatic and ruling.name != "compile"):
            self._enter(call_id, phase("compile"))

    def on_compile_end(self, call_id: str, outputs: Any | None, exception: Exception | None = None) -> None:  # noqa: ARG002
        """Leave what was entered for this compile."""
        self._leave(call_id, exception)

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:  # noqa: ARG002
        """Enter `eval`, unless some phase rules already."""
        if _ruling() is None:
            self._enter(call_id, phase("eval", **self._options))

    def on_evaluate_end(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:  # noqa: ARG002
        """Leave what was entered for this evaluation."""
        self._leave(call_id, exception)

    def _enter(self, call_id: str, opening: phase) -> None:
        opening.context = replace(opening.context, automatic=True)
        try:
            run = opening.__enter__()
        except Exception:
            # DSPy logs what a callback raises as a warning and goes on without the phase.
            logger.exception("AutoPhase could not enter a phase; calls go on without one, and are not fresh")
            raise
        self._entered[call_id] = opening
        self.runs.append(run)

    def _leave(self, call_id: str, exception: BaseException | None) -> None:
        opened = self._entered.pop(call_id, None)
        if opened is not None:
            opened.__exit__(None if exception is None else type(exception), exception, None)


def _ruling() -> PhaseContext | None:
    ruling = phase_around()
    return None if ruling is not None and ruling.is_cassette else ruling
