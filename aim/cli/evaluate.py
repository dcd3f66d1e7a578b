"""The command line of an evaluation: ``python -m aim evaluate``, alone or under torchrun."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from aim.settings import Settings

PATIENCE = timedelta(days=2)  # that a process waits for the slowest
SAMPLING = "Sampling"
FIGURES = "Figures"


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
    cfg_scale: Annotated[
        float | None,
        typer.Option(help="Guidance. Default: the preset's.", rich_help_panel=SAMPLING),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Default: the preset's.", rich_help_panel=SAMPLING)
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Default: the preset's.", rich_help_panel=SAMPLING)
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Default: the preset's.", rich_help_panel=SAMPLING)
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Real images: a folder, or a .npz of ADM's evaluator.", rich_help_panel=FIGURES
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="inception (needs torch-fidelity), or a judge's .safetensors. Default: inception where there is a reference, else none.",
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
    model: Annotated[
        str | None, typer.Option(help="Name, folder, file or hub id. Default: AIM_MODEL or aim-s.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="auto, cpu, cuda, cuda:<number> or mps. Default: AIM_DEVICE or auto."),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="auto, float32 or bfloat16. Default: AIM_DTYPE or auto.")
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(help="auto, fused, mamba-ssm or eager. Default: AIM_BACKEND or auto."),
    ] = None,
) -> None:
    """Draw a balanced set of images and compare it with real ones: PNGs, ADM's .npz, FID, sFID, IS,
    precision and recall; a table, then one line of JSON. Several GPUs, or cores of a CPU, of which
    a process uses one: start it with torchrun.
    """
    import json

    import torch
    from rich.console import Console

    from aim.device import own_device
    from aim.evaluation import run
    from aim.evaluation.features import load_features
    from aim.evaluation.samples import SampleSet
    from aim.pipeline import load

    settings = Settings.from_env()
    first = settings.rank == 0
    where = own_device(device or settings.device, settings)
    with _processes(settings) as wait, _progress(first) as (say, progress):
        say("Loading the model")
        pipe = load(
            model or settings.model, where, dtype or settings.dtype, backend or settings.backend
        )
        if pipe.device.type == "cpu" and settings.threads is None:
            # their number decides last bits, and there is not one number for every number of
            # processes
            torch.set_num_threads(1)
        chosen = run.preset(preset, pipe.model.config)
        params = chosen.params.replace(
            cfg_scale=cfg_scale, temperature=temperature, top_k=top_k, top_p=top_p
        )
        images = SampleSet(pipe, out, count or chosen.images, params, seed, batch)
        source = features or ("inception" if reference or inception else None)
        network = load_features(source, pipe.device, inception) if source and first else None
        result = run.evaluate(
            images,
            network,
            reference if first else None,
            cache=cache,
            npz=npz,
            rank=settings.rank,
            world=settings.world,
            wait=wait,
            progress=progress,
            say=say,
        )
        pipe.close()
    if result is not None:
        Console().print(run.as_table(result))
        print(json.dumps(result, allow_nan=False))


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


@contextlib.contextmanager
def _progress(first: bool) -> Iterator[tuple[Callable[[str], Any], Callable[[int, int], Any]]]:
    """A line on standard error for the first process, silent where that is no terminal: what is
    being done, and how much of it.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description} ..."),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not (first and console.is_terminal)
    ) as bar:
        task = bar.add_task("", total=None)
        yield (
            lambda text: bar.reset(task, description=text, total=None),
            lambda done, total: bar.update(task, completed=done, total=total),
        )
