"""How fast a prior trains from codes on this machine: ``python -m aim bench training``."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from rich.table import Table

from aim.bench.machine import GIB, Machine, synchronize
from aim.bench.table import machine_line
from aim.config import MODELS
from aim.errors import InvalidInput
from aim.models.prior import build
from aim.tables import plain
from aim.training.data.codes import CodeSet
from aim.training.pace import product_parameters
from aim.training.prior import PriorTrainer
from aim.training.recipe import PriorRecipe, Scan

PEAK = 790e12  # floating-point operations a second that an H200 reaches in large bf16 products


@dataclass(frozen=True)
class Throughput:
    """Whole steps of training: forward, backward, clipping, AdamW and averaging."""

    model: str
    scan: str
    batch: int
    compiled: bool
    recomputed: bool  # layers, see PriorRecipe.checkpoint_layers
    dtype: str
    warmup_seconds: float  # the first steps, compilation included
    step_ms: float  # median
    step_ms_min: float
    step_ms_max: float
    images_per_second: float
    tflops: float  # 6 operations a parameter of a product and code, 1e12 a second
    fraction: float  # of PEAK
    peak_memory_gib: float | None
    loss: float  # of the last step: training that diverges measures nothing


def throughput(
    name: str,
    batch: int,
    steps: int,
    device: torch.device,
    compile: bool,
    scan: str,
    recompute: bool,
) -> Throughput:
    """Train ``name`` from random weights on random codes for ``steps`` measured steps, after 5
    others.
    """
    if name not in MODELS:
        raise InvalidInput(f"model is {name!r}; it must be one of {', '.join(MODELS)}")
    if batch < 1 or steps < 1:
        raise InvalidInput(f"batch is {batch} and steps {steps}; both must be at least 1")
    drops: dict[str, Any] = {
        field.name: 0.1
        for field in dataclasses.fields(MODELS[name].config)
        if field.name.endswith("_drop")
    }
    config = dataclasses.replace(MODELS[name].config, **drops)
    torch.manual_seed(0)
    count = 2 * batch
    codes = torch.randint(
        0, config.vocab_size, (2, count, config.num_tokens), dtype=torch.int16, device=device
    )
    data = CodeSet(codes, torch.arange(count, device=device) % config.num_classes, config.classes)
    recipe = PriorRecipe(
        seconds=0,
        steps=10**9,
        batch=batch,
        lr=1e-4,
        compile=compile,
        checkpoint_layers=recompute,
        scan=cast(Scan, scan),
    )
    with torch.device(device):
        model = build(config)
    with tempfile.TemporaryDirectory() as folder:
        trainer = PriorTrainer(model, data, data, recipe, Path(folder))
        start = time.monotonic()
        for _ in range(5):
            trainer._step(0.5)
        synchronize(device)
        warm = time.monotonic() - start
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        seconds = []
        # a step ends by reading the gradient's norm back: the clock sees all but its last updates
        for _ in range(steps):
            start = time.monotonic()
            loss = trainer._step(0.5)["loss"]
            synchronize(device)
            seconds.append(time.monotonic() - start)
    median = statistics.median(seconds)

    def digits(figure: float) -> float:
        return float(f"{figure:.4g}")

    flops = 6 * product_parameters(model) * config.num_tokens * batch / median
    return Throughput(
        model=name,
        scan=scan,
        batch=batch,
        compiled=compile,
        recomputed=recompute,
        dtype="bfloat16" if device.type == "cuda" else "float32",
        warmup_seconds=round(warm, 2),
        step_ms=round(1e3 * median, 2),
        step_ms_min=round(1e3 * min(seconds), 2),
        step_ms_max=round(1e3 * max(seconds), 2),
        images_per_second=digits(batch / median),
        tflops=digits(flops / 1e12),
        fraction=digits(flops / PEAK),
        peak_memory_gib=round(torch.cuda.max_memory_allocated(device) / GIB, 2)
        if device.type == "cuda"
        else None,
        loss=round(loss.item(), 4) if math.isfinite(loss.item()) else loss.item(),
    )


def as_table(results: list[Throughput], machine: Machine) -> Table:
    """A column a result."""
    heads = [f"{result.model}, {result.batch}, {result.scan}" for result in results]
    rows = [
        (name.replace("_", " "), *(str(getattr(result, name)) for result in results))
        for name in Throughput.__dataclass_fields__
    ]
    return plain("Training", ["", *heads], rows, machine_line(machine))


def as_json(results: list[Throughput], machine: Machine) -> str:
    """One line."""
    return json.dumps(
        {
            "training": [dataclasses.asdict(result) for result in results],
            "machine": dataclasses.asdict(machine),
        }
    )
