"""The command line of an evaluation: ``python -m aim evaluate``, alone or under torchrun."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aim.cli.options import (
    SAMPLING,
    Ahead,
    Backend,
    Device,
    Dtype,
    Model,
    load,
    settings,
    takes_sampling,
)
from aim.cli.progress import progress

if TYPE_CHECKING:
    from aim.pipeline import Pipeline
    from aim.settings import Settings

PATIENCE = timedelta(days=2)  # that a process waits for the slowest
FIGURES = "Figures"


@takes_sampling("the preset's")
def evaluate(
    out: Annotated[
        Path,
        typer.Option(help="Folder for all that is made; a set in it that was cut off is finished."),
    ] = Path("evaluation"),
    preset: Annotated[
        str,
        typer.Option(
            help="shipped: the model's settings, 5,000 images; paper: the paper's, 50,000.",
            rich_help_panel=SAMPLING,
        ),
    ] = "shipped",
    count: Annotated[
        int | None,
        typer.Option(min=1, help="Images. Default: the preset's.", rich_help_panel=SAMPLING),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Image i is drawn with seed + i.", rich_help_panel=SAMPLING)
    ] = 0,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            help="Only these: indices, names, or a model whose classes they are; once for each.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            help="Real images: folders, zip files, tar shards, once for each, or a .npz of ADM's "
            "evaluator.",
            rich_help_panel=FIGURES,
        ),
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            help="inception (needs torch-fidelity), mobilenet-v2, efficientnet-lite0, or a judge's "
            ".safetensors, once for each. Default: inception where there is a reference.",
            rich_help_panel=FIGURES,
        ),
    ] = None,
    inception: Annotated[
        Path | None,
        typer.Option(
            help="File of torch-fidelity's Inception weights. Default: fetched once.",
            rich_help_panel=FIGURES,
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder for statistics of references. Default: beside the reference.",
            rich_help_panel=FIGURES,
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images at once in each process.")] = 64,
    npz: Annotated[bool, typer.Option(help="Also ADM's samples.npz.")] = True,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    backend: Backend = None,
    ahead: Ahead = None,
    **sampling: Any,
) -> None:
    """Draw a balanced set of images and compare it with real ones.

    PNGs, ADM's .npz, FID, sFID, IS, precision and recall; a table, then one line of JSON. Several
    GPUs, or cores of a CPU, of which a process uses one: start it with torchrun.
    """
    import json

    import torch
    from rich.console import Console

    from aim.device import own_device
    from aim.evaluation import run
    from aim.evaluation.features import INCEPTION, load_features
    from aim.evaluation.samples import SampleSet

    chosen = settings(model=model, device=device, dtype=dtype, backend=backend, ahead=ahead)
    chosen = dataclasses.replace(chosen, device=own_device(chosen.device, chosen))
    first = chosen.rank == 0
    with _processes(chosen) as wait, progress() as bar:
        pipe = load(chosen)
        if pipe.device.type == "cpu" and chosen.threads is None:
            # their number decides last bits, and there is not one number for every number of
            # processes
            torch.set_num_threads(1)
        usual = run.preset(preset, pipe.model.config)
        params = usual.params.replace(**sampling)
        drawn = _classes(pipe, classes) if classes else None
        images = SampleSet(pipe, out, count or usual.images, params, seed, batch, drawn)
        names = features or ([INCEPTION] if reference or inception else [])
        networks = [
            load_features(
                name,
                pipe.device,
                inception if name == INCEPTION or INCEPTION not in names else None,
            )
            for name in names
            if first
        ]
        result = run.evaluate(
            images,
            networks,
            reference or (),
            cache=cache,
            npz=npz,
            rank=chosen.rank,
            world=chosen.world,
            wait=wait,
            progress=bar.move,
            say=bar.say,
        )
        pipe.close()
    if result is not None:
        Console().print(run.as_table(result))
        print(json.dumps(result, allow_nan=False))


def _classes(pipe: Pipeline, asked: list[str]) -> tuple[int, ...]:
    """Indices of classes that are named, or that another model has, in the order of the model's
    rows.
    """
    from aim.checkpoint import load_model
    from aim.classes import Labels
    from aim.config import MODELS

    found = set()
    for text in asked:
        if text in MODELS or Path(text).exists():
            other = Labels.of(load_model(text).model.config)
            found |= {pipe.resolve(other.key(index)) for index in other.indices}
        else:
            found.add(pipe.resolve(text))
    return tuple(index for index in pipe.classes if index in found)


@contextlib.contextmanager
def _processes(settings: Settings) -> Iterator[Callable[[], object]]:
    """A function that returns when every process has called it; they meet through gloo."""
    import torch.distributed as dist

    if settings.world == 1:
        yield int
        return
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield dist.barrier
    finally:
        dist.destroy_process_group()
