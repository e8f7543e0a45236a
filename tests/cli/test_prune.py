"""`dspy-cachectl prune`: what is expired goes, and the oldest of what is over the limit."""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path

import pytest

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.manage.removal import Limits, plan_pruning
from dspy_cachectl.manage.selection import parse_size
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.reader import kept
from tests.cli.commands import command, data
from tests.cli.stores import COMPILED, DRAWN, crowded, describe_run, filled, keys_in, table
from tests.predictions.support import evaluate, examples

DAY = 86_400.0


def aged(folder: Path, keys: list[str]) -> None:
    """Let the answers be stored a day after one another, the last of them an hour ago."""
    with table(folder) as connection:
        for at, key in enumerate(reversed(keys)):
            connection.execute(
                "UPDATE Cache SET store_time = ? WHERE key = ?", (time.time() - 3600 - at * DAY, kept(key))
            )


@pytest.fixture
def store(tmp_path: Path) -> tuple[Path, list[str]]:
    """Eight answers, one a day: four compiled, then four drawn in a run."""
    folder = tmp_path / "full"
    keys = filled(folder, [COMPILED] * 4 + [DRAWN] * 4)
    describe_run(folder, "run-2")
    aged(folder, keys)
    return folder, keys


def test_what_is_too_old_goes(store: tuple[Path, list[str]]) -> None:
    """`--older-than` removes what was stored longer ago, and nothing else."""
    folder, keys = store
    done = data("prune", "--older-than", "5d", "--yes", store=folder)
    assert (3, 3, {"older than asked for": 3}) == (done["entries"], done["removed"], done["reasons"])
    assert {*keys[3:], "run:run-2"} == keys_in(folder)


def test_without_a_limit_nothing_goes(store: tuple[Path, list[str]]) -> None:
    """Where nothing is too old or too much, nothing is removed."""
    folder, _ = store
    done = data("prune", "--yes", store=folder)
    assert (0, 0, 9) == (done["entries"], done["removed"], len(keys_in(folder)))


def test_what_stays_is_not_held(tmp_path: Path) -> None:
    """Of a store of any size no more than a page is in memory while it is decided what goes."""
    reader = crowded(tmp_path / "many", 20_000, runs=50)
    tracemalloc.start()
    try:
        decided = plan_pruning(reader, Limits(max_bytes=10**12))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert {} == decided.keys
    assert peak < 4_000_000  # all of them take 11 million


def test_max_age_of_the_configuration(store: tuple[Path, list[str]], tmp_path: Path) -> None:
    """An answer of a phase with a max_age goes when it is older than every max_age; one of another phase stays."""
    folder, keys = store
    (tmp_path / "pyproject.toml").write_text(
        f"[tool.dspy_cachectl.phases]\neval.max_age = {1.5 * DAY}\nmine.max_age = {2.5 * DAY}\n"
    )
    done = command("prune", "--yes", "--json", store=folder, cwd=tmp_path)
    assert (0, "") == (done.returncode, done.stderr)
    # Drawn 0, 1, 2 and 3 days ago, and an hour; the compiled ones are older.
    assert {*keys[:4], *keys[5:], "run:run-2"} == keys_in(folder)


def test_the_oldest_go_until_the_rest_fits(tmp_path: Path) -> None:
    """`--max-size` is kept, by as few removals as it takes, and the newest stay."""
    folder = tmp_path / "large"
    store = DiskStore(folder)
    keys = [f"key-{number:03}" for number in range(200)]
    for key in keys:
        store.put(key, os.urandom(20_000), COMPILED)
    store.close()
    aged(folder, keys)
    dry = data("prune", "--max-size", "1MB", "--dry-run", store=folder)
    assert 200 == len(keys_in(folder))
    done = data("prune", "--max-size", "1MB", "--yes", store=folder)
    left = sorted(keys_in(folder))
    assert dry["entries"] <= done["removed"] == 200 - len(left)
    assert keys[-len(left) :] == left
    size = (folder / "cache.db").stat().st_size
    assert 750_000 < size <= 1_000_000


def test_the_configured_size_is_the_default(tmp_path: Path) -> None:
    """Without `--max-size` the store may have the configured disk_bytes."""
    folder = tmp_path / "large"
    store = DiskStore(folder)
    for number in range(50):
        store.put(f"key-{number:03}", os.urandom(20_000), COMPILED)
    store.close()
    done = command("prune", "--yes", store=folder, DSPY_CACHECTL_DISK_BYTES="500000")
    assert (0, "") == (done.returncode, done.stderr)
    assert 10 < len(keys_in(folder)) < 25


def test_predictions_are_pruned_by_their_own_rule(tmp_path: Path) -> None:
    """With `--predictions` the library's limits hold, and without it no snapshot is touched."""
    from dspy_cachectl.predictions.library import Library

    root = tmp_path / "library"
    evaluate(Library(root), examples(3))
    (old,) = root.glob("*.json")
    text = old.read_bytes()
    kept = root / f"{old.name}.damaged"
    kept.write_bytes(text)
    os.utime(kept, (1, 1))
    arguments = ("prune", "--predictions", root)
    dry = data(*arguments, "--dry-run", store=tmp_path / "none")
    assert ([kept.name], True) == (dry["predictions"], kept.exists())
    done = data(*arguments, "--yes", store=tmp_path / "none")
    assert ([kept.name], False, True) == (done["predictions"], kept.exists(), old.exists())


@pytest.mark.parametrize("arguments", [["--max-size", "much"], ["--max-size", "0"], ["--older-than", "old"], []])
def test_wrong_usage(store: tuple[Path, list[str]], arguments: list[str]) -> None:
    """A size or an age that is none, and no yes where nobody can be asked: exit code 2, and nothing goes."""
    done = command("prune", *arguments, store=store[0])
    assert (2, "", 9) == (done.returncode, done.stdout, len(keys_in(store[0])))


@pytest.mark.parametrize(
    ("text", "size"),
    [("10GB", 10**10), ("1.5GiB", 3 * 2**29), ("500 mb", 5 * 10**8), ("2k", 2000), ("17", 17), ("1b", 1)],
)
def test_sizes(text: str, size: int) -> None:
    """Sizes are read as people write them."""
    assert size == parse_size(text)


@pytest.mark.parametrize("text", ["", "GB", "-1", "0", "10XB", "1e9"])
def test_what_is_no_size(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ConfigurationError, match="is no size"):
        parse_size(text)
