"""`python -m benchmarks.page`: writes docs/explanation/speed.md anew, from the bars and the figures of the release."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import plots, results
from benchmarks.bars import BARS
from benchmarks.compare import RELEASE
from benchmarks.figures import Figure
from benchmarks.rows import all_rows

PAGE = results.ROOT / "docs/explanation/speed.md"
PICTURES = results.ROOT / "docs/assets/speed"

INTRODUCTION = """\
# What it costs, beside others

What the package adds to a call is measured as ratios: ours by DSPy's own, or by a peer's, in turn within one process,
so that whatever else the machine does strikes both. Less is better, but where it says "≥". A ratio is of the
processor's time, unless the row says that it is by the clock; it is the median of the ratios of single rounds, and of
three runs in new processes. The middle half is where half of all rounds lie: a difference within it is noise.

*Hot* is an answer that was served before in this process, *first* one that is decoded for the first time: from memory,
or where the row says so from disk. `native` and `litellm` are DSPy's two engines. All accounting, single flight and the
policy are on.

`make bench` measures this on your machine in some 20 minutes, `make bench BENCH_ARGS="--only lm-compile --rounds 5"`
one row of it, and `make bench-compare` measures the release's code beside this one, and says what got worse.
"""


def text(figures: Mapping[str, Figure], facts: Mapping[str, Any]) -> str:
    """Return the page: what each row is, its bars, and what was measured of it, if anything was."""
    return "\n".join([INTRODUCTION, *_measured_on(figures, facts), *_tables(figures)])


def _measured_on(figures: Mapping[str, Figure], facts: Mapping[str, Any]) -> Iterator[str]:
    if not figures:
        yield "Of this release no figures were kept yet; the tables say what each row is held to.\n"
        return
    yield f"Measured: {results.described(facts)}\n"
    for picture in sorted(PICTURES.glob("*.svg")):
        yield f"![Ours by theirs, each figure with its bar: {picture.stem}](../assets/speed/{picture.name})\n"


def _tables(figures: Mapping[str, Figure]) -> Iterator[str]:
    known = dict.fromkeys([*figures, *BARS])
    names_of = {name: [one for one in known if one.partition(".")[0] == name] for name in all_rows()}
    shown = [row for row in all_rows().values() if names_of[row.name]]
    for theme, rows in itertools.groupby(shown, key=lambda row: row.theme):
        yield f"## {theme.capitalize()}\n"
        for row in rows:
            yield f"{row.says}\n"
            yield "| figure | ratio | middle half | bar (stretch) | met |\n| --- | --- | --- | --- | --- |"
            yield from (_line(name, figures.get(name)) for name in names_of[row.name])
            yield ""


def _line(name: str, figure: Figure | None) -> str:
    if figure is None:
        return f"| `{name}` | | | {BARS[name]} | |"
    _, ratio, spread, _, bar, met = results.cells(figure)
    return f"| `{name}` | {ratio} | {spread} | {bar} | {met} |"


def main(release: Path = RELEASE, page: Path = PAGE) -> None:
    """Write the page, and its pictures where there are figures."""
    facts: dict[str, Any] = {}
    figures: dict[str, Figure] = {}
    if release.exists():
        facts, figures = json.loads(release.read_text(encoding="utf-8")), results.read(release)
        PICTURES.mkdir(parents=True, exist_ok=True)
        plots.plot(PICTURES, list(figures.values()))
    page.write_text(text(figures, facts), encoding="utf-8")


if __name__ == "__main__":
    main()
