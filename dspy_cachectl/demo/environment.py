"""Environment variables that the demo needs, for this process and those it starts, and its address."""

from __future__ import annotations

import os
import urllib.request

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
