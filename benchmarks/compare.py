"""`python -m benchmarks.compare`: measures what a release was measured at, and fails where a ratio got worse.

Ratios are of a machine, too: on two of one name a hit was 0.60 and 0.69 of DSPy's, with the same code. So the code of
the release is measured beside this one, theme by theme in turn, and what seems to be worse is measured again. Which
code that is, and how often it was measured, is in benchmarks/release.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from benchmarks import __main__ as running, results
from benchmarks.bars import bar_of
from benchmarks.figures import Figure
from benchmarks.rows import Row, picked

RELEASE = Path(__file__).with_name("release.json")
LEAST = 0.03
"""Which part of a ratio no difference is told below: two environments of one code differ by as much."""
ATTEMPTS = 3
"""How often a row is measured that seems to be worse: of a hundred that are the same, some are by chance."""

Verdict = Literal["worse", "better", "same", "new", "missing"]


@dataclass(frozen=True)
class Change:
    """What became of a figure since the release.

    Attributes:
        name: The figure.
        before: What it was; None where the release has none.
        now: What it is; None where it was not measured.
        verdict: What that means.
    """

    name: str
    before: Figure | None
    now: Figure | None
    verdict: Verdict


def verdict(before: Figure, now: Figure) -> Verdict:
    """Tell whether a ratio got worse or better beyond the noise.

    It did where the middle halves of the rounds of both lie apart, and the ratios by more than `LEAST`: as much as the
    rounds of either spread is noise.
    """
    bar = bar_of(now)
    (lower, upper), (lower_now, upper_now) = before.quartiles, now.quartiles
    least = LEAST * before.ratio
    if lower_now > upper and now.ratio - before.ratio > least:
        return "better" if bar is not None and bar.at_least else "worse"
    if upper_now < lower and before.ratio - now.ratio > least:
        return "worse" if bar is not None and bar.at_least else "better"
    return "same"


def changes(before: Mapping[str, Figure], now: Mapping[str, Figure]) -> list[Change]:
    """Return what became of each figure of either."""
    found = []
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name), now.get(name)
        told: Verdict = "new" if old is None else "missing" if new is None else verdict(old, new)
        found.append(Change(name, old, new, told))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print what became of each ratio. Return 1 where one got worse or is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--release", type=Path, default=RELEASE, help="the figures of the release, and its commit")
    parser.add_argument("--measured", type=Path, help="figures of now, to compare with those, instead of measuring")
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW", help="as for `python -m benchmarks`")
    options = parser.parse_args(arguments)
    if not options.release.exists():
        print(f"there is no {options.release}: measure a release with `make bench-release` first", file=sys.stderr)
        return 2
    before = results.read(options.release)
    if options.measured is not None:
        return _told(changes(before, results.read(options.measured)))
    facts, known = json.loads(options.release.read_text(encoding="utf-8")), {one.row for one in before.values()}
    rows = [row for row in picked(options.only, long_ones=False) if row.name in known]
    with tempfile.TemporaryDirectory(prefix="bench-release-") as folder:
        try:
            _check_out(facts["commit"], folder)
        except subprocess.CalledProcessError as error:
            print(f"the release's code, {facts['commit']}, is not in this checkout: {error.stderr}", file=sys.stderr)
            return 2
        before, now, failed = _measured(rows, facts["rounds"], Path(folder))
    for failure in failed:
        print(f"failed: {failure}", file=sys.stderr)
    return _told(changes(before, now)) or int(bool(failed))


def _check_out(commit: str, folder: str) -> None:
    """Put the files of a commit into a folder."""
    command = ["git", "archive", "--format=tar", commit]
    files = subprocess.run(command, cwd=results.ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=files, check=True, capture_output=True)


def _measured(
    rows: Sequence[Row], rounds: int, release: Path
) -> tuple[dict[str, Figure], dict[str, Figure], list[str]]:
    """Return the figures of the release's code and of this, by name, and what failed."""
    before, now, failed = list[Figure](), list[Figure](), list[str]()
    for _ in range(ATTEMPTS):
        for theme, names in running.themes_of(rows):
            print(f"{theme}, of the release and of now", file=sys.stderr, flush=True)
            before += running.measured(theme, names, rounds, failed, root=release)
            now += running.measured(theme, names, rounds, failed)
        found = changes(running.by_name(before), running.by_name(now))
        worse = {change.now.row for change in found if change.now is not None and change.verdict == "worse"}
        rows = [row for row in rows if row.name in worse]
    return running.by_name(before), running.by_name(now), failed


def _told(found: Iterable[Change]) -> int:
    table = Table("figure", "release", "now", "verdict", box=None, pad_edge=False)
    failed = []
    for change in found:
        cells = [results.cells(figure)[1:3] if figure else ("", "") for figure in (change.before, change.now)]
        table.add_row(
            change.name, *(f"{ratio} ({spread})" if spread else ratio for ratio, spread in cells), change.verdict
        )
        if change.verdict in {"worse", "missing"}:
            failed.append(change)
    Console(soft_wrap=True).print(table)
    for change in failed:
        print(f"{change.verdict}: {change.name}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
