"""Encrypting what is kept with the key that encrypts now; or no more. Done again it goes on with what is left."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from dspy_cachectl.boundary.writing import write_whole
from dspy_cachectl.config import settings
from dspy_cachectl.entries import records
from dspy_cachectl.errors import ConfigurationError, EncryptedError, StoreError
from dspy_cachectl.predictions.library import Library
from dspy_cachectl.replay import files
from dspy_cachectl.replay.places import place_of
from dspy_cachectl.reports.progress_bar import Advance, watched
from dspy_cachectl.stores.disk import DiskStore
from dspy_cachectl.stores.listing import Reader, read_entries, row_numbers
from dspy_cachectl.stores.reader import FolderReader
from dspy_cachectl.stores.rows import Rows

_BATCH = 100
NO_KEY, OTHER = "encrypted with a key that is not given", "damaged, or of a newer version"


@dataclass
class Rekeyed:
    """What was written anew.

    Attributes:
        changed: How many entries, recordings or files of predictions were.
        same: How many were as they have to be.
        left_out: How many could not be read and are as they were, by reason.
    """

    changed: int = 0
    same: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def check_keys(*, plain: bool) -> None:
    """See to it that there is a key to encrypt, or decrypt, with.

    Raises:
        ConfigurationError: If none is given.
    """
    if settings().encryption_key is None:
        what = "what is encrypted cannot be read" if plain else "there is nothing to encrypt with"
        raise ConfigurationError(f"no key is given, so {what}: set DSPY_CACHECTL_ENCRYPTION_KEY")


def rekey_store(reader: Reader, *, plain: bool = False, advance: Advance | None = None) -> Rekeyed:
    """Encrypt the entries of a store with the first key. All else of them stays: age, label, use, and when they expire.

    Args:
        reader: The store.
        plain: Decrypt them instead.
        advance: Told how many entries were looked at, and of how many.

    Raises:
        StoreUnavailableError: If it cannot be read or written. What was done until then is done.
    """
    done = Rekeyed()
    store = DiskStore(reader.path) if isinstance(reader, FolderReader) else reader
    numbers = row_numbers(reader, Rows(lambda label: label.is_answer))
    changes: dict[str, tuple[bytes, bytes]] = {}
    for row, value in watched(read_entries(reader, numbers), len(numbers), advance):
        try:
            before = value()
            after = records.decrypted(before) if plain else records.encrypted(before, row.key)
        except StoreError as error:
            done.left_out[NO_KEY if isinstance(error, EncryptedError) else OTHER] += 1
            continue
        if after == before:
            done.same += 1
            continue
        changes[row.key] = before, after
        if len(changes) == _BATCH:
            done.changed += store.rewrite(changes)
            changes.clear()
    done.changed += store.rewrite(changes)
    if done.changed and isinstance(store, DiskStore):
        store.shrink()
    return done


def rekey_predictions(library: Library, *, plain: bool = False) -> Rekeyed:
    """Do the same to the files of kept predictions, which stay what they are otherwise. Raises as `rekey_store`."""
    done = Rekeyed()
    for outcome in library.rewrite(plain=plain):
        if outcome is None:
            done.left_out[OTHER] += 1
        else:
            done.changed += outcome
            done.same += not outcome
    return done


def rekey_cassette(path: str, *, plain: bool = False) -> Rekeyed:
    """Do the same to a cassette or an archive, which is encrypted, or not, from then on.

    Raises:
        StoreError: If it cannot be read or written; it is as it was then.
    """
    place, done = place_of(path), Rekeyed()

    def write() -> None:
        nonlocal done
        before = files.read(place.path)
        wanted = replace(before, lines={}, is_encrypted=not plain)
        content = files.content_of(place.path, before.recordings.values(), before=wanted, unfinished=before.unfinished)
        if content is None or content == place.path.read_bytes():
            done = Rekeyed(same=len(before.recordings))
            return
        write_whole(place.path, content, what="the cassette")
        done = Rekeyed(changed=len(before.recordings))

    place.change(write)
    return done
