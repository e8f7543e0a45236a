"""How a text is cut into pieces: they come to it again, and DSPy's listeners find the fields in them."""

from __future__ import annotations

import json
from typing import Any

import dspy
from dspy.clients.call_result import attributes
from dspy.streaming import StreamListener
from hypothesis import given, strategies as st

from dspy_cachectl.streams.pieces import pieces_of

WORDS = st.lists(
    st.sampled_from(
        ["one", "two,", "(three)", "x=1", "naïve", "漢字", "it's", "“so”", "a-b", "1.", "§", "🎉", "\n", "  "]
    )
)
VALUES = st.builds(lambda words, more: " ".join(["so", *words, *(words * more), "on"]), WORDS, st.integers(0, 40))


@given(st.text())
def test_pieces_come_to_the_text(text: str) -> None:
    """Nothing is lost, and nothing added."""
    assert text == "".join(pieces_of(text))


def heard(adapter: Any, text: str, field: str) -> str:
    """What a listener of DSPy's makes of the pieces of a text."""
    listener = StreamListener(signature_field_name=field)
    with dspy.context(adapter=adapter):
        said = [listener.receive(attributes({"choices": [{"delta": {"content": piece}}]})) for piece in pieces_of(text)]
        said.append(listener.finalize())
    return "".join(one.chunk or "" for one in said if one is not None)


@given(VALUES, VALUES)
def test_listeners_hear_each_field(first: str, second: str) -> None:
    """Of each adapter, short values and long ones."""
    fields = {"reasoning": first, "answer": second}
    chat = "".join(f"[[ ## {name} ## ]]\n{value}\n\n" for name, value in fields.items()) + "[[ ## completed ## ]]"
    xml = "\n".join(f"<{name}>\n{value}\n</{name}>" for name, value in fields.items())
    for name, value in fields.items():
        assert value == heard(dspy.ChatAdapter(), chat, name)
        assert value == heard(dspy.XMLAdapter(), xml, name)
        for text in (json.dumps(fields), json.dumps(fields, indent=2), json.dumps(fields, separators=(",", ":"))):
            said = heard(dspy.JSONAdapter(), text, name)
            assert value == json.JSONDecoder().raw_decode(said)[0]
