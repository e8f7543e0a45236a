"""What `make bench-compare` says of made-up figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as running, compare, results
from benchmarks.figures import Figure

FACTS = ("processor", "cores", "python", "commit", "when")
"""What is known of a machine beside its load and versions."""


def figure(name: str, *ratios: float) -> Figure:
    """A figure of one run with these ratios."""
    row, _, case = name.partition(".")
    return Figure(row, case, "", ratios, (sorted(ratios)[len(ratios) // 2],), 1.0, 1.0)


def written(path: Path, *figures: Figure) -> str:
    """The file of a run with these figures."""
    results.write(path, figures, runs=1, rounds=5)
    return str(path)


QUIET = (0.98, 0.99, 1.0, 1.01, 1.02)
NOISY = (0.5, 0.8, 1.0, 1.4, 1.9)


@pytest.mark.parametrize(
    ("name", "before", "now", "verdict"),
    [
        ("put.native", QUIET, [1.2 * ratio for ratio in QUIET], "worse"),
        ("put.native", QUIET, [0.8 * ratio for ratio in QUIET], "better"),
        ("put.native", NOISY, [1.2 * ratio for ratio in NOISY], "same"),  # within what rounds spread anyway
        ("put.native", QUIET, [1.2 * ratio for ratio in NOISY], "same"),
        ("put.native", [1.0] * 5, [1.02] * 5, "same"),  # less than two environments differ by
        ("bytes-disk.native", [1.0], [1.1], "worse"),  # what is counted has no noise
        ("threads.native", QUIET, [1.2 * ratio for ratio in QUIET], "better"),  # more is better
        ("threads.native", QUIET, [0.8 * ratio for ratio in QUIET], "worse"),
    ],
)
def test_what_is_worse_beyond_the_noise(name: str, before: list[float], now: list[float], verdict: str) -> None:
    """A ratio is worse, or better, where it changed by more than the rounds of both spread."""
    assert verdict == compare.verdict(figure(name, *before), figure(name, *now))


def test_what_got_worse_fails_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 1 where a ratio got worse, and that one is named; another that did not is none."""
    release = written(tmp_path / "release.json", figure("put.native", *QUIET), figure("floor.lm", *QUIET))
    slower = figure("put.native", *(2 * ratio for ratio in QUIET))
    now = written(tmp_path / "now.json", slower, figure("floor.lm", *QUIET))

    code = compare.main(["--release", release, "--measured", now])

    assert (1, "worse: put.native\n") == (code, capsys.readouterr().err)


def test_what_did_not_get_worse_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Better and new figures pass."""
    release = written(tmp_path / "release.json", figure("put.native", *QUIET))
    quicker = figure("put.native", *(0.5 * ratio for ratio in QUIET))
    now = written(tmp_path / "now.json", quicker, figure("floor.lm", *QUIET))

    assert 0 == compare.main(["--release", release, "--measured", now])
    shown = capsys.readouterr()
    assert ["better", "new"] == [line.split()[-1] for line in shown.out.splitlines()[1:]]
    assert not shown.err


def test_what_is_not_measured_any_more_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A figure of the release that is missing is no success."""
    release = written(tmp_path / "release.json", figure("put.native", *QUIET))
    now = written(tmp_path / "now.json", figure("floor.lm", *QUIET))

    assert 1 == compare.main(["--release", release, "--measured", now])
    assert "missing: put.native\n" == capsys.readouterr().err


def test_without_a_release_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where no release was measured, what to do is said."""
    assert 2 == compare.main(["--release", str(tmp_path / "none.json")])
    assert "make bench-release" in capsys.readouterr().err


def test_a_row_that_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row that could not be measured is named, and fails; the others are written. A busy machine is told, too."""
    told = [{"row": "put", "failed": "RuntimeError('full')"}, results.as_json(figure("bytes-disk.native", 1.5))]
    monkeypatch.setattr(running, "_lines", lambda *_: iter(told))

    monkeypatch.setattr(running.results, "machine", lambda: {"load": 3.0, "versions": {}} | dict.fromkeys(FACTS, ""))

    assert 1 == running.main(["--only", "put", "bytes-disk", "--output", str(tmp_path)])
    told_of = capsys.readouterr().err
    assert "failed: put: RuntimeError('full')" in told_of
    assert "rough: the machine had a load of 3.0" in told_of
    assert ["bytes-disk.native"] == list(results.read(tmp_path / "bench.json"))


def test_what_seems_to_be_worse_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The release's code is measured beside this one, of its commit; a row is worse that is so over three attempts."""
    measured: list[tuple[str, bool]] = []

    def lines(_theme: str, names: Sequence[str], _rounds: int, root: Path) -> Iterator[dict[str, Any]]:
        is_release = root != results.ROOT
        assert (root / "benchmarks/compare.py").is_file()
        for name in names:
            measured.append((name, is_release))
            slow = not is_release and (name == "put" or (name == "cache-get" and measured.count((name, False)) == 1))
            yield results.as_json(figure(f"{name}.native", *(2 * ratio if slow else ratio for ratio in QUIET)))

    monkeypatch.setattr(running, "_lines", lines)
    release = tmp_path / "release.json"
    figures = [figure(f"{name}.native", *QUIET) for name in ("put", "cache-get", "embedder")]
    results.write(release, figures, rounds=5, commit="HEAD")

    assert 1 == compare.main(["--release", str(release)])
    assert "worse: put.native" == capsys.readouterr().err.splitlines()[-1]
    both = [(name, times) for name in ("put", "cache-get", "embedder") if (times := measured.count((name, True)))]
    assert [("put", 3), ("cache-get", 2), ("embedder", 1)] == both
    assert measured.count(("put", False)) == 3


def test_a_release_that_is_not_here_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the checkout has no such commit, nothing is measured."""
    results.write(tmp_path / "release.json", [figure("put.native", *QUIET)], rounds=5, commit="0" * 40)
    assert 2 == compare.main(["--release", str(tmp_path / "release.json")])
    assert "is not in this checkout" in capsys.readouterr().err


@pytest.mark.exhaustive
def test_a_row_is_measured(tmp_path: Path) -> None:
    """One row, measured as people do it, has a figure for each engine and state, as JSON and as a table."""
    assert 0 == running.main(["--only", "cache-get", "--rounds", "1", "--output", str(tmp_path)])

    names = [f"cache-get.{engine}.{state}" for engine in ("native", "litellm") for state in ("hot", "first")]
    assert names == list(results.read(tmp_path / "bench.json"))
    table = (tmp_path / "bench.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in table for name in names)
