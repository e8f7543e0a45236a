"""The servers that the tests of shared stores use; each kind is started once."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.stores import servers


@pytest.fixture(scope="session")
def shared_servers(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], servers.Server | servers.Cluster]]:
    """Return the server of a kind; it is started where it is asked for first."""
    with contextlib.ExitStack() as held:
        started: dict[str, servers.Server | servers.Cluster] = {}

        def of_kind(kind: str) -> servers.Server | servers.Cluster:
            if kind not in started:
                started[kind] = held.enter_context(servers.running(tmp_path_factory.mktemp(kind), kind))
            return started[kind]

        yield of_kind


@pytest.fixture
def shared_url(shared_servers: Callable[[str], servers.Server | servers.Cluster]) -> Callable[[str], str]:
    """Return the address of a store of one's own in the server of a kind; it waits as long as a busy machine needs."""

    def address(kind: str, *, patience: float = 60.0) -> str:
        return f"{shared_servers(kind).url}?namespace={uuid.uuid4().hex}&patience={patience:g}"

    return address
