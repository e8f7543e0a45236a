"""What the tests of cassettes share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dspy
import zstandard


def ask(*texts: str) -> list[str]:
    """Ask the LM that is configured."""
    return [dspy.settings.lm(text)[0] for text in texts]


def lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a cassette, the header first."""
    data = path.read_bytes()
    if path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return [json.loads(line) for line in data.splitlines()]


def recordings(path: Path) -> list[dict[str, Any]]:
    """The recordings of a cassette."""
    return [line for line in lines(path)[1:] if "unfinished" not in line]


def unfinished(path: Path) -> list[str]:
    """The scopes whose recording was cut short, as a cassette says."""
    return [line.get("scope", "") for line in lines(path)[1:] if "unfinished" in line]


def write(path: Path, parts: list[dict[str, Any]]) -> None:
    """Write lines as a cassette, right or wrong."""
    path.write_text("".join(json.dumps(part) + "\n" for part in parts), encoding="utf-8")


def left_over(folder: Path) -> list[str]:
    """The files of a folder that are no cassettes."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
