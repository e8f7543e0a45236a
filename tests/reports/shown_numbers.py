"""Numbers that are read back from what people see."""

from __future__ import annotations

import math
import re

LABELLED = re.compile(r"(\S(?:.*?\S)?) {2,}(\S.*)")


def rows_of(text: str) -> dict[str, str]:
    """The labelled values of a sheet that was written as text, each on one line."""
    found: dict[str, str] = {}
    label = ""
    for line in text.splitlines():
        if line.startswith("   "):
            found[label] = f"{found.get(label, '')} {line.strip()}".strip()
        elif match := LABELLED.fullmatch(line):
            label, found[match[1]] = match[1], match[2]
    return found


def decimals_of(error: float | None) -> int | None:
    """So many decimals that two digits of an error are shown, six at most; None where it tells nothing."""
    return min(6, max(0, -math.floor(math.log10(error)) + 1)) if error else None


def shows(text: str, value: float | None, decimals: int | None = None) -> bool:
    """Whether a text is a number rounded to so many decimals, or else to three digits."""
    if text.endswith("∞"):
        return value is None or value == math.inf * (-1 if text.startswith("-") else 1)
    if text == "–":
        return value is None or math.isnan(value)
    if value is None or not math.isfinite(value):
        return False
    plain = text.replace(",", "").rstrip("%")
    if decimals is None:
        decimals = 2 - math.floor(math.log10(abs(value))) if value else 0
    elif len(plain.partition(".")[2]) != decimals:
        return False
    return abs(float(plain) - value) <= 0.5 * 10.0**-decimals * (1 + 1e-9) + 1e-9
