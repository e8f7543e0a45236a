"""Pictures of results: inline SVG that needs nothing but itself, on light ground and on dark.

Texts and axes take the colour of the text around them; marks have colours that stand out from white and from black.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Iterator

from dspy_cachectl.boundary.shown import harmless, harmless_html
from dspy_cachectl.showing.sheets import Intervals, Picture, Shares, Span, Tone

COLOURS = {
    Tone.PLAIN: "#3b82c4",
    Tone.LABEL: "#808080",
    Tone.GOOD: "#2e9460",
    Tone.BAD: "#d1495b",
    Tone.EVEN: "#7b6fd0",
    Tone.UNSURE: "#b7791f",
}

WIDTH = 640
"""How wide a picture is, in pixels where there is room, and else in its own units."""
_LEFT, _RIGHT = 190, 450
"""Where an axis begins and ends: names stand before it, and numbers behind it."""
_ROW, _AXIS, _LEGEND = 26, 40, 20
_GAP = 10
_WIDEST = (("fijlrtI.,:;|!'()[]- ", 0.42), ("mwMW@%…", 1.0), ("OQ#&^±+−=_~<>", 0.85))
"""How wide letters are at most, in the widest fonts that are usual, where they are not as others are."""
_SMALL = 10
"""The size down to which numbers shrink, which are never cut."""
_TICKS = 5
_FAINT = 'stroke="currentColor" stroke-opacity="0.5"'


def as_svg(picture: Picture) -> str:
    """Draw a picture, as an `svg` element."""
    return _intervals(picture) if isinstance(picture, Intervals) else _shares(picture)


def _intervals(picture: Intervals) -> str:
    low, high = _reach(picture)
    bottom = _ROW * len(picture.spans) + 6

    def at(value: float) -> float:
        # By halves: the length of an axis may be more than the largest number.
        return _LEFT + (_RIGHT - _LEFT) * ((min(max(value, low), high) / 2 - low / 2) / (high / 2 - low / 2))

    drawn = []
    if picture.band is not None:
        begin, end = at(-picture.band), at(picture.band)
        drawn.append(
            f'<rect x="{begin:.1f}" y="0" width="{end - begin:.1f}" height="{bottom}" fill="currentColor" '
            'fill-opacity="0.12"/>'
        )
    if picture.about_zero:
        drawn.append(_line(at(0.0), 0, at(0.0), bottom, 'stroke="currentColor" stroke-dasharray="4 3"'))
    for row, span in enumerate(picture.spans):
        drawn += _span(span, _ROW * row + _ROW / 2 + 3, at)
    drawn.append(_line(_LEFT, bottom, _RIGHT, bottom, _FAINT))
    for tick, written in _ticks(low, high):
        drawn.append(_line(at(tick), bottom, at(tick), bottom + 4, _FAINT))
        drawn.append(_text(at(tick), bottom + 17, written, anchor="middle", size=11))
    drawn.append(_text((_LEFT + _RIGHT) / 2, bottom + 34, _cut(picture.axis, WIDTH, size=11), anchor="middle", size=11))
    said = "; ".join(f"{span.name}: {span.said}" for span in picture.spans)
    return _svg(bottom + _AXIS, f"{picture.axis}. {said}", drawn)


def _reach(picture: Intervals) -> tuple[float, float]:
    """Return where the axis begins and ends: everything that is finite has its place on it."""
    values = [end for span in picture.spans for end in (span.value, span.low, span.high)]
    values += [0.0] if picture.about_zero else []
    values += [] if picture.band is None else [-picture.band, picture.band]
    found = [value for value in (*values, *picture.scale) if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(found), max(found)
    if (low, high) == picture.scale and low < high:
        return low, high  # it ends there, and so does the axis
    room = 0.06 * (high / 2 - low / 2) * 2 or 0.06 * abs(high) or 1.0
    return max(low - room, -1.7e308), min(high + room, 1.7e308)


def _span(span: Span, y: float, at: Callable[[float], float]) -> Iterator[str]:
    colour = COLOURS[span.tone]
    room = WIDTH - _RIGHT - _GAP
    size = next((size for size in (12, 11) if _width(span.said, size) <= room), _SMALL)
    yield _text(_LEFT - _GAP, y + 4, _cut(span.name, _LEFT - _GAP), anchor="end")
    yield _text(_RIGHT + _GAP, y + 4, _cut(span.said, room, size=size), size=size)
    if not math.isfinite(span.value):
        return
    ends = (at(span.low) if math.isfinite(span.low) else _LEFT, at(span.high) if math.isfinite(span.high) else _RIGHT)
    is_known = math.isfinite(span.low) and math.isfinite(span.high)
    stroke = f'stroke="{colour}" stroke-width="2.5"'
    yield _line(ends[0], y, ends[1], y, stroke if is_known else f'{stroke} stroke-dasharray="2 5"')
    if is_known:
        for end in ends:
            yield _line(end, y - 5, end, y + 5, stroke)
    yield f'<circle cx="{at(span.value):.1f}" cy="{y:.1f}" r="5.5" fill="{colour}"/>'


def _ticks(low: float, high: float) -> Iterator[tuple[float, str]]:
    """Yield round numbers along an axis, and how they are written."""
    rough = (high / 2 - low / 2) * 2 / _TICKS
    unit = 10.0 ** math.floor(math.log10(rough)) if 0.0 < rough < math.inf else 0.0
    step = next((unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough), 0.0)
    if not 0.0 < step < math.inf:
        return
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    first = math.ceil(low / step - 1e-9)
    for number in range(_TICKS + 2):
        tick = (first + number) * step
        if tick > high + step * 1e-9:
            return
        is_plain = decimals <= 6 and abs(tick) < 1e6
        yield tick, f"{tick if abs(tick) > step / 2 else 0.0:.{decimals}f}" if is_plain else f"{tick:.3g}"


def _shares(picture: Shares) -> str:
    counted = [share for share in picture.shares if share.number > 0]
    total = sum(share.number for share in counted)
    drawn, x = [], 0.0
    for share in counted:
        width = WIDTH * (share.number / total)
        drawn.append(
            f'<rect x="{x:.1f}" y="2" width="{max(width - 1, 0.6):.1f}" height="18" fill="{COLOURS[share.tone]}"/>'
        )
        x += width
    x, y = 0.0, 2 + 18 + _LEGEND
    for share in counted:
        said = f"{share.number:,} {share.name}"
        width = 22 + _width(said) + 12
        if x and x + width > WIDTH:
            x, y = 0.0, y + _LEGEND
        drawn.append(f'<rect x="{x:.1f}" y="{y - 10:.1f}" width="10" height="10" fill="{COLOURS[share.tone]}"/>')
        drawn.append(_text(x + 15, y, said))
        x += width
    return _svg(y + 8, ", ".join(f"{share.number:,} {share.name}" for share in counted), drawn)


def _svg(height: float, said: str, drawn: Iterable[str]) -> str:
    # What it shows stands in its label, for those who do not see it.
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" width="100%" role="img" aria-label="{harmless_html(said)}" '
        f'font-family="sans-serif" font-size="12" fill="currentColor">{"".join(drawn)}</svg>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, looks: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {looks}/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{harmless_html(text)}</text>'


def _width(text: str, size: int = 12) -> float:
    """Return how wide a text is at most."""

    def of(letter: str) -> float:
        if unicodedata.east_asian_width(letter) in "WF":
            return 1.05
        return next((wide for letters, wide in _WIDEST if letter in letters), 0.78 if letter.isupper() else 0.67)

    return size * sum(map(of, text))


def _cut(text: str, room: float, *, size: int = 12) -> str:
    """Return a text as far as it has room, in whatever font."""
    text = harmless(text)
    if _width(text, size) <= room:
        return text
    most = next(length for length in range(len(text), -1, -1) if _width(f"{text[:length]}…", size) <= room)
    return f"{text[:most]}…"
