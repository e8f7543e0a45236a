"""A place in an object store: S3 and what speaks as it does, Google Cloud Storage, Azure. Bytes under names.

Everything here waits for a server, within limits: call it from a thread that nobody waits for, or where a command or
an evaluation begins. Credentials come from the environment, and are in no error, name or pickled object.
"""

from __future__ import annotations

import importlib.util
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property
from typing import Any

from dspy_cachectl.config.objects import objects_of
from dspy_cachectl.errors import MissingExtraError, StoreError, StoreUnavailableError

_ATTEMPTS = 10
"""How often something is merged anew that others change at the same time."""

_JITTER = 0.2
_CONNECTS, _REPLIES, _TRANSFERS = (timedelta(seconds=seconds) for seconds in (3, 15, 600))
"""How long a connection, a small request and a large one may take."""

_SMALL = 16 * 1024**2
_RETRIES = {"max_retries": 1, "retry_timeout": timedelta(seconds=10)}
_ENDPOINTS = (
    *("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    *("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT", "GOOGLE_BASE_URL"),
)
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,40})</Code>")


Version = dict[str, str]
"""What an object store tells one version of an object by: its ETag, or its generation."""

_process: dict[str, int] = {}
"""The one that has used the client, whose threads are dead in a fork of it: that would wait for ever."""


class ObjectStore:
    """Objects under a prefix of a bucket. Thread-safe; nothing is connected to before its first use.

    Args:
        address: `s3://bucket/prefix`, and likewise `gs://` and `az://`.

    Raises:
        ConfigurationError: If the address cannot be used.
        MissingExtraError: If the package `obstore` is not installed.
    """

    def __init__(self, address: str) -> None:
        self.address = objects_of(address)
        if importlib.util.find_spec("obstore") is None:
            raise MissingExtraError(f"what is kept in {self.address}", extra="s3")

    def __reduce__(self) -> tuple[type[ObjectStore], tuple[str]]:
        return ObjectStore, (self.address,)  # the client holds the credentials

    def names(self, prefix: str = "") -> list[str]:
        """Return the names below a prefix that ends in a slash, or all. Raises `StoreUnavailableError`."""
        import obstore

        with self._translated("listed"):
            return [str(one["path"]) for page in obstore.list(self._client, prefix or None) for one in page]

    def read(self, name: str, *, most: int) -> tuple[bytes, Version] | None:
        """Return an object's bytes and which version they are, or None where there is none.

        Args:
            name: Its name.
            most: How many bytes it may have.

        Raises:
            StoreUnavailableError: If it cannot be read, or has more.
        """
        import obstore

        with self._translated("read"):
            try:
                found = obstore.get(self._client if most <= _SMALL else self._patient_client, name)
            except FileNotFoundError as error:
                if any(code in str(error) for code in _NO_BUCKET):
                    raise
                return None
            if found.meta["size"] <= most:
                return bytes(found.bytes()), _version(found.meta)
        raise StoreUnavailableError(f"{self.address}/{name} has {found.meta['size']:,} bytes, and is not read")

    def version(self, name: str) -> Version | None:
        """Return which version of an object is there, or None where there is none. Raises `StoreUnavailableError`."""
        import obstore

        with self._translated("read"):
            try:
                return _version(obstore.head(self._client, name))
            except FileNotFoundError:
                return None

    def create(self, name: str, data: bytes) -> None:
        """Write an object whose name says what is in it; one that is there is the same.

        Raises:
            StoreUnavailableError: If it cannot be written.
        """
        try:
            self._put(name, data, "create")
        except StoreUnavailableError:
            self._put(name, data, "create")  # it may be there, and the reply lost

    def update(self, name: str, change: Callable[[bytes | None], bytes], *, most: int) -> bytes:
        """Change an object, together with all others who do: read, change, and write if nobody has meanwhile.

        Args:
            name: Its name.
            change: Makes the bytes to write of those that are there, or of None.
            most: How many bytes it may have.

        Returns:
            What was written, or was there and needs no change.

        Raises:
            StoreUnavailableError: If it cannot be read or written, or others were faster each time.
        """
        for _ in range(_ATTEMPTS):
            there, version = self.read(name, most=most) or (None, None)
            data = change(there)
            if data == there or self._replaced(name, data, version, most):
                return data
            time.sleep(random.uniform(0, _JITTER))  # noqa: S311 - not to meet again
        raise StoreUnavailableError(f"{self.address}/{name} was changed by others at each of {_ATTEMPTS} attempts")

    def remove(self, names: Sequence[str]) -> None:
        """Remove objects; those that are not there are no error. Raises `StoreUnavailableError`."""
        import obstore

        with self._translated("removed"):
            for name in names:
                with suppress(FileNotFoundError):
                    obstore.delete(self._client, name)

    def _replaced(self, name: str, data: bytes, version: Version | None, most: int) -> bool:
        """Write an object in place of the one that was read. Tell whether it is there now."""
        try:
            if self._put(name, data, version or "create"):
                return True
        except StoreError:
            # The reply may have been lost after it was written.
            if (self.read(name, most=most) or (b"",))[0] == data:
                return True
            raise
        return (self.read(name, most=most) or (b"",))[0] == data

    def _put(self, name: str, data: bytes, mode: Any) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._translated("written"):
            try:
                client = self._client if len(data) <= _SMALL else self._patient_client
                obstore.put(client, name, data, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    @cached_property
    def _client(self) -> Any:
        return self._connected(_REPLIES)

    @cached_property
    def _patient_client(self) -> Any:
        return self._connected(_TRANSFERS)

    def _connected(self, timeout: timedelta) -> Any:
        from obstore.store import from_url

        plain = any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS)
        options: Any = {"timeout": timeout, "connect_timeout": _CONNECTS, **({"allow_http": True} if plain else {})}
        retries: Any = _RETRIES
        return from_url(self.address, client_options=options, retry_config=retries)

    @contextmanager
    def _translated(self, done: str) -> Iterator[None]:
        from obstore.exceptions import BaseError

        if _process.setdefault("id", os.getpid()) != os.getpid():
            raise StoreUnavailableError(
                f"{self.address} cannot be {done} in a process that was forked; start workers by spawn or forkserver"
            )
        try:
            yield
        except (BaseError, OSError) as error:
            # The text of these quotes addresses and replies, which name keys.
            raise StoreUnavailableError(f"{self.address} cannot be {done}: {_reason(error)}") from None


def _version(meta: Mapping[str, Any]) -> Version:
    return {name: meta[name] for name in ("e_tag", "version") if meta[name] is not None}


def _reason(error: Exception) -> str:
    """Say why something failed, in words that hold nothing of the credentials."""
    text = str(error)
    status, code = _STATUS.search(text), _CODE.search(text)
    if code or status:
        return f"the server said {' '.join(found[1] for found in (status, code) if found)}"
    if "Account must be specified" in text or "credential" in text.lower():
        return "there are no credentials in the environment"
    return "the server does not reply" if "HTTP error" in text else type(error).__name__
