"""The address of a shared store, Redis or Valkey, as somebody wrote it; and as it may be shown, without credentials."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from dspy_cachectl.boundary.meant import question
from dspy_cachectl.errors import ConfigurationError

NAMESPACE = "cachectl"
"""What the names of all keys begin with where no other is named."""

_TTL = 90 * 86400.0
_PATIENCE = 0.25
_LONGEST_TTL = 100 * 365 * 86400.0
_SCHEMES = ("redis", "rediss", "valkey", "valkeys", "unix")
_KINDS = ("cluster", "sentinel")
_PORTS = {"cluster": 6379, "sentinel": 26379}
_TLS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"})
_OPTIONS = frozenset({"namespace", "ttl", "patience", "db", "sentinel_username", "sentinel_password", *_TLS})
_SHARED = re.compile(rf"(?:{'|'.join(_SCHEMES)})(?:\+(?:{'|'.join(_KINDS)}))?://", re.IGNORECASE)
_LOGIN = r"[^\s/\\:@'\"]*:[^\s/\\@'\"]+@"
_MEANT = re.compile(
    rf"(?P<scheme>(?:rediss?|valkeys?)(?:\+(?:{'|'.join(_KINDS)}))?)(?:(?P<colon>:)(?!//)|//)"
    rf"|{_LOGIN}[\w\[]",
    re.IGNORECASE,
)
_BARE_LOGIN = re.compile(rf"(?<![\w/]){_LOGIN}(?=[\w\[])")
_WITH_OPTIONS = re.compile(rf"({_SHARED.pattern}[^\s\"'?]*)\?[^\s\"']*", re.IGNORECASE)
_NAMESPACE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SECONDS = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smhd]?)")
_SWITCHES = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True)
class Shared:
    """Where a shared store is, and how it is used.

    Attributes:
        kind: One server, a cluster, or a server that sentinels name.
        nodes: Hosts with their ports: the server, some of the cluster, or the sentinels. Empty for a socket's path.
        path: The path of the server's socket; "" where it has a port.
        service: The name that the sentinels know; "" without sentinels.
        options: The client's: `db`, `username`, `password`, and those of TLS. Never shown.
        sentinel_options: The same for the sentinels.
        namespace: What the names of all keys begin with.
        ttl: How long an entry is kept, in seconds.
        patience: How long a command may take, in seconds.
        shown: The address as it may be shown.
    """

    kind: Literal["server", "cluster", "sentinel"]
    nodes: tuple[tuple[str, int], ...]
    path: str
    service: str
    options: Mapping[str, Any] = field(repr=False)
    sentinel_options: Mapping[str, Any] = field(repr=False)
    namespace: str
    ttl: float
    patience: float
    shown: str


def is_shared(location: str) -> bool:
    """Tell whether a store's location is the address of a shared store."""
    return _SHARED.match(location) is not None


def misses(location: str) -> str:
    """Return what a store's location lacks to be such an address, and what to write; "" where it is meant as none."""
    found = _MEANT.match(location)
    if found is None:
        return ""
    scheme = found["scheme"] or "redis"
    lacks = "two slashes are missing after" if found["colon"] else "a server's address begins with"
    return f"{lacks} '{scheme}:{'' if found['colon'] else '//'}'; write '{scheme}://host'"


def readable(location: str) -> str:
    """Return a store's location for people: one that cannot be used without what may be a misspelt secret."""
    try:
        if is_shared(location):
            shared_of(location)
            return location
    except ConfigurationError:
        pass
    return without_secrets(location)


def without_secrets(text: str) -> str:
    """Return a text whose addresses of shared stores have no login and no options, where a password may be misspelt."""
    return _BARE_LOGIN.sub("", _WITH_OPTIONS.sub(r"\1", text))


def shared_of(location: str) -> Shared:
    """Return what the address of a shared store says.

    Args:
        location: `redis://[user:password@]host[:port][/db]`; `rediss://` with TLS; `valkey://` and `valkeys://` are
            the same. `unix:///path/of/socket`. `redis+cluster://host:port,host:port` and
            `redis+sentinel://host:port,host:port/service[/db]`. After a `?`: `namespace`, `ttl` and `patience` (90d,
            12h, 30m, 0.25), `db`, and the `ssl_...` files of TLS.

    Raises:
        ConfigurationError: If it cannot be used. The message shows no credentials.
    """
    try:
        return _parsed(location)
    except _WrongError as error:
        raise ConfigurationError(
            f"the address {_shown(location)!r} of a shared store cannot be used: {error}"
        ) from None


class _WrongError(Exception):
    """What is wrong with an address."""


def _parsed(location: str) -> Shared:
    scheme, _, rest = location.partition("://")
    transport, _, kind = scheme.lower().partition("+")
    query, options = _asked(rest)
    if "://" in rest:
        raise _WrongError("several stores are written as a list; percent-encode a password: %3A for a colon")
    login, _, place = rest.partition("?")[0].rpartition("@")
    name, _, password = login.partition(":")
    options.update({key: unquote(text) for key, text in (("username", name), ("password", password)) if text})
    if transport in {"rediss", "valkeys"}:
        options["ssl"] = True
    elif _TLS & options.keys():
        raise _WrongError(f"{min(_TLS & options.keys())} is of TLS, which is spoken to rediss:// and valkeys://")
    hosts, _, path = place.partition("/")
    socket = service = ""
    if transport == "unix":
        socket, path = _socket(kind, place), ""
    elif kind == "sentinel":
        service, _, path = path.partition("/")
    if not kind and "," in hosts and not socket:
        raise _WrongError(f"it names several hosts: write {transport}+cluster:// or {transport}+sentinel://")
    options["db"] = _database(path or options.get("db", "0"), kind, service)
    return Shared(
        kind=kind or "server",  # type: ignore[arg-type] # of `_KINDS`, as `is_shared` has seen
        nodes=() if socket else tuple(_node(host, _PORTS.get(kind, 6379)) for host in hosts.split(",")),
        path=socket,
        service=unquote(service),
        sentinel_options={key[9:]: options.pop(key) for key in list(options) if key.startswith("sentinel_")},
        options=options,
        **query,
        shown=_shown(location) + ("" if query["namespace"] == NAMESPACE else f"?namespace={query['namespace']}"),
    )


def _socket(kind: str, place: str) -> str:
    if kind or not place.startswith("/") or place == "/":
        raise _WrongError("write unix:///path/of/the/socket")
    return unquote(place)


def _database(text: str, kind: str, service: str) -> int:
    if kind == "sentinel" and not service:
        raise _WrongError("name the service after the sentinels: redis+sentinel://host:26379/mymaster")
    number = _number(text, "the database", 9999)
    if number and kind == "cluster":
        raise _WrongError("a cluster has no databases; write ?namespace=name to keep several stores in one")
    return number


def _asked(rest: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what stands after the question mark: what is this store's, and what is the client's."""
    if "@" in (text := rest.partition("?")[2]):
        raise _WrongError("percent-encode the password: %3F for a question mark, %40 for @")
    asked = dict(parse_qsl(text, keep_blank_values=True))
    for name in asked.keys() - _OPTIONS:
        guess = question(name, sorted(_OPTIONS))
        raise _WrongError(
            f"it has no option {name!r}.{f' {guess}' if guess else ''} There are {', '.join(sorted(_OPTIONS))}"
        )
    namespace = asked.pop("namespace", NAMESPACE)
    if _NAMESPACE.fullmatch(namespace) is None:
        raise _WrongError("a namespace consists of letters, digits, '.', '_' and '-', 64 at most")
    ttl = _seconds(asked.pop("ttl", None), "ttl", _TTL, least=1, most=_LONGEST_TTL)
    patience = _seconds(asked.pop("patience", None), "patience", _PATIENCE, least=0.01, most=3600)
    options: dict[str, Any] = {**asked}
    if "ssl_check_hostname" in options:
        said = _SWITCHES.get(asked["ssl_check_hostname"].lower())
        if said is None:
            raise _WrongError("ssl_check_hostname is true or false")
        options["ssl_check_hostname"] = said
    return {"namespace": namespace, "ttl": ttl, "patience": patience}, options


def _node(text: str, port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        named = parts.port
    except ValueError:
        raise _WrongError("a port is a number up to 65535") from None
    return parts.hostname or "localhost", port if named is None else named


def _number(text: str, what: str, most: int) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) > most:
        raise _WrongError(f"{what} is a number up to {most}")
    return int(text)


def _seconds(text: str | None, what: str, usual: float, *, least: float, most: float) -> float:
    if text is None:
        return usual
    found = _SECONDS.fullmatch(text)
    seconds = float(found[1]) * _UNITS[found[2] or "s"] if found else 0.0
    if not least <= seconds <= most:
        raise _WrongError(f"{what} is a number of seconds from {least:g} to {most:g}, or such as 90d, 12h and 30m")
    return seconds


def _shown(location: str) -> str:
    """Return an address without its login and without options: what stands there may be a secret."""
    scheme, _, rest = location.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"
