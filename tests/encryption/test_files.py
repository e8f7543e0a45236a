"""Cassettes, archives and kept predictions that are encrypted: what is in their bytes, and who reads them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl.errors import EncryptedError
from dspy_cachectl.predictions.library import Library
from tests.cli.commands import command
from tests.encryption.support import KEY, OTHER, PROMPT, VARIABLE, bytes_below, readable_in
from tests.endpoint import Endpoint

MakeLM = Callable[..., Any]


def keys(*given: str) -> Any:
    """With these keys in force, within a block; or with none."""
    return cachectl.configure(encryption_key=lambda: list(given)) if given else contextlib.nullcontext()


def recorded(path: Path, lm: MakeLM, numbers: range, mode: Any = "new") -> list[str]:
    """Ask some questions in a cassette; what was answered."""
    with cachectl.cassette(path, mode):
        return [str(lm()(f"{PROMPT} {number}?")[0]) for number in numbers]


class TestCassettes:
    """Each line by itself, so that a change of one changes one."""

    def test_nothing_to_read(self, tmp_path: Path, lm: MakeLM, endpoint: Endpoint) -> None:
        """No prompt and no answer stands in the file, and whoever has the key replays it."""
        path = tmp_path / "answers.jsonl"
        with keys(KEY):
            answers = recorded(path, lm, range(3))
            assert [] == readable_in(path.read_bytes(), [PROMPT, *answers])
            assert answers == recorded(path, lm, range(3), "replay")
        for given in ([], [OTHER]):
            with keys(*given), pytest.raises(EncryptedError, match=VARIABLE):
                recorded(path, lm, range(3), "replay")
        assert 3 == endpoint.requests

    def test_one_more_is_one_line(self, tmp_path: Path, lm: MakeLM) -> None:
        """What was recorded before keeps its lines, and one that changed is told, not served."""
        path = tmp_path / "answers.jsonl"
        with keys(KEY):
            recorded(path, lm, range(3))
            before = path.read_text().splitlines()
            recorded(path, lm, range(4))
            after = path.read_text().splitlines()
            assert len(set(after) - set(before)) == 1
            assert set(before) < set(after)

            path.write_text("\n".join([*after[:2], after[2].replace("A", "B", 1), *after[3:]]) + "\n")
            with pytest.raises(cachectl.CorruptEntryError, match="line 3: the line was changed"):
                recorded(path, lm, range(4), "replay")

    def test_a_plain_one_stays_plain(self, tmp_path: Path, lm: MakeLM) -> None:
        """A cassette that is there stays as it is: whoever replays it in CI has no key."""
        path = tmp_path / "answers.jsonl"
        recorded(path, lm, range(1))
        with keys(KEY):
            recorded(path, lm, range(2))
        assert path.read_text().count(PROMPT) == 2

    def test_what_a_killed_recording_left(
        self, tmp_path: Path, child: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, lm: MakeLM, endpoint: Endpoint
    ) -> None:
        """What is not saved yet is encrypted, too, and taken over by who has the key."""
        script = f"""
            import os, signal
            import dspy_cachectl as cachectl
            lm = cachectl.LM("openai/test-model", api_base=os.environ["ENDPOINT_URL"], api_key="sk-test-secret")
            with cachectl.cassette("answers.jsonl", "new"):
                lm("{PROMPT} 0?")
                os.kill(os.getpid(), signal.SIGKILL)
        """
        child(script, env={VARIABLE: KEY}, check=False)
        (left,) = tmp_path.glob(".answers.jsonl.*.unsaved")
        assert [] == readable_in(left.read_bytes(), [PROMPT])
        with pytest.raises(EncryptedError):
            recorded(tmp_path / "answers.jsonl", lm, range(1))
        assert left.exists()
        with keys(KEY):
            recorded(tmp_path / "answers.jsonl", lm, range(1))
        assert 1 == endpoint.requests


def test_an_archive(tmp_path: Path, lm: MakeLM, endpoint: Endpoint) -> None:
    """`export` encrypts where a key is set, and `--plain` does not; `import` reads both, and stores encrypted."""
    with keys(KEY), cachectl.phase("compile"):
        answer = lm()(f"{PROMPT}?")[0]
    with_key, store = {VARIABLE: KEY}, tmp_path / "store"
    for name, options in (("sealed", ()), ("plain", ("--plain",))):
        assert 0 == command("export", tmp_path / f"{name}.jsonl", *options, store=store, **with_key).returncode
        done = command("import", tmp_path / f"{name}.jsonl", store=tmp_path / name, **with_key)
        assert "Imported 1 answer" in done.stdout
        assert [] == readable_in(bytes_below(tmp_path / name), [PROMPT, answer])
    assert [] == readable_in((tmp_path / "sealed.jsonl").read_bytes(), [PROMPT, answer])
    assert PROMPT in (tmp_path / "plain.jsonl").read_text()
    refused = command("import", tmp_path / "sealed.jsonl", store=tmp_path / "third")
    assert (1, True) == (refused.returncode, VARIABLE in refused.stderr)
    left = command("export", tmp_path / "none.jsonl", store=store)
    assert (1, True) == (left.returncode, VARIABLE in left.stdout)
    assert "Nothing is stored" not in left.stdout

    cachectl.configure(store=tmp_path / "sealed", encryption_key=lambda: KEY)
    with cachectl.phase("compile"):
        assert answer == lm()(f"{PROMPT}?")[0]
    assert 1 == endpoint.requests


INSTRUCTIONS = "Answer as the Zwetschgendatschi would"


def evaluated(lm: MakeLM) -> Any:
    """Evaluate a program whose instructions, questions and labels are told apart from all else."""
    pytest.importorskip("scipy")
    devset = [dspy.Example(question=f"{PROMPT} {n}?", answer=f"Labelled{n}").with_inputs("question") for n in range(3)]
    program = dspy.Predict(dspy.Signature("question -> answer", INSTRUCTIONS))
    with dspy.context(lm=lm()):
        return cachectl.evaluate(program, devset, lambda example, predicted, trace=None: 1.0, name="one", run_id="one")


class TestPredictions:
    """Row by row; what they are predictions of can be read."""

    def test_nothing_to_read(self, tmp_path: Path, lm: MakeLM, endpoint: Endpoint) -> None:
        """No question, label or answer is in the folder's bytes; with the key all of them are loaded."""
        folder = tmp_path / "kept"
        cachectl.configure(predictions=folder, store="memory://")
        with keys(KEY):
            report = evaluated(lm)
        answers = [str(draw.output) for one in report.questions for draw in one.draws]
        assert [] == readable_in(bytes_below(folder), [PROMPT, INSTRUCTIONS, "Labelled1", *answers])
        (path,) = folder.glob("*.json")
        assert 3 == len(json.loads(path.read_text())["predictions"])
        asked = endpoint.requests

        dspy.cache.reset_memory_cache()
        with keys(KEY):
            evaluated(lm)
        assert asked == endpoint.requests

    @pytest.mark.parametrize("given", [(), (OTHER,)])
    def test_who_has_no_key(
        self, tmp_path: Path, lm: MakeLM, endpoint: Endpoint, caplog: pytest.LogCaptureFixture, given: tuple[str, ...]
    ) -> None:
        """They are left out and left alone, which is said."""
        folder = tmp_path / "kept"
        cachectl.configure(predictions=folder, store="memory://")
        with keys(KEY):
            evaluated(lm)
        before, asked = bytes_below(folder), endpoint.requests
        with keys(*given):
            dspy.cache.reset_memory_cache()
            assert [] == Library(folder).snapshots()
            assert 1 == caplog.text.count("it is encrypted")
            assert before == bytes_below(folder)
        with keys(OTHER, KEY):
            assert 1 == len(Library(folder).snapshots())
        assert asked == endpoint.requests
