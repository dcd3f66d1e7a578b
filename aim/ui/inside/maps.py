"""What a model thought of its codes, as a map beside the picture and in words: maps over the grid,
and the likeliest codes at one place.
"""

from __future__ import annotations

import base64
import math
from html import escape
from typing import Any, NamedTuple

import numpy as np

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
GREY = (143, 161, 172)
# columns of ``aim.sampling.explain``
LOG_P, ENTROPY, SHIFT, LIKELIEST, THEIR_CODES = 0, 1, 2, slice(3, 8), slice(8, 13)


class Map(NamedTuple):
    """One thing to see of every code."""

    title: str
    explanation: str


MAPS = {
    "probability": Map(
        "Probability", "How likely the model held the code that was drawn. Bright: it was sure."
    ),
    "entropy": Map(
        "Uncertainty",
        "How open the choice was, before the draw. Bright: many codes were possible.",
    ),
    "guidance": Map(
        "Pull of the class",
        "How far the class moved the choice: KL(with class || without). Bright: far.",
    ),
    "colour": Map(
        "Colour of the code",
        "The colour that each code has by itself; the decoder makes the picture of them.",
    ),
}

GUESSES = (
    "The model looks ahead: small squares are its guesses of the codes that follow, each of which "
    "settles or changes."
)


def values(kind: str, notes: np.ndarray) -> np.ndarray:
    """What ``kind`` shows of notes (n, 13): (n,) float64; all but "colour"."""
    column = {"probability": LOG_P, "entropy": ENTROPY, "guidance": SHIFT}[kind]
    found = notes[:, column].astype(np.float64)
    return np.exp(found) if kind == "probability" else found


def drawn_map(
    kind: str, codes: np.ndarray, notes: np.ndarray, palette: np.ndarray, kept: int = 0
) -> tuple[dict[str, Any], str]:
    """Codes (n,), of which the first ``kept`` were given, notes (n, 13) on them and colours (V, 3)
    of the codebook -> what a stage of the tab shows beside the picture, and its key in words.

    ``title``, ``colours`` (n, 3) as base64 of RGB, dark to bright, grey for what was given,
    ``ends`` of the scale in words or None, and ``facts`` (n, 3): log probability, entropy, shift;
    None for what was given.
    """
    shown, key, ends = MAPS[kind], MAPS[kind].explanation, None
    cells = palette[codes]
    if len(codes) > kept and kind != "colour":
        found = values(kind, notes[kept:])
        low, high, mean = float(found.min()), float(found.max()), float(found.mean())
        cells[:kept], cells[kept:] = GREY, _colour((found - low) / (high - low or 1.0))
        ends = [_short(kind, low), _short(kind, high)]
        key = f"{key} On average {said(kind, mean)}."
    if kept:
        key = f"{key} The first {kept} codes were given, not drawn."
    facts: list[Any] = notes[:, [LOG_P, ENTROPY, SHIFT]].astype(np.float64).round(3).tolist()
    facts[:kept] = [None] * min(kept, len(facts))
    colours = base64.b64encode(cells.astype(np.uint8).tobytes()).decode()
    return {"title": shown.title, "colours": colours, "ends": ends, "facts": facts}, key


def said(kind: str, value: float) -> str:
    """A value of a map in words."""
    if kind == "probability":
        return _percent(value)
    if kind == "guidance":
        return f"{_number(value)} nats"
    return f"{_number(value)} nats, {as_many(value)}"


def as_many(entropy: float) -> str:
    """An entropy in nats, in plain words."""
    return f"as if {_count(entropy)} codes were equally likely"


def _short(kind: str, value: float) -> str:
    return (
        f"{_count(value)} codes ({_number(value)} nats)" if kind == "entropy" else said(kind, value)
    )


def _count(entropy: float) -> str:
    count = math.exp(entropy)
    return f"{count:,.{1 if count < 10 else 0}f}"


def _colour(share: np.ndarray) -> np.ndarray:
    """[0, 1] (n,) -> (n, 3) uint8, dark to bright, so that it can be read without telling hues
    apart.
    """
    at = share.clip(0, 1) * (len(STOPS) - 1)
    below = np.minimum(at.astype(int), len(STOPS) - 2)
    part = (at - below)[:, None]
    return (STOPS[below] * (1 - part) + STOPS[below + 1] * part).round().astype(np.uint8)


def table(
    place: int,
    codes: np.ndarray,
    notes: np.ndarray,
    colours: np.ndarray,
    grid: int,
    kept: int = 0,
) -> str:
    """The choice at ``place``, 0 and on, as HTML: the code drawn, and the five likeliest with their
    probabilities and colours. The first ``kept`` codes were given.
    """
    row, column = divmod(place, grid)
    where = f"Code {place + 1}, row {row + 1}, column {column + 1}"
    if place >= len(codes):
        return f"<p>{where}: not drawn yet.</p>"
    if place < kept:
        return f"<p><strong>{where}</strong>: code {codes[place]} was given, not drawn.</p>"
    of = notes[place]
    told = (
        f"<p><strong>{where}</strong>: code {codes[place]} was drawn, at a probability of "
        f"{_percent(math.exp(of[LOG_P]))}. "
        f"The choice was as open {as_many(float(of[ENTROPY]))} "
        f"({_number(float(of[ENTROPY]))} nats); "
        f"the class moved it by {_number(float(of[SHIFT]))} nats.</p>"
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
        f'{told}<div class="aim-table"><table><thead>{head}</thead><tbody>'
        f"{''.join(lines)}</tbody></table></div>"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _number(value: float) -> str:
    return f"{value:.3g}"
