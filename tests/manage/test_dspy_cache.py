"""What was bought with DSPy's own cache is not bought again under ours, and nothing of it is unpickled."""

from __future__ import annotations

import json
import pickle
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import diskcache
import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import Policy
from dspy_cachectl.stores.disk import DiskStore
from tests.calls.support import MakeLM
from tests.cli.commands import HEAVY, command, data, modules_loaded, printed
from tests.endpoint import Endpoint
from tests.faults.disks import read_only
from tests.replay.bare import bare

CALLS = 19
REQUESTS = 20
"""One embedder is a function, and DSPy's native engine asks three times for three answers."""


def play(url: str, folder: Path, cache: Path, *, store: Path | None = None) -> dict[str, Any]:
    variables = {"DSPY_CACHEDIR": str(cache), "NO_PROXY": "127.0.0.1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    if store is not None:
        variables["DSPY_CACHECTL_STORE"] = str(store)
    found: dict[str, Any] = bare(
        "tests.manage.dspy_program", url, "no" if store is None else "yes", cwd=folder, **variables
    )
    return found


@pytest.fixture(scope="module")
def played(endpoint_process: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """The folder of DSPy's own cache after a program, and what the program returned."""
    endpoint_process.reset()
    endpoint_process.configure(call_tools=True)
    folder = tmp_path_factory.mktemp("played")
    found = play(endpoint_process.url, folder, folder / "cache")["found"]
    assert REQUESTS == endpoint_process.requests
    return folder / "cache", found


@pytest.fixture
def cache(played: tuple[Path, list[Any]], endpoint: Endpoint, tmp_path: Path) -> tuple[Path, list[Any]]:
    """The same for one test alone, and a server that has counted nothing."""
    folder = tmp_path / "dspy-cache"
    shutil.copytree(played[0], folder)
    return folder, played[1]


class TestWholePrograms:
    @pytest.mark.exhaustive
    def test_all_of_it(self, endpoint: Endpoint, cache: tuple[Path, list[Any]], tmp_path: Path) -> None:
        """Every answer imports, and the same program makes no request; later it lives on its own entries."""
        folder, expected = cache
        store = tmp_path / "imported"
        done = data("import", "--from-dspy", folder, "--endpoint", endpoint.url, store=store)["files"][0]
        assert (CALLS, 0, {}, []) == (done["added"], done["kept"], done["left_out"], done["damage"])
        first = play(endpoint.url, tmp_path, tmp_path / "none", store=store)
        assert (expected, CALLS) == (first["found"], first["reused"])
        imported = DiskStore(store)
        for key in [key for key in imported.keys() if key.startswith("dspy:")]:  # noqa: SIM118 - a store
            imported.delete(key)
        imported.close()
        again = play(endpoint.url, tmp_path, tmp_path / "none", store=store)
        assert (expected, CALLS) == (again["found"], again["reused"])
        assert endpoint.requests == 0
        assert ["Nothing is damaged."] == printed("verify", store=store)[-1:]

    @pytest.mark.exhaustive
    def test_by_default_where_dspy_keeps_it(self, cache: tuple[Path, list[Any]], tmp_path: Path) -> None:
        """Without a folder it is DSPy's own; a second import keeps what is there; --dry-run stores nothing."""
        folder, _ = cache
        store = tmp_path / "imported"
        variables = {"DSPY_CACHEDIR": str(folder)}
        for options, added, kept in ((["--dry-run"], CALLS, 0), ([], CALLS, 0), ([], 0, CALLS)):
            done = command("import", "--from-dspy", *options, "--json", store=store, **variables)
            assert (0, "") == (done.returncode, done.stderr)
            found = json.loads(done.stdout)["files"][0]
            assert (added, kept) == (found["added"], found["kept"])
            assert bool(options) is not store.exists()

    def test_dspys_folder_is_not_changed(self, cache: tuple[Path, list[Any]], tmp_path: Path) -> None:
        """It may be read-only, and is left byte for byte."""
        folder, _ = cache
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        with read_only(folder, tmp_path / "view") as view:
            done = data("import", "--from-dspy", view, store=tmp_path / "imported")["files"][0]
        assert CALLS == done["added"]
        after = {path: path.read_bytes() for path in before}
        assert before == after


class TestServing:
    @pytest.fixture
    def imported(self, endpoint: Endpoint, tmp_path: Path, plain_lm: MakeLM) -> list[str]:
        """One answer in DSPy's cache that is imported; and the answer."""
        dspy.configure_cache(disk_cache_dir=str(tmp_path / "dspy-cache"))
        (answer,) = plain_lm()("hello")
        dspy.cache.disk_cache.close()
        done = command(
            "import", "--from-dspy", tmp_path / "dspy-cache", "--endpoint", endpoint.url, store=tmp_path / "imported"
        )
        assert (0, "") == (done.returncode, done.stderr)
        cachectl.install(store=str(tmp_path / "imported"))
        endpoint.reset_counts()
        return [answer]

    def test_outside_phases_and_where_answers_are_reused(
        self, endpoint: Endpoint, imported: list[str], lm: MakeLM, plain_lm: MakeLM
    ) -> None:
        """Our LMs and plain ones are served; and then a replay is too."""
        assert imported == lm()("hello")
        assert imported == plain_lm()("hello")
        with cachectl.phase("compile") as run:
            assert imported == lm()("hello")
        assert (1, 0) == (run.stats.reused, run.stats.requests)
        with cachectl.phase("check", Policy.REPLAY):
            assert imported == lm()("hello")
        assert endpoint.requests == 0

    @pytest.mark.parametrize("policy", [Policy.FRESH, Policy.REFRESH, Policy.OFF])
    def test_nowhere_else(
        self, endpoint: Endpoint, imported: list[str], lm: MakeLM, plain_lm: MakeLM, policy: Policy
    ) -> None:
        """A fresh draw, a refreshed answer and one without the cache are asked for."""
        with cachectl.phase("measured", policy):
            assert imported != lm()("hello")
            assert imported != plain_lm()("hello")
        assert endpoint.requests == 2

    def test_not_in_a_cassette(self, endpoint: Endpoint, imported: list[str], lm: MakeLM, tmp_path: Path) -> None:
        """A cassette records what the provider says."""
        with cachectl.cassette(tmp_path / "a.jsonl", "record"), cachectl.phase("compile"):
            lm()("hello")
        assert endpoint.requests == 1

    def test_too_old(self, endpoint: Endpoint, imported: list[str], lm: MakeLM) -> None:
        """The age is that of DSPy's entry."""
        with cachectl.phase("compile", max_age=1e-6):
            lm()("hello")
        assert endpoint.requests == 1

    def test_recomputing(
        self, endpoint: Endpoint, imported: list[str], lm: MakeLM, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where everything that is older than the process is computed anew, this is too."""
        monkeypatch.setattr("dspy_cachectl.calls.answering.STARTED", time.time())
        with cachectl.configure(force_recompute=True):
            lm()("hello")
        assert endpoint.requests == 1

    def test_another_question(self, endpoint: Endpoint, imported: list[str], lm: MakeLM) -> None:
        """Other words, options and draws are other questions."""
        for asked in (lambda: lm()("hullo"), lambda: lm(temperature=0.5)("hello"), lambda: lm(rollout_id=1)("hello")):
            asked()
        assert endpoint.requests == 3

    def test_another_server(self, endpoint: Endpoint, imported: list[str], lm: MakeLM) -> None:
        """DSPy's key does not tell servers apart; the import said whose answers these are."""
        assert imported != lm(api_base=endpoint.url.replace("127.0.0.1", "localhost"))("hello")
        assert imported != lm(endpoint="named")("hello")
        assert endpoint.requests == 2

    def test_a_damaged_one(self, endpoint: Endpoint, imported: list[str], lm: MakeLM, tmp_path: Path) -> None:
        """One that is damaged is a counted fault, and is asked for."""
        store = DiskStore(tmp_path / "imported")
        (key,) = store.keys("dspy")
        store.put(key, b"damaged", cachectl.stores.Label(kind="dspy"))
        with cachectl.phase("compile") as run:
            lm()("hello")
        assert (1, 1) == (run.stats.failed_reads, endpoint.requests)


class Evil:
    """What runs a command when it is unpickled."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> Any:
        import os

        return os.system, (f"touch {self.flag}",)


class TestPlanted:
    def test_in_a_folder(self, tmp_path: Path) -> None:
        """Malicious, foreign and damaged entries are refused and counted, with the rest imported; nothing ran."""
        flag, folder = tmp_path / "ran", tmp_path / "dspy-cache"
        good = {"_dspy_format": "dspy-lm15-result-v1", "outputs": ["yes"], "responses": [], "usage": {}, "raw": None}
        with diskcache.FanoutCache(str(folder), shards=4) as cache:
            values: list[Any] = [good, Evil(flag), [Evil(flag)], {**good, "outputs": [""]}, b"bytes", "text"]
            for number, value in enumerate(values):
                cache.set(f"{number:064x}", value)
            cache.set("../../x", good)
            cache.set("f" * 64, {**good, "outputs": ["x" * 100_000]})  # in a file of its own
        with sqlite3.connect(folder / "000" / "cache.db") as table:
            # A key that is nested two million deep ends Python itself; of all that comes after it, nothing is lost.
            nested = b"\x80\x02})" + b"\x85" * 2_000_000 + b"K\x01s."
            table.execute("INSERT INTO Cache(rowid, key, raw, mode, value) VALUES (-1, ?, 1, 4, ?)", ("a" * 64, nested))
        done = command("import", "--from-dspy", folder, "--json", store=tmp_path / "imported")
        assert 1 == done.returncode
        found = json.loads(done.stdout)["files"][0]
        reasons = {reason.split(":")[0]: count for reason, count in found["left_out"].items()}
        assert {
            "not plain answers": 3,
            "empty answers or refusals": 1,
            "of a kind that DSPy does not write": 3,
        } == reasons
        assert 2 == found["added"]
        assert 2 == sum("system" in line for line in found["damage"])
        assert ["aaaaaaaaaaaa: reading the pickle ended the process that read it"] == [
            line for line in found["damage"] if "system" not in line
        ]
        assert not flag.exists()

    def test_a_file_elsewhere(self, tmp_path: Path) -> None:
        """A file name that diskcache would not have made is not opened."""
        folder = tmp_path / "dspy-cache"
        with diskcache.FanoutCache(str(folder), shards=1) as cache:
            cache.set("a" * 64, {"x": "y" * 100_000})
        (tmp_path / "elsewhere").write_bytes(pickle.dumps(["secret"]))
        with sqlite3.connect(folder / "000" / "cache.db") as table:
            table.execute("UPDATE Cache SET filename = ?", (str(tmp_path / "elsewhere"),))
        done = command("import", "--from-dspy", folder, "--json", store=tmp_path / "imported")
        assert (1, {"damaged": 1}) == (done.returncode, json.loads(done.stdout)["files"][0]["left_out"])


class TestCommand:
    @pytest.mark.parametrize(
        ("arguments", "code"),
        [(("--from-dspy", "missing"), 1), (("--from-dspy", "."), 1), ((), 2), (("--from-dspy", "--overwrite"), 2)],
    )
    def test_wrong_usage(self, tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
        """What is no cache of DSPy's is one message."""
        done = command("import", *arguments, store=tmp_path / "imported", cwd=tmp_path)
        assert (code, "") == (done.returncode, done.stdout)
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "imported").exists()

    def test_dspy_is_not_loaded(self, tmp_path: Path) -> None:
        """Importing what LiteLLM answered needs no LiteLLM."""
        folder = tmp_path / "dspy-cache"
        with diskcache.FanoutCache(str(folder), shards=1) as cache:
            cache.set("a" * 64, [[1.0]])
        done = command("-X", "import", "--from-dspy", folder, store=tmp_path / "imported")
        assert (0, set()) == (done.returncode, modules_loaded(done) & HEAVY)
