"""`cassette`: record the calls of a block into a file, and replay them from it."""

from __future__ import annotations

import contextlib
import functools
import os
import uuid
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, TypeVar, get_args

from dspy_cachectl.accounting.ledger import Stats
from dspy_cachectl.boundary.meant import question
from dspy_cachectl.boundary.ownership import check_output, in_use
from dspy_cachectl.boundary.reading import no_path
from dspy_cachectl.boundary.writing import check_writable
from dspy_cachectl.config import settings
from dspy_cachectl.context.open_cassette import CASSETTE_RUN, EACH_A_DRAW, Mode, OpenCassette, Recording
from dspy_cachectl.context.process import logger, state
from dspy_cachectl.entries.cleaning import Cleaner, Redact
from dspy_cachectl.errors import CacheMissError, ConfigurationError, ReplayIncompleteError, StoreUnavailableError
from dspy_cachectl.phases.decoration import Block
from dspy_cachectl.phases.phase import phase
from dspy_cachectl.policy import Policy
from dspy_cachectl.replay import files, unsaved
from dspy_cachectl.replay.places import CassettePlace, place_of
from dspy_cachectl.reports.texts import plural
from dspy_cachectl.stores.liveness import me

P = ParamSpec("P")
T = TypeVar("T")

_SHOWN_MISSES = 5


class Cassette:
    """A cassette that is, or was, open.

    Attributes:
        path: Its file; of one in an object store the copy on this machine.
        mode: What was asked for.
        contents: What it serves and records.
    """

    def __init__(self, path: Path, mode: Mode, contents: OpenCassette) -> None:
        self.path = path
        self.mode = mode
        self.contents = contents

    @property
    def stats(self) -> Stats:
        """What happened to the calls within it, of all phases: a snapshot."""
        return self.contents.ledger.snapshot()

    @property
    def recorded(self) -> int:
        """How many answers were recorded."""
        return len(self.contents.recorded)

    @property
    def unused(self) -> list[str]:
        """The keys of what was on it and was not asked for."""
        return self.contents.unused

    @property
    def misses(self) -> list[CacheMissError]:
        """The calls that it had no answer for."""
        return self.contents.misses

    def __repr__(self) -> str:
        return f"<Cassette {self.contents.name!r}, {self.mode}: {self.stats!r}>"


class cassette(Block[Cassette]):  # noqa: N801 - used as a word: with cassette("tests/answers.jsonl")
    """Record the calls of a block into a file, or replay them from it: no provider, no key, no cost.

    Works as a context manager, sync and async, and as a decorator of functions and coroutine functions. While it is
    open it takes the place of the store, in every thread. Phases may be opened inside it; each draw that was recorded
    is replayed where it belongs, and several draws of one request in their order. Outside phases each call is
    recorded by itself.

    Modes:

    - `"replay"`: no call reaches a provider. One without a recording raises `CacheMissError`, and once more, as
      `ReplayIncompleteError`, when the block ends.
    - `"record"`: record, where there is no file yet; replay it where there is one. A recording that was cut short is
      gone on with: what it has is replayed, and the rest recorded.
    - `"new"`: replay what is recorded, and record what is not.
    - `"all"`: ask for everything anew, in place of what was recorded. What is not asked for stays.

    What ends the block, an exception or Ctrl-C, cuts the recording short, and so does a call that failed or whose
    answer could not be recorded; what was bought is kept. So is what a killed process had bought.

    Args:
        path: The file: JSON lines, compressed where it ends in `.zst`. Or the address of one in an object store,
            `s3://bucket/name` (likewise `gs://` and `az://`); what others record there at the same time is kept.
        mode: See above.
        redact: Applied to each text of requests and answers before it is written. The program is given the redacted
            answer as well while it is recorded, so that a replay goes the same way; this needs `LM` or `wrap()`.

    Raises:
        ConfigurationError: If the mode is not known, the path is none, or there is no file to replay.
        StoreError: If the file cannot be read or written, or is damaged.
        MissingExtraError: If the package for object stores is needed and not installed.
    """

    def __init__(self, path: str | os.PathLike[str], mode: Mode = "replay", *, redact: Redact | None = None) -> None:
        if mode not in get_args(Mode):
            known = ", ".join(repr(name) for name in get_args(Mode))
            guess = question(str(mode), get_args(Mode))
            raise ConfigurationError(
                f"a cassette's mode is one of {known}, not {mode!r}{f': {guess}' if guess else ''}"
            )
        if redact is not None and not callable(redact):
            raise ConfigurationError(f"redact= takes a function from text to text, not {redact!r}")
        reason = no_path(path)
        if reason:
            raise ConfigurationError(f"a cassette cannot be called {os.fspath(path)!r}: {reason}; name a file")
        self._place = place_of(path)
        self._mode: Mode = mode
        self._redact = redact
        self._opened: CassetteSession | None = None

    def __enter__(self) -> Cassette:
        if self._opened is not None:
            raise ConfigurationError(f"this cassette({self._place.shown!r}) is open already; make a new one to nest")
        self._opened = CassetteSession(self._place, self._mode, self._redact)
        return self._opened.cassette

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            try:
                opened.close(error)
            finally:
                if opened.is_cut_short:
                    logger.warning(
                        'the recording of %s is unfinished: the %s that were bought are kept, and the mode "record" '
                        "goes on with it",
                        self._place.shown,
                        plural(opened.cassette.recorded, "answer"),
                    )
            opened.raise_misses(error)

    def _again(self) -> cassette:
        return cassette(self._place.shown, self._mode, redact=self._redact)


class CassetteSession:
    """A cassette that is entered: what `cassette` and the pytest plugin work with.

    Several scopes may share a file: each has its own recordings there, which it alone replays, adds to and replaces.
    A scope's file may be missing, since the scope may make no call, and is not made before the first recording.

    Args:
        place: Where it is.
        mode: See `cassette`. In a scope, `"record"` records where the scope has no recordings yet.
        redact: See `cassette`.
        scope: Whose recordings these are; empty for the whole file. A scope without recordings of its own replays
            those that are nobody's.

    Raises:
        ConfigurationError: If there is no file to replay.
        StoreError: If the file cannot be read or written, or is damaged.

    Attributes:
        cassette: The cassette, to look at.
        others: The recordings of the file, whosever they are, when it was opened.
        is_cut_short: Whether something was recorded when it was closed, and not all of it.
    """

    def __init__(self, place: CassettePlace, mode: Mode, redact: Redact | None = None, *, scope: str = "") -> None:
        path, self._place = place.path, place
        place.fetch()
        with place.named():
            if mode != "replay":
                _take_over(place, both_sides=mode == "all")
            before = _there(path, both_sides=mode == "all")
        if before is None and mode == "replay" and not scope:
            raise ConfigurationError(
                f'there is no cassette {place.shown} to replay; record it first, in the mode "record"'
            )
        found = before or files.CassetteFile()
        if found.conflict:
            logger.warning(
                "%s, line %d: version control left a conflict here; both sides are kept, and recorded anew as far as "
                "they are asked for",
                place.shown,
                found.conflict,
            )
        self.others = found.recordings
        scopes = {recording.scope for recording in self.others.values()}
        is_there = before is not None and (not scope or scope in scopes or "" in scopes)
        is_unfinished = scope in found.unfinished
        replays = mode == "replay" or (mode == "record" and is_there and not is_unfinished)
        if replays and scope not in scopes and "" in scopes:
            scope = ""
        of_a_store = found.keys == "store"
        self.is_cut_short = False
        self._missed = 0
        self._unsaved = None if replays else _recorder(path)
        self._token = uuid.uuid4().hex
        self._held = contextlib.ExitStack()
        self._held.enter_context(in_use(path))
        try:
            contents = OpenCassette(
                place.shown,
                self.others.values(),
                mode="replay" if replays else "all" if mode == "all" else "new",
                clean=Cleaner(redact),
                portable=not of_a_store,
                on_recorded=None if self._unsaved is None else self._unsaved.append,
                scope=scope,
                is_unfinished=scope in found.unfinished,
            )
            self.cassette = Cassette(path, mode, contents)
            state.cassettes[self._token] = contents
            # In a store one answer serves every equal call outside phases.
            self._phase = phase("cassette", Policy.REUSE if of_a_store else EACH_A_DRAW, everywhere=True)
            # It is of nobody's draws, and found under the token wherever calls carry it.
            self._phase.context = replace(self._phase.context, cassette_token=self._token, run_id=CASSETTE_RUN)
            self._phase.__enter__()
        except BaseException:
            state.cassettes.pop(self._token, None)
            self._held.close()
            if self._unsaved is not None:
                self._unsaved.close(keep=False)
            raise

    def close(self, error: BaseException | None = None, *, whole: bool = True, forget: Collection[str] = ()) -> None:
        """Leave it, and save what was recorded.

        Args:
            error: What ended it.
            whole: Whether all was asked for that it asks for, as far as the caller knows.
            forget: The keys of recordings to remove from the file.

        Raises:
            ConfigurationError: If an answer could not be recorded; what could is saved.
            StoreError: If the file cannot be written.
        """
        contents = self.cassette.contents
        is_saved = False
        try:
            # The misses of its own phase are among the cassette's, but for those of other processes.
            try:
                self._phase.__exit__(None, None, None)
            except ReplayIncompleteError as incomplete:
                self._missed = incomplete.count
            # A straggler neither reaches the provider nor finds the store.
            closed = OpenCassette(f"{contents.name}, which is closed", mode="replay", clean=contents.clean)
            state.close_cassette(self._token, closed)
            whole = whole and not _ends_early(error) and not contents.unkept and not contents.ledger.snapshot().failed
            if self._unsaved is not None and (whole or contents.recorded or forget):
                self.is_cut_short = not whole and bool(contents.recorded)
                save(
                    self._place,
                    contents.recorded,
                    forget=forget,
                    finished={contents.scope} if whole else (),
                    unfinished={contents.scope} if self.is_cut_short else (),
                    both_sides=contents.mode == "all",
                )
            is_saved = True
        finally:
            self._held.close()
            if self._unsaved is not None:
                self._unsaved.close(keep=not is_saved)
        if contents.unkept and (error is None or isinstance(error, Exception)):
            raise ConfigurationError(
                f"{plural(len(contents.unkept), 'answer is', 'answers are')} not in the cassette {contents.name}, "
                f"which its replay would miss: {contents.unkept[0]!r}"
            ) from contents.unkept[0]

    def raise_misses(self, error: BaseException | None) -> None:
        """Raise what it had no answer for once more, unless the program was ended by that, or is interrupted.

        Raises:
            ReplayIncompleteError: If there was no answer to a call.
        """
        misses = self.cassette.misses
        seen = error is not None and (
            not isinstance(error, Exception) or isinstance(error, (CacheMissError, ReplayIncompleteError))
        )
        missed = max(len(misses), self._missed)
        if missed and not seen:
            raise ReplayIncompleteError(self.cassette.contents.name, missed, misses[:_SHOWN_MISSES]) from error


def save(
    place: CassettePlace,
    recorded: Mapping[str, Recording],
    *,
    forget: Collection[str] = (),
    finished: Collection[str] = (),
    unfinished: Collection[str] = (),
    both_sides: bool = False,
) -> None:
    """Add recordings to a cassette's file. Others may do so at the same time.

    Args:
        place: Where it is.
        recorded: The recordings, by key.
        forget: The keys of recordings to remove.
        finished: The scopes whose recording is whole now.
        unfinished: Those whose recording was cut short.
        both_sides: See `files.read`.

    Raises:
        StoreError: If it cannot be read or written.
    """
    path = place.path
    if not recorded and not forget and not _has_to_be_written(path, finished, both_sides=both_sides):
        return

    def write() -> None:
        before = files.read(path, both_sides=both_sides) if path.exists() else files.CassetteFile()
        there = {key: one for key, one in before.recordings.items() if key not in forget}
        cut_short = (before.unfinished - {*finished}) | {*unfinished}
        files.write(path, {**there, **recorded}.values(), before=before, unfinished=cut_short)

    place.change(write)


def _recorder(path: Path) -> unsaved.Unsaved:
    """Return what recordings are written to at once, where the cassette can be written: before anything is paid for."""
    check_output(path, what="a cassette", is_recording=True)
    check_writable(path, what="the cassette")
    me(unsaved.locks_folder())
    return unsaved.Unsaved(path)


def _has_to_be_written(path: Path, finished: Collection[str], *, both_sides: bool) -> bool:
    """Tell whether a file has to be written where nothing was recorded: it says that it is whole, if it did not."""
    there = _there(path, both_sides=both_sides)
    if there is None:
        return "" in finished  # the replay of a block without calls has to know that there are none
    return bool(there.conflict or there.unfinished & {*finished})


def _ends_early(error: BaseException | None) -> bool:
    return error is not None and not (isinstance(error, SystemExit) and error.code in (None, 0))


def _there(path: Path, *, both_sides: bool = False) -> files.CassetteFile | None:
    """Return a file, if there is one; many scopes open it one after the other, and it is read where it has changed."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreUnavailableError(f"the cassette {path} cannot be read: {error}") from error
    version = (found.st_mtime_ns, found.st_size, found.st_ino, settings().encryption_key)
    return _read(path, version, both_sides)


@functools.lru_cache(maxsize=2)
def _read(path: Path, version: tuple[object, ...], both_sides: bool) -> files.CassetteFile:  # noqa: ARG001 - to tell one from another
    return files.read(path, both_sides=both_sides)


def _take_over(place: CassettePlace, *, both_sides: bool) -> None:
    """Add to a cassette what killed processes had recorded for it, and say in it whose recording they cut short."""
    for database, recordings in unsaved.left_behind(place.path):
        logger.warning("%d answers of a recording of %s that was killed are added to it", len(recordings), place.shown)
        scopes = {recording.scope for recording in recordings}
        save(place, {one.key: one for one in recordings}, unfinished=scopes, both_sides=both_sides)
        unsaved.remove(database)
