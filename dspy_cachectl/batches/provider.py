"""LiteLLM's interface to files and batches, for one account: what it raises becomes a `BatchError`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from dspy.clients._litellm import get_litellm

from dspy_cachectl.batches.lines import ENDPOINT
from dspy_cachectl.boundary.secrets import scrub
from dspy_cachectl.errors import BatchError

OWN_ID = "dspy_cachectl"
"""The name under which a batch's metadata has its own id."""
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
"""The states of a batch that nothing comes after."""

_IN_VAIN = frozenset({"failed", "cancelling", "cancelled"})
"""Those of a batch that is to be sent anew."""
_LISTED = 100
_MOST_LISTED = 1000
"""So many of an account's last batches are looked at for one that may have been sent."""


class NotSentError(BatchError):
    """A batch was not taken, and is certainly not with the provider."""


class Account:
    """Files and batches of one account of a provider.

    Args:
        provider: The provider, as LiteLLM calls it.
        connection: What LiteLLM reaches it with.
    """

    def __init__(self, provider: str, connection: Mapping[str, Any]) -> None:
        self._litellm: Any = get_litellm(feature="batches")
        self._how: dict[str, Any] = {**connection, "custom_llm_provider": provider}
        if "base_url" in self._how:
            self._how.setdefault("api_base", self._how.pop("base_url"))

    def send(self, name: str, lines: bytes) -> str:
        """Upload the lines of a batch, and let it begin. Return the provider's id of it.

        One of this name that another machine has sent is taken for it.

        Raises:
            NotSentError: If the provider refuses either.
            BatchError: If it is not known whether the batch has begun.
        """
        with contextlib.suppress(BatchError):  # some do not list theirs
            there = self.find(name)
            if there is not None:
                return there
        with _as_ours("the lines of a batch were not taken", NotSentError):
            file = self._litellm.create_file(file=(f"{name}.jsonl", lines), purpose="batch", **self._how)
        try:
            with _as_ours("a batch was not taken"):
                made = self._litellm.create_batch(
                    completion_window="24h",
                    endpoint=ENDPOINT,
                    input_file_id=file.id,
                    metadata={OWN_ID: name},
                    # It would be sent once more where only its answer was lost.
                    **{**self._how, "max_retries": 0},
                )
        except BatchError as error:
            found = self.find(name)
            if found is None:
                raise NotSentError(str(error)) from error
            return found
        return str(made.id)

    def find(self, name: str) -> str | None:
        """Return the provider's id of the batch that has this own id; None where there is none that goes on.

        Raises:
            BatchError: If the provider does not say.
        """
        after, seen = None, 0
        while seen < _MOST_LISTED:
            with _as_ours("the provider does not say which batches it has"):
                page = self._litellm.list_batches(after=after, limit=_LISTED, **self._how)
                listed = list(_field(page, "data") or [])
            for one in listed:
                if (_field(one, "metadata") or {}).get(OWN_ID) == name and _field(one, "status") not in _IN_VAIN:
                    return str(_field(one, "id"))
            if not listed or not _field(page, "has_more"):
                return None
            after, seen = str(_field(listed[-1], "id")), seen + len(listed)
        return None

    def look(self, batch: str) -> Any:
        """Return what the provider says of a batch.

        Raises:
            BatchError: If it says nothing.
        """
        with _as_ours(f"the provider does not say how far batch {batch} is"):
            return self._litellm.retrieve_batch(batch_id=batch, **self._how)

    def rows(self, file: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of a file of answers, or of errors.

        Raises:
            BatchError: If it cannot be had, or a row is none.
        """
        with _as_ours(f"file {file} of a batch cannot be had"):
            data = self._litellm.file_content(file_id=file, **self._how).content
        for line in data.splitlines():
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise BatchError(f"file {file} of a batch holds a line that is no JSON: {error}") from error
            if isinstance(row, dict):
                yield row


def _field(of: Any, name: str) -> Any:
    return of.get(name) if isinstance(of, Mapping) else getattr(of, name, None)


@contextlib.contextmanager
def _as_ours(what: str, kind: type[BatchError] = BatchError) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # LiteLLM and the providers' packages raise what they like
        raise kind(scrub(f"{what}: {error}")) from error
