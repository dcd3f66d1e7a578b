"""How much more many replicas draw than one, in one run: ``python -m aim bench replicas``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import count

import numpy as np
from rich.table import Table

from aim.bench.machine import Machine
from aim.engine import Failed, Finished, Request
from aim.models.image_decoder import ImageDecoder
from aim.pipeline import Pipeline
from aim.serving.ray import Plan, use_replicas
from aim.stream import run
from aim.tables import plain


@dataclass(frozen=True)
class Rate:
    """What so many replicas drew, of ``places`` each, in pictures a second: codes alone, and
    decoded where they arrive.
    """

    replicas: int
    places: int
    codes_a_second: float
    pictures_a_second: float
    device: str
    dtype: str


def measure(
    pipe: Pipeline,
    plan: Plan,
    numbers: Sequence[int],
    seconds: float,
    say: Callable[[str], object] = str,
) -> tuple[list[Rate], Machine]:
    """Pictures a second of each of these numbers of replicas of ``pipe``, one after another: of
    codes for ``seconds``, and of pictures for as long. AimError where they cannot be had.
    """
    found = []
    for number in numbers:
        say(f"{number} replica{'s' if number > 1 else ''}")
        use_replicas(pipe, replace(plan, low=number, high=number))
        try:
            found.append(_rate(pipe, number, plan.places, seconds))
        finally:
            pipe.close()
    return found, Machine.of(pipe.device)


def _rate(pipe: Pipeline, number: int, places: int, seconds: float) -> Rate:
    decoder, together = ImageDecoder(pipe.tokenizer), number * places
    with closing(_codes(pipe)) as drawn:
        codes = _a_second(drawn, together, seconds)
        pictures = _a_second(decoder.images(drawn), together, seconds)
    device, dtype = pipe.where
    return Rate(number, places, codes, pictures, device, dtype)


def _codes(pipe: Pipeline) -> Generator[np.ndarray, None, None]:
    row = pipe.row(pipe.classes[0])
    for event in run(pipe.server, (Request(row, pipe.sampling, seed) for seed in count())):
        if isinstance(event, Finished):
            yield event.codes
        elif isinstance(event, Failed):
            raise event.error


def _a_second(things: Iterator[object], together: int, seconds: float) -> float:
    """How many come, over whole rounds of ``together``, which end at the same time, after one that
    is not counted.
    """
    rounds, started = 0, 0.0
    while not rounds or time.perf_counter() - started < seconds:
        for _ in range(together):
            next(things)
        if started:
            rounds += 1
        else:
            started = time.perf_counter()
    return round(rounds * together / (time.perf_counter() - started), 2)


def as_table(found: Sequence[Rate], machine: Machine) -> Table:
    """For people; the last columns say how many times as much as the first line."""
    first = found[0]
    rows = [
        (
            f"{one.replicas}",
            f"{one.places}",
            f"{one.codes_a_second:.2f}",
            f"{one.codes_a_second / first.codes_a_second:.2f}",
            f"{one.pictures_a_second:.2f}",
            f"{one.pictures_a_second / first.pictures_a_second:.2f}",
        )
        for one in found
    ]
    where = f"{first.device.partition(':')[0]}, {first.dtype}"
    heads = ("replicas", "places", "drawn a second", "times", "decoded a second", "times")
    return plain(f"Pictures of replicas, {where}, on {machine.name}", heads, rows)


def as_json(found: Sequence[Rate], machine: Machine) -> str:
    """One line."""
    return json.dumps({"replicas": [asdict(one) for one in found], "machine": asdict(machine)})
