"""What a run found: as JSON with the machine that it ran on, and as a table."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bars import Bar, bar_of
from benchmarks.figures import Figure, as_json, from_json

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("dspy", "litellm", "orjson", "pydantic", "zstandard", "diskcache", "redis", "langchain-core", "inspect-ai")

BUSY = 0.7
"""From which load on, before anything is measured, a machine is not idle."""

COLUMNS = ("row", "ratio", "middle half", "minima", "bar (stretch)", "met")


def machine() -> dict[str, Any]:
    """Return on what and with what is measured."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "commit": _commit(),
        "when": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()),
    }


def is_busy(facts: Mapping[str, Any]) -> bool:
    """Tell whether others had so much to do that the figures are rough."""
    return bool(facts["load"] > BUSY)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True).stdout.strip()


def write(path: Path, figures: Iterable[Figure], **facts: Any) -> None:
    """Write figures and facts as JSON, one figure a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = json.dumps({**facts, "figures": "…"}, indent=1, ensure_ascii=False)
    lines = ",\n".join("  " + json.dumps(as_json(_rounded(figure))) for figure in figures)
    path.write_text(written.replace('"…"', f"[\n{lines}\n ]") + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Figure]:
    """Return the figures that were written, by name."""
    found = [from_json(one) for one in json.loads(path.read_text(encoding="utf-8"))["figures"]]
    return {figure.name: figure for figure in found}


def _rounded(figure: Figure) -> Figure:
    fields = as_json(figure)
    for name in ("ratios", "runs"):
        fields[name] = [float(f"{value:.4g}") for value in fields[name]]
    for name in ("ours", "theirs", "other_clock", "minima"):
        fields[name] = None if fields[name] is None else float(f"{fields[name]:.4g}")
    return from_json(fields)


def cells(figure: Figure) -> tuple[str, ...]:
    """Return what the table says of a figure, a cell for each of `COLUMNS`."""
    bar = bar_of(figure)
    lower, upper = figure.quartiles
    ratio = _shown(figure.ratio) if bar is None or bar.of == "ratio" else f"{bar.measured(figure):.0f} ms"
    spread = "" if len(figure.ratios) < 2 else f"{_shown(lower)} – {_shown(upper)}"
    minima = "" if figure.minima is None else _shown(figure.minima)
    return figure.name, ratio, spread, minima, str(bar or ""), _met(bar, figure)


def _met(bar: Bar | None, figure: Figure) -> str:
    return "" if bar is None else "yes" if bar.is_met(figure) else "no"


def _shown(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.0f}"


def described(facts: Mapping[str, Any]) -> str:
    """Return in a sentence on what and with what was measured."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return (
        f"{facts['processor']}, {facts['cores']} cores, load {facts['load']} before, "
        f"Python {facts['python']}, {versions}; commit {facts['commit']}, {facts['when']}."
    )


def markdown(figures: Sequence[Figure], says: dict[str, str], facts: Mapping[str, Any]) -> str:
    """Return the table for people, and what its rows are."""
    lines = [
        described(facts),
        "",
        "| " + " | ".join((*COLUMNS, "ours", "theirs", "other clock")) + " |",
        "| " + " | ".join("---" for _ in range(len(COLUMNS) + 3)) + " |",
    ]
    for figure in figures:
        other = "" if figure.other_clock is None else _shown(figure.other_clock)
        more = (f"{figure.ours:.3g}", f"{figure.theirs:.3g}", other)
        lines.append("| " + " | ".join((*cells(figure), *more)) + " |")
    lines += ["", "Seconds a call of the processor, unless the row says otherwise.", ""]
    lines += [f"- `{name}`: {said}" for name, said in says.items()]
    return "\n".join(lines) + "\n"
