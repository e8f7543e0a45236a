"""A program saved with our LM loads where this package is not installed."""

from __future__ import annotations

import copy
import json
import pickle
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


@pytest.mark.parametrize("make", [ours, pytest.param(plain, marks=pytest.mark.exhaustive)])
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
    assert isinstance(loaded.lm, cachectl.LM)
    assert isinstance(loaded.lm.engine, SavedEngine)
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


LOADER = """
    import json, os, sys
    imports
    import dspy

    how, path = sys.argv[1:]
    if how != "program":
        program = dspy.ChainOfThought("question -> answer")
        program.load(path, allow_unsafe_lm_state=how == "trusted")
    else:
        program = dspy.load(path, allow_pickle=True)
    lm = program.get_lm()
    lm.kwargs.update(api_base=os.environ["ENDPOINT_URL"])
    import dspy_cachectl as cachectl

    with cachectl.phase("eval") as run:
        answers = [program(question="Q?").answer for _ in range(3)]
    print(json.dumps({
        "governed": isinstance(lm, cachectl.LM), "names": [lm.role, lm.endpoint, lm.version],
        "launch": lm.launch_kwargs, "answers": len(set(answers)), "fresh": run.stats.fresh,
    }))
"""


FIRST = ("import dspy_cachectl", "import dspy; import dspy_cachectl", "import dspy_cachectl.calls.lm")


@pytest.mark.parametrize(
    ("how", "first"),
    [
        ("state", FIRST[0]),
        ("trusted", FIRST[1]),
        ("program", FIRST[1]),
        *(
            pytest.param(how, first, marks=pytest.mark.exhaustive)
            for how in ("state", "program")
            for first in FIRST[1:]
        ),
    ],
)
@pytest.mark.parametrize("make", [ours, pytest.param(plain, marks=pytest.mark.exhaustive)])
def test_comes_back_as_it_was(
    endpoint: Endpoint,
    plain_lm: MakeLM,
    child: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Any,
    how: str,
    first: str,
) -> None:
    """In a new process that imports this package a loaded program obeys, under the names that its LM had.

    Where DSPy leaves the address out, the name for it is left out too: it would stand for another server.
    """
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-secret")
    program = dspy.ChainOfThought("question -> answer")
    program.set_lm(make(plain_lm))
    path = tmp_path / ("saved" if how == "program" else "saved.json")
    program.save(path, save_program=how == "program")
    found = child(LOADER.replace("imports", first), how, str(path), fresh=True).data
    names = ["generator", None if how == "state" else "here", "1"] if make is ours else ["generator", None, None]
    assert (True, names, {}, 3, 3) == tuple(found[name] for name in ("governed", "names", "launch", "answers", "fresh"))


def test_a_name_stands_for_no_other_server(
    endpoint: Endpoint, lm: MakeLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A loaded LM that asks whatever server the environment names is another model than the one that was saved."""
    program = qa()
    program.set_lm(lm(endpoint="mine", cache=True))
    program(question="Q?")
    program.save(tmp_path / "saved.json")
    with Endpoint(seed=2) as other:
        monkeypatch.setenv("OPENAI_API_BASE", other.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test-secret")
        loaded = qa()
        loaded.load(tmp_path / "saved.json")
        loaded(question="Q?")
        assert (1, 1) == (endpoint.requests, other.requests)
    assert 1 == caplog.text.count("the name of the endpoint is left out")


@pytest.mark.filterwarnings("ignore")
def test_each_module_that_keeps_an_lm(lm: MakeLM, tmp_path: Path) -> None:
    """Whatever of a program has an LM of its own gets it back; one that was never ours stays DSPy's."""
    made = lm(role="judge", version="2")
    for module in (qa(), dspy.Flex("question -> answer")):
        module.lm = made
        state = module.dump_state()
        module.lm = None
        module.load_state(json.loads(json.dumps(state)))
        assert (cachectl.LM, "judge", "2") == (type(module.lm), module.lm.role, module.lm.version)
        module.lm = dspy.LM("openai/m")
        module.load_state(module.dump_state())
        assert dspy.LM is type(module.lm)


def _bytes(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.rglob("*") if file.is_file())


HELD = "a-key-of-" + "the-environment-7Q"


@pytest.mark.parametrize(
    ("model", "option", "variable"),
    [
        ("openai/m", "api_key", "OPENAI_API_KEY"),
        ("text-completion-openai/m", "api_key", "OPENAI_API_KEY"),
        ("fireworks_ai/m", "api_key", "FIREWORKS_API_KEY"),
        ("bedrock/m", "aws_secret_access_key", "AWS_SECRET_ACCESS_KEY"),
        ("m", "api_key", "OPENAI_API_KEY"),
    ],
)
def test_a_key_of_the_environment_travels_as_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: str, option: str, variable: str
) -> None:
    """It is in no pickle, no copy loses it, and who loads it has the one of its own environment."""
    monkeypatch.setenv(variable, HELD)
    lm = cachectl.LM(model, **{option: HELD})
    program = qa()
    program.set_lm(lm)
    program.save(tmp_path / "whole", save_program=True)
    program.save(tmp_path / "state.json")
    data = pickle.dumps(lm)
    assert HELD.encode() not in data + _bytes(tmp_path)
    assert variable.encode() in data
    for copied in (copy.copy(lm), copy.deepcopy(lm), lm.copy(), pickle.loads(data), program.deepcopy().lm):
        assert HELD == copied.kwargs[option]
        assert HELD.encode() not in pickle.dumps(copied)
    monkeypatch.setenv(variable, "the-other-machines-own")
    assert "the-other-machines-own" == pickle.loads(data).kwargs[option]
    monkeypatch.delenv(variable)
    assert pickle.loads(data).kwargs[option] is None


def test_any_other_key_travels_as_dspys_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker pool goes on working with a key that only the program has, or that is another provider's."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", HELD)
    for key in ("only-the-program-has-it", HELD):
        assert key == pickle.loads(pickle.dumps(cachectl.LM("openai/m", api_key=key))).kwargs["api_key"]
