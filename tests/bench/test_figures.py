"""What a figure comes to, and whether it reaches its bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks import results
from benchmarks.bars import BARS, Bar
from benchmarks.figures import Figure, compared, counted, pooled
from benchmarks.rounds import Round, Side, interleaved


def rounds(*seconds: float) -> list[Round]:
    """Rounds that took so many seconds of the processor, and twice as many by the clock."""
    return [Round(cpu, 2 * cpu) for cpu in seconds]


def side(told: list[str], name: str, result: Callable[[], object] = lambda: None) -> Side:
    """A side that tells what is done with it."""

    @contextmanager
    def made() -> Iterator[Callable[[], object]]:
        told.append(f"{name} ready")
        yield lambda: told.append(name) or result()
        told.append(f"{name} done")

    return made


def test_sides_take_turns_and_begin_in_turn() -> None:
    """In each round every side is timed once, made ready and tidied up, and who begins changes."""
    told: list[str] = []

    taken = interleaved({"a": side(told, "a"), "b": side(told, "b")}, 3)

    assert ["a", "b", "b", "a", "a", "b"] == [name for name in told if " " not in name]
    assert ["a ready", "a", "a done"] == told[:3]
    assert {"a": 3, "b": 3} == {name: len(of_one) for name, of_one in taken.items()}


def test_what_a_block_measured_itself_is_taken() -> None:
    """A block that ran something elsewhere returns what that took."""
    measured = Round(1.5, 2.5)

    assert {"a": [measured]} == interleaved({"a": side([], "a", lambda: measured)}, 1)


def test_a_ratio_is_the_median_of_pairs() -> None:
    """Rounds of one index are compared, whatever the others took: the ratio is not that of the medians."""
    figure = compared("row", rounds(1, 10, 3), rounds(1, 5, 1), case="native", state="hot", calls=10)

    assert "row.native.hot" == figure.name
    assert 2.0 == figure.ratio
    assert (1.5, 2.5) == figure.quartiles
    assert (0.3, 0.1) == (figure.ours, figure.theirs)
    assert 1.0 == figure.minima


def test_the_clock_that_a_row_is_about_is_compared() -> None:
    """Seconds by the clock are compared where the row says so, and the processor's are noted beside."""
    ours, theirs = [Round(1, 8), Round(1, 8)], [Round(2, 2), Round(2, 2)]

    figure = compared("row", ours, theirs, clock="wall")

    assert (4.0, 0.5) == (figure.ratio, figure.other_clock)


def test_runs_are_pooled_by_the_median_of_their_ratios() -> None:
    """A run that was disturbed as a whole does not decide."""
    runs = [compared("row", rounds(*ours), rounds(1, 1, 1)) for ours in ((1, 1, 1), (9, 9, 9), (2, 2, 2))]

    figure = pooled(runs)

    assert 2.0 == figure.ratio
    assert (1.0, 9.0, 2.0) == figure.runs
    assert 9 == len(figure.ratios)


def test_figures_are_read_as_they_were_written(tmp_path: Path) -> None:
    """The JSON of a run says the same when it is read."""
    written = [compared("row", rounds(1, 2), rounds(4, 4), state="first"), counted("bytes", 3, 2, case="native")]

    results.write(tmp_path / "bench.json", written, runs=1)

    assert {figure.name: figure for figure in written} == results.read(tmp_path / "bench.json")


@pytest.mark.parametrize(
    ("bar", "ours", "met"),
    [
        (Bar(0.5), 0.5, True),
        (Bar(0.5), 0.51, False),
        (Bar(1.8, at_least=True), 1.8, True),
        (Bar(1.8, at_least=True), 1.7, False),
        (Bar(300, of="ms"), 0.3, True),
        (Bar(300, of="ms"), 0.31, False),
    ],
)
def test_a_bar_is_met_at_its_limit(bar: Bar, ours: float, met: bool) -> None:
    """A ratio that is to stay below is met at the limit, one that is to reach it too, and so are milliseconds."""
    assert met is bar.is_met(counted("row", ours, 1.0))


def test_every_bar_is_of_a_row() -> None:
    """No bar stands beside a row that nobody measures."""
    from benchmarks.rows import all_rows

    assert not {name for name in BARS if name.partition(".")[0] not in all_rows()}


def test_a_table_says_whether_a_bar_is_met() -> None:
    """Ratio, spread, bar and verdict stand in one line of at most 80 columns."""
    met, missed = (Figure("lm-compile", "native", "hot", (ratio,) * 4, (ratio,), 1.0, 1.0) for ratio in (0.7, 0.71))

    assert ("lm-compile.native.hot", "0.70", "0.70 – 0.70", "", "≤ 0.7 (0.6)", "yes") == results.cells(met)
    assert "no" == results.cells(missed)[-1]


def test_rows_are_picked_by_name_theme_and_beginning() -> None:
    """What is named is measured, also what is long; what is not known is said."""
    from benchmarks.rows import picked

    def names(*asked: str, **options: Any) -> list[str]:
        return [row.name for row in picked(list(asked), **{"long_ones": False, **options})]

    assert ["put"] == names("put")
    assert ["lm-tools", "lm-tools-disk"] == names("lm-tools*")
    assert {"put", "bytes-disk"} < set(names("puts"))
    assert ["million"] == names("million")
    assert "million" not in names()
    assert "million" in names(long_ones=True)
    with pytest.raises(SystemExit, match="no row 'lm-compiel'"):
        names("lm-compiel")
