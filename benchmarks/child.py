"""Measures rows of one theme in this process, and prints each figure as a line of JSON.

`python -m benchmarks.child ROUNDS ROW...`: what `python -m benchmarks` runs, so that no theme pays for another's.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path


def main(rounds: int, names: list[str]) -> None:
    """Measure some rows. One that fails is told, and does not keep the others from being measured."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        os.environ |= {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "DSPY_CACHEDIR": f"{folder}/dspy",
            "DSPY_CACHECTL_STORE": f"{folder}/store",
            "DSPY_CACHECTL_STATE": f"{folder}/state",
        }
        # What reads the environment is imported after it was written.
        from benchmarks.figures import as_json
        from benchmarks.rows import all_rows
        from benchmarks.scene import Scene
        from tests.endpoint import Endpoint

        rows = all_rows()
        # So collecting before a round takes no time; what rows make is collected as ever.
        gc.freeze()
        logging.getLogger("dspy").setLevel(logging.WARNING)  # its evaluations say their score
        with Endpoint() as endpoint:
            for name in names:
                print(f"  {name}", end="", file=sys.stderr, flush=True)
                began = time.perf_counter()
                try:
                    for figure in rows[name].measure(Scene(endpoint, Path(folder) / name, rounds)):
                        print(json.dumps(as_json(figure)), flush=True)
                except Exception as error:  # noqa: BLE001 - the other rows have figures to give
                    traceback.print_exc()
                    print(json.dumps({"row": name, "failed": repr(error)}), flush=True)
                print(f": {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
                endpoint.reset()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
