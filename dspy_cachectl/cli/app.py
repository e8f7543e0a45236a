"""The commands put together, and how a command ends.

Exit codes: 0 done, 1 failed, 2 the command was not given as it has to be.
"""

import os
import sys
from typing import Annotated, NoReturn

import typer

from dspy_cachectl.cli import demo, mlflow, path, stats
from dspy_cachectl.cli.location import Location
from dspy_cachectl.errors import CachectlError

FAILED = 1

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


@app.callback()
def options(
    context: typer.Context,
    *,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            envvar="DSPY_CACHECTL_STORE",
            help="The store to look at. Default: the one that the configuration names.",
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback has acted already
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """See and manage the answers that dspy-cachectl keeps."""
    context.obj = Location(store)


app.command("path")(path.show_path)
app.command("stats")(stats.show_stats)
app.command("demo")(demo.run_demo)
app.add_typer(mlflow.app)


def main() -> NoReturn:
    """Run the command line and leave with its exit code. An error of this package is one message, not a trace."""
    code: int | str | None
    try:
        app(prog_name="dspy-cachectl")
        code = 0
    except SystemExit as end:
        code = end.code
    except CachectlError as error:
        print(f"dspy-cachectl: {error}", file=sys.stderr)
        code = FAILED
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads the output (`| head`) has seen enough. Python would flush, and complain, once more at exit;
        # the exit code is the one that typer gives when it notices first.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    sys.exit(code)
