"""What the policy decides, as tables: a pure function, no DSPy in sight."""

from __future__ import annotations

from typing import Any

import pytest

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.policy import Decision, Kind, Policy, decide, is_reasoning_model

REUSE, FRESH, REFRESH, REPLAY, OFF = Policy.REUSE, Policy.FRESH, Policy.REFRESH, Policy.REPLAY, Policy.OFF


@pytest.mark.parametrize(
    ("policy", "reads", "stores", "raises", "from_run", "coalesces"),
    [
        (REUSE, True, True, False, False, True),
        (FRESH, True, True, False, True, True),
        (REFRESH, False, True, False, False, False),
        (REPLAY, True, False, True, False, False),
        (OFF, False, False, False, False, False),
    ],
    ids=lambda value: value.name if isinstance(value, Policy) else None,
)
def test_presets(policy: Policy, reads: bool, stores: bool, raises: bool, from_run: bool, coalesces: bool) -> None:
    """Each preset does what the design's table says."""
    decision = decide(policy, temperature=0.7)
    assert Decision(reads, stores, raises, from_run, None, coalesces) == decision


@pytest.mark.parametrize(
    ("policy", "facts", "lent"),
    [
        (FRESH, {"temperature": None}, 1.0),
        (FRESH, {"temperature": 0}, 1.0),
        (FRESH, {"temperature": 0.0}, 1.0),
        (FRESH, {"temperature": 0.2}, None),
        (FRESH, {"temperature": 1.0}, None),
        (FRESH.with_overrides(temperature=None), {"temperature": 0}, None),
        (FRESH.with_overrides(temperature=0.7), {"temperature": None}, 0.7),
        (FRESH, {"temperature": None, "model": "openai/o3-mini"}, 1.0),
        (FRESH.with_overrides(temperature=0.7), {"temperature": None, "model": "openai/gpt-5"}, None),
        (FRESH, {"kind": Kind.PLAIN_LM, "temperature": None}, None),
        (FRESH, {"kind": Kind.EMBEDDING}, None),
        (REUSE, {"temperature": None}, None),
        (REFRESH, {"temperature": 0}, None),
        (OFF, {"temperature": 0}, None),
        (REPLAY.with_overrides(temperature=1.0), {"temperature": 0, "has_run": True}, 1.0),
        (REPLAY.with_overrides(temperature=1.0), {"temperature": 0, "has_run": False}, None),
    ],
)
def test_temperature_is_lent_only_where_the_call_left_it_unset_or_zero(
    policy: Policy, facts: dict[str, Any], lent: float | None
) -> None:
    """A phase never overrides a temperature that the program chose."""
    assert lent == decide(policy, **facts).lent_temperature


def test_embeddings_are_never_a_draw() -> None:
    """A vector does not vary: a fresh policy serves the shared entry."""
    assert not decide(FRESH, kind=Kind.EMBEDDING).from_run
    assert decide(FRESH, kind=Kind.PLAIN_LM).from_run


def test_a_replay_serves_a_named_run() -> None:
    """With a run id a replay looks the run's draws up, without one the program's own."""
    assert decide(REPLAY, has_run=True).from_run
    assert not decide(REPLAY, has_run=False).from_run


@pytest.mark.parametrize(
    ("model", "reasoning"),
    [
        ("openai/o1", True),
        ("o3-mini-2025-01-31", True),
        ("openai/gpt-5", True),
        ("openai/gpt-5.6-luna", True),
        ("azure/gpt-5-chat", False),
        ("openai/gpt-4o-mini", False),
        ("openai/smollm2", False),
        ("openai/o2", False),
    ],
)
def test_reasoning_models(model: str, reasoning: bool) -> None:
    """OpenAI's reasoning families are known by name."""
    assert reasoning == is_reasoning_model(model)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"temprature": 1.0}, "unknown policy option 'temprature'"),
        ({"on_miss": "explode"}, "on_miss must be"),
        ({"temperature": "hot"}, "temperature must be"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"max_age": -1}, "max_age must be"),
        ({"fresh": 1}, "fresh must be"),
        ({"scope": 7}, "scope must be"),
        ({"scope": {"tenant": object()}}, "plain data"),
        ({"reads": False, "on_miss": "raise"}, "has to read"),
        ({"temperature": 0.5}, "only a fresh policy lends"),
    ],
)
def test_bad_fields_fail_with_what_to_do(overrides: dict[str, object], says: str) -> None:
    """A field that cannot be used is a ConfigurationError, never ignored."""
    with pytest.raises(ConfigurationError, match=says):
        REUSE.with_overrides(**overrides)


def test_presets_are_found_by_name_in_any_case() -> None:
    """Configuration files may write a preset as they like."""
    assert Policy.named("fresh") is FRESH
    assert "FRESH" == Policy.named("Fresh").name
    assert "CUSTOM" == FRESH.with_overrides(max_age=60).name
    with pytest.raises(ConfigurationError, match="the presets are: REUSE, FRESH"):
        Policy.named("stale")


def test_scope_is_the_same_in_any_order() -> None:
    """A scope is a mapping: its order means nothing."""
    assert REUSE.with_overrides(scope={"a": "1", "b": 2}) == REUSE.with_overrides(scope={"b": 2, "a": "1"})
