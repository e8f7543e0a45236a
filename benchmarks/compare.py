"""`python -m benchmarks.compare`: measures what a release was measured at, and fails where a ratio got worse.

`make bench-compare` takes the release's figures from benchmarks/release.json. What it measures is measured as often as
the release was, and only ratios are compared: seconds are of one machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from benchmarks import __main__ as running, results
from benchmarks.bars import bar_of
from benchmarks.figures import Figure

RELEASE = Path(__file__).with_name("release.json")
LEAST = 0.03
"""Which part of a ratio no difference is told below: two environments of one code differ by as much."""

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
    parser.add_argument("--release", type=Path, default=RELEASE, help="the figures to compare with")
    parser.add_argument("--measured", type=Path, help="figures of now, instead of measuring")
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW", help="as for `python -m benchmarks`")
    options = parser.parse_args(arguments)
    if not options.release.exists():
        print(f"there is no {options.release}: measure a release with `make bench-release` first", file=sys.stderr)
        return 2
    facts, before = json.loads(options.release.read_text(encoding="utf-8")), results.read(options.release)
    path = options.measured or Path("outputs/bench-compare/bench.json")
    if options.measured is None:
        asked = [f"--{name}={facts[name]}" for name in ("rounds", "runs")]
        running.main([*asked, f"--output={path.parent}", *(["--only", *options.only] if options.only else [])])
    now = results.read(path)
    if options.only:
        rows = {figure.row for figure in now.values()}
        before = {name: figure for name, figure in before.items() if figure.row in rows}
    return _told(changes(before, now))


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
