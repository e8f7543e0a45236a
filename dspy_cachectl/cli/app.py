"""The commands put together, and how a command ends."""

import contextlib
import errno
import io
import os
import sys
from typing import Annotated, Any, NoReturn

import typer

from dspy_cachectl.boundary.shown import harmless, harmless_lines
from dspy_cachectl.cli import (
    checking,
    gate,
    looking,
    mlflow,
    predictions,
    ranking,
    rekey,
    removing,
    report,
    run,
    transfer,
)
from dspy_cachectl.cli.options import StoreOption
from dspy_cachectl.cli.output import OutputError, print_line
from dspy_cachectl.config import settings
from dspy_cachectl.errors import CachectlError

FAILED = 1
_IN_MEMORY = "The store is in memory: its answers are in the process that uses it."

app = typer.Typer(
    name="dspy-cachectl",
    no_args_is_help=True,
    # Help and usage errors are plain text: they are read by pipes and by the reference page too.
    rich_markup_mode=None,
    # Typer's own tracebacks print less than Python's.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from dspy_cachectl._version import __version__

        print(f"dspy-cachectl {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    *,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="The store to look at. Default: the one that the configuration names (see `config show`).",
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback has acted already
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
    list_cache: Annotated[
        bool, typer.Option("--list-cache", help="List the answers and the kept predictions.")
    ] = False,
    clear_cache: Annotated[
        bool, typer.Option("--clear-cache", help="Remove all answers and kept predictions.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --clear-cache: do not ask.")] = False,
) -> None:
    """See and manage the answers that dspy-cachectl keeps.

    Exit codes: 0 done, 1 failed, 2 the command was not given as it has to be, 3 `verify` found damage. `run` exits as
    the script does.
    """
    context.obj = StoreOption(store)
    if context.invoked_subcommand is None:
        if list_cache == clear_cache:
            context.fail("name a command, or one of --list-cache and --clear-cache")
        if list_cache:
            _list_everything(context)
        else:
            _clear_everything(context, yes=yes)
    elif list_cache or clear_cache or yes:
        flag = "--list-cache" if list_cache else "--clear-cache" if clear_cache else "--yes"
        raise typer.BadParameter("it stands without a command", param_hint=flag)


def _list_everything(context: typer.Context) -> None:
    kept = settings().predictions_place
    if context.obj.is_in_memory():
        print(_IN_MEMORY)
    else:
        print_line(f"Answers in {context.obj.reader().location}")
        looking.list_store(context)
    print()
    print_line(f"Kept predictions in {kept}")
    predictions.list_snapshots(predictions=kept)


def _clear_everything(context: typer.Context, *, yes: bool) -> None:
    if not context.obj.is_in_memory():
        removing.clear_everything(context, yes=yes)
    else:
        print(_IN_MEMORY)
        if not removing.keeps_a_bucket():
            predictions.clear_snapshots(everything=True, predictions=settings().predictions_place, yes=yes)


@app.command("path")
def show_path(context: typer.Context) -> None:
    """Print where the store is."""
    where = context.obj.reader().location
    # A program is told it as it is.
    print(harmless(where) if sys.stdout.isatty() else where)


app.command("ls", short_help="List the entries, the newest first.")(looking.list_store)
app.command("show", short_help="Show what was asked, answered and paid.")(looking.show_entry)
app.command("diff", short_help="Show what differs between two entries.")(looking.show_difference)
app.command("stats", short_help="Show how much is stored and was saved.")(looking.show_stats)
app.add_typer(removing.runs_app)
app.command("clear", short_help="Remove entries that fit, or all of them.")(removing.clear_entries)
app.command("prune", short_help="Remove what is expired or too much.")(removing.prune_entries)
app.command("verify", short_help="Check the database and every entry.")(checking.verify_store)
app.command("export", short_help="Write answers to a portable file.")(transfer.export_entries)
app.command("import", short_help="Put answers of a file into the store.")(transfer.import_entries)
app.command("rekey", short_help="Encrypt what is kept with another key.")(rekey.rekey_all)
app.command("doctor", short_help="Check what is around, and say what to do.")(checking.check_surroundings)
app.add_typer(checking.config_app)
predictions.app.command("rank", short_help="Rank the models by what is kept.")(ranking.rank_snapshots)
app.add_typer(predictions.app)
app.command("report", short_help="Write a report as a page for the browser.")(report.write_page)
app.command("changed", short_help="Show which questions changed sides, and why.")(report.show_changed)
app.command("merge", short_help="Make one report of those of all shards.")(report.merge_shards)
app.command("gate", short_help="Tell whether a change passes, by two reports.")(gate.pass_or_fail)
app.command("explain", short_help="Say why a request was bought.")(looking.explain_miss)
app.command("run", short_help="Run a script under a policy.", context_settings={"allow_interspersed_args": False})(
    run.run_script
)
app.command("demo", short_help="Run the whole story on a real model.")(run.run_demo)
app.add_typer(mlflow.app)


class _Output(io.FileIO):
    """The standard output, whose errors are told from those of every other file."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            raise OutputError(error.errno, error.strerror) from error


def main() -> NoReturn:
    """Run the command line and leave with its exit code. An error of this package is one message, not a trace."""
    if sys.stdout is None:  # it was closed
        sys.exit(_failed("the standard output is closed"))
    out: Any = sys.stdout
    if isinstance(sys.stdout, io.TextIOWrapper):
        out = io.BufferedWriter(_Output(sys.stdout.fileno(), "wb", closefd=False))
        # A terminal of another script is no reason to fail.
        sys.stdout = io.TextIOWrapper(
            out, sys.stdout.encoding, "backslashreplace", line_buffering=sys.stdout.line_buffering
        )
    try:
        code = _run()
        sys.stdout.flush()
        out.flush()  # where nobody reads it, typer has put another in its place that does not say so
    except OutputError as error:
        # Python would flush, and from 3.13 on complain, once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        # Who reads the output (`| head`) has seen enough.
        is_a_pipe = error.errno == errno.EPIPE
        code = FAILED if is_a_pipe else _failed(f"the standard output cannot be written: {error.strerror}")
    sys.exit(code)


def _run() -> int | str | None:
    try:
        app(prog_name="dspy-cachectl")
    except SystemExit as end:
        return end.code
    except CachectlError as error:
        return _failed(str(error))
    return 0


def _failed(message: str) -> int:
    with contextlib.suppress(OSError):  # nobody can be told
        print(f"dspy-cachectl: {harmless_lines(message)}", file=sys.stderr)
    return FAILED
