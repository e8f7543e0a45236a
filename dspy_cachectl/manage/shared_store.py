"""Checking a shared store and mending it, and what `doctor` says of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from dspy_cachectl.config import Shared
from dspy_cachectl.errors import CorruptEntryError, FormatVersionError, StoreError, StoreUnavailableError
from dspy_cachectl.manage.repair import Repaired, set_snapshots_aside
from dspy_cachectl.manage.verification import Flaw, Kind, Report, expected_mark, flaw_of, snapshot_flaws
from dspy_cachectl.reports.progress_bar import Advance, watched
from dspy_cachectl.reports.texts import plural, size
from dspy_cachectl.stores.redis import layout, tending
from dspy_cachectl.stores.redis.store import RedisStore

_BATCH = 500
_ADVISED = "volatile-lru"
"""Which entries a full server should let go: those that expire, and those first that were not asked for."""
_AS_GOOD = {_ADVISED, "volatile-lfu"}


def verify(store: RedisStore, *, predictions: str | Path | None = None, advance: Advance | None = None) -> Report:
    """Check every entry of a shared store. Its lists are mended on the way: that is how the server counts.

    Args:
        store: The store.
        predictions: A folder of kept predictions to be checked, too; or None.
        advance: Told how many entries were looked at, and of how many there are about.

    Raises:
        StoreUnavailableError: If it cannot be read.
    """
    report = Report(exists=True)
    keys: list[str] = []
    about = sum(store.labels().values())
    for key, data in watched(tending.every_entry(store), about, advance):
        report.entries += 1
        report.flaws += _flaws(key, data)
        keys.append(key)
        if len(keys) == _BATCH:
            _mend(store, keys, report)
            keys.clear()
    _mend(store, keys, report, is_last=True)
    if predictions is not None:
        report.flaws += snapshot_flaws(predictions)
    return report


def _mend(store: RedisStore, keys: Sequence[str], report: Report, *, is_last: bool = False) -> None:
    """Mend the lists as far as a server that is full, or a replica, lets itself be written."""
    if report.unmended:
        return
    try:
        report.listed += tending.list_anew(store, keys)
        if is_last:
            report.unlisted = tending.sweep(store)
    except StoreUnavailableError as error:
        report.unmended = str(error)


def _flaws(key: str, data: bytes) -> Iterator[Flaw]:
    try:
        kept = layout.unpack(data)
    except FormatVersionError as error:
        yield Flaw(Kind.of(error), key, str(error))
    except CorruptEntryError as error:
        yield Flaw(Kind.ENTRY, key, str(error))
    else:
        flaw = flaw_of(key, kept.value, kept.label, kept.mark)
        if flaw is not None:
            yield flaw


def repair(
    store: RedisStore, found: Report, *, predictions: str | Path | None = None, advance: Advance | None = None
) -> tuple[Repaired, Report]:
    """Give what is damaged another name, under which nobody looks, and answers the marks that they should have.

    Damaged predictions are renamed where they are; those in an object store stay.

    Args:
        store: The store.
        found: What a check found.
        predictions: The kept predictions that were checked, or None.
        advance: Told how many entries were looked at, and of how many there are about.

    Returns:
        What was done, and what a check found afterwards.

    Raises:
        StoreUnavailableError: If the store cannot be written.
    """
    done = Repaired()
    for flaw in found.damage:
        if flaw.kind is Kind.MARK:
            kept = store.get_filed(flaw.where)
            if kept is not None:
                store.put_marked(flaw.where, kept.value, kept.label, expected_mark(kept.value))
                done.marks += 1
        elif flaw.kind in {Kind.ENTRY, Kind.KEY}:
            tending.set_aside(store, flaw.where)
            done.rows += 1
    set_snapshots_aside(found.damage, done)
    left = verify(store, predictions=predictions, advance=advance)
    done.flaws = [flaw for flaw in found.damage if flaw not in left.damage]
    return done, left


Level = Literal["ok", "warning", "error"]


def findings(address: Shared) -> Iterator[tuple[Level, str, str]]:
    """Yield what is to be said of a shared store: whether it is as it has to be, what was found, and what to do."""
    store = RedisStore(address, patience=max(address.patience, 2.0))
    try:
        counts = store.labels()
        gone = store.lists.share_gone()
        yield from _of_leases(store)
        servers, memory, untold = _of_itself(store)
    except StoreError as error:
        yield "error", str(error), "programs go on without it, and buy what only it has; start it, or name another"
        return
    finally:
        store.close()
    entries = sum(count for label, count in counts.items() if label.is_answer)
    yield "ok", f"{store.location}: {_version(servers)}, {plural(entries, 'entry', 'entries')}", ""
    if gone > 0.02:
        yield "warning", f"about {gone:.0%} of what its lists tell is gone", "`dspy-cachectl verify` mends them"
    if untold:
        yield "warning", f"it does not tell how it is set: {untold}", "see to maxmemory and maxmemory-policy by hand"
    else:
        yield from _of_memory(memory)


def _of_itself(store: RedisStore) -> tuple[list[dict[str, Any]], list[dict[str, Any]], str]:
    """Return what the nodes tell of themselves and of their memory, or why they do not."""
    try:
        return store.client.info("server"), store.client.info("memory"), ""
    except StoreError as error:
        return [{}], [], str(error)


def _of_leases(store: RedisStore) -> Iterator[tuple[Level, str, str]]:
    lease = store.lease("doctor")
    try:
        lease.take()
        lease.give_back()
    except StoreError as error:
        yield "warning", f"it gives no leases: {error}", "who asks the same at once pays twice; let its user write"
    else:
        yield "ok", "processes that ask it the same at once know of one another", ""


def _version(servers: Sequence[dict[str, Any]]) -> str:
    first = servers[0]
    name = "Valkey" if "valkey_version" in first else "Redis" if first else "a server"
    nodes = f" in {len(servers)} nodes" if len(servers) > 1 else ""
    return f"{name} {first.get('valkey_version', first.get('redis_version', 'of no known version'))}{nodes}"


def _of_memory(nodes: Sequence[dict[str, Any]]) -> Iterator[tuple[Level, str, str]]:
    limits = [int(node.get("maxmemory", 0)) for node in nodes]
    used = sum(int(node.get("used_memory", 0)) for node in nodes)
    policies = sorted({str(node.get("maxmemory_policy", "")) for node in nodes})
    if not all(limits):
        yield "warning", f"it has {size(used)} in memory, and no limit", f"set maxmemory, and {_ADVISED}"
        return
    yield "ok", f"it has {size(used)} of {size(sum(limits))} in memory", ""
    if not _AS_GOOD.issuperset(policies):
        what = "removes its own lists" if any(one.startswith("allkeys") for one in policies) else "refuses what is new"
        if any(one.startswith("volatile") for one in policies):
            what = "does not look at what is used"
        yield "warning", f"where it is full it {what} ({', '.join(policies)})", f"set maxmemory-policy {_ADVISED}"
