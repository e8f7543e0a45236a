"""The example of a team: what each of them pays, with a real server between them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import command
from tests.endpoint import Endpoint
from tests.examples.running import EXAMPLES, example
from tests.processes import Finished
from tests.stores.servers import Server

SCRIPT = EXAMPLES / "team" / "team.py"
DRAWS = 10 * 3


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A Redis that nobody else uses."""
    running = Server(tmp_path / "server")
    yield running
    running.kill()


@pytest.mark.exhaustive
def test_nobody_pays_for_what_another_has_paid(endpoint: Endpoint, server: Server, tmp_path: Path) -> None:
    """Ana pays for the compile, Ben for each draw, whichever worker asks; CI for nothing, without server and key."""

    shared = f"{server.url}?patience=60"  # it waits as long as a busy machine needs

    def does(what: str, store: str = shared, **variables: str) -> tuple[int, Finished]:
        with endpoint.counting() as seen:
            done = example(SCRIPT, tmp_path, what, endpoint=endpoint, DSPY_CACHECTL_STORE=store, **variables)
        found = re.search(r": (\d+) calls, (\d+) paid for", done.stdout)
        assert found is not None
        assert seen.requests == int(found[2])
        return seen.requests, done

    assert does("compile")[0] > 0
    assert 0 == does("compile")[0]
    paid, first = does("evaluate")
    assert DRAWS == paid
    paid, again = does("evaluate")
    assert 0 == paid
    scores = [one.stdout.partition("score ")[2].partition(",")[0] for one in (first, again)]
    assert scores[0] == scores[1] != ""

    store, file = tmp_path / "ci", tmp_path / "outputs/team/draws.jsonl.zst"
    exported = command("--store", shared, "export", "--run", "release-1", file)
    assert 0 == exported.returncode, exported.output
    server.kill()
    imported = command("import", file, store=store)
    assert 0 == imported.returncode, imported.output
    paid, replayed = does("ci", str(store), OPENAI_API_KEY="none")
    assert 0 == paid
    assert "as Ben has reported" in replayed.stdout
