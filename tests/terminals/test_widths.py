"""What every command prints fits into a terminal of 80 and of 120 columns, with what the command is for."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dspy_cachectl.fingerprints.data import questions_of
from dspy_cachectl.predictions.library import Library
from dspy_cachectl.predictions.rows import Score
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.tracking.outbox import Outbox
from dspy_cachectl.tracking.record import Record
from tests.cli.commands import command, entry, fill, key_of
from tests.predictions.support import examples, key_of as snapshot_key, row
from tests.terminals.screens import Seen, watched

LLAMA = "fireworks_ai/accounts/fireworks/models/llama-v3p1-70b-instruct"
MINI = "openai/gpt-4o-mini-2024-07-18"
RUN = "eval-20261127-023448-1a2b3c4d"
ASKED = "[[ ## review ## ]]\nA film about a lighthouse.\n\n[[ ## question ## ]]\nIs it good?\n\nRespond with ..."
SERVER = "http://user@mlflow.research.example.org:5000/tracking"
WHY = "it did not answer within 10 s: connection refused by mlflow.research.example.org, port 5000"


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A short folder in which everything lies: a store, predictions, and what waits for a server."""
    folder = Path(tempfile.mkdtemp(prefix="w"))
    labels = [
        Label("lm", MINI, "compile"),
        Label("lm", LLAMA, "eval", "generator", RUN),
        Label("lm", MINI, "eval", "judge", RUN),
        Label("plain-lm", LLAMA, "", "", "a-run-that-somebody-gave-a-name-of-many-words-2026"),
        Label("embedding", "openai/text-embedding-3-large", "compile"),
    ]
    entries = {key_of(at): (label, entry(label, ASKED)) for at, label in enumerate(labels * 4)}
    entries[f"run:{RUN}"] = (Label("run", "", "eval", "", RUN), entry(Label("run", "", "eval", "", RUN)))
    fill(folder / "store", entries)
    counted = {"calls": 12_345, "fresh": 345, "resumed": 12_000, "prompt_tokens_spent": 1_234_567}
    counted |= {"cost_spent": 12.3456}
    counted |= {"completion_tokens_spent": 87_654, "prompt_tokens_saved": 23_456_789, "cost_saved": 234.5678}
    DiskStore(folder / "store").add_usage(dict.fromkeys(labels, counted), {})
    for name, model in (("first", MINI), ("second", LLAMA)):
        keep(folder / "kept", name, model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSPY_CACHECTL_STATE", str(folder / "state"))
        Outbox().put(Record("a" * 32, 1, 2, tracking_uri=SERVER, run_id="f" * 32))
        Outbox().fail("a" * 32, WHY)
    yield folder
    shutil.rmtree(folder)


def keep(library: Path, name: str, model: str) -> None:
    data = examples(3)
    with Library(library).open(snapshot_key(data, model=model), questions_of(data), run_id=f"{name}-{RUN}") as session:
        for at, question in enumerate(session.questions):
            asked = {"question": f"Who wrote the {at}th of the novels that were read aloud at the meeting in spring?"}
            made = row(question, answer=f"{name} says: the answer to it, with many words around it", inputs=asked)
            session.keep(replace(made, scores={"exact": Score(question.label_key, float(name == "first"))}))
        session.finish({"phase": "eval"}, {"exact": {"score": 0.75}})


COMMANDS = {
    "ls": (["ls"], ["key", "age", "model", "prompt", key_of(0)[:12], "film"]),
    "stats": (["stats"], ["model", "calls", "served", "spent", "saved", "$12.35", "$234.6", "1,322,221"]),
    "stats by run": (["stats", "--by", "run"], ["run", "calls", "$234.6", "97%"]),
    "bars": (["stats", "--plot"], ["█", "12,345"]),
    "runs": (["runs"], ["run", RUN, "draws", "state", "8"]),
    "clear": (["clear", "--all", "--dry-run"], ["entries", "size", "model", "run"]),
    "prune": (["prune", "--max-size", "1KB", "--dry-run"], ["entries", "size"]),
    "verify": (["verify"], ["flaw", "where", "what"]),
    "doctor": (["doctor"], ["outbox", "mlflow sync"]),
    "config show": (["config", "show"], ["setting", "value", "comes from", "disk_bytes", "DSPY_CACHECTL_STATE"]),
    "show": (["show", key_of(0)[:12]], [MINI, "lighthouse"]),
    "explain": (["explain", key_of(6)[:12]], [key_of(6)]),
    "predictions ls": (["predictions", "ls"], ["id", "model", "rows", "age", "score", "exact 0.75"]),
    "predictions show": (["predictions", "show", "first"], ["question", "prediction", "score", "kept"]),
    "predictions diff": (["predictions", "diff", "first", "second"], ["before", "after", "1 -> 0"]),
    "predictions clear": (["predictions", "clear", "--all", "--dry-run"], ["To be removed"]),
    "changed": (["changed", "first", "second", "--predictions", "kept"], ["question", "begins with", "lost -1.00"]),
    "predictions rank": (["predictions", "rank"], ["score", "interval", "verdict", "BEST"]),
    "mlflow status": (["mlflow", "status"], ["record", "aaaaaaaa", "server", "why it waits", "refused"]),
    "mlflow sync": (["mlflow", "sync", "--dry-run"], ["record", "aaaaaaaa", "status"]),
}
"""Each command, and what is on the screen in any case."""


def seen(name: str, columns: int, home: Path) -> Seen:
    arguments, _ = COMMANDS[name]
    where = ["--predictions", "kept"] if arguments[0] == "predictions" else []
    return watched(["--store", "store", *arguments, *where], columns, cwd=home, DSPY_CACHECTL_STATE="state")


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "stats" else pytest.mark.exhaustive) for name in COMMANDS]
)
def test_what_is_printed_fits_into_the_terminal(name: str, columns: int, home: Path) -> None:
    """No line is wider than it, and what the command is for is there."""
    found = seen(name, columns, home)
    assert found.code in {0, 3}, found.text
    assert [] == found.too_wide(columns)
    text = " ".join(found.text.split())
    assert [] == [part for part in COMMANDS[name][1] if part not in text], found.text


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "ls" else pytest.mark.exhaustive) for name in ("ls", "stats", "runs")],
)
def test_nothing_is_shortened_or_left_out_in_a_pipe(name: str, home: Path) -> None:
    """Whoever reads it there gets every column, and every name as it is."""
    done = command(*COMMANDS[name][0], store=home / "store")
    assert (0, "") == (done.returncode, done.stderr)
    assert "…" not in done.stdout
    assert "Not shown" not in done.stdout
    assert LLAMA in done.stdout
    assert name == "stats" or RUN in done.stdout
