"""Running somebody's script under a policy, without touching its code: what `dspy-cachectl run` does."""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from dspy_cachectl.accounting.ledger import Stats
from dspy_cachectl.calls.installation import ensure_installed
from dspy_cachectl.config import configure
from dspy_cachectl.context.open_cassette import Mode
from dspy_cachectl.context.phases import PhaseRun
from dspy_cachectl.context.process import stats
from dspy_cachectl.errors import CachectlError, ConfigurationError
from dspy_cachectl.phases.phase import phase
from dspy_cachectl.policy import Policy
from dspy_cachectl.replay import Cassette, cassette

FAILED = 1


@dataclass(frozen=True)
class Script:
    """What is to be run.

    Attributes:
        target: The path of a script, or the name of a module.
        arguments: What it finds in `sys.argv` after its own name.
        is_module: Whether it is a module, found as Python finds modules.
    """

    target: str
    arguments: Sequence[str] = ()
    is_module: bool = False

    def check(self) -> None:
        """Find it, before anything is opened for it.

        Raises:
            ConfigurationError: If there is no such script.
        """
        if not self.is_module and not Path(self.target).exists():
            raise ConfigurationError(f"there is no script {self.target!r}; a module is run with -m")

    def run(self) -> None:
        """Run it as Python would, as `__main__`.

        Raises:
            BaseException: What it raises.
        """
        if self.is_module:
            sys.path.insert(0, str(Path.cwd()))
            sys.argv = [self.target, *self.arguments]
            runpy.run_module(self.target, run_name="__main__", alter_sys=True)
            return
        path = Path(self.target)
        sys.path.insert(0, str(path.resolve().parent if path.is_file() else path))
        sys.argv = [self.target, *self.arguments]
        runpy.run_path(self.target, run_name="__main__")


@dataclass(frozen=True)
class Outcome:
    """What became of a script.

    Attributes:
        code: Its exit code.
        stats: What happened to its calls.
        run: The passage through the phase that was opened around it, or None.
        cassette: The cassette that was opened around it, or None.
    """

    code: int
    stats: Stats
    run: PhaseRun | None = None
    cassette: Cassette | None = None


def run_script(
    script: Script,
    *,
    phase_name: str | None = None,
    policy: str | None = None,
    run_id: str | None = None,
    force_recompute: bool = False,
    cassette_path: Path | None = None,
    mode: Mode = "replay",
) -> Outcome:
    """Run a script under a policy. Phases that it opens itself rule inside.

    Args:
        script: The script.
        phase_name: The phase to open around it. None: none, unless a policy or a run is named.
        policy: The preset that holds in that phase. None: what is configured for its name.
        run_id: The run to draw under, or to resume.
        force_recompute: Serve nothing that is older than this process, and keep what is bought.
        cassette_path: The cassette to open around it, or None.
        mode: What the cassette does.

    Returns:
        What became of it. An exception that it raises is printed as Python prints it.

    Raises:
        ConfigurationError: If an option cannot be used, or there is no such script.
        StoreError: If the cassette cannot be used.
    """
    script.check()
    chosen = None if policy is None else Policy.named(policy)
    if phase_name is None and (chosen is not None or run_id is not None):
        phase_name = "run" if chosen is not None else "eval"
    if force_recompute:
        configure(force_recompute=True)
        os.environ["DSPY_CACHECTL_FORCE_RECOMPUTE"] = "true"  # for the processes that the script starts
    ensure_installed()
    code, opened, run = 0, None, None
    try:
        with contextlib.ExitStack() as stack:
            if cassette_path is not None:
                opened = stack.enter_context(cassette(cassette_path, mode))
            if phase_name is not None:
                run = stack.enter_context(phase(phase_name, chosen, run_id=run_id, everywhere=True))
            code = _exit_code(script)
    except CachectlError as error:
        if opened is None and run is None:
            raise  # nothing was run
        # What phases and cassettes say at their end, in place of a trace through this package.
        sys.stderr.write(f"dspy-cachectl: {error}\n")
        code = FAILED
    return Outcome(code, stats(), run, opened)


def _exit_code(script: Script) -> int:
    try:
        script.run()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        sys.stderr.write(f"{end.code}\n")
        return FAILED
    except Exception as error:  # noqa: BLE001 - whatever a script raises is shown as Python shows it
        traceback.print_exception(type(error), error, _within(error.__traceback__))
        return FAILED
    return 0


def _within(trace: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that is the script's own."""
    inner = trace
    while inner is not None and inner.tb_frame.f_code.co_filename in {__file__, runpy.__file__, "<frozen runpy>"}:
        inner = inner.tb_next
    return inner or trace
