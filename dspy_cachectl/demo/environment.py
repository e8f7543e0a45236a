"""Environment variables that the demo needs, for this process and for those it starts."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from unittest.mock import patch

LOOPBACK = "127.0.0.1"


def prepare_environment() -> None:
    """Set what has to be set before litellm or OpenMP load, unless the user set it otherwise.

    Two threads that spin while they wait take a busy machine down to a few tokens a second, LiteLLM would fetch
    its price list from the internet before its first call, and a proxy cannot reach this machine's loopback.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    if urllib.request.getproxies_environment():
        for name in ("NO_PROXY", "no_proxy"):
            direct = os.environ.get(name, "")
            if LOOPBACK not in direct.split(","):
                os.environ[name] = f"{direct},{LOOPBACK}".lstrip(",")


@contextmanager
def children_get(variables: Mapping[str, str]) -> Iterator[None]:
    """Start processes in this block with variables of their own, and without those of an MLflow run or server."""
    with patch.dict(os.environ):
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            del os.environ[name]
        # Of a process that was killed, multiprocessing clears away the semaphores by itself, and says so.
        os.environ.update({"PYTHONWARNINGS": "ignore:resource_tracker", **variables})
        yield
