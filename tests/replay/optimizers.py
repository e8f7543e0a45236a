"""DSPy's own optimizers in cassettes of their own, recorded or replayed: run as a script."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import dspy

import dspy_cachectl as cachectl
from tests.phases.optimizers import OPTIMIZERS
from tests.replay.programs import KEY, Scene, cut_off

NAMES = [name for name in OPTIMIZERS if name != "BootstrapFewShot"]


def main(mode: str, folder: str, url: str) -> None:
    """Print, for each optimizer, the compiled program's state and what its calls came to, or its error."""
    tried = cut_off() if mode == "replay" else []
    scene = Scene(url, url, None if mode == "replay" else KEY)
    found: dict[str, Any] = {}
    for name in NAMES:
        dspy.configure(lm=scene.lm())
        try:
            with cachectl.cassette(Path(folder) / f"{name}.jsonl", mode) as opened, cachectl.phase("compile"):
                compiled = OPTIMIZERS[name](dspy.ChainOfThought("question -> answer"))
            tally = opened.stats
            counts = {"requests": tally.requests, "served": tally.served, "calls": tally.calls, "missed": tally.missed}
            found[name] = {"program": compiled.dump_state(), "unused": len(opened.unused), **counts}
        except Exception:  # noqa: BLE001 - one optimizer's failure is its own test's
            found[name] = {"error": traceback.format_exc()[-3000:]}
    print(json.dumps({"optimizers": found, "tried": tried}))
