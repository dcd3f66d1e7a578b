"""Results for people, as a table, and for programs, as one line of JSON or as CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Iterator
from itertools import product

from rich.table import Table

from aim.bench.machine import GIB, Machine
from aim.bench.race import Race
from aim.bench.racers import LAP, Racer
from aim.bench.runs import Spread
from aim.bench.scaling import Scaling
from aim.bench.speed import NoRoom, Report, Speed
from aim.config import INDEX
from aim.tables import plain

Cell = Callable[[Speed], str]


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _memory(value: int | None) -> str:
    return "-" if value is None else f"{value / GIB:.2f}"


def _spread(value: Spread, unit: float = 1.0) -> str:
    median, least, most = (_seconds(unit * part) for part in (value.median, value.min, value.max))
    return f"{median} ({least} - {most})"


ROWS: tuple[tuple[str, Cell], ...] = (
    ("a step, ms", lambda s: f"{s.step_ms:.3f}"),
    ("a step, ms, mean", lambda s: f"{s.step_ms_mean:.3f}"),
    ("passes", lambda s: str(s.passes)),
    ("codes a pass", lambda s: f"{s.codes_per_pass:.2f}"),
    ("codes, s", lambda s: _seconds(s.codes_seconds)),
    ("codes and pictures, s", lambda s: _seconds(s.seconds)),
    ("  least to most", lambda s: f"{_seconds(s.seconds_min)} - {_seconds(s.seconds_max)}"),
    ("images/s", lambda s: f"{s.images_per_second:.2f}"),
    (
        "images/s, decoding overlapped",
        lambda s: (
            "-"
            if s.images_per_second_overlapped is None
            else f"{s.images_per_second_overlapped:.2f}"
        ),
    ),
    ("decoding, ms an image", lambda s: f"{s.decode_ms_per_image:.2f}"),
    ("first code, ms", lambda s: f"{s.first_code_ms:.2f}"),
    ("warm-up, s", lambda s: f"{s.warmup_seconds:.2f}"),
    ("capture, s", lambda s: f"{s.capture_seconds:.2f} ({s.captures})"),
    ("peak memory, GiB", lambda s: _memory(s.peak_memory_bytes)),
    ("reserved memory, GiB", lambda s: _memory(s.reserved_memory_bytes)),
    ("bytes a step, GB", lambda s: f"{(s.weight_bytes + s.state_bytes) / 1e9:.3f}"),
    ("  of that, state", lambda s: f"{s.state_bytes / 1e9:.3f}"),
    ("floor, ms", lambda s: f"{s.floor_ms:.3f}"),
    ("fraction of the floor", lambda s: f"{s.floor_fraction:.0%}"),
)


def machine_line(m: Machine) -> str:
    """The machine and the versions, for a caption."""
    accelerator = (
        f"driver {m.driver}, CUDA {m.cuda}, Triton {m.triton}, "
        if m.capability
        else f"{m.threads} threads, "
    )
    return f"{m.name}, {accelerator}PyTorch {m.pytorch}, Python {m.python}, aim {m.aim}"


def as_table(report: Report) -> Table:
    """A column for every batch size."""
    found = report.batches
    rows = [
        (title, *("-" if isinstance(one, NoRoom) else cell(one) for one in found))
        for title, cell in ROWS
    ]
    if any(isinstance(one, NoRoom) for one in found):
        rows.append(("", *(one.error if isinstance(one, NoRoom) else "" for one in found)))
    return plain(
        f"{report.model}, {report.dtype}, {report.backend}, guidance {report.guidance:g}",
        ["batch", *(str(one.batch) for one in found)],
        rows,
        f"{machine_line(report.machine)}; copies {report.copy_bandwidth / 1e9:.0f} GB/s; backend "
        f"chosen in {report.trial_seconds:.1f} s; weights: {report.version}",
    )


RACER: tuple[tuple[str, Callable[[Racer], str]], ...] = (
    ("parameters, M", lambda r: f"{r.parameters / 1e6:.1f}"),
    ("backend", lambda r: r.backend),
    ("weights", lambda r: r.version),
    ("passes", lambda r: str(r.passes)),
    ("codes a pass", lambda r: "-" if r.codes_per_pass is None else f"{r.codes_per_pass:.2f}"),
    ("codes, or latents, s", lambda r: _spread(r.codes_seconds)),
    ("first code, or step, ms", lambda r: _spread(r.first_code_seconds, 1e3)),
    ("decoding, s", lambda r: _spread(r.decode_seconds)),
    ("time to picture, s", lambda r: _spread(r.seconds)),
    ("codes/s", lambda r: "-" if r.codes_per_second is None else f"{r.codes_per_second:,.0f}"),
    ("images/s", lambda r: f"{r.images_per_second:.2f}"),
    ("warm-up, s", lambda r: f"{r.warmup_seconds:.2f}"),
    ("capture, s", lambda r: f"{r.capture_seconds:.2f}"),
    ("its tensors, GiB", lambda r: _memory(r.memory_bytes)),
    ("peak memory, GiB", lambda r: _memory(r.peak_memory_bytes)),
    ("state or cache of an image, MB", lambda r: f"{r.sequence_bytes / 1e6:.1f}"),
    ("bytes a step, GB", lambda r: f"{(r.weight_bytes + r.state_bytes) / 1e9:.3f}"),
    ("  of that, state or cache", lambda r: f"{r.state_bytes / 1e9:.3f}"),
    ("floor, ms", lambda r: f"{r.floor_ms:.3f}"),
    ("fraction of its own floor", lambda r: f"{r.floor_fraction:.0%}"),
)


def race_table(result: Race) -> Table:
    """A column for every racer; times are medians, with the least and the most."""
    names = [racer.name for racer in result.racers]
    work = f"{result.batch} at once, {result.tokens} codes each, {result.title}"
    runs = f"{result.laps} laps each in random order, median (least - most)"
    return plain(
        f"{' against '.join(names)}, {work}, {result.dtype}",
        ["", *names],
        [(title, *map(cell, result.racers)) for title, cell in RACER],
        f"{machine_line(result.machine)}; copies {result.copy_bandwidth / 1e9:.0f} "
        f"GB/s; {result.sampling.describe()}; {runs}",
    )


def scaling_table(result: Scaling) -> Table:
    """A row for every length and batch size, for every model the seconds and the memory of an
    image.
    """
    errors = {(m.model, m.tokens, m.batch): m.error for m in result.missing}
    rows = []
    for tokens, batch in product(result.tokens, result.batches):
        cells: list[str] = [f"{tokens:,}", str(batch)]
        for name in result.models:
            found = result.cost(name, tokens, batch)
            cells += (
                [_seconds(found.seconds_per_image), f"{found.sequence_bytes / 1e6:.1f}"]
                if found
                else [errors.get((name, tokens, batch), ""), "-"]
            )
        rows.append(cells)
    return plain(
        f"Seconds and MB of state or cache an image, {result.dtype}, guidance on",
        ["codes", "batch", *(f"{name}, {unit}" for name in result.models for unit in ("s", "MB"))],
        rows,
        machine_line(result.machine),
        left=0,
    )


def as_json(result: Report | Race | Scaling, timestamps: bool = True) -> str:
    """One line; nothing in it is NaN or infinite. Without ``timestamps`` a race lacks the times of
    single codes, which are most of it.
    """
    found = dataclasses.asdict(result)
    for racer, told in (
        zip(result.racers, found["racers"], strict=True) if isinstance(result, Race) else ()
    ):
        for lap, values in zip(racer.laps, told["laps"], strict=True):
            values.update({name: getattr(lap, name) for name in LAP})
            if not timestamps:
                del values["code_seconds"]
    return json.dumps(found, allow_nan=False)


RACE = (
    "lap",
    "model",
    "version",
    "backend",
    "device",
    "dtype",
    "class",
    "batch",
    "tokens",
    *INDEX,
    *LAP,
)
SIZE = ("model", "tokens", "batch")
COST = ("backend", "seconds", "seconds_per_image", "measured_steps", "sequence_bytes")


def as_csv(result: Race | Scaling) -> str:
    """Of a race a row for every lap, in the order in which they were run; else one for every model
    and size, those missing last.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        _laps(result) if isinstance(result, Race) else _sizes(result)
    )
    return text.getvalue()


def _laps(result: Race) -> Iterator[tuple[object, ...]]:
    yield RACE
    laps = [iter(racer.laps) for racer in result.racers]
    work = (
        result.device,
        result.dtype,
        result.label,
        result.batch,
        result.tokens,
        *dataclasses.astuple(result.sampling),
    )
    for number, turn in enumerate(result.order):
        racer, lap = result.racers[turn], next(laps[turn])
        yield (
            number + 1,
            racer.name,
            racer.version,
            racer.backend,
            *work,
            *(f"{getattr(lap, name):.6f}" for name in LAP),
        )


def _sizes(result: Scaling) -> Iterator[tuple[object, ...]]:
    yield (*SIZE, *COST, "device", "dtype", "error")
    here = (result.machine.device, result.dtype)
    for cost in result.costs:
        yield (*(getattr(cost, name) for name in (*SIZE, *COST)), *here, "")
    for lack in result.missing:
        yield (*(getattr(lack, name) for name in SIZE), *("" for _ in COST), *here, lack.error)
