"""A report for people, as a table, and for programs, as one line of JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable

from rich.table import Table

from aim.bench.machine import GIB
from aim.bench.race import Race
from aim.bench.speed import NoRoom, Report, Speed

Cell = Callable[[Speed], str]


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _memory(value: int | None) -> str:
    return "-" if value is None else f"{value / GIB:.2f}"


ROWS: tuple[tuple[str, Cell], ...] = (
    ("a step, ms", lambda s: f"{s.step_ms:.3f}"),
    ("a step, ms, mean", lambda s: f"{s.step_ms_mean:.3f}"),
    ("codes, s", lambda s: _seconds(s.codes_seconds)),
    ("codes and pictures, s", lambda s: _seconds(s.seconds)),
    ("  least to most", lambda s: f"{_seconds(s.seconds_min)} - {_seconds(s.seconds_max)}"),
    ("images/s", lambda s: f"{s.images_per_second:.2f}"),
    ("images/s, decoding overlapped", lambda s: "-" if s.images_per_second_overlapped is None else f"{s.images_per_second_overlapped:.2f}"),
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


def as_table(report: Report) -> Table:
    """A column for every batch size."""
    m = report.machine
    table = Table(title=f"{report.model}, {report.dtype}, {report.backend}, guidance {report.guidance:g}", title_justify="left")
    accelerator = f"driver {m.driver}, CUDA {m.cuda}, Triton {m.triton}, " if m.cuda else f"{m.threads} threads, "
    bandwidth = f"copies {report.copy_bandwidth / 1e9:.0f} GB/s; backend chosen in {report.trial_seconds:.1f} s"
    table.caption = f"{m.name}, {accelerator}PyTorch {m.pytorch}, Python {m.python}, aim {m.aim}; {bandwidth}; weights: {report.version}"
    table.caption_justify = "left"
    table.add_column("batch")
    for result in report.batches:
        table.add_column(str(result.batch), justify="right")
    for title, cell in ROWS:
        table.add_row(title, *("-" if isinstance(result, NoRoom) else cell(result) for result in report.batches))
    if any(isinstance(result, NoRoom) for result in report.batches):
        table.add_row("", *(result.error if isinstance(result, NoRoom) else "" for result in report.batches))
    return table


def as_json(result: Report | Race, timestamps: bool = True) -> str:
    """One line; nothing in it is NaN or infinite. Without ``timestamps`` a race lacks the times of single codes, which are most of it."""
    found = dataclasses.asdict(result)
    for lap in [] if timestamps else [lap for racer in found.get("racers", ()) for lap in racer["laps"]]:
        del lap["code_seconds"]
    return json.dumps(found, allow_nan=False)


LAP = ("codes_seconds", "first_code_seconds", "decode_seconds", "seconds")
SAMPLING = ("cfg_scale", "temperature", "top_k", "top_p")
RACE = ("lap", "model", "version", "backend", "device", "dtype", "class", "batch", "tokens", *SAMPLING, *LAP)


def as_csv(result: Race) -> str:
    """A row for every lap, in the order in which they were run: what raced, and the lap's seconds."""
    rows: list[tuple[object, ...]] = [RACE]
    laps = [iter(racer.laps) for racer in result.racers]
    work = (result.device, result.dtype, result.label, result.batch, result.tokens, *(getattr(result.sampling, name) for name in SAMPLING))
    for number, turn in enumerate(result.order):
        racer, lap = result.racers[turn], next(laps[turn])
        rows.append((number + 1, racer.name, racer.version, racer.backend, *work, *(f"{getattr(lap, name):.6f}" for name in LAP)))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
