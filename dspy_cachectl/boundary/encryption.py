"""What is kept is kept unreadable, where keys for that are given: the first encrypts, and each of them decrypts.

AES-SIV makes of the same bytes the same ones again. So what did not change does not change in a file that version
control keeps, no number has to be drawn, and what is told of two texts is only that they are equal.
"""

from __future__ import annotations

import base64
import binascii
import importlib.util
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from dspy_cachectl.errors import ConfigurationError, CorruptEntryError, EncryptedError, MissingExtraError

_BYTES = 32
_SIV_BYTES = 64
_NAME_BYTES = 8
_KEY = re.compile(r"[A-Za-z0-9_-]{43}=?")
_ABOUT = b"dspy_cachectl.encryption.1"
SEALED = b'{"sealed":"'
"""How a line begins that is sealed."""
MAKE_ONE = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'
"""The command that makes a key."""

Source = Callable[[], "str | Sequence[str]"]


class Encryption:
    """The keys that are given. Its text tells how many there are; nothing of it tells one, and it is not pickled.

    Args:
        texts: The keys as they are written, the one that encrypts first.

    Raises:
        ConfigurationError: If one of them is no key. The message does not show it.
        MissingExtraError: If the package `cryptography` is not installed.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        if importlib.util.find_spec("cryptography") is None:
            raise MissingExtraError("encryption", extra="encryption")
        made = [_made(text.strip()) for text in texts]
        if not made:
            raise ConfigurationError(f"there is no key; make one: {MAKE_ONE}")
        self._first = made[0][0]
        self._by_name = dict(made)

    @property
    def name(self) -> str:
        """The name of the key that encrypts, which tells nothing of it."""
        return self._first.hex()

    def seal(self, text: bytes, *about: bytes) -> bytes:
        """Return a text that only who has the key can read.

        Args:
            text: The text.
            about: What is not secret, and has to be the same when it is opened.
        """
        sealed: bytes = self._by_name[self._first].encrypt(text, [_ABOUT, *about])
        return self._first + sealed

    def is_newest(self, sealed: bytes) -> bool:
        """Tell whether a text was sealed with the key that encrypts now."""
        return sealed.startswith(self._first)

    def _cipher(self, name: bytes) -> Any:
        return self._by_name.get(name)

    def __repr__(self) -> str:
        count = len(self._by_name)
        return f"on, {count} key{'' if count == 1 else 's'}"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled."""
        raise ConfigurationError("a key is not pickled: give it to each process, in its environment or in code")


def opened(keys: Encryption | None, sealed: bytes, *about: bytes) -> bytes:
    """Return the text that was sealed.

    Args:
        keys: The keys that are given.
        sealed: What `Encryption.seal` returned.
        about: What it was told.

    Raises:
        EncryptedError: If its key is not given.
        CorruptEntryError: If it was changed, or is about something else.
    """
    from cryptography.exceptions import InvalidTag

    cipher = None if keys is None else keys._cipher(sealed[:_NAME_BYTES])  # noqa: SLF001 - one thing in two parts
    if cipher is None:
        raise not_given(keys, sealed[:_NAME_BYTES].hex())
    try:
        text: bytes = cipher.decrypt(sealed[_NAME_BYTES:], [_ABOUT, *about])
    except (InvalidTag, ValueError):
        raise CorruptEntryError("what is encrypted was changed, or is kept where it does not belong") from None
    return text


def has_key(keys: Encryption | None, name: object) -> bool:
    """Tell whether the key of a name is given."""
    return keys is not None and isinstance(name, str) and any(known.hex() == name for known in keys._by_name)  # noqa: SLF001


def not_given(keys: Encryption | None, name: object) -> EncryptedError:
    """Return the error that says that the key of a name is not given."""
    named = name if isinstance(name, str) and re.fullmatch("[0-9a-f]{16}", name) else "of no known name"
    what = "no key is given" if keys is None else f"the key {named} is not among those given"
    return EncryptedError(f"it is encrypted, and {what}: set DSPY_CACHECTL_ENCRYPTION_KEY. It is left as it is")


def sealed_length(length: int) -> int:
    """Return how long a line of a length is at most when it is sealed, in bytes."""
    return length * 4 // 3 + 100


def seal_line(keys: Encryption, line: bytes, *about: bytes) -> bytes:
    """Return a line of a file as text that only who has the key can read: a value of JSON, without its end."""
    return SEALED + base64.b64encode(keys.seal(line, *about)) + b'"}'


def open_line(keys: Encryption | None, line: bytes, *about: bytes) -> bytes:
    """Return the line that `seal_line` was given; one that was not sealed is returned as it is. Raises as `opened`."""
    if not line.startswith(SEALED):
        return line
    try:
        sealed = base64.b64decode(line[len(SEALED) : -2], validate=True)
    except binascii.Error:
        raise CorruptEntryError("what is encrypted was changed") from None
    return opened(keys, sealed, *about)


def keys_of(given: str | Source) -> Encryption:
    """Return the keys that stand in a variable, divided by commas, or that a function returns.

    Raises:
        ConfigurationError: If they are none, or the function fails.
        MissingExtraError: If the package `cryptography` is not installed.
    """
    texts: Any = given
    if callable(given):
        try:
            texts = given()
        except Exception as error:  # noqa: BLE001 - whatever the user's function raises; it may quote the key
            raise ConfigurationError(f"the function that gives the key failed: {type(error).__name__}") from None
    found = texts.split(",") if isinstance(texts, str) else texts
    if not isinstance(found, (list, tuple)) or not all(isinstance(one, str) for one in found):
        raise ConfigurationError("a function that gives keys returns a text, or a list of texts")
    return Encryption(found)


def _made(text: str) -> tuple[bytes, Any]:
    """Return a key's name, and what encrypts with it."""
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    if not _KEY.fullmatch(text):
        raise ConfigurationError(f"a key is {_BYTES} random bytes in 43 characters; make one: {MAKE_ONE}")
    secret = base64.urlsafe_b64decode(text.rstrip("=") + "=")
    made = HKDF(SHA256(), _SIV_BYTES + _NAME_BYTES, salt=None, info=_ABOUT).derive(secret)
    return made[_SIV_BYTES:], AESSIV(made[:_SIV_BYTES])
