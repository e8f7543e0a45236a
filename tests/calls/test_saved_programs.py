"""A program saved with our LM loads where this package is not installed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from tests.calls.engines import OwnEngine
from tests.calls.support import MakeLM, qa
from tests.endpoint import Endpoint

STRANGER = """
    import json, os, sys

    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == "dspy_cachectl":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Blocked())
    import dspy

    how, path = sys.argv[1:]
    if how == "state":
        program = dspy.ChainOfThought("question -> answer")
        program.load(path)
    else:
        program = dspy.load(path, allow_pickle=True)
    lm = program.get_lm()
    lm.kwargs.update(api_base=os.environ["ENDPOINT_URL"], api_key="sk-test")
    answer = program(question="Q?").answer
    print(json.dumps({
        "class": f"{type(lm).__module__}.{type(lm).__qualname__}",
        "model": lm.model,
        "temperature": lm.kwargs["temperature"],
        "answer": answer,
        "ours": sorted(name for name in sys.modules if name.startswith("dspy_cachectl")),
    }))
"""


def plain(make: MakeLM) -> Any:
    return cachectl.wrap(make(temperature=0.5), role="generator")


def ours(make: MakeLM) -> Any:
    kwargs = make(temperature=0.5).kwargs
    return cachectl.LM("openai/test-model", role="generator", endpoint="here", version="1", **kwargs)


@pytest.mark.parametrize("make", [ours, plain])
@pytest.mark.parametrize("how", ["state", "program"])
def test_loads_anywhere(
    endpoint: Endpoint, plain_lm: MakeLM, child: Callable[..., Any], tmp_path: Path, make: Any, how: str
) -> None:
    """In a process that never heard of us it is DSPy's own LM, with its settings, without an unsafe flag."""
    program = dspy.ChainOfThought("question -> answer")
    program.set_lm(make(plain_lm))
    with cachectl.phase("compile"):
        program(question="Q?")
    path = tmp_path / ("saved.json" if how == "state" else "saved")
    program.save(path, save_program=how == "program")

    found = child(STRANGER, how, str(path), fresh=True).data
    assert found.pop("answer").split()[-1].startswith("draw-")
    assert found == {"class": "dspy.clients.lm.LM", "model": "openai/test-model", "temperature": 0.5, "ours": []}
    assert endpoint.requests == 2


def test_loaded_here_it_can_be_wrapped(endpoint: Endpoint, lm: MakeLM, plain_lm: MakeLM, tmp_path: Path) -> None:
    """A loaded program's LM obeys the phase again once it is wrapped, and shares the entries it had."""
    program = qa()
    program.set_lm(lm(temperature=0.5))
    with cachectl.phase("compile"):
        first = program(question="Q?").answer
    program.save(tmp_path / "saved.json")

    loaded = qa()
    loaded.load(tmp_path / "saved.json")
    loaded.set_lm(cachectl.wrap(loaded.lm.copy(api_base=endpoint.url, api_key="sk-test-secret")))
    with cachectl.phase("compile") as run:
        assert loaded(question="Q?").answer == first
    assert endpoint.requests == 1
    assert run.stats.reused == 1


def test_custom_engines_keep_dspys_own_gate(endpoint: Endpoint, lm: MakeLM, tmp_path: Path) -> None:
    """An LM with an engine of one's own is saved under the engine's class, which DSPy does not load unasked."""

    program = qa()
    program.set_lm(lm("own/model", engine=SavedEngine(endpoint.url), api_base=None, api_key=None))
    program.save(tmp_path / "saved.json")
    with pytest.raises(ValueError, match="allow_unsafe_lm_state"):
        qa().load(tmp_path / "saved.json")
    loaded = qa()
    loaded.load(tmp_path / "saved.json", allow_unsafe_lm_state=True)
    assert type(loaded.lm) is dspy.LM
    assert "draw-" in loaded(question="Q?").answer


class SavedEngine(OwnEngine):
    """An engine that can be saved."""

    def dump_state(self) -> dict[str, Any]:
        return {"url": self.url}

    @classmethod
    def load_state(cls, state: dict[str, Any]) -> SavedEngine:
        return cls(**state)


def test_a_phase_is_no_part_of_a_program(endpoint: Endpoint, lm: MakeLM, tmp_path: Path) -> None:
    """A program saved inside a fresh phase, after calls in it, carries no rollout id and no temperature of it."""
    program = qa()
    program.set_lm(lm())
    with cachectl.phase("eval"):
        program(question="Q?")
        program.save(tmp_path / "inside.json")
    program.save(tmp_path / "outside.json")
    inside, outside = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("inside", "outside"))
    assert inside == outside
    assert "rollout_id" not in inside["lm"]
    assert inside["lm"]["temperature"] is None
