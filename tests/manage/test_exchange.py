"""Answers go from store to store in files, and are served there as where they came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import Policy
from dspy_cachectl.stores.disk import DiskStore
from tests.calls.support import MakeLM, evaluate, examples, gold, qa
from tests.cli.commands import HEAVY, command, counted, data, modules_loaded, printed
from tests.endpoint import Endpoint
from tests.faults.disks import read_only
from tests.replay.support import lines, recordings, write


@pytest.fixture(autouse=True)
def _lm(lm: MakeLM, endpoint: Endpoint) -> None:
    endpoint.configure(gold=gold(6), accuracy=0.5)
    dspy.configure(lm=lm())


def use(folder: Path) -> None:
    """Let the program use a store from here on."""
    cachectl.uninstall()
    cachectl.configure(store=str(folder))
    cachectl.install()


def program(endpoint: Endpoint) -> list[Any]:
    """Reuse, draw afresh in a run (with a temperature lent, and rollout ids of the program's own), and embed."""
    embedder = dspy.Embedder("openai/test-embedding", api_base=endpoint.url, api_key="sk-test")
    best = dspy.BestOfN(qa(), N=2, reward_fn=lambda *_: 0.0, threshold=1.0)
    with cachectl.phase("compile"):
        found = [evaluate(qa(), examples(6)), dspy.settings.lm("plain"), embedder(["a", "b"]).tolist()]
    with cachectl.phase("eval", run_id="baseline"):
        found += [evaluate(qa(), examples(6, 2)), best(question="Best?").answer]
        return [*found, [dspy.settings.lm("twice") for _ in range(2)]]


def replayed(endpoint: Endpoint) -> list[Any]:
    """The same, as a replay of both."""
    embedder = dspy.Embedder("openai/test-embedding", api_base=endpoint.url, api_key="sk-test")
    best = dspy.BestOfN(qa(), N=2, reward_fn=lambda *_: 0.0, threshold=1.0)
    with cachectl.phase("check", Policy.REPLAY):
        found = [evaluate(qa(), examples(6)), dspy.settings.lm("plain"), embedder(["a", "b"]).tolist()]
    with cachectl.phase("check", Policy.REPLAY, run_id="baseline"):
        found += [evaluate(qa(), examples(6, 2)), best(question="Best?").answer]
        return [*found, [dspy.settings.lm("twice") for _ in range(2)]]


@pytest.fixture
def filled(endpoint: Endpoint, tmp_path: Path) -> tuple[Path, list[Any]]:
    """A store with the answers to a program, and what the program returned."""
    folder = tmp_path / "first"
    use(folder)
    found = program(endpoint)
    cachectl.uninstall()
    endpoint.reset_counts()
    return folder, found


class TestRoundTrip:
    @pytest.mark.parametrize("name", ["answers.jsonl", "answers.jsonl.zst"])
    def test_another_store(self, endpoint: Endpoint, filled: tuple[Path, list[Any]], tmp_path: Path, name: str) -> None:
        """What was exported and imported is served there: reused, resumed, and replayed with a run's name."""
        folder, expected = filled
        file, other = tmp_path / name, tmp_path / "other"
        done = data("export", file, store=folder)
        assert (counted(folder), {}) == (done["entries"], done["left_out"])
        done = data("import", file, store=other)["files"][0]
        assert (counted(folder), 0, 0, {}) == (done["added"], done["kept"], done["replaced"], done["left_out"])
        use(other)
        for play in (replayed, program, replayed):
            assert expected == play(endpoint)
        assert endpoint.requests == 0
        cachectl.uninstall()
        assert ["Nothing is damaged."] == printed("verify", store=other)[-1:]

    def test_a_cassette(self, endpoint: Endpoint, filled: tuple[Path, list[Any]], tmp_path: Path) -> None:
        """An exported file replays as a cassette, phases and all, and outside phases one answer serves all."""
        folder, expected = filled
        file = tmp_path / "answers.jsonl"
        data("export", file, store=folder)
        with cachectl.cassette(file) as opened:
            assert expected == program(endpoint)
        assert [] == opened.unused
        with cachectl.cassette(file):
            assert expected[1] == dspy.settings.lm("plain") == dspy.settings.lm("plain")
        with cachectl.cassette(file), cachectl.phase("other name", Policy.FRESH):
            assert sorted(expected[-1]) == sorted(dspy.settings.lm("twice") for _ in range(2))
        with cachectl.cassette(file), cachectl.phase("other name", Policy.FRESH):
            best = dspy.BestOfN(qa(), N=2, reward_fn=lambda *_: 0.0, threshold=1.0)
            assert expected[-2] == best(question="Best?").answer
        with pytest.raises(cachectl.CacheMissError), cachectl.cassette(file):
            dspy.settings.lm("never asked")
        assert endpoint.requests == 0

    def test_what_is_there_stays(self, endpoint: Endpoint, filled: tuple[Path, list[Any]], tmp_path: Path) -> None:
        """Answers under the same keys are kept, unless --overwrite; --dry-run changes nothing at all."""
        folder, _ = filled
        file, other = tmp_path / "answers.jsonl", tmp_path / "other"
        data("export", file, "--phase", "compile", store=folder)
        count = len(recordings(file))
        done = data("import", file, "--dry-run", store=other)
        assert (True, count) == (done["dry_run"], done["files"][0]["added"])
        assert not other.exists()
        data("import", file, store=other)
        key = recordings(file)[0]["key"]
        DiskStore(other).put(key, b"mine", cachectl.stores.Label(kind="lm"))
        done = data("import", file, store=other)["files"][0]
        assert (0, count, 0) == (done["added"], done["kept"], done["replaced"])
        assert b"mine" == DiskStore(other).get(key)
        done = data("import", file, "--overwrite", store=other)["files"][0]
        assert (0, 0, count) == (done["added"], done["kept"], done["replaced"])
        assert DiskStore(folder).get(key) == DiskStore(other).get(key)

    def test_selectors(self, filled: tuple[Path, list[Any]], tmp_path: Path) -> None:
        """A selection is exported, and no more; a run's description never is."""
        folder, _ = filled
        selections: dict[str, tuple[str, ...]] = {
            "run": ("--run", "baseline"),
            "kind": ("--kind", "embedding"),
            "all": ("--kind", "*"),
            "contains": ("--contains", "TWICE"),
        }
        counts = {}
        for name, options in selections.items():
            data("export", tmp_path / f"{name}.jsonl", *options, store=folder)
            found = recordings(tmp_path / f"{name}.jsonl")
            counts[name] = len(found)
            assert {"lm", "embedding"} >= {one["origin"]["kind"] for one in found}
        assert {"run": 16, "kind": 2, "all": counted(folder), "contains": 2} == counts
        assert all(one["origin"]["run_id"] == "baseline" for one in recordings(tmp_path / "run.jsonl"))

    def test_redacted(self, endpoint: Endpoint, filled: tuple[Path, list[Any]], tmp_path: Path) -> None:
        """A user's function is applied to all texts, and the answers are served all the same; verify is content."""
        folder, expected = filled
        (tmp_path / "mine.py").write_text("def redact(text):\n    return text.replace('capital', 'XXX')\n")
        file, other = tmp_path / "answers.jsonl", tmp_path / "other"
        done = command("export", file, "--redact-with", "mine:redact", store=folder, cwd=tmp_path)
        assert (0, "") == (done.returncode, done.stderr)
        assert b"capital" not in file.read_bytes()
        assert b"XXX" in file.read_bytes()
        data("import", file, store=other)
        use(other)
        assert expected == program(endpoint)
        assert endpoint.requests == 0
        cachectl.uninstall()
        assert ["Nothing is damaged."] == printed("verify", store=other)[-1:]


class TestCassettesIntoAStore:
    def record(self, path: Path) -> list[Any]:
        with cachectl.cassette(path, "record"):
            found = [dspy.settings.lm("outside"), dspy.settings.lm("outside"), dspy.settings.lm("off", cache=False)]
            with cachectl.phase("compile"):
                found += [dspy.settings.lm("reused"), dspy.settings.lm("own", rollout_id=3)]
                dspy.settings.lm("off", cache=False)
            with cachectl.phase("eval"):
                return [*found, dspy.settings.lm("drawn")]

    def test_with_the_server_named(self, endpoint: Endpoint, tmp_path: Path) -> None:
        """Recordings are filed for the server that is named: outside phases and of phases that reuse."""
        path, other = tmp_path / "answers.jsonl", tmp_path / "other"
        found = self.record(path)
        endpoint.reset_counts()
        done = data("import", path, "--endpoint", endpoint.url + "/", store=other)["files"][0]
        assert 4 == done["added"]
        assert [1, 1, 1] == list(done["left_out"].values())
        use(other)
        assert found[:1] == [dspy.settings.lm("outside")]
        with cachectl.phase("check", Policy.REPLAY):
            assert found[3:5] == [dspy.settings.lm("reused"), dspy.settings.lm("own", rollout_id=3)]
        assert endpoint.requests == 0
        dspy.settings.lm("drawn")
        assert endpoint.requests == 1

    def test_the_providers_own(
        self, endpoint: Endpoint, tmp_path: Path, lm: MakeLM, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without a name they are for the provider's own server, and a run's draws keep their run."""
        path, other = tmp_path / "answers.jsonl", tmp_path / "other"
        found = self.record(path)
        endpoint.reset_counts()
        done = data("import", path, store=other)["files"][0]
        assert 5 == done["added"]
        use(other)
        dspy.settings.lm("outside")
        assert endpoint.requests == 1  # that server is another one
        official = cachectl.LM("openai/test-model", api_key="sk-test")
        assert found[0] == official("outside")
        with cachectl.phase("eval", run_id="eval-1"):
            assert found[5] == official("drawn")
        assert endpoint.requests == 1

    def test_what_has_no_key(self, endpoint: Endpoint, tmp_path: Path) -> None:
        """Recordings of a second server, without their request, or with a cleaned one, are counted, with the reason."""
        path, other = tmp_path / "answers.jsonl", tmp_path / "other"
        second = cachectl.LM("openai/test-model", api_base=f"{endpoint.url}/", endpoint="named", api_key="sk-test")
        with cachectl.cassette(path, "record"), cachectl.phase("compile"):
            dspy.settings.lm("one")
            dspy.settings.lm("two")
            dspy.settings.lm("four", api_base=endpoint.url.replace("127.0.0.1", "localhost"))
            second("five")
        head, *rest = lines(path)
        by = {one["request"]["request"]["messages"][0]["content"]: one for one in rest}
        del by["one"]["request"]
        by["two"]["request"]["request"]["messages"][0]["content"] = "[removed]"
        write(path, [head, *by.values()])
        done = data("import", path, store=other)["files"][0]
        assert 1 == done["added"]
        assert [2, 1] == sorted(done["left_out"].values(), reverse=True)
        assert any("second server" in reason for reason in done["left_out"])
        use(other)
        bought = endpoint.requests
        second("five")
        assert bought == endpoint.requests

    def test_damaged_lines(self, endpoint: Endpoint, tmp_path: Path) -> None:
        """Damaged lines are named and left out, the others imported, and the command fails."""
        path, other = tmp_path / "answers.jsonl", tmp_path / "other"
        with cachectl.cassette(path, "record"), cachectl.phase("compile"):
            for text in ("one", "two", "three"):
                dspy.settings.lm(text)
        head, *rest = lines(path)
        rest[0]["key"] = "../../x"
        rest[1] |= {"answer": {"$": "response", "of": "os.system", "v": {}, "cost": None}, "tagged": True}
        write(path, [head, *rest])
        path.write_bytes(path.read_bytes() + b'{"half')
        done = command("import", path, "--endpoint", endpoint.url, "--json", store=other)
        assert 1 == done.returncode
        found = json.loads(done.stdout)["files"][0]
        assert (1, {"damaged": 3}) == (found["added"], found["left_out"])
        assert [2, 3, 5] == [int(line.split("line ")[1].split(":")[0]) for line in found["damage"]]
        assert 1 == counted(other)


class TestCommands:
    def test_for_people(self, filled: tuple[Path, list[Any]], tmp_path: Path) -> None:
        """Without --json both say in a line what they did."""
        folder, _ = filled
        file = tmp_path / "answers.jsonl"
        count = counted(folder)
        assert printed("export", file, store=folder)[0].startswith(f"Wrote {count} answers, ")
        assert [f"Imported {count} answers: {file}"] == printed("import", file, store=tmp_path / "other")
        again = printed("import", file, store=tmp_path / "other")
        assert [f"Imported 0 answers: {file}", f"  kept what was there: {count}; --overwrite replaces it"] == again

    def test_a_file_that_is_there(self, filled: tuple[Path, list[Any]], tmp_path: Path) -> None:
        """Nothing is written over, unless --force."""
        folder, _ = filled
        file = tmp_path / "answers.jsonl"
        file.write_text("precious")
        done = command("export", file, store=folder)
        assert (1, "") == (done.returncode, done.stdout)
        assert "--force" in done.stderr
        assert "precious" == file.read_text()
        data("export", file, "--force", store=folder)
        assert counted(folder) == len(recordings(file))

    def test_nothing_to_export(self, filled: tuple[Path, list[Any]], tmp_path: Path) -> None:
        """An empty store, a missing one and a selection of nothing write no file, and fail."""
        folder, _ = filled
        cleared = tmp_path / "cleared"
        DiskStore(cleared).put("key", b"", cachectl.stores.Label())
        DiskStore(cleared).clear()
        cases = [(cleared, ()), (tmp_path / "missing", ()), (folder, ("--model", "none"))]
        for store, options in cases:
            done = command("export", tmp_path / "none.jsonl", *options, "--json", store=store)
            assert (1, "") == (done.returncode, done.stderr)
            assert (0, None) == (json.loads(done.stdout)["entries"], json.loads(done.stdout)["file"])
        assert not (tmp_path / "none.jsonl").exists()
        assert not (tmp_path / "missing").exists()

    def test_damaged_entries_are_left_out(self, filled: tuple[Path, list[Any]], tmp_path: Path) -> None:
        """What is damaged in the store is counted, and what is no answer's key too; the rest is exported."""
        folder, _ = filled
        count = counted(folder)
        store = DiskStore(folder)
        store.put("0" * 64, b"damaged", cachectl.stores.Label(kind="lm"))
        store.put("dspy:abc", b"strange", cachectl.stores.Label(kind="lm"))
        store.close()
        done = data("export", tmp_path / "answers.jsonl", store=folder)
        assert (count, [1, 1]) == (done["entries"], list(done["left_out"].values()))

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (("export",), 2),
            (("import",), 2),
            (("import", "missing.jsonl"), 1),
            (("import", "."), 1),
            (("export", "a.jsonl", "--redact-with", "json"), 2),
            (("export", "a.jsonl", "--redact-with", "nowhere:f"), 2),
            (("export", "a.jsonl", "--redact-with", "json:nothing"), 2),
        ],
    )
    def test_wrong_usage(
        self, filled: tuple[Path, list[Any]], tmp_path: Path, arguments: tuple[str, ...], code: int
    ) -> None:
        """What cannot be done is one message, and no trace."""
        done = command(*arguments, store=filled[0], cwd=tmp_path)
        assert (code, "") == (done.returncode, done.stdout)
        assert "Traceback" not in done.stderr

    def test_a_function_that_fails(self, filled: tuple[Path, list[Any]], tmp_path: Path) -> None:
        """A redacting function that returns no text, or raises, writes nothing."""
        (tmp_path / "mine.py").write_text("def none(text): pass\n\ndef fail(text): raise KeyError(text)\n")
        for name in ("none", "fail"):
            done = command(
                "export", tmp_path / "a.jsonl", "--redact-with", f"mine:{name}", store=filled[0], cwd=tmp_path
            )
            assert (1, "") == (done.returncode, done.stdout)
            assert "redact" in done.stderr
            assert "Traceback" not in done.stderr
        assert not (tmp_path / "a.jsonl").exists()

    def test_read_only(self, filled: tuple[Path, list[Any]], tmp_path: Path) -> None:
        """A store that cannot be written is exported; a folder or store that cannot be written is an error."""
        folder, _ = filled
        file = tmp_path / "answers.jsonl"
        with read_only(folder, tmp_path / "view") as view:
            assert counted(folder) == data("export", file, store=view)["entries"]
            done = command("export", view / "a.jsonl", store=folder)
            assert (1, True) == (done.returncode, "cannot be written" in done.stderr)
            done = command("import", file, "--overwrite", store=view)
            assert (1, False) == (done.returncode, "Traceback" in done.stderr)

    def test_a_damaged_database(self, filled: tuple[Path, list[Any]], tmp_path: Path) -> None:
        """A database that is none is one message."""
        folder, _ = filled
        data("export", tmp_path / "answers.jsonl", store=folder)
        for log in folder.glob("cache.db-*"):
            log.unlink()  # SQLite would mend the database with it
        (folder / "cache.db").write_bytes(b"no database" * 100)
        for arguments in (("export", tmp_path / "b.jsonl"), ("import", tmp_path / "answers.jsonl")):
            done = command(*arguments, store=folder)
            assert (1, False) == (done.returncode, "Traceback" in done.stderr)
            assert done.stderr.startswith("dspy-cachectl: ")

    def test_dspy_is_not_loaded(self, filled: tuple[Path, list[Any]], tmp_path: Path) -> None:
        """Neither command waits for DSPy."""
        for arguments in (("export", tmp_path / "a.jsonl"), ("import", tmp_path / "a.jsonl")):
            done = command("-X", *arguments, store=filled[0])
            assert set() == modules_loaded(done) & HEAVY


def test_a_cassette_of_a_newer_version(tmp_path: Path) -> None:
    """A newer format is refused, and nothing is imported."""
    write(tmp_path / "a.jsonl", [{"cassette": 99}])
    done = command("import", tmp_path / "a.jsonl", store=tmp_path / "other")
    assert (1, True) == (done.returncode, "Upgrade" in done.stderr)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst"])
def test_a_cassette_of_a_newer_version_is_not_written_over(
    filled: tuple[Path, list[Any]], tmp_path: Path, name: str
) -> None:
    """Not with --force either: what is in it was paid for, and cannot be looked at from here."""
    import zstandard

    header = b'{"cassette": 99, "keys": "store"}\n'
    before = header if name.endswith("l") else zstandard.ZstdCompressor().compress(header)
    (tmp_path / name).write_bytes(before)
    done = command("export", tmp_path / name, "--force", store=filled[0])
    assert (1, True) == (done.returncode, "Upgrade" in done.stderr)
    assert before == (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(b"no cassette\n")
    assert 0 == command("export", tmp_path / name, "--force", store=filled[0]).returncode


def test_nothing_is_imported_by_half(tmp_path: Path) -> None:
    """A compressed file that breaks off in the middle leaves the store as it was."""
    import zstandard

    with cachectl.cassette(tmp_path / "a.jsonl", "record"):
        dspy.settings.lm("one")
    head, one = (tmp_path / "a.jsonl").read_bytes().splitlines(keepends=True)
    compressor = zstandard.ZstdCompressor().compressobj(size=len(head) + 2 * len(one))
    # To the end of a line, and no further.
    whole = compressor.compress(head + one) + compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    (tmp_path / "a.jsonl.zst").write_bytes(whole)
    done = command("import", tmp_path / "a.jsonl.zst", store=tmp_path / "other")
    assert (1, True) == (done.returncode, "line 2: the file was cut short" in done.stderr)
    assert not (tmp_path / "other").exists()
