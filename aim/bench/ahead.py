"""How many codes a pass settles that looks ahead, by what is drawn and how far it looks:
``python -m aim bench ahead``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

from rich.table import Table

from aim.bench.machine import Machine
from aim.config import SamplingParams
from aim.engine import Engine, Failed, Finished, Request
from aim.engine.backend import looked
from aim.errors import InvalidInput
from aim.models.interface import WIDEST
from aim.pipeline import Pipeline
from aim.tables import plain

TOGETHER = 32  # pictures at once, as passes are counted and not timed
# from the model's own settings one after another is changed
CHANGES: tuple[dict[str, float], ...] = (
    {"cfg_scale": 1.0},
    {"cfg_scale": 1.5},
    {"cfg_scale": 3.0},
    {"cfg_scale": 4.0},
    {"cfg_scale": 6.0},
    {"temperature": 0.8},
    {"temperature": 1.1},
    {"top_k": 100},
    {"top_k": 1000},
    {"top_p": 0.9},
)


@dataclass(frozen=True)
class Settled:
    """What passes of ``items`` settle of pictures of one kind: codes a pass of all of them, and of
    the picture with the fewest and the most.
    """

    what: str
    params: SamplingParams
    items: int
    pictures: int
    codes_per_pass: float
    least: float
    most: float


@dataclass(frozen=True)
class Report:
    """Everything of one run."""

    model: str
    version: str  # of the weights
    dtype: str
    backend: str
    tokens: int
    pictures: int  # of each kind
    machine: Machine
    settled: tuple[Settled, ...]


def kinds(pipe: Pipeline) -> list[tuple[str, SamplingParams, tuple[int, ...]]]:
    """What is drawn: several settings, of all classes, then three classes at the model's own; each
    with the rows of its classes.
    """
    own, classes = pipe.sampling, pipe.classes
    everything = tuple(map(pipe.row, classes))
    settings = [own, *(own.replace(**change) for change in CHANGES)]
    found = [(params.describe(), params, everything) for params in dict.fromkeys(settings)]
    some = dict.fromkeys(classes[at] for at in (0, len(classes) // 2, len(classes) - 1))
    return found + [(pipe.title(index), own, (pipe.row(index),)) for index in some]


def count(
    pipe: Pipeline,
    widths: Sequence[int],
    pictures: int,
    say: Callable[[str], object] = lambda text: None,
) -> Report:
    """How far passes of each of ``widths`` items get with ``pictures`` of each kind, seeds 0, 1,
    ... InvalidInput for a backend whose step reads one code; errors of the model come through.
    """
    looked(widest := max(widths), pipe.backend, pipe.dtype)
    model, found = pipe.engine(1).model, []
    for items in widths:
        say(f"passes of {items} of up to {widest} codes")
        always = ((4 * TOGETHER, items),)  # batches have twice as many rows, and a few for padding
        engine = Engine(model, TOGETHER, 2 * TOGETHER, pipe.backend != "eager", always)
        found += list(_settled(pipe, engine, items, pictures))
        engine.drain()
    return Report(
        pipe.name,
        pipe.version,
        str(pipe.dtype).removeprefix("torch."),
        pipe.backend,
        pipe.model.config.num_tokens,
        pictures,
        Machine.of(pipe.device),
        tuple(found),
    )


def _settled(pipe: Pipeline, engine: Engine, items: int, pictures: int) -> Iterator[Settled]:
    """All kinds are drawn in one crowd."""
    drawn = kinds(pipe)
    asked = [
        [Request(rows[seed % len(rows)], params, seed) for seed in range(pictures)]
        for _, params, rows in drawn
    ]
    passes: dict[int, int] = {}
    for event in engine.run(request for some in asked for request in some):
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Finished):
            passes[event.request_id] = event.passes
    total = engine.model.config.num_tokens
    for (what, params, _), some in zip(drawn, asked, strict=True):
        each = [passes[request.id] for request in some]
        mean = total * len(each) / sum(each)
        yield Settled(what, params, items, pictures, mean, total / max(each), total / min(each))


def as_table(report: Report) -> Table:
    """A line for every kind of picture, a column for how far a pass looks."""
    widths = list(dict.fromkeys(one.items for one in report.settled))
    found = {(one.what, one.items): one for one in report.settled}

    def cell(one: Settled) -> str:
        return f"{one.codes_per_pass:.2f} ({one.least:.1f} - {one.most:.1f})"

    return plain(
        f"{report.model}, {report.dtype}, codes a pass of {report.pictures} pictures (least - most "
        "of one), by how many a pass looks at",
        ["", *map(str, widths)],
        [
            (what, *(cell(found[what, items]) for items in widths))
            for what in dict.fromkeys(one.what for one in report.settled)
        ],
        f"{report.tokens} codes a picture; backend {report.backend}; weights: {report.version}; "
        f"{report.machine.name}",
    )


def as_json(report: Report) -> str:
    """One line."""
    return json.dumps(asdict(report), allow_nan=False)


def parse_widths(text: str) -> list[int]:
    """How far to look in "2,4,8,16"; InvalidInput for what is none of these."""
    widths = [2**i for i in range(1, WIDEST.bit_length())]
    parts = [part.strip() for part in text.split(",")]
    if not all(part in map(str, widths) for part in parts):
        known = ", ".join(map(str, widths))
        raise InvalidInput(f"items is {text!r}; it must be some of {known}, separated by commas")
    return list(dict.fromkeys(map(int, parts)))
