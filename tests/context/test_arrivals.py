"""LMs and programs that arrive by pickle in a process which knows nothing of this package yet."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import dspy
import pytest

import dspy_cachectl as cachectl
from tests.calls.support import MakeLM, qa
from tests.endpoint import Endpoint
from tests.processes import Finished

ARRIVES = """
    import json, os, pickle, sys, dspy
    assert not [name for name in sys.modules if name.startswith("dspy_cachectl")]
    if sys.argv[1] == "program":
        program = dspy.load("saved", allow_pickle=True)
        lm, ask = program.get_lm(), lambda: program(question="Q?").answer
    else:
        with open("lm.pickle", "rb") as file:
            lm = pickle.load(file)
        ask = lambda: lm("hello")[0]
    lm.kwargs["api_key"] = "sk-x"
    answers = {ask() for _ in range(3)}
    import dspy_cachectl as cachectl
    stats = cachectl.stats()
    used = [name for _, _, names in os.walk(os.environ["DSPY_CACHEDIR"]) for name in names]
    print(json.dumps({"answers": len(answers), "fresh": stats.fresh, "reused": stats.reused, "dspys": used}))
"""


class OwnLM(cachectl.LM):
    """Somebody's subclass, which is pickled as such."""


def made(lm: MakeLM, endpoint: Endpoint, how: str) -> Any:
    """An LM of ours, made in one of the ways."""
    options = {"api_base": endpoint.url, "api_key": "sk-x", "temperature": 0.0}
    if how == "wrapped":
        return cachectl.wrap(dspy.LM("openai/test-model", **options))
    return OwnLM("openai/test-model", **options) if how == "subclass" else lm(temperature=0.0)


@pytest.mark.parametrize(
    "how",
    ["wrapped", "program", *(pytest.param(how, marks=pytest.mark.exhaustive) for how in ("LM", "subclass"))],
)
def test_our_cache_rules_where_it_arrives(
    endpoint: Endpoint, lm: MakeLM, child: Callable[..., Finished], tmp_path: Path, how: str
) -> None:
    """Three equal calls are one request and two reused, in our store and in nothing of DSPy's; a phase rules them."""
    if how == "program":
        program = qa()
        program.set_lm(made(lm, endpoint, how))
        program.save(str(tmp_path / "saved"), save_program=True)
    else:
        dumps = cloudpickle.dumps if how == "wrapped" else pickle.dumps
        (tmp_path / "lm.pickle").write_bytes(dumps(made(lm, endpoint, how)))

    found = child(ARRIVES, how, fresh=True).data
    assert {"answers": 1, "fresh": 1, "reused": 2, "dspys": []} == found
    assert 1 == endpoint.requests


def test_a_copy_does_not_put_back_what_was_taken_out(lm: MakeLM) -> None:
    """After `uninstall()` an LM that is copied, as DSPy's optimizers do, leaves DSPy's own cache where it is."""
    asked = lm()
    cachectl.uninstall()

    asked.copy(rollout_id=1)
    pickle.loads(pickle.dumps(asked))

    assert not isinstance(vars(dspy).get("cache"), cachectl.ManagedCache)
