"""What a model thought of its codes, as pictures and as a table: maps over the grid, and the
likeliest codes at one place.
"""

from __future__ import annotations

import math
from html import escape
from typing import NamedTuple

import numpy as np
from PIL import Image

CELL = 32  # pixels a code
STOPS = np.array(
    [
        (13, 8, 60),
        (84, 20, 110),
        (158, 42, 99),
        (212, 72, 66),
        (245, 125, 21),
        (250, 193, 39),
        (252, 255, 164),
    ],
    np.float64,
)
# columns of ``aim.sampling.explain``
LOG_P, ENTROPY, SHIFT, LIKELIEST, THEIR_CODES = 0, 1, 2, slice(3, 8), slice(8, 13)


class Map(NamedTuple):
    """One thing to see of every code."""

    title: str
    explanation: str
    unit: str


MAPS = {
    "probability": Map(
        "Probability", "How likely the model held the code that was drawn. Bright: it was sure.", ""
    ),
    "entropy": Map(
        "Uncertainty",
        "Entropy of the choice, before the draw. Bright: many codes were possible.",
        "nats",
    ),
    "guidance": Map(
        "Pull of the class",
        "How far the class moved the choice: KL(with class || without). Bright: far.",
        "nats",
    ),
    "colour": Map(
        "Colour of the code",
        "The colour that each code has by itself; the decoder makes the picture of them.",
        "",
    ),
}


def values(kind: str, notes: np.ndarray) -> np.ndarray:
    """What ``kind`` shows of notes (n, 13): (n,) float64; all but "colour"."""
    column = {"probability": LOG_P, "entropy": ENTROPY, "guidance": SHIFT}[kind]
    found = notes[:, column].astype(np.float64)
    return np.exp(found) if kind == "probability" else found


def draw_map(
    kind: str, codes: np.ndarray, notes: np.ndarray, colours: np.ndarray, grid: int
) -> tuple[Image.Image, str]:
    """Codes (n,), notes (n, 13) on them and colours (V, 3) of the codebook -> RGBA, CELL pixels a
    code, and its key in words.

    Codes that are not drawn yet are transparent. Low values are dark, high ones bright; the key
    says which are the ends.
    """
    cells = np.zeros((grid * grid, 4), np.uint8)
    shown = MAPS[kind]
    key = shown.explanation
    if len(codes) and kind == "colour":
        cells[: len(codes), :3] = colours[codes]
    elif len(codes):
        found = values(kind, notes)
        low, high = float(found.min()), float(found.max())
        cells[: len(codes), :3] = _colour((found - low) / (high - low or 1.0))
        unit = f" {shown.unit}" if shown.unit else ""
        key = (
            f"{key} Darkest {_number(low)}{unit}, brightest {_number(high)}{unit}, mean "
            f"{_number(float(found.mean()))}{unit}."
        )
    cells[: len(codes), 3] = 255
    image = Image.fromarray(cells.reshape(grid, grid, 4)).resize(
        (grid * CELL, grid * CELL), Image.Resampling.NEAREST
    )
    return image, key


def _colour(share: np.ndarray) -> np.ndarray:
    """[0, 1] (n,) -> (n, 3) uint8, dark to bright, so that it can be read without telling hues
    apart.
    """
    at = share.clip(0, 1) * (len(STOPS) - 1)
    below = np.minimum(at.astype(int), len(STOPS) - 2)
    part = (at - below)[:, None]
    return (STOPS[below] * (1 - part) + STOPS[below + 1] * part).round().astype(np.uint8)


def table(place: int, codes: np.ndarray, notes: np.ndarray, colours: np.ndarray, grid: int) -> str:
    """The choice at ``place``, 0 and on, as HTML: the code drawn, and the five likeliest with their
    probabilities and colours.
    """
    row, column = divmod(place, grid)
    where = f"Code {place + 1}, row {row + 1}, column {column + 1}"
    if place >= len(codes):
        return f"<p>{where}: not drawn yet.</p>"
    of = notes[place]
    said = (
        f"<p><strong>{where}</strong>: code {codes[place]} was drawn, at a probability of "
        f"{_percent(math.exp(of[LOG_P]))}. "
        f"Uncertainty {_number(float(of[ENTROPY]))} nats, as of "
        f"{_number(math.exp(float(of[ENTROPY])))} codes that are equally likely; "
        f"the class moved the choice by {_number(float(of[SHIFT]))} nats.</p>"
    )
    lines = []
    for rank, (log_p, code) in enumerate(zip(of[LIKELIEST], of[THEIR_CODES], strict=True), 1):
        if code < 0:
            continue
        number = int(code)
        mark = " (drawn)" if number == codes[place] else ""
        swatch = (
            f'<span class="aim-swatch" style="background: '
            f'rgb{tuple(int(c) for c in colours[number])}" aria-hidden="true"></span>'
        )
        lines.append(
            f"<tr><th scope='row'>{rank}</th><td>{swatch} "
            f"{number}{escape(mark)}</td><td>{_percent(math.exp(log_p))}</td></tr>"
        )
    head = (
        "<tr><th scope='col'>Likeliest</th><th scope='col'>Code and its colour</th><th "
        "scope='col'>Probability</th></tr>"
    )
    return (
        f'{said}<div class="aim-table"><table><thead>{head}</thead><tbody>'
        f"{''.join(lines)}</tbody></table></div>"
    )


def place_of(x: float, y: float, grid: int) -> int:
    """The code at pixel (x, y) of a map."""
    column, row = (min(grid - 1, max(0, int(at // CELL))) for at in (x, y))
    return row * grid + column


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _number(value: float) -> str:
    return f"{value:.3g}"
