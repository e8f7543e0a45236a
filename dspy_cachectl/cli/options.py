"""What several commands have, declared once so that it reads alike: the store, which entries, and asking first."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from dspy_cachectl.boundary.meant import question
from dspy_cachectl.boundary.shown import harmless, is_harmless_for_shells
from dspy_cachectl.cli.output import print_line
from dspy_cachectl.config import each_of, folder_of, is_objects, is_shared, objects_of, settings
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.manage.selection import Selection, parse_age
from dspy_cachectl.reports.texts import plural
from dspy_cachectl.stores.listing import Reader
from dspy_cachectl.stores.reader import FolderReader

_MOST_OFFERED = 200
_PATIENCE = 0.05
_SHARED_PATIENCE = 5.0
"""How long a shell that completes a line waits for a folder, and a command for a server; in seconds."""

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")]


@contextlib.contextmanager
def wrong_usage(option: str | None = None) -> Iterator[None]:
    """Let what cannot be used be the fault of an option: a message, and exit code 2."""
    try:
        yield
    except ConfigurationError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


@dataclass(frozen=True)
class StoreOption:
    """Which store a command looks at.

    Attributes:
        named: The store as `--store` names it; None where it is left to the configuration.
    """

    named: str | None

    def __post_init__(self) -> None:
        if self.named is not None and not self.named.strip():
            object.__setattr__(self, "named", None)

    def folder(self) -> Path:
        """Return the store's folder, absolute. It need not exist, and is not made.

        Raises:
            typer.BadParameter: If `--store` names none.
            ConfigurationError: If the configuration names none.
        """
        with contextlib.nullcontext() if self.named is None else wrong_usage("--store"):
            folder = self.folder_if_any()
            if folder is None and self.shared is not None:
                raise ConfigurationError("the store is a shared one, and this looks at a folder; name one")
            if folder is None:
                raise ConfigurationError(
                    "a store in memory lives in the process that uses it and cannot be seen from here; name a folder"
                )
        return folder

    def folder_if_any(self) -> Path | None:
        """Return the store's folder, as `folder` does, or None where the store is in memory, or a shared one.

        Raises:
            ConfigurationError: If the store is something else.
        """
        return None if self.shared is not None else folder_of(self._location)

    def is_in_memory(self) -> bool:
        """Tell whether the store is in the memory of each program, where nothing can be seen from here.

        Raises:
            ConfigurationError: If the store is nothing that is known.
        """
        return self.shared is None and self.folder_if_any() is None

    @property
    def shared(self) -> str | None:
        """The address of the store, where it is a shared one; or None.

        Raises:
            ConfigurationError: If the configuration names none, or one that cannot be used.
        """
        location = self._location
        return location if is_shared(location) else None

    def every_shared(self) -> list[str]:
        """Return the addresses of the shared stores; all of the configuration, where none is named.

        Raises:
            ConfigurationError: As for `shared`.
        """
        return [one for one in (each_of(settings().store) if self.named is None else [self.named]) if is_shared(one)]

    @property
    def _location(self) -> str:
        # Of several the nearest that can be seen from here; another is named.
        return each_of(settings().store)[0] if self.named is None else self.named

    def reader(self, **options: Any) -> Reader:
        """Return what reads the store: a folder, or a shared store. Nothing is opened yet.

        Args:
            options: How a folder is read (see `FolderReader`).

        Raises:
            typer.BadParameter: If `--store` names none.
            ConfigurationError: If the configuration names none.
            MissingExtraError: If it needs a package that is not installed.
        """
        with contextlib.nullcontext() if self.named is None else wrong_usage("--store"):
            if self.shared is None:
                return FolderReader(self.folder(), **options)
            from dspy_cachectl.stores.redis.store import RedisStore

            return RedisStore(self.shared, patience=_SHARED_PATIENCE)


@wrong_usage()
def folder_in(text: object) -> Path | None:
    """Return the folder that an option names, absolute, or None where its text is empty. For `parser=`.

    Raises:
        typer.BadParameter: If the text cannot be the name of a folder on disk.
    """
    folder = None
    if str(text).strip():
        folder = folder_of(str(text))
        if folder is None:
            raise ConfigurationError(f"{str(text)!r} is no folder on disk; name one")
    return folder


@wrong_usage()
def library_in(text: object) -> str:
    """Return the library of kept predictions that an option names; "" where its text is empty. For `parser=`.

    Raises:
        typer.BadParameter: If the text can be neither the name of a folder nor the address of an object store.
    """
    if is_objects(str(text)):
        return objects_of(str(text))
    folder: Path | None = folder_in(text)
    return "" if folder is None else str(folder)


def one_of(*names: str) -> dict[str, Any]:
    """Return what makes an option one of these words: `typer.Option(..., **one_of("a", "b"))`."""

    @wrong_usage()
    def chosen(text: object) -> str:
        word = str(text).lower()
        if word not in names:
            guess = question(word, names)
            raise ConfigurationError(f"{str(text)!r} is none of {', '.join(names)}{f': {guess}' if guess else ''}")
        return word

    return {"parser": chosen, "metavar": f"<{'|'.join(names)}>"}


age_in = wrong_usage()(parse_age)
"""For `parser=`, likewise the next two."""


@wrong_usage()
def count_in(text: Any) -> int:
    """Read a whole number from 0 on."""
    if not str(text).isdecimal():
        raise ConfigurationError(f"{str(text)!r} is no whole number from 0 on")
    return int(text)


@wrong_usage()
def number_in(text: Any) -> float:
    """Read a number from 0 on."""
    with contextlib.suppress(ValueError):
        if float(text) >= 0:
            return float(text)
    raise ConfigurationError(f"{str(text)!r} is no number from 0 on, such as 0.5 or 30")


def _names_of(field: str) -> Callable[[typer.Context, str], list[str]]:
    """Return what a shell offers after an option: the names in one field of the entries' labels."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        try:
            labels = StoreOption(context.find_root().params.get("store")).reader(patience=_PATIENCE).labels()
        except Exception:  # noqa: BLE001 - a shell that is completing a line shows no errors
            return []
        names = {str(getattr(label, field)) for label in labels if label.is_answer}
        found = sorted(name for name in names if is_harmless_for_shells(name) and name.startswith(incomplete))
        return found[:_MOST_OFFERED]

    return complete


def _names(field: str, metavar: str, help_: str) -> Any:
    option = typer.Option(f"--{field}", metavar=metavar, autocompletion=_names_of(field), help=f"{help_} Repeatable.")
    return Annotated[list[str] | None, option]


def _age(name: str, help_: str) -> Any:
    return Annotated[float | None, typer.Option(name, metavar="AGE", parser=age_in, help=help_)]


_SELECTORS = {
    "models": _names("model", "NAME", "Only of this model; a pattern such as 'openai/*' will do."),
    "phases": _names("phase", "NAME", "Only bought in this phase; '-' for outside phases."),
    "runs": _names("run", "RUN", "Only draws of this run; '-' for what belongs to none."),
    "roles": _names("role", "NAME", "Only of LMs with this role; '-' for those without."),
    "kinds": _names("kind", "KIND", "Only of this kind: lm, plain-lm, embedding."),
    "older_than": _age("--older-than", "Only stored longer ago: 90s, 15m, 24h, 7d, 2w."),
    "newer_than": _age("--newer-than", "Only stored less long ago: 90s, 15m, 24h, 7d, 2w."),
    "text": Annotated[
        str | None,
        typer.Option("--contains", metavar="TEXT", help="Only whose request contains this text, in any case."),
    ],
}


def selecting(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say which entries it is about. It takes them as one `selection`."""
    # Not `get_type_hints`: on Python 3.10 it hides what an option with None for its default says of itself.
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "selection"]
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _SELECTORS.items()
    ]
    places = [parameter for parameter in own if parameter.kind is not inspect.Parameter.KEYWORD_ONLY]

    @functools.wraps(command)
    def selects(*arguments: Any, **given: Any) -> None:
        values = {name: given.pop(name, None) for name in _SELECTORS}
        named: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
            if value not in (None, "", [])
        }
        command(*arguments, selection=Selection(**named), **given)

    parameters = [*places, *options, *own[len(places) :]]
    # This is what typer makes the options of.
    selects.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    selects.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return selects


def told_unknown(reader: Reader, selection: Selection) -> str:
    """Return what is said where nothing fits: which names nothing in the store has, and which were probably meant.

    Where others of these names fit, it is said on the standard error stream.

    Raises:
        typer.BadParameter: If a name with its middle left out may be more than one.
    """
    labels = {} if selection.is_empty else reader.labels()
    if not any(label.is_answer for label in labels):
        return "Nothing is stored yet."
    with wrong_usage():
        unknown = selection.unknown(labels)
    said = "; ".join(itertools.chain.from_iterable(unknown.values()))
    if said and all(len(getattr(selection, field)) > len(names) for field, names in unknown.items()):
        print(f"dspy-cachectl: of what is stored {harmless(_sentence(said))}", file=sys.stderr)
    return _sentence(f"Nothing that is stored fits{': ' if said else ''}{said}")


def tell_unread(unread: Mapping[str, int]) -> None:
    """Say on the standard error stream how many entries could not be searched for a text, and why."""
    for reason, count in unread.items():
        print(f"dspy-cachectl: {plural(count, 'entry', 'entries')} could not be searched: {reason}", file=sys.stderr)


def _sentence(text: str) -> str:
    return text if text.endswith("?") else f"{text}."


@dataclass(frozen=True)
class Consent:
    """How far a command that changes something may go.

    Attributes:
        yes: Whether it need not ask.
        dry_run: Whether it only shows what it would do.
        as_json: Whether it prints JSON at its end, and nothing before.
    """

    yes: bool
    dry_run: bool
    as_json: bool

    def check(self, wanted: object = True) -> None:
        """Raise where there would have to be asked, and nobody is there to answer.

        Args:
            wanted: What is to be done; nobody is asked about nothing.

        Raises:
            typer.BadParameter: If the standard input is no terminal.
        """
        if wanted and not self.yes and not self.dry_run and not _is_watched():
            raise typer.BadParameter(
                "there is no terminal to ask on, so nothing was changed. Add --yes to do it, or --dry-run to see what "
                "would be done",
                param_hint="--yes",
            )

    def given(self, question: str, *, refused: int = 1) -> bool:
        """Ask, unless there is a yes already; a dry run has none. Only the word `yes` is one.

        Args:
            question: The question.
            refused: The exit code where the answer is another.

        Raises:
            typer.BadParameter: If it has to ask, and the standard input is no terminal.
            typer.Exit: If the answer is another.
        """
        if self.yes or self.dry_run:
            return not self.dry_run
        self.check()
        print(f'{question} Type "yes" to go on: ', end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() != "yes":
            print("Nothing was changed.", file=sys.stderr)
            raise typer.Exit(refused)
        return True

    def say(self, text: str) -> None:
        """Print a line for people."""
        if not self.as_json:
            print_line(text)


def _is_watched() -> bool:
    try:
        return sys.stdin is not None and sys.stdin.isatty()
    except ValueError:  # it is closed
        return False
