"""Races of larger models, measured on a machine that few visitors have: their times, without what
was drawn. ``python -m aim.ui.record elsewhere`` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from aim.bench.race import Race
from aim.bench.table import machine_line
from aim.ui.assets import text
from aim.ui.race.charts import number, seconds, table
from aim.ui.race.report import replay_of

FILE = "race/elsewhere.json"
# FID-50k on ImageNet at 256x256 as published, of the sampler that was raced
FIDS = {"aim-b": 3.52, "aim-l": 2.83, "aim-xl": 2.56, "gpt-xl": 3.39, "dit-xl-250": 2.27}


def written(races: Sequence[Race], where: str) -> str:
    """Races on one machine as text of the file: those of one picture to be replayed, the first
    racer against each other one; of all the medians.
    """
    sizes = [
        {"name": racer.name, "batch": race.batch, "seconds": round(racer.seconds.median, 5)}
        for race in races
        for racer in race.racers
    ]
    told = {
        "machine": where,
        "versions": machine_line(races[0].machine),
        "races": [one for race in races if race.batch == 1 for one in _pairs(race, where)],
        "sizes": sizes,
    }
    return json.dumps(told) + "\n"


def _pairs(race: Race, where: str) -> Iterator[dict[str, Any]]:
    first, *others = race.racers
    for other in others:
        pair = replace(race, racers=(first, other))
        weights = " and ".join(dict.fromkeys(racer.version for racer in pair.racers))
        yield {
            "title": f"{first.name}, {other.name} on {where}",
            "weights": weights,
            "replay": replay_of(pair),
        }


def values(stand_in: str) -> list[dict[str, Any]]:
    """Values of a ``Replay``, pictures apart, for which those of the model ``stand_in`` stand."""
    told = json.loads(text(FILE))
    return [
        {
            **one["replay"],
            "run": one["title"],
            "title": one["title"],
            "badge": f"Recorded on {told['machine']}, weights: {one['weights']}. These are times "
            f"alone: {stand_in}'s picture stands in for both",
        }
        for one in told.get("races", ())
    ]


def measured() -> str:
    """A table of all models and sizes as HTML, empty where there is none."""
    told = json.loads(text(FILE))
    if not told.get("sizes"):
        return ""
    found = {(one["name"], one["batch"]): one["seconds"] for one in told["sizes"]}
    batches = sorted({batch for _, batch in found})
    rows = []
    for name in dict.fromkeys(name for name, _ in found):
        cells = [found.get((name, batch)) for batch in batches]
        rates = (
            "-" if took is None else seconds(took) if batch == 1 else f"{number(batch / took)}/s"
            for batch, took in zip(batches, cells, strict=True)
        )
        rows.append([name, f"{FIDS[name]}" if name in FIDS else "-", *rates])
    head = ["", "FID, published", *("1 picture" if b == 1 else f"{b} at once" for b in batches)]
    caption = (
        f"Time to one picture, and pictures a second in a batch, of random weights, guidance on. "
        f"{told['versions']}."
    )
    return f'<div class="aim-report">{table(head, rows, caption)}</div>'
