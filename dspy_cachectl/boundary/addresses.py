"""Addresses without what opens a server: user, password and secret parameters, however they are written.

Nothing here parses an address by the rules: one whose password holds `/`, `#`, `@` or `[`, or that lacks a bracket,
holds a password all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from dspy_cachectl.boundary.secret_names import is_secret_parameter

_WITH_SLASHES = re.compile(r"(?P<scheme>(?:[A-Za-z][A-Za-z0-9+.\-]{0,31}:)?(?:\\?/){2})(?P<rest>.*)\Z", re.DOTALL)
_BARE_LOGIN = re.compile(r"[^\s/?#:@]{2,256}:(?!//|\\)[^@]*@(?=[\w\[])")
_NO_LOGIN = frozenset({"mailto", "sip", "sips", "xmpp", "acct", "urn", "data", "im", "git", "ssh", "email", "file"})
_PORT = re.compile(r"[0-9]{0,5}\Z")
_HOST = re.compile(r"(?:\[[^\]]*\]?|[\w.\-]+)(?::[0-9]{1,5})?(?=[/?#]|\Z)")
_ENCODED_LOGIN = re.compile(r"(?i)(?<=%3A%2F%2F)[^\s&?#\"'<>]+")
_PARAMETER = re.compile(r"(?P<mark>[?&;#]|%3F|%26)(?P<name>[\w.\-\[\]]{1,64})(?P<is>=|%3D)(?P<value>[^&;#\s\"'<>]*)")
_IN_TEXT = re.compile(r"(?:\\?/){2}[^\s\"'<>`]*")
_SLASHES = re.compile(r"((?:\\?/){2,})")
_AUTHORITY = re.compile(r"[^/?#]*")
_LOGIN_IN_TEXT = re.compile(r"(?<![^\s\"'(\[<=,])(?P<user>[\w.\-%+]{2,64}):(?!//|\\)[^\s\"'<>]{1,128}@(?=[\w\[])")


def without_login(address: str) -> str:
    """Return an address without the user and the password in it."""
    found = _WITH_SLASHES.match(address)
    if found is not None:
        return found["scheme"] + _after_login(found["rest"])
    login = _BARE_LOGIN.match(address)
    if login is None or address.partition(":")[0].lower() in _NO_LOGIN:
        return address
    return address[address.rindex("@") + 1 :] if "/" not in address[login.end() :] else address[login.end() :]


def without_credentials(address: str) -> str:
    """Return an address without user, password and secret parameters.

    `http://me:secret@host:5000/x?token=abc` becomes `http://host:5000/x`; `databricks://profile` stays what it is.
    """
    bare = _without_nested(without_login(address))
    return without_parameters(bare, lambda name, _value: None if is_secret_parameter(name) else "")


def without_parameters(address: str, kept: Callable[[str, str], str | None]) -> str:
    """Return an address with other parameters, in its query and behind `#`.

    Args:
        address: The address.
        kept: Gets the name and the value of each, and returns another value for it, an empty text to leave it as it
            is, or None to leave it out.
    """
    lost_mark = ""

    def keep(found: re.Match[str]) -> str:
        nonlocal lost_mark
        value = kept(found["name"], found["value"])
        mark = lost_mark or found["mark"]
        if value is None:
            # What follows the first parameter opens the query now.
            lost_mark = mark if mark in {"?", "#", "%3F"} else lost_mark
            return ""
        lost_mark = ""
        return f"{mark}{found['name']}{found['is']}{value}" if value else mark + found[0][len(found["mark"]) :]

    return _PARAMETER.sub(keep, address)


def scrub_addresses(text: str, hidden: str, *, bare: bool) -> str:
    """Return a text whose addresses have no user with a password, and hide the values of secret parameters.

    Args:
        text: The text.
        hidden: What to write for a value.
        bare: Whether `me:secret@host`, without a scheme, is an address too.
    """
    text = _without_nested(text)
    if "@" in text and bare:
        text = _LOGIN_IN_TEXT.sub(_without_bare_login, text)
    if "=" not in text and "%3D" not in text:
        return text
    return _PARAMETER.sub(
        lambda found: (
            f"{found['mark']}{found['name']}{found['is']}{hidden}"
            if found["value"] and is_secret_parameter(found["name"])
            else found[0]
        ),
        text,
    )


def _after_login(rest: str) -> str:
    """Return what follows the login, given what follows the slashes."""
    found = _AUTHORITY.match(rest)
    authority, end = (found[0], found.end()) if found is not None else ("", 0)
    if "@" in authority:
        return rest[authority.rindex("@") + 1 :]
    if "@" not in rest[end:] or ":" not in authority:
        return rest
    at = rest.rindex("@")
    if _PORT.match(authority.rpartition(":")[2]) is None or authority.startswith("["):
        # No port stands there, so it is a password with one of these characters in it.
        return rest if authority.startswith("[") else rest[at + 1 :]
    user, _, start = authority.partition(":")
    # `http://me:12/34@host`, and not `http://host:80/people/me@work`.
    is_login = "." not in user and start and rest.count("/", 0, at) == 1 and _HOST.match(rest, at + 1)
    return rest[at + 1 :] if is_login and user != "localhost" else rest


def _without_nested(text: str) -> str:
    """Return a text without the logins of the addresses in it, which may be parameters of others."""
    if "@" in text:
        text = _IN_TEXT.sub(_scrubbed, text)
    return _ENCODED_LOGIN.sub(lambda found: found[0].rpartition("%40")[2], text) if "%40" in text else text


def _scrubbed(found: re.Match[str]) -> str:
    if "@" not in found[0]:
        return found[0]
    parts = _SLASHES.split(found[0])
    for at in range(2, len(parts), 2):
        if parts[at - 1].count("/") == 2:
            parts[at] = _after_login(parts[at])
    return "".join(parts)


def _without_bare_login(found: re.Match[str]) -> str:
    return found[0] if found["user"].lower() in _NO_LOGIN else ""
