"""Pools of workers, by their kinds, and stand-ins that look at what they are sent."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

from tests.processes import ROOT

HERE = ("threads", "processes", "loky")
ENGINES = ("dask", "ray")
"""What `make test-engines` installs."""


def processes() -> Any:
    """Two processes, which know nothing of this one."""
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))


@contextlib.contextmanager
def pool(kind: str) -> Iterator[Any]:
    """A pool with two workers."""
    if kind == "threads":
        with ThreadPoolExecutor(2) as executor:
            yield executor
    elif kind == "processes":
        with processes() as executor:
            yield executor
    elif kind == "loky":
        from joblib.externals.loky import ProcessPoolExecutor as Loky

        with Loky(2) as executor:
            yield executor
    elif kind == "dask":
        import distributed

        with (
            distributed.LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
    else:
        yield from on_ray()


def on_ray() -> Iterator[Any]:
    """Ray on this machine; its workers have the environment that it was started with."""
    import ray

    class OnRay:
        def submit(self, function: Any, *arguments: Any) -> Future[Any]:
            future: Future[Any] = ray.remote(function).remote(*arguments).future()
            return future

    passed = {name: value for name, value in os.environ.items() if name.startswith(("DSPY", "ENDPOINT", "LITELLM"))}
    environment = {"env_vars": {**passed, "PYTHONPATH": str(ROOT)}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    try:
        yield OnRay()
    finally:
        ray.shutdown()


class Postman:
    """Gives workers what it is given, and keeps it: what a pool of processes, or an engine, would see and log."""

    def __init__(self) -> None:
        self.sent = b""
        self._pool = ThreadPoolExecutor(2)

    def submit(self, function: Any, *arguments: bytes) -> Future[Any]:
        """Look at what is sent, which is bytes."""
        self.sent += b"".join(arguments)
        return self._pool.submit(function, *arguments)
