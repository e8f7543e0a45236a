"""`dspy-cachectl show` and `diff`: an entry in full, and what differs between two."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dspy_cachectl.entries import draws, records
from dspy_cachectl.stores import Label
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.reader import kept
from tests.cli.commands import HARMLESS, NASTY, command, data, entry, fill, key_of, printed
from tests.processes import Finished

MINI = Label("lm", "openai/mini", "compile")
DRAWN = Label("lm", "openai/mini", "eval", "judge", "run-1")


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """Two entries that differ in a word, and one that is a draw."""
    drawn = {"rollout_id": 77, "ordinal": 2, "temperature": 1.0, "lent": True, "seconds": 1.5, "requests": 2}
    drawn |= {"prompt_tokens": 1200, "completion_tokens": 30, "cost": 0.0125, "response_ids": ("resp-1", "resp-2")}
    entries = {
        key_of(0xA000): (MINI, entry(MINI, "What is the capital of France ?", "Paris it is")),
        key_of(0xA001): (MINI, entry(MINI, "What is the capital of Spain ?", "Madrid it is")),
        key_of(0xB000): (DRAWN, entry(DRAWN, "Is this right ?", '{"verdict": "yes"}', truncated=True, **drawn)),
    }
    return fill(tmp_path / "full", entries)


def test_everything_that_is_known(full: Path) -> None:
    """The request by role, the answer, and every fact of its origin."""
    DiskStore(full).add_usage({}, {key_of(0xB000): 3})
    lines = printed("show", "b000", store=full)
    facts = {line[:12].strip(): line[13:] for line in lines[: lines.index("")]}
    size = len(DiskStore(full).get(key_of(0xB000)) or b"")
    assert f"{size} bytes" == facts.pop("stored").partition("; ")[2]
    assert facts.pop("served").startswith("3 times, last ")
    assert {
        "key": key_of(0xB000),
        "kind": "lm",
        "model": "openai/mini",
        "phase": "eval",
        "role": "judge",
        "run": "run-1",
        "rollout id": "77",
        "ordinal": "2",
        "temperature": "1 (lent by the phase)",
        "tokens": "1,200 read, 30 written",
        "cost": "$0.0125",
        "took": "1.50 s, 2 requests",
        "response": "resp-1, resp-2",
        "truncated": "yes, at the token limit",
    } == facts
    assert ["", "user", "Is this right ?", "", "answer: structured", "{", '  "verdict": "yes"', "}"] == lines[
        len(facts) + 2 :
    ]


def test_json_has_it_all(full: Path) -> None:
    """`--json` gives the request and the answer as they are stored, and every field of the origin."""
    shown = data("show", key_of(0xB000), store=full)
    stored = records.decode(DiskStore(full).get(key_of(0xB000)) or b"")
    assert key_of(0xB000) == shown["key"]
    assert ["resp-1", "resp-2"] == shown["origin"]["response_ids"]
    assert {name: getattr(stored.origin, name) for name in ("run_id", "cost", "created", "seconds", "lent")} == {
        name: shown["origin"][name] for name in ("run_id", "cost", "created", "seconds", "lent")
    }
    assert "Is this right ?" == shown["request"]["request"]["messages"][0]["content"]
    assert stored.answer == shown["value"]
    assert (0, None) == (shown["served"], shown["served_at"])


def test_the_beginning_of_a_key_is_enough(full: Path) -> None:
    """Four characters name an entry; fewer, several or none do not, and the store's own notes are no entries."""
    assert key_of(0xA001) == data("show", "a001", store=full)["key"]
    ambiguous = command("show", "a00", store=full)
    assert (1, "", True) == (ambiguous.returncode, ambiguous.stdout, "too short" in ambiguous.stderr)
    DiskStore(full).put(f"a000{'0' * 60}", entry(MINI), MINI)
    ambiguous = command("show", "a000", store=full)
    assert (1, "") == (ambiguous.returncode, ambiguous.stdout)
    assert [f"a000{'0' * 60}", key_of(0xA000)] == [
        line.strip(" │") for line in ambiguous.stderr.splitlines() if "a000" in line and "'" not in line
    ]
    DiskStore(full).put("run:run-1", entry(Label("run")), Label("run", run="run-1"))
    for key in ("ffff", "run:", key_of(0xA000)[:-1] + "0"):
        done = command("show", key, store=full)
        assert (1, "") == (done.returncode, done.stdout)
        assert done.stderr.startswith("dspy-cachectl: no entry's key begins with")


def test_a_key_that_begins_another(full: Path) -> None:
    """A whole key means that entry, though another's key goes on with it."""
    DiskStore(full).put("a001", entry(MINI, "short"), MINI)
    assert "a001" == data("show", "a001", store=full)["key"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE Cache SET value = substr(value, 1, 60)", "checksum"),
        ("UPDATE Cache SET value = X'80054e2e', mode = 4", "not unpickled"),
        ("UPDATE Cache SET mode = 2, filename = '../../etc/passwd'", "not unpickled"),
    ],
)
def test_a_damaged_entry_says_so(full: Path, damage: str, said: str) -> None:
    """What is wrong is said, in either form, and the command fails."""
    with sqlite3.connect(full / "cache.db") as plain:
        plain.execute(f"{damage} WHERE key = ?", (kept(key_of(0xA000)),))
    for arguments in (["show", "a000"], ["show", "a000", "--json"], ["diff", "a000", "a001"], ["diff", "a001", "a000"]):
        done = command(*arguments, store=full)
        assert (1, "") == (done.returncode, done.stdout)
        assert done.stderr.startswith(f"dspy-cachectl: the entry {key_of(0xA000)} cannot be shown: ")
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_stored_text_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """Whatever is stored is shown as it is written, in its own lines."""
    label = Label("lm", f"m{NASTY}", f"p{NASTY}", f"o{NASTY}", f"r{NASTY}")
    values = {
        key_of(0xA000): (label, entry(label, f"q{NASTY}\nnext", f"a{NASTY}\n\tnext", endpoint=f"e{NASTY}")),
        key_of(0xA001): (label, entry(label, f"q{NASTY}\nlast", f"a{NASTY}\n\tlast", response_ids=(f"i{NASTY}",))),
    }
    store = fill(tmp_path / "store", values)
    for arguments, names in ((["show", "a000"], "mporqae"), (["diff", "a000", "a001"], "qa")):
        done = command(*arguments, store=store)
        assert (0, "") == (done.returncode, done.stderr)
        assert [] == [name for name in names if f"{name}{HARMLESS}" not in done.stdout]
        assert set() == {letter for letter in done.stdout if not letter.isprintable()} - {"\n"}
    assert "next" in command("show", "a000", store=store).stdout.splitlines()


def test_words_that_differ(full: Path) -> None:
    """The request is compared word by word, and so is the answer."""
    lines = printed("diff", "a000", "a001", store=full)
    assert "What is the capital of [-France -]{+Spain +}?" in lines
    assert "[-Paris -]{+Madrid +}it is" in lines
    assert [f"first   {key_of(0xA000)}", f"second  {key_of(0xA001)}"] == lines[:2]
    assert "message 0 (user): after 'the capital of': first 'France', second 'Spain'" in lines
    found = data("diff", "a000", "a001", store=full)
    (spans,) = found["messages"].values()
    for of, text in (("first", "What is the capital of France ?"), ("second", "What is the capital of Spain ?")):
        assert text == "".join(span["text"] for span in spans if span["of"] in {"both", of})


def test_an_entry_does_not_differ_from_itself(full: Path) -> None:
    """Nothing is made up."""
    found = data("diff", "b000", "b000", store=full)
    assert ([], {}, None, []) == tuple(found[name] for name in ("request", "messages", "answer", "origin"))
    assert 3 == printed("diff", "b000", "b000", store=full).count("the same")


def test_draws_of_one_request_differ_in_their_origin(tmp_path: Path) -> None:
    """Two draws of one request have one request, and differ in draw, answer and origin."""
    one, other = (
        entry(DRAWN, "q?", answer, rollout_id=rollout, response_ids=(answer,), created=5.0)
        for answer, rollout in (("yes", 1), ("no", 2))
    )
    store = fill(tmp_path / "store", {key_of(0xA000): (DRAWN, one), key_of(0xA001): (DRAWN, other)})
    found = data("diff", "a000", "a001", store=store)
    assert ["draw: first rollout 1, second rollout 2"] == found["request"]
    assert {} == found["messages"]
    assert ["first", "second"] == [span["of"] for span in found["answer"]]
    assert ["rollout_id: first 1, second 2", "response_ids: first ('yes',), second ('no',)"] == found["origin"]


BUYS = """
    import os
    import dspy, dspy_cachectl as cachectl

    tools = [{"type": "function", "function": {"name": "search", "description": "Look it up.",
              "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}}}]
    picture = [{"type": "text", "text": "What is here?"},
               {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5000}}]
    options = {"api_base": os.environ["ENDPOINT_URL"], "api_key": "sk-test"}
    for engine in ("auto", "litellm"):
        lm = cachectl.LM("openai/test-model", engine=engine, **options)
        lm(f"Call a tool, {engine}.", tools=tools)
        lm(messages=[{"role": "system", "content": f"Look, {engine}."}, {"role": "user", "content": picture}])
    cachectl.LM("openai/test-model", model_type="responses", **options)("Respond.")
    dspy.Embedder("openai/vectors", **options)(["first text", "second text"])
"""


def test_what_real_engines_store(child: Callable[..., Finished], endpoint: Any, tmp_path: Path) -> None:
    """The answers of every engine, kind and form are readable: texts, tool calls, pictures, vectors."""
    pytest.importorskip("numpy")
    endpoint.configure(call_tools=True)
    child(BUYS)
    store = tmp_path / "store"
    shown = [data("show", row["key"], store=store) for row in reversed(data("ls", store=store))]
    assert 7 == len(shown)
    titles = [[part["title"] for part in one["answer"]] for one in shown]
    assert ["tool call search"] == titles[0] == titles[2]
    assert "query" in json.loads(shown[0]["answer"][0]["text"])
    assert ["text"] == titles[1] == titles[3] == titles[4]
    assert [["value"], "embedding"] == [titles[5], shown[5]["origin"]["kind"]]
    lines = printed("show", shown[1]["key"], store=store)
    assert ["system", "Look, auto.", "", "user", "What is here?"] == lines[lines.index("system") :][:5]
    assert len("\n".join(lines)) < 2000
    for text, one in zip(("first text", "second text"), shown[5:], strict=True):
        assert text in printed("show", one["key"], store=store)


def test_values_that_json_has_no_word_for(tmp_path: Path) -> None:
    """Tuples, bytes, numbers that are none, half surrogates and strange keys are shown, and nothing is imported."""
    label = Label("function", "", "")
    answer = {"outputs": [], "t": (1, float("nan"), 2**80), "b": b"\x00", 5: "five", "s": "\ud800", "$": {1}}
    value = records.encode(
        records.Origin(kind="function", model=""), answer, draws.canonical({"request": {"request": [1, 2]}})
    )
    store = fill(tmp_path / "store", {key_of(0xA000): (label, value)})
    found = data("show", "a000", store=store)["value"]
    assert [1, "nan", 2**80] == found["t"]
    assert ("five", "\\ud800", [1]) == (found["5"], found["s"], found["$"])
    assert 0 == command("show", "a000", store=store).returncode
