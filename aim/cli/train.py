"""The command line of training: ``python -m aim train``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aim.cli.options import OwnClasses, settings
from aim.cli.progress import progress
from aim.config import AiMConfig, GPTConfig, VQConfig
from aim.training import recipe

if TYPE_CHECKING:
    from torch import Tensor

    from aim.models.prior import Prior
    from aim.models.vq.model import VQ

app = typer.Typer(
    no_args_is_help=True,
    help="Train a model; the same command goes on with a run that was stopped.",
)

SHEET = 16  # pictures

Out = Annotated[
    Path, typer.Option(help="Folder for all that is made; an earlier run in it is resumed.")
]
Images = Annotated[
    list[str],
    typer.Argument(help="Class folders, zip files, tar shards, hf:<name>.", show_default=False),
]
Held = Annotated[
    list[str] | None,
    typer.Option(help="Validation images. Default: a hundredth of the images is held out."),
]
Change = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting, name=value; model.<name>=value of the network."),
]
Tracker = Annotated[str, typer.Option(help="tensorboard, none, or another that accelerate knows.")]
About = Annotated[
    list[str] | None,
    typer.Option(help="For the metadata of what is written, name=text: license=..., data=..."),
]
Storage = Annotated[
    str, typer.Option(help="Of the matrices that are written: float32, bfloat16 or int8.")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda. Default: AIM_DEVICE or auto.")]


@app.callback()
def common() -> None:
    """Train a model."""


@app.command(epilog=recipe.help_of(recipe.PriorRecipe, AiMConfig, GPTConfig))
def prior(
    out: Out,
    codes: Annotated[
        Path | None, typer.Option(help="Training codes: a file, or a folder of shards.")
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(help="In place of codes: images, whose codes are made first, in <out>/codes."),
    ] = None,
    versions: Annotated[
        str, typer.Option(help="Of images: plain, flip, random:<number> or ten-crop.")
    ] = "flip",
    own_classes: OwnClasses = False,
    config: Annotated[
        str,
        typer.Option(
            help="aim-s, -b, -l, -xl, -1b, gpt-s, -b, -l, -xl, a YAML file or a run's config.json."
        ),
    ] = "aim-s",
    val: Annotated[
        Path | None,
        typer.Option(
            help="Validation codes. Default: a hundredth of the training images is held out."
        ),
    ] = None,
    change: Change = None,
    init: Annotated[
        str | None,
        typer.Option(help="Fine-tune: the model to start from, whatever aim.load takes."),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="The tokenizer of the codes, or a model whose it is, for sample sheets and to go "
            "with the model."
        ),
    ] = None,
    fsdp: Annotated[
        bool, typer.Option("--fsdp", help="Share the weights out among the processes.")
    ] = False,
    about: About = None,
    storage: Storage = "bfloat16",
    tracker: Tracker = "tensorboard",
    sheets: Annotated[bool, typer.Option(help="Draw sample sheets at every validation.")] = True,
    device: Device = None,
) -> None:
    """Stage 2: train AiM or the Transformer on codes.

    Several GPUs: start it with torchrun or accelerate launch.
    """
    from aim.training.launch import Options
    from aim.training.train_prior import Inputs, train_prior

    inputs = Inputs(
        config=config,
        codes=codes,
        val=val,
        out=out,
        changes=change or (),
        init=init,
        tokenizer=tokenizer,
        images=images or (),
        versions=versions,
        about=about or (),
        storage=storage,
        own=own_classes,
    )
    with _progress() as on_step:
        options = Options(
            settings(device=device).device, tracker, _sheet if sheets else None, on_step
        )
        code = train_prior(inputs, options, fsdp=fsdp)
    raise typer.Exit(code)


@app.command(epilog=recipe.help_of(recipe.TokenizerRecipe, VQConfig))
def tokenizer(
    images: Images,
    out: Out,
    config: Annotated[
        str,
        typer.Option(help="vq-s, -f4, -f16, a YAML file or a run's config.json."),
    ] = "vq-f16",
    val: Held = None,
    fine: Annotated[
        list[str] | None,
        typer.Option(
            "--fine-images",
            help="Images as large as what comes out, of any classes, where that is more than goes "
            "in.",
        ),
    ] = None,
    change: Change = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Fine-tune: the tokenizer's .safetensors to start from, or a model whose it is."
        ),
    ] = None,
    loss_network: Annotated[
        str | None,
        typer.Option(
            help="Network of the perceptual loss: a file, or lpips-vgg or lpips-alex of the "
            "package lpips. Default: one is trained on the images first."
        ),
    ] = None,
    own_classes: OwnClasses = False,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream", help="Read images while training; otherwise all are kept in memory."
        ),
    ] = False,
    about: About = None,
    storage: Storage = "bfloat16",
    tracker: Tracker = "tensorboard",
    sheets: Annotated[
        bool, typer.Option(help="Draw validation images and what is kept of them.")
    ] = True,
    device: Device = None,
) -> None:
    """Stage 1: train the VQ tokenizer on images.

    Several GPUs: start it with torchrun or accelerate launch.
    """
    from aim.training.launch import Options
    from aim.training.train_tokenizer import Inputs, train_tokenizer

    inputs = Inputs(
        config=config,
        images=images,
        val=val or (),
        out=out,
        changes=change or (),
        init=init,
        loss_network=loss_network,
        stream=stream,
        about=about or (),
        storage=storage,
        fine=fine or (),
        own=own_classes,
    )
    with _progress() as on_step:
        options = Options(
            settings(device=device).device, tracker, _pairs if sheets else None, on_step
        )
        code = train_tokenizer(inputs, options)
    raise typer.Exit(code)


@app.command(epilog=recipe.help_of(recipe.ClassifierRecipe))
def judge(
    images: Images,
    out: Annotated[Path, typer.Option(help="Folder for judge.safetensors.")],
    val: Held = None,
    size: Annotated[
        int, typer.Option(min=8, help="Side that images are scaled to, in pixels.")
    ] = 64,
    own_classes: OwnClasses = False,
    change: Change = None,
    device: Device = None,
) -> None:
    """Train a classifier that evaluation sees pictures with, where Inception cannot be had:
    `aim evaluate --features <out>/judge.safetensors`.
    """
    from aim.device import pick_device
    from aim.training.train_judge import train_judge

    where = pick_device(settings(device=device).device)
    train_judge(images, val or (), out, change or (), size=size, own=own_classes, device=where)


@app.command()
def export(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run, or a copy of its state.pt.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The .safetensors to write.")],
    storage: Storage = "bfloat16",
) -> None:
    """Make a model of the state of a run, whether it is done or not: its averaged weights."""
    from aim.checkpoint import stored_dtype
    from aim.training import keep

    print(f"{out} {keep.export(run, out, stored_dtype(storage))}")


@app.command()
def curves(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.", show_default=False)],
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
) -> None:
    """Draw the losses and figures of runs over time. TensorBoard shows them live."""
    from aim.training.curves import draw_curves

    draw_curves(runs, out)


def _sheet(model: Prior, tokenizer: VQ, to: Path) -> None:
    """Pictures of classes spread over all of them, seed 0 and on, by the averaged model."""
    import torch

    from aim.evaluation.drawing import sample_images
    from aim.files import replacing
    from aim.images.write import contact_sheet, to_image

    count = model.config.num_classes
    rows = [row * count // SHEET for row in range(SHEET)]
    with torch.random.fork_rng(devices=[]):
        images = sample_images(model, tokenizer.eval(), rows, model.config.sampling, batch=SHEET)
    with replacing(to) as unfinished:
        contact_sheet([to_image(image) for image in images], 4).save(unfinished, "PNG")


def _pairs(tokenizer: VQ, images: Tensor, to: Path) -> None:
    """Images, spread over all of them, each beside what the tokenizer keeps of it."""
    from aim.files import replacing
    from aim.images.write import contact_sheet, to_image
    from aim.training.reconstruct import reconstruct

    some = images[:: max(1, len(images) // SHEET)][:SHEET].to(next(tokenizer.parameters()).device)
    pairs = [
        image for pair in zip(some, reconstruct(tokenizer, some), strict=True) for image in pair
    ]
    with replacing(to) as unfinished:
        contact_sheet([to_image(image) for image in pairs], 8).save(unfinished, "PNG")


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    """A bar for a run: called with it after every step."""
    with progress("Loading") as bar:
        yield lambda run: bar.move(run.progress, 1.0, f"step {run.step}")
