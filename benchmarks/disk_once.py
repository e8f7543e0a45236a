"""A new process that asks from disk what another has bought, of DSPy's own cache and of ours in turn.

`python -m benchmarks.disk_once URL ENGINE WHO_BEGINS FOLDER_OF_DSPY STORE`
"""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any

from benchmarks.rounds import Round, timed
from benchmarks.scene import (
    DISK_BYTES,
    ENGINES,
    MEMORY_BYTES,
    SPARE,
    asking,
    dspys_cache,
    dspys_in_place,
    ours_in_place,
    prompts,
)

QUESTIONS = prompts(200, seed=2)


def read(printed: str) -> dict[str, Round]:
    """Return what a process printed."""
    return {name: Round(**took) for name, took in json.loads(printed.splitlines()[-1]).items()}


def main(url: str, engine: str, begins: str, theirs: str, store: str) -> None:
    """Ask all of the one and of the other, after one question each that opens the files; print what both took."""
    import dspy

    import dspy_cachectl as cachectl
    from dspy_cachectl.stores import open_stores

    options = {"api_base": url, "api_key": "none", **ENGINES[engine]}
    plain, governed = dspy.LM("openai/model", **options), cachectl.LM("openai/model", **options)
    cache = dspys_cache(theirs)
    stores = open_stores(store, memory_bytes=MEMORY_BYTES, disk_bytes=DISK_BYTES)

    def took(place: AbstractContextManager[Any], lm: Any) -> Round:
        with place:
            asking(lm, [SPARE])()
            return timed(asking(lm, QUESTIONS))

    sides = {"theirs": (dspys_in_place(cache), plain), "ours": (ours_in_place(stores), governed)}
    names = list(sides) if begins == "0" else list(sides)[::-1]
    print(json.dumps({name: asdict(took(*sides[name])) for name in names}))


if __name__ == "__main__":
    main(*sys.argv[1:])
