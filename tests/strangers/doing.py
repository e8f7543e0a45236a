"""All that this package does which writes or removes, done in folders that other people use as well."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy

import dspy_cachectl as cachectl
from dspy_cachectl.errors import CachectlError
from dspy_cachectl.fingerprints.data import questions_of
from dspy_cachectl.manage import tables
from dspy_cachectl.predictions.library import Library
from dspy_cachectl.tracking.log import log_to_mlflow
from dspy_cachectl.tracking.outbox import Outbox
from dspy_cachectl.tracking.record import Record
from tests.cli.commands import command
from tests.cli.stores import COMPILED, DRAWN, filled
from tests.predictions import support
from tests.reports.made_up import report
from tests.strangers.folders import Strangers


@dataclass
class World:
    """Where everything is, and what belongs to others in there."""

    root: Path
    strangers: Strangers
    rng: random.Random
    make_lm: Callable[..., cachectl.LM]

    @property
    def library(self) -> Path:
        """The folder of predictions."""
        return self.root / "library"

    @property
    def store(self) -> Path:
        """The store's folder."""
        return self.root / "store"

    @property
    def cassettes(self) -> Path:
        """The folder of cassettes."""
        return self.root / "cassettes"

    def no_places(self) -> list[Path]:
        """Return where nothing can be written: pipes, sockets, devices, folders, circles."""
        none = {"pipe", "socket", "device", "folder", "circle", "link to a folder"}
        return sorted(path for path, kind in self.strangers.kinds.items() if kind in none)

    def taken(self) -> list[Path]:
        """Return what is taken by a file, or something else, of somebody's."""
        return sorted(self.strangers.kinds)

    def run(self, *arguments: str | Path) -> None:
        """Run a command. What it says is not looked at, but it says no traceback."""
        done = command(
            *arguments,
            store=self.store,
            cwd=self.root,
            DSPY_CACHECTL_STATE=str(self.root / "state"),
            DSPY_CACHEDIR=str(self.root / "dspy"),
            TMPDIR=str(self.root / "locks"),
        )
        assert "Traceback" not in done.stderr, (arguments, done.stderr)


def settle(world: World) -> None:
    """Put things of ours beside those of others, as far as there is room."""
    with contextlib.suppress(CachectlError):
        filled(world.store, [COMPILED] * 6 + [DRAWN] * 6)
    with contextlib.suppress(CachectlError):
        done = [support.evaluate(Library(world.library), support.examples(3, start=start)).path for start in (0, 9, 20)]
        with contextlib.suppress(OSError):
            os.truncate(done[0], done[0].stat().st_size - 20)
            (world.library / f"{done[1].name}.damaged").write_bytes(done[1].read_bytes())
    with contextlib.suppress(CachectlError):
        Outbox().put(Record("a" * 32, 1, 2, "http://127.0.0.1:1"))


def evaluate(world: World) -> None:
    """Evaluate, again, and anew."""
    dspy.configure(lm=world.make_lm())
    program = dspy.Predict("question -> answer")
    for options in ({}, {"repeats": 2}, {"force_recompute": True}):
        cachectl.evaluate(
            program,
            support.examples(2),
            lambda example, prediction: True,
            predictions=world.library,
            display_progress=False,
            **options,
        )


def library(world: World) -> None:
    """Cut an evaluation, and use every call of a library."""
    data = support.examples(4, start=40)
    session = Library(world.library).open(support.key_of(data), questions_of(data))
    support.compute(session, at_most=2)
    session.kept.close()
    session.journal.close()
    for compress in (False, True):
        library = Library(world.library, compress=compress)
        support.evaluate(library, support.examples(3, start=60))
        library.snapshots(), library.usage(), library.expired()
    tight = Library(world.library, max_bytes=1, max_age=1e-6)
    support.evaluate(tight, support.examples(3, start=70))
    for remove in (tight.prune, lambda: tight.clear(lambda _: True), tight.clear):
        with contextlib.suppress(CachectlError):
            remove()


def predictions_commands(world: World) -> None:
    """Every command about predictions that writes or removes."""
    named = ("--predictions", world.library)
    world.run("predictions", "ls", *named)
    world.run("predictions", "clear", "--all", "--yes", *named)
    world.run("prune", "--yes", *named)
    world.run("verify", "--repair", "--yes", *named)


def store_commands(world: World) -> None:
    """Every command about a store that writes or removes."""
    for arguments in (
        ["ls"],
        ["stats"],
        ["doctor"],
        ["runs", "rm", "run-2", "--yes"],
        ["prune", "--older-than", "1s", "--max-size", "1KB", "--yes"],
        ["verify", "--repair", "--yes"],
        ["export", "out/new.jsonl"],
        ["export", "out/new.jsonl.zst", "--force"],
        ["import", "out/new.jsonl", "--overwrite"],
        ["import", "--from-dspy"],
        ["clear", "--all", "--yes"],
    ):
        world.run(*arguments)


def damaged_store(world: World) -> None:
    """Mend a store whose database is damaged, if it is ours."""
    database = world.store / "cache.db"
    if database not in world.strangers.facts and database.is_file():
        content = bytearray(database.read_bytes())
        content[len(content) // 2 : len(content) // 2 + 4096] = b"\xa5" * 4096
        database.write_bytes(content)
    world.run("verify", "--repair", "--yes")
    world.run("clear", "--all", "--yes")


def outputs(world: World) -> None:
    """Write a report, a figure, a table and a cassette to where nothing can be, and to where something is."""
    made = report([[1.0], [0.0], [1.0]])
    rows = [support.row(questions_of(support.examples(1))[0])]
    for path in world.rng.sample(world.no_places(), min(6, len(world.no_places()))):
        with contextlib.suppress(CachectlError):
            made.save(path)
        with contextlib.suppress(CachectlError):
            cachectl.EvalReport.load(path)
        with contextlib.suppress(CachectlError):
            made.plot(path)
        with contextlib.suppress(CachectlError):
            tables.export(rows, path.with_suffix(".csv") if path.suffix == ".csv" else path, force=True)
    for path in world.rng.sample(world.no_places(), min(2, len(world.no_places()))):
        world.run("export", path, "--force")
        world.run("import", path)
    for path in world.rng.sample(world.taken(), min(2, len(world.taken()))):
        world.run("export", path)
    made.save(world.root / "out" / "report.json")
    made.plot(world.root / "out" / "report.png")


def cassettes(world: World) -> None:
    """Record, add to, replace and replay a cassette, also in the place of something of somebody's."""
    dspy.configure(lm=world.make_lm())
    # Where a link leads nowhere a cassette is made: that is what it is there for.
    others = [path for path in world.taken() if world.strangers.kinds[path] != "dangling"]
    places = [world.cassettes / name for name in ("answers.jsonl", "answers.jsonl.zst")]
    for path in places + world.rng.sample(others, min(5, len(others))):
        for mode in ("record", "new", "all", "replay"):
            with contextlib.suppress(CachectlError), cachectl.cassette(path, mode):  # type: ignore[arg-type]
                dspy.settings.lm(f"question {mode}")


def results(world: World) -> None:
    """Let results wait, and take from the outbox what is in there."""
    log_to_mlflow(report([[1.0], [0.0], [1.0]]), timeout=0, tracking_uri="http://127.0.0.1:1")
    with contextlib.suppress(CachectlError):
        box = Outbox()
        for waiting in box.waiting():
            lease = box.lease(waiting.uid)
            if lease is not None:
                lease.release()
    world.run("mlflow", "status")
    world.run("mlflow", "discard", "--all", "--yes")


def store_in_use(world: World) -> None:
    """Use a folder as a store: in phases, with what is in there cleared and counted."""
    cachectl.configure(store=str(world.store))
    lm = world.make_lm()
    for name in ("compile", "eval"):
        with cachectl.phase(name):
            lm("question one")
    cachectl.uninstall()


DOING: dict[str, Callable[[World], Any]] = {
    one.__name__: one
    for one in (
        store_in_use,
        evaluate,
        library,
        predictions_commands,
        cassettes,
        outputs,
        results,
        store_commands,
        damaged_store,
    )
}


def each_thing(world: World) -> Iterator[tuple[str, Callable[[World], Any]]]:
    """Yield what is done, in an order of its own for each world; setting things up comes first."""
    names = list(DOING)
    world.rng.shuffle(names)
    yield "settle", settle
    yield from ((name, DOING[name]) for name in names)
