"""Make the pictures of the documentation anew, from real runs: `python scripts/screenshots.py`.

The tutorial runs on the local model, and what it found is shown in a terminal, in a browser and in MLflow, whose server
runs on a database of its own. The plot of the simulation is what its page draws. Needs Chromium on the path.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from rich import _export_format
from rich.console import Console
from rich.text import Text

import dspy_cachectl as cachectl
from tests.docs.running import blocks_of
from tests.page.browser import ARGUMENTS, CHROMIUM

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
SECONDS = 120
"""The longest that a server or a page may take."""
SIZE = {"width": 1180, "height": 720}


def ran(page: str, names: dict[str, Any], until: str = "") -> dict[str, Any]:
    """Run the blocks of a page up to one that holds a text, and return what they have named."""
    for block in blocks_of((ROOT / "docs" / page).read_text(encoding="utf-8")):
        if block.language == "python":
            if until and until in block.code:
                break
            exec(compile(block.code, page, "exec", dont_inherit=True), names)
    return names


def shown_in_a_terminal(text: str, name: str, title: str) -> None:
    """Draw a terminal of 80 columns that shows a text."""
    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True)
    console.print(Text(text.rstrip("\n")))
    # Rich's own picture would load its font from the network.
    form = re.sub(r"@font-face \{\{.*?\}\}", "", _export_format.CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    console.save_svg(str(PICTURES / name), title=title, code_format=form.replace("Fira Code", "DejaVu Sans Mono"))


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Run an MLflow server on a database in the folder; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", "server", *places, *where]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as server:
        try:
            address = f"http://127.0.0.1:{port}"
            for _ in range(SECONDS * 5):
                with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health"):
                    break
                time.sleep(0.2)
            yield address
        finally:
            server.terminate()


def taken(page: Page, address: str, name: str, *texts: str, width: int = SIZE["width"]) -> None:
    """Open an address, click on each text but the last, and keep what is seen once that is."""
    page.goto("about:blank")  # from page to page of its own MLflow loads nothing anew
    page.goto(address)
    for text in texts[:-1]:
        # What MLflow lays over a page the first time takes a click with the mouse.
        for event in ("mousedown", "click"):
            page.get_by_text(text).first.dispatch_event(event)
        page.wait_for_timeout(2000)
    page.get_by_text(texts[-1]).first.wait_for()
    page.wait_for_timeout(2000)
    if len(texts) > 1:
        page.get_by_text(texts[-1]).first.scroll_into_view_if_needed()
    seen = page.screenshot(clip={"x": 0, "y": 0, "width": width, "height": SIZE["height"]})
    Image.open(io.BytesIO(seen)).quantize(64).save(PICTURES / name, optimize=True)


def main() -> None:
    """Make all of them."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name), sync_playwright() as playwright:
        folder = Path(name)
        mpl.rcParams["svg.hashsalt"] = "docs"
        ran("explanation/replayed-repeats.md", {})
        (PICTURES / "replayed-repeats.svg").write_bytes((folder / "replayed-repeats.svg").read_bytes())
        cachectl.configure(store=f"{name}/store", state=f"{name}/state", predictions=f"{name}/predictions")
        found = ran("tutorial.md", {}, until="once_more")
        before, after = found["before"], found["after"]
        shown_in_a_terminal(str(after), "report-terminal.svg", "print(after)")
        shown_in_a_terminal(str(before.compare(after)), "comparison-terminal.svg", "print(before.compare(after))")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(SECONDS * 1000)
        taken(page, (folder / "comparison.html").as_uri(), "comparison-page.png", "zero-shot")
        with mlflow_server(folder) as address:
            os.environ["MLFLOW_TRACKING_URI"] = address
            in_mlflow(page, address, found)
        found["model"].close()
        browser.close()


def in_mlflow(page: Page, address: str, found: dict[str, Any]) -> None:
    """Log the tutorial's reports, their comparison and a trace, and look at them."""
    import mlflow

    mlflow.set_experiment("reviews")
    run = [cachectl.log_to_mlflow(found[name], timeout=SECONDS).run_id for name in ("before", "after")][1]
    cachectl.log_to_mlflow(found["before"].compare(found["after"]), timeout=SECONDS)
    experiment = f"{address}/#/experiments/{mlflow.get_experiment_by_name('reviews').experiment_id}"
    where = f"{experiment}/runs/{run}"
    # Its assistant, at the right, is left out.
    taken(page, where, "mlflow-run.png", "dspy_cachectl/score/mean", width=872)
    taken(page, f"{where}/model-metrics", "mlflow-metrics.png", "score", width=872)
    mlflow.dspy.autolog()
    with cachectl.phase("eval"):
        found["compiled"](review=found["dev"][0].review)
    mlflow.flush_trace_async_logging()
    (trace,) = mlflow.search_traces(return_type="list", max_results=1)
    where = f"{experiment}/traces?selectedEvaluationId={trace.info.trace_id}"
    taken(page, where, "mlflow-trace.png", "LM.__call__", "Attributes", "dspy_cachectl.cache_hit", width=826)


if __name__ == "__main__":
    main()
