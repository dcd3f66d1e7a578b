"""Charts as HTML and SVG, from numbers alone: values stand beside their bars, and nothing is told
by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

# of a chart's own units: a phone shows it at about this size, so that letters stay legible
WIDTH, HEIGHT = 360, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 24, 12, 44  # around the lines
MARK = 4.5


class Bar(NamedTuple):
    """A median with its spread. ``kind`` is aim or gpt."""

    name: str
    kind: str
    median: float
    low: float
    high: float


class Point(NamedTuple):
    """``measured`` is False for what was worked out from other points."""

    x: float
    y: float
    measured: bool = True


class Line(NamedTuple):
    """Points in the order of x. ``kind`` is aim or gpt."""

    name: str
    kind: str
    points: Sequence[Point]


def number(value: float) -> str:
    """Three digits that count: 0.0123, 1.23, 123, 12,300."""
    rounded = float(f"{value:.3g}")
    if rounded == 0 or not math.isfinite(rounded):
        return "0" if rounded == 0 else "-"
    return f"{rounded:,.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"


def seconds(value: float) -> str:
    """Seconds as people read them: 1.23 ms, 0.123 s, 12.3 s."""
    return f"{number(1e3 * value)} ms" if value < 0.1 else f"{number(value)} s"


def size(count: int | None) -> str:
    """Bytes in decimal units."""
    if count is None:
        return "-"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{number(count / scale)} {unit}"
    return f"{count} B"


def bars(title: str, entries: Sequence[Bar]) -> str:
    """A bar of seconds for each entry, as long as its median, with a whisker from the least to the
    most and all three beside it.
    """
    full = max(entry.high for entry in entries) or 1.0
    rows = []
    for entry in entries:
        share, low, high = (100 * value / full for value in (entry.median, entry.low, entry.high))
        rows.append(
            f'<div class="aim-bar-row"><span class="aim-bar-name">{escape(entry.name)}</span>'
            f'<span class="aim-track" aria-hidden="true"><span class="aim-fill '
            f'aim-{entry.kind}" style="width: {share:.1f}%"></span>'
            f'<span class="aim-whisker" style="left: {low:.1f}%; width: '
            f'{high - low:.1f}%"></span></span>'
            f'<span class="aim-bar-text"><b>{seconds(entry.median)}</b> '
            f"<span>{seconds(entry.low)} to {seconds(entry.high)}</span></span></div>"
        )
    return f'<div class="aim-bars"><h4>{escape(title)}</h4>{"".join(rows)}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table whose first column names its rows."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>"
        for row in rows
    )
    # a region that can be scrolled must be reachable with the keyboard
    return (
        f'<div class="aim-table" tabindex="0" role="region" '
        f'aria-label="{escape(caption)}"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def chart(title: str, x_label: str, y_label: str, lines: Sequence[Line]) -> str:
    """Lines over logarithmic axes, whole where measured and dashed to and from what was not, marked
    by shape; a legend below.
    """
    drawn = [line for line in lines if line.points]
    if not drawn:
        return ""
    x, y = (
        _scale([p.x for line in drawn for p in line.points]),
        _scale([p.y for line in drawn for p in line.points]),
    )

    def across(value: float) -> float:
        return LEFT + x.share(value) * (WIDTH - LEFT - RIGHT)

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - y.share(value) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<line class="aim-grid-line" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(t):.1f}" '
        f'y2="{up(t):.1f}"/>'
        for t in y.ticks
    ]
    parts += [
        f'<text x="{LEFT - 6}" y="{up(t) + 4:.1f}" text-anchor="end">{t:,g}</text>' for t in y.ticks
    ]
    at = sorted({p.x for line in drawn for p in line.points})
    parts += [
        f'<text x="{across(t):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{t:,g}</text>'
        for t in _apart(at, across)
    ]
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
    )
    for line in drawn:
        places = [(across(p.x), up(p.y), p.measured) for p in line.points]
        for (x1, y1, m1), (x2, y2, m2) in pairwise(places):
            dashed = "" if m1 and m2 else " aim-dashed"
            parts.append(
                f'<line class="aim-stroke aim-{line.kind}{dashed}" x1="{x1:.1f}" '
                f'y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
            )
        parts += [_mark(line.kind, *place) for place in places]
    said = "; ".join(
        f"{line.name}: " + ", ".join(f"{number(p.y)} at {p.x:,g}" for p in line.points)
        for line in drawn
    )
    legend = "".join(f"<span>{_key(line.kind)} {escape(line.name)}</span>" for line in drawn)
    return (
        f'<figure class="aim-chart"><figcaption><b>{escape(title)}</b><br>'
        f"{escape(y_label)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(f"{title}, {y_label}. {said}")}">{"".join(parts)}</svg>'
        f'<div class="aim-legend">{legend}</div></figure>'
    )


class _Scale(NamedTuple):
    low: float
    high: float
    ticks: list[float]

    def share(self, value: float) -> float:
        """Where ``value`` lies between the ends, 0 ... 1."""
        return (
            0.5
            if self.low == self.high
            else math.log(value / self.low) / math.log(self.high / self.low)
        )


def _scale(values: Sequence[float]) -> _Scale:
    """A logarithmic axis that holds ``values``, all above 0, with its ticks at powers of ten, or at
    1, 2 and 5 where those are few.
    """
    low, high = min(values), max(values)
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5)):
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= 3:
            break
    below, above = (
        max(tick for tick in ticks if tick <= low),
        min((tick for tick in ticks if tick >= high), default=high),
    )
    low, high = max(below, low / 1.6), min(above, high * 1.6)
    return _Scale(
        low, high, [tick for tick in ticks if low <= tick * 1.0001 and tick <= high * 1.0001]
    )


def _apart(values: Sequence[float], across: Callable[[float], float]) -> list[float]:
    """Those that have room for their numbers, from the last to the first."""
    kept: list[float] = []
    for value in reversed(values):
        if not kept or across(kept[-1]) - across(value) >= 48:
            kept.append(value)
    return kept


def _mark(kind: str, x: float, y: float, measured: bool) -> str:
    shape = f"aim-mark aim-{kind}{'' if measured else ' aim-hollow'}"
    if kind == "aim":
        return f'<circle class="{shape}" cx="{x:.1f}" cy="{y:.1f}" r="{MARK}"/>'
    return (
        f'<rect class="{shape}" x="{x - MARK:.1f}" y="{y - MARK:.1f}" width="{2 * MARK}" '
        f'height="{2 * MARK}"/>'
    )


def _key(kind: str) -> str:
    return (
        f'<svg viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">'
        f"{_mark(kind, 6, 6, True)}</svg>"
    )
