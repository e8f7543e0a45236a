"""What was said to DSPy's own cache holds for our store where no setting says anything else, or is overruled aloud."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.endpoint import Endpoint

SCRIPT = """
import json, logging, os, sys, dspy
logging.basicConfig(stream=sys.stderr)
import dspy_cachectl as cachectl
said = {**json.loads(sys.argv[1])}
before, after = (lambda: dspy.configure_cache(**said)), (lambda: None)
if sys.argv[2] == "after":
    before, after = after, before
before()
exec(sys.argv[3])
lm = cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="sk-test")
after()
with cachectl.phase("compile"):
    for _ in range(3):
        lm("a private prompt")
with cachectl.phase("eval") as run:
    lm("a private prompt"), lm("a private prompt")
cache = dspy.cache
print(json.dumps([type(cache).__name__, [store.location for store in cache.tiers.stores], run.stats.fresh]))
"""
OFF = {"enable_disk_cache": False, "enable_memory_cache": False}
Run = Callable[..., tuple[list[str], str]]


@pytest.fixture
def run(tmp_path: Path, child: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the script with nothing of ours configured. Return where its stores are, and what it logged."""
    monkeypatch.delenv("DSPY_CACHECTL_STORE")
    home = tmp_path / "home"
    home.mkdir()

    def run_it(said: dict[str, Any], when: str = "before", code: str = "", **env: str) -> tuple[list[str], str]:
        variables = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "DSPY_CACHEDIR": "", **env}
        done = child(SCRIPT, json.dumps(said), when, code, env=variables, fresh=True)
        kind, stores, fresh = done.data
        assert ("ManagedCache", 2) == (kind, fresh)
        return stores, done.output

    return run_it


WHEN = ["before", pytest.param("after", marks=pytest.mark.exhaustive)]
"""When DSPy's choice is made: before this package is there, or after."""


def on_disk(folder: Path) -> list[str]:
    """The files in which the prompt stands, or which may hold it."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and (b"private prompt" in path.read_bytes() or path.name.endswith(".db"))
        if not path.name.startswith("child-")
    )


@pytest.mark.parametrize("when", WHEN)
def test_nothing_is_kept(endpoint: Endpoint, run: Run, tmp_path: Path, when: str) -> None:
    """Who keeps nothing with DSPy keeps nothing: each call is a request, and nothing is on the disk."""
    stores, _ = run(OFF, when)
    assert ([], 5) == (stores, endpoint.requests)
    assert [] == on_disk(tmp_path)


@pytest.mark.exhaustive
@pytest.mark.parametrize("when", WHEN)
def test_only_memory(endpoint: Endpoint, run: Run, tmp_path: Path, when: str) -> None:
    """Without a disk answers are served in the process, and not written."""
    stores, _ = run({"enable_disk_cache": False}, when)
    assert (["memory://"], 3) == (stores, endpoint.requests)
    assert [] == on_disk(tmp_path)


@pytest.mark.exhaustive
def test_only_a_disk(endpoint: Endpoint, run: Run, tmp_path: Path) -> None:
    """Without memory there is the folder alone."""
    stores, _ = run({"enable_memory_cache": False, "disk_cache_dir": str(tmp_path / "dspys")})
    assert (1, 3) == (len(stores), endpoint.requests)
    assert "memory://" not in stores


def test_another_folder_and_size(endpoint: Endpoint, run: Run, tmp_path: Path) -> None:
    """The store goes to the folder that DSPy's cache was given, which is said; nothing goes elsewhere."""
    stores, said = run({"disk_cache_dir": str(tmp_path / "dspys"), "restrict_pickle": True})
    assert ["memory://", str(tmp_path / "dspys" / "dspy_cachectl")] == stores
    assert str(tmp_path / "dspys" / "dspy_cachectl") in said
    assert {"dspys"} == {name.split("/")[0] for name in on_disk(tmp_path)}


@pytest.mark.exhaustive
def test_the_environment(endpoint: Endpoint, run: Run, tmp_path: Path) -> None:
    """DSPY_CACHEDIR moves the store too, for programs and commands alike."""
    stores, _ = run({}, DSPY_CACHEDIR=str(tmp_path / "moved"))
    assert ["memory://", str(tmp_path / "moved" / "dspy_cachectl")] == stores


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("how", ["variable", pytest.param("configure", marks=pytest.mark.exhaustive)])
def test_a_setting_of_ours_overrules_it_aloud(
    endpoint: Endpoint, run: Run, tmp_path: Path, how: str, when: str
) -> None:
    """Where a store is configured, it holds, and one line says so and what to write."""
    ours = str(tmp_path / "ours")
    given = {"DSPY_CACHECTL_STORE": ours} if how == "variable" else {}
    stores, said = run(OFF, when, "" if given else f"cachectl.configure(store={ours!r})", **given)
    assert ([ours], 3) == (stores, endpoint.requests)
    assert 1 == said.count("but a store is configured, and holds")


@pytest.mark.exhaustive
def test_install_overrules_it(endpoint: Endpoint, run: Run, tmp_path: Path) -> None:
    """`install()` is said in so many words: nothing more is."""
    stores, said = run(OFF, "before", f"cachectl.install({str(tmp_path / 'ours')!r})")
    assert ((["memory://", str(tmp_path / "ours")], 3), False) == ((stores, endpoint.requests), "WARNING" in said)
    stores, _ = run(OFF, "before", "cachectl.install()")
    assert 2 == len(stores)


def test_predictions_on_the_disk_are_said(endpoint: Endpoint, run: Run) -> None:
    """`evaluate()` keeps predictions, which is another thing, and says so to who keeps nothing on disk."""
    pytest.importorskip("scipy")
    code = """
from tests.calls.support import exact, examples, qa
lm = cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="sk-test")
with dspy.context(lm=lm):
    cachectl.evaluate(qa(), examples(2), exact, display_progress=False)
"""
    assert "predictions=False) keeps none" in run(OFF, "before", code)[1]


def test_a_cache_of_another_package(endpoint: Endpoint, child: Callable[..., Any]) -> None:
    """It stays in its place, which is said once; phases that need ours refuse to begin."""
    script = """
        import os, dspy, dspy_cachectl as cachectl
        from dspy.clients.cache import Cache

        class Theirs(Cache):
            pass

        dspy.cache = Theirs(False, True, None)
        lms = [cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="k") for _ in range(2)]
        print([lm("hello") for lm in lms] and type(dspy.cache).__name__)
        try:
            cachectl.phase("eval").__enter__()
        except cachectl.ConfigurationError as error:
            print(error)
    """
    done = child(script, fresh=True)
    assert 1 == done.output.count("of another package, and stays")
    assert "cachectl.install() to replace it" in done.output
    assert 1 == endpoint.requests


def test_lms_without_caching(endpoint: Endpoint, run: Run, tmp_path: Path) -> None:
    """An LM whose caching is off keeps nothing in the store either."""
    run({}, "before", "cachectl.LM('openai/test-model', api_base=os.environ['ENDPOINT_URL'], api_key='k', cache=False)")
    before = endpoint.requests
    code = "lm = cachectl.LM('openai/test-model', api_base=os.environ['ENDPOINT_URL'], api_key='k', cache=False)\n"
    run(OFF, "before", code + "lm('a private prompt'); lm('a private prompt')")
    assert before + 2 + 5 == endpoint.requests
