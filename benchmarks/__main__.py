"""What the package costs, as ratios within one run: `make bench`.

Times of one machine on one day say little; how two things compare on it says more.
"""

from __future__ import annotations

import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
ROUNDS, CALLS = 7, 300
QUESTIONS, DELAY = 1000, 0.05

EVALUATION = """
import os, sys, time
import dspy, dspy_cachectl as cachectl
import dspy_cachectl.evaluation.running
import scipy.stats

def exact(example, prediction, trace=None):
    return example.answer == prediction.answer

dspy.configure(lm=cachectl.LM("openai/model", api_base=sys.argv[1], api_key="none"))
devset = [dspy.Example(question=f"q {n} ?", answer="yes").with_inputs("question") for n in range(int(sys.argv[2]))]
began = time.perf_counter()
report = cachectl.evaluate(dspy.Predict("question -> answer"), devset, exact, predictions=sys.argv[3],
                           display_progress=False, num_threads=32)
report.score
print(time.perf_counter() - began)
"""


def main() -> None:
    """Measure, and print a table of ratios."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    sys.path.insert(0, str(ROOT))
    from tests.endpoint import Endpoint

    table = Table("what", "against", "ratio", "median", "of the other")
    with tempfile.TemporaryDirectory() as folder, Endpoint() as endpoint:
        os.environ["DSPY_CACHEDIR"] = str(Path(folder) / "dspy")
        os.environ["DSPY_CACHECTL_STORE"] = str(Path(folder) / "store")
        for row in (
            *_hits(endpoint.url),
            *_evaluations(endpoint, Path(folder)),
            *_commands(Path(folder)),
            *_scrubbed(),
            *_pages(Path(folder)),
        ):
            table.add_row(*row)
    Console().print(table)


def _hits(url: str) -> list[tuple[str, ...]]:
    """A cache hit through this package against DSPy's own."""
    import dspy

    import dspy_cachectl as cachectl

    warnings.simplefilter("ignore")  # DSPy's own deprecation of `messages=` would be timed with each call
    messages = [{"role": role, "content": "word " * 400} for role in ("system", "user", "assistant", "user")]

    def asking(lm: dspy.BaseLM) -> Callable[[], object]:
        lm(messages=messages)
        return lambda: lm(messages=messages)

    options = {"api_base": url, "api_key": "none", "max_tokens": 100}
    plain = dspy.LM("openai/model", **options)
    theirs = _timed(asking(plain))
    cachectl.install(os.environ["DSPY_CACHECTL_STORE"])
    ours = _timed(asking(cachectl.LM("openai/model", **options)))
    governed_plain = _timed(asking(dspy.LM("openai/model", **options)))
    with cachectl.configure(memory_bytes=0):
        cachectl.install(os.environ["DSPY_CACHECTL_STORE"])
        disk = _timed(asking(cachectl.LM("openai/model", **options)))
    cachectl.uninstall()
    return [
        _row("a hit of cachectl.LM, in memory", ours, "a hit of dspy.LM", theirs),
        _row("a hit of dspy.LM under the managed cache", governed_plain, "a hit of dspy.LM", theirs),
        _row("a hit of cachectl.LM, on disk", disk, "a hit of dspy.LM in memory", theirs),
    ]


def _timed(call: Callable[[], object]) -> float:
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(CALLS):
            call()
        rounds.append((time.perf_counter() - began) / CALLS)
    return statistics.median(rounds)


def _evaluations(endpoint: object, folder: Path) -> list[tuple[str, ...]]:
    """An evaluation of 1,000 questions again, in a new process, against the first time."""
    endpoint.configure(delay=DELAY)  # type: ignore[attr-defined]
    seconds = []
    for _ in range(2):
        before = endpoint.requests  # type: ignore[attr-defined]
        command = [sys.executable, "-c", EVALUATION, endpoint.url, str(QUESTIONS), str(folder / "predictions")]  # type: ignore[attr-defined]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ, cwd=ROOT)
        seconds.append((float(done.stdout.splitlines()[-1]), endpoint.requests - before))  # type: ignore[attr-defined]
    (first, asked), (second, again) = seconds
    return [
        _row(
            f"{QUESTIONS:,} questions again ({again} requests), beyond imports",
            second,
            f"the first time ({asked} requests of {DELAY * 1000:.0f} ms)",
            first,
        )
    ]


def _scrubbed() -> list[tuple[str, ...]]:
    """A text of a megabyte without its secrets, against a hundredth of it: 100 where the time grows with the text."""
    from dspy_cachectl.boundary.secrets import scrub, scrub_surely

    part = "the password is in the vault, see https://host/a?b=c and sk-learn; def token(self) -> str: ... 0x9f3c "
    text = part * (1_000_000 // len(part))
    rows = []
    for name, scrubbed in (("a message", scrub), ("a request that is kept", scrub_surely)):
        large, small = (
            statistics.median(_seconds(functools.partial(scrubbed, one)) for _ in range(ROUNDS))
            for one in (text, text[: len(text) // 100])
        )
        rows.append(_row(f"{name} of 1 MB without its secrets", large, "one of 10 kB", small))
    return rows


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _commands(folder: Path) -> list[tuple[str, ...]]:
    """Commands on a store of a million entries, start included, against the same on an empty one."""
    from benchmarks.million import ENTRIES, timed_commands

    return [
        _row(f"dspy-cachectl {' '.join(command)}, {ENTRIES:,} entries", full, "an empty store", empty)
        for command, full, empty in timed_commands(folder)
    ]


def _pages(folder: Path) -> list[tuple[str, ...]]:
    """The page of 1,000 questions by 5 repeats in a browser, where there is one, against what is promised of it."""
    from playwright.sync_api import sync_playwright

    from tests.page.browser import ARGUMENTS, CHROMIUM, Opened
    from tests.page.large import QUESTIONS, REPEATS, large_page
    from tests.page.pages import written

    if CHROMIUM is None:
        return []
    path, size = written(large_page(), folder), f"{QUESTIONS:,} questions by {REPEATS} repeats"
    filtering = """(text) => {
        const [search, began] = [document.getElementById("search"), performance.now()];
        search.value = text;
        search.dispatchEvent(new Event("input"));
        document.body.getBoundingClientRect();
        return (performance.now() - began) / 1000;
    }"""
    opening, filtered = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for _ in range(ROUNDS):
            page = browser.new_page()
            opening.append(_seconds(functools.partial(Opened, page, path)))
            filtered += [page.evaluate(filtering, text) for text in ("completion 7/3", "a", "prompt 9")]
            page.close()
        browser.close()
    megabytes = path.stat().st_size / 1e6
    return [
        _row(f"opening the page of {size} ({megabytes:.1f} MB)", statistics.median(opening), "2 s", 2.0),
        _row("filtering its questions", statistics.median(filtered), "0.2 s", 0.2),
    ]


def _row(what: str, ours: float, against: str, theirs: float) -> tuple[str, ...]:
    return what, against, f"{ours / theirs:.2f}", _shown(ours), _shown(theirs)


def _shown(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1e6:.0f} µs"


if __name__ == "__main__":
    main()
