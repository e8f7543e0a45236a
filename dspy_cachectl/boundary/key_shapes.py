"""Keys, tokens and private keys that can be told by their shape, found in one pass over a text.

A well-known prefix is not enough: `sk-learn-datasets`, `hf_hub_download_with_retries` and `pk_orders_2024` are names.
What follows it has to look drawn by lot: a run of letters and digits that is not made of words.

Every pattern here either has a beginning that no character of its own run may stand before, or lengths that are
bounded, so that no text takes more than a time in proportion to its length. Nearly all of a text is words, and no key
is as short as a word: only what is longer is looked at with patterns.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from functools import lru_cache

Span = tuple[int, int]

_ESCAPE = r"(?<=\\[nrt])|(?<=%[0-9A-Fa-f]{2})|(?<=\\u[0-9A-Fa-f]{4})"
_SHORTEST_WORD = 20
"""How long a run of small letters is that is no word."""

_BEGINS = rf"(?:(?<![A-Za-z0-9])|{_ESCAPE})"
"""Where a key may begin: not within a word, but right after an escaped character."""

_LOT = re.compile(r"[A-Za-z0-9]{8,}")
"""A run that may have been drawn by lot. Most words are shorter."""

_PREFIX = re.compile(
    _BEGINS + r"(?<!256[=\-:])(?<!384-)(?<!512-)(?P<prefix>sk-(?P<sk>(?:[a-z]{1,12}[0-9]{0,2}[\-_]){0,3})"
    r"|csk-|(?:sk|rk|pk|whsec|key)_(?:(?:live|test|prod)_)?|csk-|psk-|pplx-|gsk_|xai-|nvapi-|tvly-(?:[a-z]{2,8}-)?"
    r"|hf_|api_org_|gh[pousr]_|ghs_|github_pat_|gl(?:pat|rt|dt|cbt|ptt|ft|soat|imt|agent)-|r8_|fw_|tgp_v1_|jina_|pa-|e2b_|pcsk_"
    r"|lsv2_(?:pt|sk)_|wandb_v1_|npm_|pypi-|dop_v1_|doo_v1_|dor_v1_|lin_api_|ntn_|secret_|shp(?:at|ca|pa|ss)_|ph[cxs]_"
    r"|sbp_|sntry[su]_|bedrock-api-key-|xox[abeoprs]-(?:[0-9]{1,14}-){0,4}|xapp-(?:[0-9A-Z]{1,14}-){0,4}"
    r"|key-|dp\.(?:pt|st|ct|sa|scim|audit)\.|FlyV1 |vercel_|cal_live_|sq0[a-z]{3}-|v1\.0-"
    r")[\w\-]{0,24}\Z"
)
"""What stands before it in the keys of well-known providers, with as much of the key as separators cut off."""

_EXACT = re.compile(
    _BEGINS
    + r"(?:(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])|AIza[\w\-]{30,}|LTAI[A-Za-z0-9]{16,26}(?![A-Za-z0-9])"
    r"|(?:dapi|dose|dkea)[0-9a-f]{32}(?:-[0-9])?(?![A-Za-z0-9])|SK[0-9a-f]{32}(?![A-Za-z0-9])|ABSK[A-Za-z0-9+/=]{60,}"
    r"|AGE-SECRET-KEY-1[0-9A-Z]{40,}|[0-9]{8,10}:AA[\w\-]{33}(?![\w\-])|[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}"
    r"|[A-Za-z0-9]{52}JQQJ99[A-Za-z0-9]{26}|1//0[\w\-]{40,}|ya29\.[\w\-.]{40,}"
    r"|hv[sbr]\.[\w\-]{40,}|SG\.[\w\-]{16,24}\.[\w\-]{30,50}|GOCSPX-[\w\-]{28}(?![\w\-])"
    r"|[ps]k-lf-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|glpat-[\w\-]{20}(?![\w\-])|gh[pousr]_[A-Za-z0-9]{36}(?![A-Za-z0-9])"
    r"|[sr]k_(?:live|test)_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9]{48}(?![A-Za-z0-9])|hf_[A-Za-z]{34}(?![A-Za-z0-9_]))"
)
"""Keys that are told by their form alone."""

_JWT = re.compile(
    rf"(?:(?<![\w\-])|{_ESCAPE})eyJ[A-Za-z0-9_\-]{{8,}}(?:={{0,2}})\.[A-Za-z0-9_\-]{{8,}}(?:={{0,2}})"
    r"(?:\.[A-Za-z0-9_\-=]*){0,3}"
)
_PEM = re.compile(r"-----BEGIN(?: [A-Z0-9]{1,12}){0,3} PRIVATE KEY(?: BLOCK)?-----")
_PEM_BODY = re.compile(r"(?:(?!-----)[\s\S]){0,20000}-----END(?: [A-Z0-9]{1,12}){0,3} PRIVATE KEY(?: BLOCK)?-----")
_PEM_LINES = re.compile(r"(?:(?:\s|\\+[nr]){0,8}[A-Za-z0-9+/=]{20,})*")

_SCHEME = re.compile(_BEGINS + r"(?ai:(?P<scheme>bearer|basic|token|apikey)(?:[ \t+]|%20){1,4})")
_CREDENTIAL = re.compile(r"[A-Za-z0-9_\-.~+/%]{6,}={0,2}")
_REST = re.compile(r"[A-Za-z0-9_\-]*(?:[.~+/=][A-Za-z0-9_\-+/=]{8,}|={1,2}(?![\w=]))*")
_RUNS = re.compile(r"[A-Za-z0-9]{2,}")
_MIXED = re.compile(r"[A-Z0-9]")
_MAY_BE_DRAWN = re.compile(rf"[A-Z0-9]|[a-z]{{{_SHORTEST_WORD}}}")
"""Without one of these nothing looks drawn by lot."""
_LETTERS = re.compile(r"[A-Za-z]+")
_USUAL = re.compile(
    r"a(?=[bcgilmnprstu])|b(?=[el])|c(?=[aehlot])|d(?=[aei])|e(?=[acdefilmnrstx])|f(?=[eiou])|g(?=[eu])|h(?=[aeiot])"
    r"|i(?=[bcdefglmnorst])|k(?=e)|l(?=[adeilotu])|m(?=[aeop])|n(?=[acdeginostu])|o(?=[dflmnprstu])|p(?=[aelort])"
    r"|q(?=u)|r(?=[aeginorst])|s(?=[aceiopstu])|t(?=[aehiorstu])|u(?=[elmnrst])|v(?=[aei])|w(?=i)|z(?=e)"
)
"""The 140 pairs of letters that make up five sixths of English, German, French, and the names in source code."""

_BLOB = re.compile(r"[\w\-]{64}\Z", re.ASCII)
"""What stands before a prefix that is none: bytes written in Base64, such as what a model thought, encrypted."""

_LOOK_BACK, _SHORTEST = 64, 12
_NAMES = ("learn", "sklearn", "image", "estimator", "container", "toggleable", "text", "label", "parallel", "serial")
"""What follows `sk-` in the names of packages and in style sheets."""


_OF_KEYS = bytes(
    ord("k") if chr(code).isalnum() or chr(code) in "_-.~+/=%?" or code > 127 else ord(" ") for code in range(256)
)
"""Of what the keys below consist from their beginning to their end, for `bytes.translate`; `?` is what is not ASCII."""
_SHORTEST_RUN, _BEFORE_RUN, _SCHEME_BEFORE_RUN = 14, 11, 16
"""How many of these follow each other in each key, how many other characters may stand before them in one, and how much
of a word for a credential and of what stands between the two. In private keys, and behind `basic`, fewer may follow."""
_RUN = b"k" * _SHORTEST_RUN
_SEEN_BEFORE, _LONGEST_SEEN = _SCHEME_BEFORE_RUN + 6, 100
"""How much of what stands before a run is looked at, an escaped character before all that with it; and how long it may
be together to be remembered: most are names that stand in each answer."""
_BEHIND_SCHEME = frozenset({b" ", b"\t", b"+", b"%"})
"""What may stand right behind such a word."""


def keys_in(text: str) -> list[Span]:
    """Return where keys and tokens stand that are told by their shape; spans may overlap."""
    flat = text.encode("ascii", "replace")  # of the same length
    of_keys, spans, end = flat.translate(_OF_KEYS), _private_keys(text), len(text)
    # From behind: of a text that does not occur in another, Python then finds that out in half the time.
    while (last := of_keys.rfind(_RUN, 0, end)) >= 0:
        start, end = of_keys.rfind(b" ", 0, last) + 1, last + _SHORTEST_RUN
        since = max(0, start - _SEEN_BEFORE)
        since = max(since, flat.rfind(b'"', since, start))  # no key has one within, and names stand behind one
        look = _seen_in_run if end - since <= _LONGEST_SEEN else _in_run
        for begins, ends in look(text[since:end], start - since):
            spans.append((since + begins, since + ends))
        end = start
    return spans + _behind_basic(text, flat.lower())


def looks_drawn(text: str) -> bool:
    """Tell whether letters and digits were drawn by lot, or are words and numbers that somebody wrote.

    In words most letters are followed by one that often follows them; in what was drawn few are.
    """
    runs = _RUNS.findall(text[:256])
    size, letters = sum(map(len, runs)), sum(map(len, _LETTERS.findall(text[:256])))
    if size < 10 or letters < 2:
        return False
    if _MIXED.search(text) is None and len(max(runs, key=len)) < _SHORTEST_WORD:
        return False
    pairs = sum(len(run) - 1 for run in runs)
    usual = sum(len(_USUAL.findall(run.lower())) for run in runs)
    return usual < 0.44 * pairs


def _in_run(text: str, run: int) -> tuple[Span, ...]:
    """Return where keys stand in a text that ends with the run that begins at a place."""
    spans = [*_prefixed(text, run), *(found.span() for found in _EXACT.finditer(text, max(0, run - _BEFORE_RUN)))]
    spans += [found.span() for found in _JWT.finditer(text, run)] if "eyJ" in text else []
    lowered = text.lower()
    if "bearer" in lowered or "token" in lowered or "apikey" in lowered:
        for scheme in _SCHEME.finditer(text, max(0, run - _SCHEME_BEFORE_RUN)):
            spans += _credential(text, scheme)
    return tuple(spans)


_seen_in_run = lru_cache(maxsize=256)(_in_run)


def _prefixed(text: str, run: int) -> Iterator[Span]:
    done = 0
    for found in _LOT.finditer(text, run) if _MAY_BE_DRAWN.search(text, run) else ():
        start = found.start()
        before = None if start < done else _PREFIX.search(text, max(done, start - _LOOK_BACK), start)
        if before is None or (before["sk"] or "").lower().startswith(_NAMES):
            continue
        if _BLOB.match(text, max(0, before.start() - _LOOK_BACK), before.start()) and looks_drawn(
            text[max(0, before.start() - _LOOK_BACK) : before.start()]
        ):
            continue
        end = _end_of(_REST, text, start)
        body = text[before.end("prefix") : end]
        if len(body) >= _SHORTEST and end - before.start() >= 20 and looks_drawn(body):
            done = end
            yield before.start(), end


def _end_of(pattern: re.Pattern[str], text: str, start: int) -> int:
    found = pattern.match(text, start)
    return start if found is None else found.end()


def _private_keys(text: str) -> list[Span]:
    spans: list[Span] = []
    for found in _PEM.finditer(text) if text.rfind("PRIVATE KEY") >= 0 else ():
        end = _end_of(_PEM_BODY, text, found.end())
        end = end if end > found.end() else _end_of(_PEM_LINES, text, found.end())
        if end > found.end() + 20:
            spans.append((found.start(), end))
    return spans


def _behind_basic(text: str, lowered: bytes) -> list[Span]:
    """Return where users and passwords stand behind a word for them, in a text and in the same in small letters."""
    spans: list[Span] = []
    at = lowered.rfind(b"basic")
    while at >= 0:
        end = at + len(b"basic")
        if lowered[end : end + 1] in _BEHIND_SCHEME and (scheme := _SCHEME.match(text, at)):
            spans += _credential(text, scheme)
        at = lowered.rfind(b"basic", 0, at)
    return spans


def _credential(text: str, scheme: re.Match[str]) -> tuple[Span, ...]:
    """Return where the credential stands behind a word for it; nothing where none stands there."""
    value = _CREDENTIAL.match(text, scheme.end())
    if value is None:
        return ()
    given, is_basic = value[0], scheme["scheme"].lower() == "basic"
    is_one = _is_pair(given) if is_basic else len(given) >= 16 and looks_drawn(given)
    return (value.span(),) if is_one else ()


def _is_pair(encoded: str) -> bool:
    """Tell whether a text is a user and a password in Base64."""
    try:
        return len(encoded) >= 8 and b":" in base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        return False
