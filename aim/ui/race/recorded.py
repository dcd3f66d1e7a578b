"""The races that the page shows before anybody has measured one: the bundled pair's, which
``python -m aim.ui.record`` runs anew, and those of other models, measured elsewhere, of which
there are the times alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from aim.bench.race import Race
from aim.pipeline import Pipeline
from aim.ui.assets import text
from aim.ui.generate.recorded import address, packed, unpacked
from aim.ui.race import elsewhere
from aim.ui.race.charts import number, seconds
from aim.ui.race.report import replay_of
from aim.ui.stage.reel import encoded

FILE = "race/recorded.json"
MODELS = ("aim-s", "gpt-s")


class Recorded(NamedTuple):
    """One race of ``MODELS``, and what they drew."""

    versions: tuple[str, ...]
    machine: str
    label: int
    seed: int
    codes: tuple[np.ndarray, ...]  # (num_tokens,) int64 of each
    replay: dict[str, Any]  # the value of a ``Replay``, pictures apart

    def of(self, pipe: Pipeline) -> bool:
        """Whether ``pipe`` is the first of the two, and can show it."""
        return (MODELS[0], self.versions[0]) == (pipe.name, pipe.version)


def recorded() -> Recorded:
    """What is in the file."""
    told = json.loads(text(FILE))
    codes = tuple(map(unpacked, told.pop("codes")))
    return Recorded(**{**told, "versions": tuple(told["versions"]), "codes": codes})


def written(race: Race, codes: Sequence[np.ndarray], machine: str) -> str:
    """A race of one picture and the codes of each racer, as text of the file."""
    told = {
        "versions": [racer.version for racer in race.racers],
        "machine": machine,
        "label": race.label,
        "seed": race.seed,
        "codes": list(map(packed, codes)),
        "replay": replay_of(race),
    }
    return json.dumps(told) + "\n"


def opening(pipe: Pipeline) -> list[dict[str, Any]]:
    """What a ``Replay`` offers before anything is measured, the bundled pair's first; nothing where
    that was another model's than ``pipe``. Where there are times alone, what ``pipe`` drew stands
    in for all pictures, and the badge says so.
    """
    found = recorded()
    if not found.of(pipe):
        return []
    versions = " and ".join(map(" ".join, zip(MODELS, found.versions, strict=True)))
    values = [
        {
            **found.replay,
            "run": "recorded",
            "title": f"{', '.join(MODELS)} on {found.machine}",
            "badge": f"Recorded on {found.machine}: {versions}",
        },
        *elsewhere.values(pipe.name),
    ]
    palette, images = pipe.colours(), pipe.pictures(found.codes)
    shown = [
        {"colours": [encoded(palette, codes)], "image": address(image, 90)}
        for codes, image in zip(found.codes, images, strict=True)
    ]
    for value in values:
        own = shown if value is values[0] else [shown[0]] * len(value["racers"])
        for racer, picture in zip(value["racers"], own, strict=True):
            racer |= picture
    return values


class Opening:
    """What a ``Replay`` of ``pipe``'s page fetches when its tab is opened. ``there`` is whether
    there is anything.
    """

    def __init__(self, pipe: Pipeline) -> None:
        self._pipe, self.there = pipe, recorded().of(pipe)

    @cached_property
    def told(self) -> bytes:
        """The values of the replay, as JSON."""
        return json.dumps(opening(self._pipe)).encode()


async def _opening(request: Request) -> Response:
    found: Opening = request.app.blocks.raced
    if not found.there:
        return PlainTextResponse("There is no race of this model.", 404)
    told = await run_in_threadpool(lambda: found.told)
    headers = {"Cache-Control": "max-age=3600"}
    return Response(told, media_type="application/json", headers=headers)


ROUTES = [Route("/race.json", _opening)]
"""For the server of a page whose ``raced`` is an ``Opening``."""


def sentence(pipe: Pipeline) -> str:
    """What was measured, in Markdown, for somebody who has not heard of either; empty without a
    race.
    """
    found = recorded()
    if not found.of(pipe):
        return ""
    own, other = found.replay["racers"]
    machine, memory = found.machine.partition(",")[0], other["memory"] / own["memory"]
    return (
        f"In a [race](#race) on {machine} a picture took it {seconds(own['seconds'])}, and a "
        f"Transformer of its size {seconds(other['seconds'])} and {number(memory)} times the "
        "memory."
    )
