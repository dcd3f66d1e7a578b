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
    Cluster,
    Device,
    Dtype,
    Model,
    Replicas,
    load,
    settings,
    takes_sampling,
)
from aim.cli.progress import progress
from aim.errors import InvalidInput

if TYPE_CHECKING:
    from aim.pipeline import Pipeline
    from aim.settings import Settings

app = typer.Typer()
PATIENCE = timedelta(days=2)  # that a process waits for the slowest
FIGURES = "Figures"


@app.callback(invoke_without_command=True)
@takes_sampling("the preset's")
def evaluate(
    context: typer.Context,
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
    size: Annotated[
        str | None,
        typer.Option(
            help="Pixels each way that pictures are reduced to, bicubically: 256 for what LlamaGen "
            "draws at 384. Default: as drawn.",
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
    replicas: Replicas = None,
    cluster: Cluster = None,
    **sampling: Any,
) -> None:
    """Draw a balanced set of images and compare it with real ones.

    PNGs, ADM's .npz, FID, sFID, KID, IS, precision, recall; a table, then one line of JSON. Several
    GPUs, or cores of a CPU, of which a process uses one: start it with torchrun, or draw with
    --replicas.
    """
    if context.invoked_subcommand:
        _refuse(context)
        return
    import json

    import torch
    from rich.console import Console

    from aim.device import own_device
    from aim.evaluation import run
    from aim.evaluation.features import INCEPTION, load_features
    from aim.evaluation.samples import SampleSet

    where = {"replicas": replicas, "cluster": cluster}
    chosen = settings(
        model=model, device=device, dtype=dtype, backend=backend, ahead=ahead, **where
    )
    if chosen.world > 1 and (replicas or cluster):
        raise InvalidInput("torchrun starts processes that draw, and so does --replicas; take one")
    chosen = dataclasses.replace(chosen, device=own_device(chosen.device, chosen))
    first = chosen.rank == 0
    with _processes(chosen) as wait, progress() as bar:
        pipe = load(chosen, places=batch)
        if pipe.device.type == "cpu" and chosen.threads is None:
            # their number decides last bits, and there is not one number for every number of
            # processes
            torch.set_num_threads(1)
        usual = run.preset(preset, pipe.model.config)
        params = usual.params.replace(**sampling)
        drawn = _classes(pipe, classes) if classes else None
        images = SampleSet(pipe, out, count or usual.images, params, seed, batch, drawn, size)
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


@app.command()
def tokenizer(
    images: Annotated[
        list[str],
        typer.Argument(
            help="Images of any classes: folders, zip files, tar shards, hf:<name>.",
            show_default=False,
        ),
    ],
    tokenizer: Annotated[
        str, typer.Option(help="A tokenizer's .safetensors, or a model whose tokenizer it is.")
    ] = "aim-s",
    last: Annotated[
        int | None, typer.Option(min=1, help="Only so many images, the last by name.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Pixels that images are compared at, where they are that large. Default: what "
            "comes out.",
        ),
    ] = None,
    loss_network: Annotated[
        str | None, typer.Option(help="LPIPS by SqueezeNet in a file, or lpips-vgg or lpips-alex.")
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            help="For rFID, once for each: mobilenet-v2, efficientnet-lite0, inception or a "
            "judge's .safetensors."
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 64,
    device: Device = None,
) -> None:
    """What a tokenizer keeps of images: PSNR, SSIM, LPIPS, rFID, distance in features, and its use
    of the codebook; a table, then one line of JSON.

    What comes out is compared with images as large as that; with smaller ones reduced to the size
    that goes in.
    """
    import json

    from rich.console import Console

    from aim import checkpoint
    from aim.checkpoint.weights import content_hash
    from aim.device import prepare
    from aim.evaluation import reconstruction
    from aim.evaluation.features import load_features
    from aim.evaluation.imagenet import NETWORKS, load_imagenet
    from aim.training.data.sources import open_images
    from aim.training.perceptual import load_lpips

    chosen = settings(device=device)
    where, _ = prepare(chosen.device, "float32", chosen.threads)
    with progress("Loading the tokenizer") as bar:
        model = checkpoint.load_tokenizer_of(tokenizer, where)
        lpips = load_lpips(loss_network).to(where) if loss_network else None
        networks = [
            load_imagenet(name, where, side=0) if name in NETWORKS else load_features(name, where)
            for name in features or ()
        ]
        source = open_images(images, labels=False)
        bar.say("Comparing")
        numbers = reconstruction.last(source, last)
        found = reconstruction.measure_tokenizer(
            model, source, numbers, networks, lpips, batch, size, bar.move
        )
    version = content_hash(model.state_dict(), "")
    result = {"tokenizer": tokenizer, "version": version, "sources": images, "last": last, **found}
    Console().print(reconstruction.as_table(result))
    print(json.dumps(result, allow_nan=False))


def _refuse(context: typer.Context) -> None:
    """InvalidInput for an option of drawing before the name of another command."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise InvalidInput(
                f"--{name.replace('_', '-')} stands before {context.invoked_subcommand}; give that "
                "its own options behind it"
            )


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
