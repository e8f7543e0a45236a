"""An entry that is whole, and of whose answer DSPy can make none, is a failed read: the answer is bought again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.entries import records
from dspy_cachectl.stores.disk import DiskStore
from tests.calls.support import MakeLM
from tests.endpoint import Endpoint
from tests.isolation import reset_cachectl
from tests.stores.contract import COMPILED


def _of_no_message(answer: dict[str, Any]) -> None:
    answer["responses"][0]["message"] = None


def _of_no_outputs(answer: dict[str, Any]) -> None:
    answer["outputs"] = 7


@pytest.mark.parametrize("spoil", [_of_no_message, _of_no_outputs])
@pytest.mark.parametrize("made_by", ["lm", "plain_lm"])
def test_it_is_bought_again(
    endpoint: Endpoint,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    made_by: str,
    spoil: Callable[[dict[str, Any]], None],
) -> None:
    make: MakeLM = request.getfixturevalue(made_by)

    def ask() -> tuple[list[str], int]:
        reset_cachectl()  # as a new process, which has nothing in memory
        dspy.configure(lm=make())
        with cachectl.phase("compile") as run:
            return dspy.settings.lm("one"), run.stats.failed_reads

    ask()
    with closing(DiskStore(tmp_path / "store")) as store:
        (key,) = store.keys()
        origin, answer, tagged, description = records.take_apart(store.get(key) or b"")
        spoil(answer)
        store.put(key, records.put_together(origin, answer, tagged=tagged, request=description), COMPILED)

    again, failed = ask()
    assert (2, 1, True) == (endpoint.requests, failed, bool(again))
    assert (again, 0) == ask()
    assert 2 == endpoint.requests
