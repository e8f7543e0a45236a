"""Workers that a phase did not reach, or no longer rules: older ones, workers of workers, and those that come late."""

from __future__ import annotations

from typing import Any

import pytest

from tests.endpoint import Endpoint

SCRIPT = """
    import json, sys
    from tests.context.beside import WAYS

    if __name__ == "__main__":
        made, start, now = sys.argv[1:]
        print(json.dumps(WAYS[made](start, now, made)))
"""
SAYS = "phase 'now' is open in the process that started this worker, and did not come along: "
QUICK = {
    ("ended", "fork", "REPLAY"),
    ("inner", "fork", "nothing"),
    ("replaced", "fork", "FRESH"),
}


def cases(*made: tuple[str, str, str, Any]) -> list[Any]:
    """Cases, those that take long only in the whole suite."""
    return [pytest.param(*one, marks=[] if one[:3] in QUICK else [pytest.mark.exhaustive]) for one in made]


@pytest.mark.parametrize(
    ("made", "start", "now", "calls"),
    cases(
        *[(made, "fork", "REPLAY", 3) for made in ("before", "ended", "within", "inner")],
        *[("before", start, "REPLAY", 3) for start in ("spawn", "forkserver", "loky")],
        *[(made, "fork", "REPLAY", 1) for made in ("forked-ended", "forked-outer")],
        *[(made, start, "REPLAY", 1) for made in ("nested", "nested-older") for start in ("fork", "spawn", "loky")],
        ("bare", "spawn", "REPLAY", 1),
        ("bare-thread", "spawn", "REPLAY-guarded", 1),
    ),
)
def test_nothing_is_bought_beside_a_replay(
    child: Any, endpoint: Endpoint, made: str, start: str, now: str, calls: int
) -> None:
    """While a replay is open where a worker comes from, that is refused, whatever it obeyed; the replay says so."""
    ran = child(SCRIPT, made, start, now)

    assert ["CacheMissError"] * calls == ran.data["asked"]
    assert calls == ran.data["error"]
    assert SAYS + "calls are refused as in its replay" in ran.output
    assert (0 if made.startswith(("forked", "nested", "bare")) else 1) == endpoint.requests


@pytest.mark.parametrize(
    ("made", "start", "now", "where"),
    cases(
        ("before", "fork", "FRESH", "outside"),
        ("ended", "fork", "FRESH", "outside"),
        ("within", "fork", "FRESH", "outer"),
        ("within", "fork", "REUSE", "outer"),
        ("inner", "fork", "FRESH", "outer"),
        ("forked-ended", "fork", "FRESH", "outside"),
        ("forked-outer", "fork", "REFRESH", "ended"),
        *[("nested", start, "FRESH", "outside") for start in ("fork", "spawn", "loky")],
        *[("bare", start, now, "outside") for start in ("spawn", "forkserver", "loky") for now in ("REFRESH", "OFF")],
        *[("bare-thread", "spawn", now, "outside") for now in ("FRESH", "REPLAY", "REUSE")],
    ),
)
def test_a_phase_that_did_not_come_along_is_said(
    child: Any, endpoint: Endpoint, made: str, start: str, now: str, where: str
) -> None:
    """A worker that no open phase reached says so, and in which it is; where the guard is off, too."""
    ran = child(SCRIPT, made, start, now)

    assert {where} == {said.split(":")[0] for said in ran.data["asked"]}
    assert len(ran.data["asked"]) == sum("refused" not in said for said in ran.data["asked"])
    inside = "no phase" if where == "outside" else f"phase {where!r}"
    assert SAYS + f"calls here are in {inside}. Hand the pool cachectl.carry(function)" in ran.output
    assert endpoint.requests > 0


@pytest.mark.parametrize(
    ("made", "start", "now", "where"),
    cases(
        ("ended", "fork", "nothing", "outside"),
        ("inner", "fork", "nothing", "outer"),
        ("forked-ended", "fork", "nothing", "outside"),
        *[("bare", "spawn", f"{now}-unguarded", "outside") for now in ("FRESH", "REPLAY", "OFF")],
    ),
)
def test_a_worker_is_where_its_parent_is(
    child: Any, endpoint: Endpoint, made: str, start: str, now: str, where: str
) -> None:
    """A phase that has ended rules its workers no longer; one with guard=False leaves others alone, without a word."""
    ran = child(SCRIPT, made, start, now)

    assert {where} == {said.split(":")[0] for said in ran.data["asked"]}
    assert "did not come along" not in ran.output
    assert "error" not in ran.data


@pytest.mark.parametrize(
    ("made", "start", "now", "requests"),
    cases(
        ("replaced", "fork", "FRESH", 3),
        ("by-thread", "fork", "FRESH", 3),
        ("replaced", "fork", "REPLAY", 0),
        ("by-thread", "fork", "REPLAY", 0),
    ),
)
def test_workers_that_are_forked_late_have_the_phase(
    child: Any, endpoint: Endpoint, made: str, start: str, now: str, requests: int
) -> None:
    """Forked by a thread that carries nothing, while the phase is open in the main one: each asking is its draw."""
    ran = child(SCRIPT, made, start, now)

    assert "stray" not in ran.output
    if requests:
        assert ["now: fresh"] * 3 == ran.data["asked"]
        assert 3 == ran.data["stats"]["fresh"]
    else:
        assert ["CacheMissError"] * 3 == ran.data["asked"]
        assert ran.data["error"] >= 3
        assert requests == endpoint.requests


TAPE = """
    import json, sys, dspy_cachectl as cachectl
    from tests.context.beside import asked, in_child, pool

    if __name__ == "__main__":
        kind, found = sys.argv[1], {}
        with cachectl.cassette("tape.jsonl", mode="record"):
            asked("known")
        try:
            with cachectl.cassette("tape.jsonl", mode="replay"):
                if kind == "by hand":
                    found["asked"] = [in_child(lambda: asked(question)) for question in ("known", "other")]
                else:
                    executor = pool(kind, 1)
                    function = cachectl.carry(asked) if sys.argv[2] == "carried" else asked
                    found["asked"] = [executor.submit(function, question).result() for question in ("known", "other")]
        except cachectl.ReplayIncompleteError as error:
            found["error"] = error.count
        if kind != "by hand":
            found["later"] = executor.submit(asked, "known").result()
            executor.shutdown()
        print(json.dumps(found))
"""


@pytest.mark.parametrize(
    ("kind", "how", "answers"),
    [
        pytest.param("by hand", "bare", ["cassette: replayed", "CacheMissError"], id="by hand"),
        *[
            pytest.param(*one, id="-".join(one[:2]), marks=pytest.mark.exhaustive)
            for one in (
                ("fork", "bare", ["cassette: replayed", "CacheMissError"]),
                ("spawn", "bare", ["CacheMissError"] * 2),
                ("spawn", "carried", ["ConfigurationError"] * 2),
            )
        ],
    ],
)
def test_no_worker_buys_beside_a_cassette(child: Any, endpoint: Endpoint, kind: str, how: str, answers: Any) -> None:
    """What workers swallowed in its replay is said at its end; when it is closed it rules them no longer."""
    ran = child(TAPE, kind, how)

    assert answers == ran.data["asked"]
    assert sum(answer.endswith("Error") for answer in answers) == ran.data["error"]
    assert "outside: fresh" == ran.data.get("later", "outside: fresh")
    assert endpoint.requests == ("later" in ran.data) + 1


@pytest.mark.exhaustive
def test_what_a_carried_worker_refuses_ends_the_replay(child: Any, endpoint: Endpoint) -> None:
    """A worker that cannot know the parent's store makes no call and is swallowed: the phase's end says so."""
    ran = child(
        """
        import json, dspy_cachectl as cachectl
        from dspy_cachectl.stores.memory import MemoryStore
        from tests.context.beside import asked, pool

        if __name__ == "__main__":
            cachectl.install(store=[MemoryStore()])
            try:
                with cachectl.phase("replay", cachectl.Policy.REPLAY), pool("spawn", 1) as executor:
                    found = executor.submit(cachectl.carry(asked), "question").result()
            except cachectl.ReplayIncompleteError as error:
                print(json.dumps([found, error.count]))
        """
    )
    assert ["ConfigurationError", 1] == ran.data
    assert 0 == endpoint.requests
