"""A race as the page shows it: the replay's data, bars, a table, and what was measured, in
words.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape
from typing import Any

from aim.bench.race import METHOD, Race
from aim.bench.racers import Racer
from aim.bench.runs import Spread
from aim.bench.table import machine_line
from aim.ui.race.charts import Bar, bars, number, seconds, size, table

SHOWN = 16  # pictures of a batch at the most
FAMILIES = {"AiM": "Mamba-2", "GPT": "Transformer", "DiT": "Diffusion"}


def kind(family: str) -> str:
    """What the style sheet calls a family of models: aim or gpt."""
    return "aim" if family == "AiM" else "gpt"


def replay_of(race: Race) -> dict[str, Any]:
    """The value of a ``Replay``, pictures apart."""
    shown = min(race.batch, SHOWN)
    many = "a picture" if shown == 1 else f"{shown} pictures"
    return {
        "grid": math.isqrt(race.tokens),
        "pictures": shown,
        "columns": math.isqrt(shown - 1) + 1,
        "result": verdict(race),
        "racers": [
            {
                "name": racer.name,
                "kind": FAMILIES.get(racer.family, racer.family),
                "unit": unit(racer),
                "code_seconds": [round(at, 5) for at in racer.replay.code_seconds],
                "seconds": round(racer.replay.seconds, 5),
                "arrival": (
                    f"{unit(racer)} {seconds(racer.replay.codes_seconds)}, decoding "
                    f"{seconds(racer.replay.decode_seconds)}; memory {size(racer.sequence_bytes)}"
                ),
                "memory": racer.sequence_bytes,
                "alt": (
                    f"What {racer.name} drew in {seconds(racer.replay.seconds)}: {many} of "
                    f"{race.title}"
                ),
            }
            for racer in race.racers
        ],
    }


def unit(racer: Racer) -> str:
    """What a picture comes in: codes, or a diffusion model's steps, of which each changes all of
    it.
    """
    return "steps" if racer.codes_per_pass is None else "codes"


def verdict(race: Race) -> str:
    """Who was first, by how much, and whether that is more than the laps differ, in a sentence."""
    first, *_, last = sorted(race.racers, key=lambda racer: racer.seconds.median)
    many = "its picture" if race.batch == 1 else f"its {race.batch} pictures"
    overlap = first.seconds.max >= last.seconds.min
    return (
        f"{first.name} had {many} first: {seconds(first.seconds.median)} against "
        f"{seconds(last.seconds.median)}, "
        f"{number(last.seconds.median / first.seconds.median)} times as fast, medians of "
        f"{race.laps} laps each"
        + ("; their laps overlap, so another race may end otherwise." if overlap else ".")
    )


def report(race: Race, random_weights: bool, disturbed: bool) -> str:
    """Bars, table and method as HTML. ``disturbed``: somebody drew on this page meanwhile."""
    notes = []
    if disturbed:
        notes.append(
            "Somebody was drawing on this page during the race, so these times are too long and "
            "not clean. Race again."
        )
    if random_weights:
        notes.append(
            "Random weights: timing only. The pictures are noise, and a step costs what it costs "
            "with trained weights."
        )
    parts = [f'<p class="aim-caution"><b>Note</b> {escape(note)}</p>' for note in notes]
    charts = (bars(title, [_bar(racer, of) for racer in race.racers]) for title, of in _BARS)
    parts.append(f'<div class="aim-bar-grid">{"".join(charts)}</div>')
    parts.append(
        '<p class="aim-small">A bar is the median of all laps; the thin line across its '
        "end goes from the least to the most.</p>"
    )
    head = ["", *(racer.name for racer in race.racers)]
    rows = [[title, *(cell(racer) for racer in race.racers)] for title, cell in _ROWS]
    parts.append(table(head, rows, _caption(race)))
    parts.append(f'<p class="aim-small aim-method"><b>How it is measured.</b> {escape(METHOD)}</p>')
    return f'<div class="aim-report">{"".join(parts)}</div>'


def _bar(racer: Racer, of: Callable[[Racer], Spread]) -> Bar:
    spread = of(racer)
    return Bar(racer.name, kind(racer.family), spread.median, spread.min, spread.max)


def _rate(value: float | None) -> str:
    return "-" if value is None else number(value)


def _caption(race: Race) -> str:
    many = "1 picture" if race.batch == 1 else f"{race.batch} pictures at once"
    return (
        f"{many} of {race.title}, {race.tokens} codes each, {race.image_size}×{race.image_size} "
        "pixels, "
        f"{race.sampling.describe()}, {race.dtype}, seed {race.seed}. "
        f"{machine_line(race.machine)}."
    )


_BARS: tuple[tuple[str, Callable[[Racer], Spread]], ...] = (
    ("Time to picture", lambda racer: racer.seconds),
    ("Time to all codes", lambda racer: racer.codes_seconds),
    ("Time to first code", lambda racer: racer.first_code_seconds),
    ("Image decoding, apart", lambda racer: racer.decode_seconds),
)

_ROWS: tuple[tuple[str, Callable[[Racer], str]], ...] = (
    ("Parameters", lambda racer: f"{racer.parameters / 1e6:,.1f} M"),
    ("Codes a second", lambda racer: _rate(racer.codes_per_second)),
    ("Pictures a second", lambda racer: number(racer.images_per_second)),
    ("Time to first code", lambda racer: seconds(racer.first_code_seconds.median)),
    ("Time to picture", lambda racer: seconds(racer.seconds.median)),
    ("Image decoding, apart", lambda racer: seconds(racer.decode_seconds.median)),
    ("Peak memory", lambda racer: size(racer.peak_memory_bytes)),
    ("Memory per sequence", lambda racer: size(racer.sequence_bytes)),
    ("Fraction of its own floor", lambda racer: f"{racer.floor_fraction:.0%}"),
    ("Backend", lambda racer: racer.backend),
    ("Weights", lambda racer: racer.version),
)
