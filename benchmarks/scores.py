"""How the time for a report grows with its questions."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.figures import Figure, compared
from benchmarks.rounds import Block, Side, interleaved
from benchmarks.rows import row
from benchmarks.scene import Scene
from tests.reports.made_up import report


@row("report")
def reports(scene: Scene) -> Iterator[Figure]:
    """A report's numbers and text of ten times as many questions, by those of a tenth."""
    yield from _grown(scene, "report", clustered=False)


@row("report-clustered", is_long=True)
def reports_clustered(scene: Scene) -> Iterator[Figure]:
    """The same where ten questions each are one cluster."""
    yield from _grown(scene, "report-clustered", clustered=True)


def _grown(scene: Scene, name: str, *, clustered: bool) -> Iterator[Figure]:
    str(report([0.0, 1.0]))  # loads what is not loaded
    for case, many, rounds in (("10,000", 10_000, scene.rounds), ("100,000", 100_000, scene.few)):
        sides = {"theirs": _reported(many // 10, clustered=clustered), "ours": _reported(many, clustered=clustered)}
        taken = interleaved(sides, rounds)
        yield compared(name, taken["ours"], taken["theirs"], case=case)


def _reported(questions: int, *, clustered: bool) -> Side:
    rng = random.Random(0)
    scores = [float(rng.random() < 0.7) for _ in range(questions)]
    clusters = [f"cluster-{at // 10}" for at in range(questions)] if clustered else None

    @contextmanager
    def side() -> Iterator[Block]:
        made = report(scores, clusters=clusters)
        yield lambda: (made.summary(), str(made))

    return side
