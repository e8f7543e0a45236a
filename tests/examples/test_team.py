"""The example of a team: what each of them pays, with a real server between them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import command
from tests.endpoint import Endpoint
from tests.examples.running import EXAMPLES, example
from tests.objects.conftest import Bucket, bucket, environment, s3_server
from tests.processes import Finished
from tests.stores.servers import Server

__all__ = ["bucket", "environment", "s3_server"]

SCRIPT = EXAMPLES / "team" / "team.py"
DRAWS = 10 * 3


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A Redis that nobody else uses."""
    running = Server(tmp_path / "server")
    yield running
    running.kill()


def paid_by(what: str, endpoint: Endpoint, folder: Path, *options: str, **variables: str) -> tuple[int, Finished]:
    """Do what one of them does; what that cost, which is what it says."""
    with endpoint.counting() as seen:
        done = example(SCRIPT, folder, what, *options, endpoint=endpoint, **variables)
    found = re.search(r": (\d+) calls, (\d+) paid for", done.stdout)
    assert found is not None
    assert seen.requests == int(found[2])
    return seen.requests, done


@pytest.mark.exhaustive
def test_nobody_pays_for_what_another_has_paid(endpoint: Endpoint, server: Server, tmp_path: Path) -> None:
    """Ana pays for the compile, Ben for each draw, whichever worker asks; CI for nothing, without server and key."""

    shared = f"{server.url}?patience=60"  # it waits as long as a busy machine needs

    def does(what: str, store: str = shared, **variables: str) -> tuple[int, Finished]:
        return paid_by(what, endpoint, tmp_path, DSPY_CACHECTL_STORE=store, **variables)

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


@pytest.mark.exhaustive
def test_ci_replays_from_a_bucket(endpoint: Endpoint, server: Server, bucket: Bucket, tmp_path: Path) -> None:
    """With the bucket's credentials alone it makes the number anew of what Ben has kept there, and pays for nothing."""
    kept = ("--kept", bucket.url)

    def does(what: str, store: str, **variables: str) -> tuple[int, Finished]:
        where = {"DSPY_CACHECTL_STORE": store, "DSPY_CACHECTL_STATE": str(tmp_path / what)}
        return paid_by(what, endpoint, tmp_path, *(() if what == "compile" else kept), **where, **variables)

    shared = f"{server.url}?patience=60"
    assert does("compile", shared)[0] > 0
    assert DRAWS == does("evaluate", shared)[0]
    assert 0 == does("evaluate", str(tmp_path / "another"))[0]
    server.kill()
    paid, replayed = does("ci", str(tmp_path / "nothing"), OPENAI_API_KEY="none")
    assert 0 == paid
    assert "as Ben has reported" in replayed.stdout
