"""What images cost as they and their number grow, as the page shows it: lines, who is faster where,
a table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from itertools import product

from aim.bench.scaling import TOKENS, Cost, Scaling, verdicts
from aim.bench.sequence_cost import kept
from aim.bench.table import machine_line
from aim.config import MODELS
from aim.ui.race.charts import Line, Point, chart, seconds, size, table

_METHOD = (
    "Single steps are timed, of a whole batch at one position of its sequence, with guidance, "
    "random weights, and random numbers in state "
    "or cache; image decoding is left out. A filled mark is measured code by code. A hollow one is "
    "not: only some of its codes were timed, "
    "as the table of all sizes says, and the time of the others is interpolated, or, where AiM's "
    "step repeats itself, extrapolated."
)
_MEMORY = ("Memory of a picture", "codes of the picture", "Kept of it while it is drawn, MB")
_KEPT = (
    "AiM's state has one size, however long the sequence; the Transformer's cache grows with every "
    "code. Counted in float32, with the row that guidance takes."
)


def scaling_report(result: Scaling) -> str:
    """Lines, words and a table as HTML."""
    first, alone = result.tokens[0], result.batches[0]
    across_codes: list[tuple[int, int]] = [(tokens, alone) for tokens in result.tokens]
    charts = [
        chart(
            f"Longer sequences, batch {alone}",
            "codes an image",
            "Seconds an image",
            _lines(result, across_codes, 0, _time),
        ),
        chart(
            f"Larger batches, {first} codes",
            "images at once",
            "Seconds an image",
            _lines(result, _batches(result), 1, _time),
        ),
    ]
    said = "".join(f"<li>{escape(text)}</li>" for text in verdicts(result))
    return (
        f'<div class="aim-report"><div class="aim-chart-grid">{"".join(charts)}</div><ul '
        f'class="aim-verdicts">{said}</ul>'
        f"<details><summary>All sizes</summary>{_table(result)}</details>"
        f'<p class="aim-small"><b>How it is measured.</b> {escape(_METHOD)}</p></div>'
    )


def memory_chart(names: Sequence[str]) -> str:
    """What named models keep of one picture as it has more codes, counted and not measured."""
    lines = [
        _line(name, [Point(n, kept(MODELS[name].config, n) / 1e6) for n in TOKENS])
        for name in names
    ]
    return (
        f'<div class="aim-report aim-memory">{chart(*_MEMORY, lines)}'
        f'<p class="aim-small">{escape(_KEPT)}</p></div>'
    )


def _line(name: str, points: Sequence[Point]) -> Line:
    return Line(name, "aim" if name.startswith("aim") else "gpt", points)


def _lines(
    result: Scaling,
    sizes: Sequence[tuple[int, int]],
    grows: int,
    of: Callable[[Cost], float],
) -> list[Line]:
    """A line for each model over those ``sizes`` (codes, batch) that were measured of it; ``grows``
    says which of the two is x.
    """
    lines = []
    for name in result.models:
        found = [(size, result.cost(name, *size)) for size in sizes]
        points = [Point(size[grows], of(cost), _whole(cost)) for size, cost in found if cost]
        lines.append(_line(name, points))
    return lines


def _batches(result: Scaling) -> list[tuple[int, int]]:
    return [(result.tokens[0], batch) for batch in result.batches]


def _time(cost: Cost) -> float:
    return cost.seconds_per_image


def _whole(cost: Cost) -> bool:
    return cost.measured_steps == cost.tokens


def _table(result: Scaling) -> str:
    head = [
        "Codes × batch",
        *(
            f"{name}, {what}"
            for name in result.models
            for what in ("an image", "codes timed", "memory")
        ),
    ]
    errors = {(m.model, m.tokens, m.batch): m.error for m in result.missing}
    rows = []
    for tokens, batch in product(result.tokens, result.batches):
        row = [f"{tokens:,} × {batch}"]
        for name in result.models:
            cost = result.cost(name, tokens, batch)
            row += (
                [
                    seconds(cost.seconds_per_image),
                    f"{cost.measured_steps:,}",
                    size(cost.sequence_bytes),
                ]
                if cost
                else ([errors.get((name, tokens, batch), "-"), "", ""])
            )
        rows.append(row)
    return table(
        head, rows, f"Time and memory of an image, {result.dtype}. {machine_line(result.machine)}."
    )
