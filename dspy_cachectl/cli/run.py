"""`dspy-cachectl run`, somebody's script under a policy, without touching its code; and `demo`, one of our own."""

from __future__ import annotations

import contextlib
import functools
import os
import runpy
import sys
import textwrap
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, cast

import typer

from dspy_cachectl.boundary.shown import harmless, harmless_lines, harmless_trace
from dspy_cachectl.cli.options import count_in, folder_in, number_in, one_of, wrong_usage
from dspy_cachectl.cli.output import OutputError
from dspy_cachectl.config import configure, normal_location, settings
from dspy_cachectl.errors import CachectlError, ConfigurationError

if TYPE_CHECKING:
    from dspy_cachectl.context.open_cassette import Mode
    from dspy_cachectl.context.phases import PhaseRun
    from dspy_cachectl.policy import Policy
    from dspy_cachectl.replay.cassettes import Cassette

_WIDTH = 80
"""How wide what is shown may be."""


def run_script(
    context: typer.Context,
    *,
    phase: Annotated[
        str | None, typer.Option("--phase", metavar="NAME", help="The phase to open around the script.")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option("--policy", metavar="NAME", help="What its cache does: REUSE, FRESH, REFRESH, REPLAY or OFF."),
    ] = None,
    run_id: Annotated[
        str | None, typer.Option("--run-id", metavar="RUN", help="Draw under this run, and serve what it has drawn.")
    ] = None,
    force_recompute: Annotated[
        bool, typer.Option("--force-recompute", help="Serve nothing that was stored before; store what is bought.")
    ] = False,
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", metavar="USD", parser=number_in, help="Spend no more US dollars.")
    ] = None,
    max_requests: Annotated[
        int | None, typer.Option("--max-requests", metavar="N", parser=count_in, help="Send no more requests.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", metavar="N", parser=count_in, help="Read and write no more tokens.")
    ] = None,
    max_seconds: Annotated[
        float | None,
        typer.Option("--max-seconds", metavar="SECONDS", parser=number_in, help="Send nothing after so long."),
    ] = None,
    cassette: Annotated[
        str | None,
        typer.Option(
            "--cassette", metavar="FILE", help="Replay this cassette, or record it (--mode); or s3://bucket/name."
        ),
    ] = None,
    mode: Annotated[
        str, typer.Option("--mode", help="What the cassette does.", **one_of("replay", "record", "new", "all"))
    ] = "replay",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Ask nobody: tell what the script would ask, and what that would cost.")
    ] = False,
    is_module: Annotated[bool, typer.Option("-m", help="SCRIPT is the name of a module.")] = False,
    script: Annotated[str, typer.Argument(metavar="SCRIPT", help="The script to run.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGS...", help="The arguments of the script.")
    ] = None,
) -> None:
    """Run a script under a policy, without touching its code.

    Options of this command stand before the script; what stands after it is the script's. Phases that the script opens
    itself rule inside. The exit code is the script's; the summary goes to the standard error stream.
    """
    if cassette is None and context.get_parameter_source("mode").name != "DEFAULT":  # type: ignore[union-attr]
        raise typer.BadParameter("it says what a cassette does; name one with --cassette", param_hint="--mode")
    from dspy_cachectl.policy import Policy

    with wrong_usage("--policy"):
        chosen = None if policy is None else Policy.named(policy)
    if phase is None and (chosen is not None or run_id is not None):
        phase = "run" if chosen is not None else "eval"
    _check_phase(phase, chosen, run_id)
    # The script, and the processes that it starts, find the store where they always look for it.
    if context.obj.named is not None:
        with wrong_usage("--store"):
            os.environ["DSPY_CACHECTL_STORE"] = normal_location(context.obj.named)
    if not is_module and not Path(script).exists():
        raise ConfigurationError(f"there is no script {script!r}; a module is run with -m")
    if force_recompute:
        configure(force_recompute=True)
        os.environ["DSPY_CACHECTL_FORCE_RECOMPUTE"] = "true"  # for the processes that the script starts
    _limit({"cost": max_cost, "requests": max_requests, "tokens": max_tokens, "seconds": max_seconds})
    play = functools.partial(_run, script, arguments or [], is_module=is_module)
    if dry_run:
        if cassette is not None:
            raise typer.BadParameter("it asks nobody, and so does a cassette: leave one out", param_hint="--dry-run")
        raise typer.Exit(_run_dry(play, phase_name=phase, policy=chosen, run_id=run_id))
    raise typer.Exit(_run_under(play, cassette, mode, phase_name=phase, policy=chosen, run_id=run_id))


def _check_phase(name: str | None, policy: Policy | None, run_id: str | None) -> None:
    """Say what is wrong with a phase in the words of this command, before anything is run.

    Raises:
        typer.BadParameter: If the phase is not known, or a run would have no effect in it.
    """
    if name is None:
        return
    unknown = settings().unknown_phase(name) if policy is None else None
    if unknown is not None:
        said = f"{unknown} Say what another one does with --policy, or configure it in pyproject.toml"
        raise typer.BadParameter(said, param_hint="--phase")
    chosen, roles = settings().phase_policy(name) if policy is None else (policy, {})
    if run_id is not None and not any(one.fresh or one.replays for one in (chosen, *roles.values())):
        said = f"phase {name!r} makes no draws of its own, so a run would have no effect; add --policy FRESH or REPLAY"
        raise typer.BadParameter(said, param_hint="--run-id")


def _limit(limits: Mapping[str, float | None]) -> None:
    """Have a budget for the script and for the processes that it starts, which share it by its name."""
    said = [f"{kind}={limit}" for kind, limit in limits.items() if limit is not None]
    if said:
        os.environ["DSPY_CACHECTL_BUDGET"] = text = ", ".join([*said, f"name=run-{uuid.uuid4().hex[:8]}"])
        configure(budget=text)


class _ScriptFailedError(Exception):
    """The script has failed, and has said why.

    Attributes:
        code: Its exit code.
    """

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"the script ended with {code}")


def _run(target: str, arguments: Sequence[str], *, is_module: bool) -> None:
    """Run a script as Python would, as `__main__`. An error of its is shown as Python does.

    Args:
        target: The path of a script, or the name of a module, found as Python finds modules.
        arguments: What it finds in `sys.argv` after its own name.
        is_module: Whether it is a module.

    Raises:
        _ScriptFailedError: If its exit code is not 0.
    """
    path = Path(target)
    where = Path.cwd() if is_module else path.resolve().parent if path.is_file() else path
    sys.path.insert(0, str(where))
    sys.argv = [target, *arguments]
    try:
        if is_module:
            runpy.run_module(target, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(target, run_name="__main__")
    except SystemExit as end:
        if not end.code:
            return
        if not isinstance(end.code, int):
            sys.stderr.write(f"{harmless_lines(str(end.code))}\n")
        raise _ScriptFailedError(end.code if isinstance(end.code, int) else 1) from None
    except OutputError:
        raise  # as for every command: no fault of the script's
    except Exception as error:  # noqa: BLE001 - whatever a script raises
        sys.stderr.write(f"{harmless_trace(error.with_traceback(_within(error.__traceback__)))}\n")
        raise _ScriptFailedError(1) from None


def _run_under(
    play: Callable[[], None],
    path: str | None,
    mode: str,
    *,
    phase_name: str | None,
    policy: Policy | None,
    run_id: str | None,
) -> int:
    """Run a script under a cassette and a phase, where they are named, and return its exit code."""
    from dspy_cachectl.calls.installation import ensure_installed
    from dspy_cachectl.phases.phase import phase
    from dspy_cachectl.replay.cassettes import cassette

    ensure_installed()
    code, opened, run = 0, None, None
    try:
        with contextlib.ExitStack() as stack:
            if path is not None:
                opened = stack.enter_context(cassette(path, cast("Mode", mode)))
            if phase_name is not None:
                run = stack.enter_context(phase(phase_name, policy, run_id=run_id, everywhere=True))
            play()
    except _ScriptFailedError as failed:
        code = failed.code
    except CachectlError as error:
        if opened is None and run is None:
            raise  # nothing was run
        # What phases and cassettes say at their end, in place of a trace through this package.
        sys.stderr.write(f"dspy-cachectl: {error}\n")
        code = 1
    sys.stdout.flush()
    _print_summary(opened, run)
    return _print_budget() or code


def _run_dry(play: Callable[[], None], *, phase_name: str | None, policy: Policy | None, run_id: str | None) -> int:
    """Run a script that asks nobody, tell what it would ask, and return 0, or its exit code where it told nothing."""
    from dspy_cachectl.calls.installation import ensure_installed
    from dspy_cachectl.estimating.dry_run import DryRun
    from dspy_cachectl.phases.phase import phase

    ensure_installed()
    os.environ["DSPY_CACHECTL_POLICY"] = "REPLAY"  # for the processes that the script starts
    code = 0
    with DryRun() as dry:
        try:
            with contextlib.ExitStack() as stack:
                if phase_name is not None:
                    stack.enter_context(phase(phase_name, policy, run_id=run_id, everywhere=True))
                play()
        except _ScriptFailedError as failed:
            code = failed.code
        except CachectlError as error:
            sys.stderr.write(f"dspy-cachectl: {error}\n")
            code = 1
    sys.stdout.flush()
    for lines in dry.told(code):
        print(harmless_lines(lines), end="\n\n", file=sys.stderr)
    return 0 if dry.estimates else code


def _print_summary(cassette: Cassette | None, run: PhaseRun | None) -> None:
    from dspy_cachectl.context.process import stats

    print(f"\ndspy-cachectl: {stats()}", file=sys.stderr)
    if cassette is not None:
        unused = f", {len(cassette.unused)} unused recordings" if cassette.unused else ""
        print(harmless(f"cassette: {cassette.contents.name}: {cassette.recorded} recorded{unused}"), file=sys.stderr)
    elif run is not None and run.run_id is not None:
        print(harmless(f"run: {run.run_id} (go on with it, or repeat it, with --run-id)"), file=sys.stderr)


def _print_budget() -> int:
    """Say what became of the budget. Return 1 where calls were not made."""
    from dspy_cachectl.budgets.opened import EVERYWHERE
    from dspy_cachectl.budgets.saying import spent_of

    for budget in EVERYWHERE:
        exceeded = budget.exceeded()
        so_far = "\n  ".join([spent_of(budget.spent, budget.limits), *budget.doubts()])
        said = so_far if exceeded is None else str(exceeded)
        for line in harmless_lines(f"budget: {said}").splitlines():
            print(textwrap.fill(line, _WIDTH, subsequent_indent="    "), file=sys.stderr)
        if exceeded is not None:
            return 1
    return 0


def _within(trace: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that is the script's own."""
    inner = trace
    while inner is not None and inner.tb_frame.f_code.co_filename in {__file__, runpy.__file__, "<frozen runpy>"}:
        inner = inner.tb_next
    return inner or trace


def run_demo(
    *,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="An OpenAI-compatible server to ask, instead of the local model."),
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="The name of the model at that server.")] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(metavar="VAR", help="The environment variable that holds that server's key, if it wants one."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", parser=folder_in, help="A folder to keep what the demo writes. Default: nothing is kept."
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Half of the examples, and no MLflow.")] = False,
) -> None:
    """Compile from the cache and evaluate afresh, on a real model.

    Without options that is a small model on this machine: offline, and without a key. It takes a minute or two.
    """
    from dspy_cachectl.demo.environment import prepare_environment

    # Before dspy, which may load litellm.
    prepare_environment()
    from dspy_cachectl.demo.pipeline import run

    with wrong_usage():
        run(endpoint=endpoint, model=model, api_key_env=api_key_env, output=output, quick=quick)
