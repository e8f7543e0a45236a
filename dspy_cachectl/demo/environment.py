"""Environment variables that the demo needs, for this process and for those it starts."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path

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


def child_environment(**extra: str) -> dict[str, str]:
    """Return the environment for a child: it imports the very same package, and knows no MLflow run or server.

    Args:
        extra: Variables to set on top of this process's own.
    """
    prepare_environment()
    root = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    path = f"{root}{os.pathsep}{inherited}" if inherited else root
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return {**kept, "PYTHONPATH": path, **extra}
