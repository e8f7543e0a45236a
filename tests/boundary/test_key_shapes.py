"""Keys that are told by their shape are looked for in few places of a text, and are found as if it were everywhere."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from dspy_cachectl.boundary import key_shapes
from dspy_cachectl.boundary.key_shapes import Span, keys_in

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
BEFORE = """
    T3BlbkFJ sk- sk_live_ whsec_ key_ psk- gsk_ tvly-dev- hf_ api_org_ ghp_ github_pat_ glpat- tgp_v1_ pa- lsv2_pt_ npm_
    secret_ phc_ bedrock-api-key- xoxb-12345- xapp-1-A12- dp.pt. sq0atp- v1.0- AKIA AIza dapi SK ABSK 12345678:AA
    1//0 ya29. hvs. SG. GOCSPX- pk-lf- eyJ eyJhbGciOiJIUzI1NiJ9. bearer Basic TOKEN ApiKey xbearer bearer%20 %20token+
""".split()  # noqa: SIM905 - words, not a page of quotation marks
AROUND = [
    *' \t+%"\\:=?/@.-_',
    "%20",
    "\\n",
    "%3D",
    "\\u00e9",
    "é",
    "to\u212aen ",
    " FlyV1 ",  # right behind Base64 it is none of that: there is a space in it
    "256-",
    "aws_implementation",
]


def drawn(alphabet: str, least: int, most: int) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=least, max_size=most)


# Not whole in here: what has the form of a key is taken for one by whoever looks for them in source code.
LOT = "q8Zx" + "V3nT7pLw2RkY9sBd4HfC"
HEX = "0a1b2c3d" * 4
WHOLE = [
    *(f"{before}{LOT}{LOT}" for before in ("sk-", "gsk_", "hf_", "FlyV1 ", "AIza", "1//0", "ya29.", "hvs.")),
    "AKIA" + "Q7ZXV3NT" * 2,
    "LTAI" + LOT[:20],
    "dapi" + HEX,
    "SK" + HEX,
    "ABSK" + LOT * 3,
    "GOCSPX-" + f"{LOT}{LOT}"[:28],
    "AGE-SECRET-KEY-1" + "Q7ZXV3NT" * 6,
    "1234567890:AA" + f"{LOT}{LOT}"[:33],
    f"SG.{LOT[:20]}.{LOT}{LOT[:19]}",
    f"{LOT[:20]}T3BlbkFJ{LOT[:20]}",
    f"{LOT}{LOT}{LOT[:4]}JQQJ99{LOT}ab",
    f"pk-lf-{HEX[:8]}-1a2b-1a2b-1a2b-{HEX[:12]}",
    f"eyJ{LOT}.eyJ{LOT}.{LOT}",
    f"xoxb-12345678901-{LOT}",
    "glpat-" + "abc_def-" * 2 + "ghij",
    f"-----BEGIN RSA PRIVATE KEY-----\n{LOT}{LOT}\n-----END RSA PRIVATE KEY-----",
]

PIECES = st.one_of(
    st.sampled_from(BEFORE),
    st.sampled_from([key for key in WHOLE if not key.startswith("FlyV1")]),
    st.sampled_from(AROUND),
    drawn(LETTERS, 8, 50),
    drawn("0123456789abcdef", 8, 40),
    drawn(LETTERS + "_-.~+/=%", 4, 40),
    drawn(" \t+%20", 1, 6),
    st.sampled_from(
        ["dXNlcjpwYXNzd29yZA==", "eDp5enp6", "-----BEGIN RSA PRIVATE KEY-----", "-----END PRIVATE KEY-----"]
    ),
)


def everywhere(text: str) -> set[Span]:
    return {
        *key_shapes._prefixed(text, 0),
        *(found.span() for pattern in (key_shapes._EXACT, key_shapes._JWT) for found in pattern.finditer(text)),
        *(span for scheme in key_shapes._SCHEME.finditer(text) for span in key_shapes._credential(text, scheme)),
        *key_shapes._private_keys(text),
    }


@pytest.mark.parametrize("key", WHOLE)
@pytest.mark.parametrize("around", ["{}", 'a "{}", and', "=%20{}%20", "implementation {}\\n"])
def test_a_key_of_each_shape(key: str, around: str) -> None:
    """It is found, and nothing else."""
    text = around.format(key)
    assert {key} == {text[start:end] for start, end in keys_in(text)}
    assert everywhere(text) == set(keys_in(text))


@given(st.lists(PIECES, max_size=12).map("".join))
def test_what_is_looked_at_is_enough(text: str) -> None:
    """Each key of each shape is found, whatever stands around it."""
    assert everywhere(text) == set(keys_in(text))


@pytest.mark.exhaustive
@settings(max_examples=5_000)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_what_is_looked_at_is_enough_in_many_texts(text: str) -> None:
    """The same, in as many texts as there is time for."""
    assert everywhere(text) == set(keys_in(text))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Authorization: Bearer {}", "q8ZxV3nT7pLw2RkY"),
        ("?a=bearer%20{}&b=1", "q8Zx%2FV3nT7p%2BLw2RkY"),
        ("token \t+%20{}", "q8ZxV3nT7pLw2RkY"),
        ("tokens apikey%20%20%20 {}", "q8ZxV3nT7pLw2RkY"),
        ("basic BASIC {}", "eDp5enp6"),
        ("[basic]: basic {}", "dXNlcjpwYXNzd29yZA=="),
        ("xbearer%20%20%20 q8ZxV3nT7pLw2RkY{}", ""),
        ('{{"bearer": "q8ZxV3nT7pLw2RkY"}}{}', ""),
    ],
)
def test_what_stands_behind_a_word_for_a_credential(text: str, found: str) -> None:
    """It is found however it is parted from the word, and nowhere else."""
    whole = text.format(found)
    assert ([found] if found else []) == [whole[start:end] for start, end in keys_in(whole)]
