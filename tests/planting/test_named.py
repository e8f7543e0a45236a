"""What people name things by, and what is logged, has no secret in it, and names go on telling things apart."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.endpoint import Endpoint
from tests.planting.places import Places

MakeLM = Callable[..., Any]

REUSE = cachectl.Policy.REUSE


def _looked(where: str) -> str:
    """Look something up."""
    raise RuntimeError(where)


@pytest.mark.parametrize("stored", ["store", "cassette"])
def test_names_of_servers_versions_and_scopes(lm: MakeLM, endpoint: Endpoint, tmp_path: Path, stored: str) -> None:
    """A login in an `endpoint`, a key as a version, a scope by a secret's name: in no file, and told apart."""
    places = Places()
    log = logging.FileHandler(tmp_path / "program.log")
    ours = logging.getLogger("dspy_cachectl")
    before = ours.level
    ours.addHandler(log)
    ours.setLevel(logging.DEBUG)

    def ask(tenant: str) -> None:
        asking = lm(
            role=f"judge {places.key('role')}",
            endpoint=f"http://me:{places.value('login')}@host/x",
            version=places.key("version"),
        )
        looked = cachectl.wrap(
            _looked,
            role=places.key("tool's role"),
            endpoint=f"http://me:{places.value('tool login')}@host/x?token={places.value('tool token')}",
            version=places.key("tool's version"),
        )
        scope = {"tenant": "a", "api_key": places.value(tenant)}
        with cachectl.phase("scoped", REUSE.with_overrides(scope=scope)):
            asking("one")
        with cachectl.phase("eval"), pytest.raises(RuntimeError):
            looked(where=f"nowhere, with {places.key('error')}")

    try:
        if stored == "cassette":
            with cachectl.cassette(tmp_path / "tape.jsonl", "record"):
                ask("one scope")
                ask("other scope")
        else:
            for tenant in ("one scope", "other scope", "one scope"):
                ask(tenant)
    finally:
        ours.removeHandler(log)
        ours.setLevel(before)
        log.close()
    assert 2 == endpoint.requests
    assert "nowhere, with [removed]" in (tmp_path / "program.log").read_text()
    cachectl.uninstall()
    assert {} == places.found_in(tmp_path)


def test_a_login_that_is_rotated_is_the_same_endpoint(lm: MakeLM, endpoint: Endpoint) -> None:
    """Who asks is no part of where it is served."""
    with cachectl.phase("compile"):
        for password in ("first-0123", "second-4567"):
            lm(endpoint=f"http://me:{password}@host/x")("one")
    assert 1 == endpoint.requests


def test_what_predictions_depend_on(lm: MakeLM, endpoint: Endpoint, tmp_path: Path) -> None:
    """What is declared is kept as a hash where it may be a secret, and tells predictions apart as it did."""
    pytest.importorskip("scipy")
    places = Places()
    dspy.configure(lm=lm())
    devset = [dspy.Example(question="one").with_inputs("question")]

    def evaluate(database: str) -> int:
        before = endpoint.requests
        cachectl.evaluate(
            dspy.Predict("question -> answer"),
            devset,
            lambda *_: 1.0,
            predictions=tmp_path / "kept",
            depends_on={
                "index": {"address": f"postgres://me:{places.value(database)}@host/x", "version": 2},
                "password": places.value(f"{database}'s"),
            },
            display_progress=False,
        )
        return endpoint.requests - before

    assert [1, 0, 1] == [evaluate(database) for database in ("one", "one", "other")]
    assert {} == places.found_in(tmp_path)
