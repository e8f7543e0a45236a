"""The arithmetic of the ledger, and how it reads."""

from __future__ import annotations

import threading

import pytest

from dspy_cachectl.accounting.ledger import FIELDS, Ledger, Row, Stats, Tally

EVAL, JUDGE = Row("eval", None, "m"), Row("eval", "judge", "m")


def test_rows_add_up_to_the_totals() -> None:
    """Every counter of the totals is the sum of the rows'."""
    ledger = Ledger()
    ledger.record(EVAL, Tally(**{name: number for number, name in enumerate(FIELDS)}))
    ledger.record(JUDGE, Tally(calls=2, reused=2, cost_saved=0.5))
    stats = ledger.snapshot()
    for name in FIELDS:
        assert getattr(stats, name) == sum(getattr(tally, name) for tally in stats.by.values())


def test_a_snapshot_does_not_change() -> None:
    """What was read stays as it was read."""
    ledger = Ledger()
    ledger.record(EVAL, Tally(calls=1, fresh=1))
    before = ledger.snapshot()
    ledger.record(EVAL, Tally(calls=1, fresh=1))
    assert (1, 2) == (before.calls, ledger.snapshot().calls)
    assert 1 == before.by[EVAL].calls


def test_as_dict_is_plain_data_with_rows() -> None:
    """The dictionary goes into JSON as it is."""
    data = Stats.of([(EVAL, Tally(calls=3, fresh=1, reused=2, prompt_tokens_spent=5))]).as_dict()
    assert (3, 2, 5) == (data["calls"], data["served"], data["tokens_spent"])
    assert [("eval", None, "m", 3)] == [(row["phase"], row["role"], row["model"], row["calls"]) for row in data["by"]]


def test_the_repr_says_what_happened_and_leaves_out_what_did_not() -> None:
    """A line to read, not a dump of thirty zeros."""
    text = repr(Stats.of([(EVAL, Tally(calls=3, requests=1, fresh=1, reused=2, cost_spent=0.25, cost_saved=0.5))]))
    assert "<Stats: 3 calls, 1 request; 1 fresh; 2 reused; cost $0.25 spent, $0.5 saved>" == text


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (1, "1 call, 1 request; 1 missed; 1 failed read; 1 failed write; 1 temperature lent; 1 not distinct"),
        (2, "2 calls, 2 requests; 2 missed; 2 failed reads; 2 failed writes; 2 temperatures lent; 2 not distinct"),
    ],
)
def test_one_and_many_are_told_apart(count: int, said: str) -> None:
    """In the printed stats."""
    names = ("calls", "requests", "missed", "failed_reads", "failed_writes", "temperatures_lent", "not_distinct")
    shown = str(Stats.of([(EVAL, Tally(**dict.fromkeys(names, count)))]))
    assert (said, True) == (" ".join(shown.split()), all(len(line) <= 80 for line in shown.splitlines()))


def test_draws_that_are_not_distinct_are_not_counted_as_draws() -> None:
    """Two draws with one response id are one."""
    assert 4 == Tally(fresh=3, resumed=2, not_distinct=1).draws


def test_many_threads_lose_no_count() -> None:
    """The ledger is shared by every thread of an evaluation."""
    ledger = Ledger()

    def work() -> None:
        for _ in range(500):
            ledger.record(EVAL, Tally(calls=1, seconds_spent=0.5))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (4000, 2000.0) == (ledger.snapshot().calls, ledger.snapshot().seconds_spent)
