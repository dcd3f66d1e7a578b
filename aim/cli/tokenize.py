"""The command line of tokenizing: ``python -m aim tokenize``, alone or under torchrun."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from aim.cli.options import Device, OwnClasses, settings
from aim.cli.progress import progress


def tokenize(
    images: Annotated[
        list[str],
        typer.Argument(
            help="Class folders, zip files, tar shards, hf:<name>[:<split>].", show_default=False
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the codes; those that are there already are kept.")
    ],
    tokenizer: Annotated[
        str, typer.Option(help="A tokenizer's .safetensors, or a model whose tokenizer it is.")
    ] = "aim-s",
    versions: Annotated[
        str,
        typer.Option(
            help="plain; flip: and the mirror image; random:<number>: and crops; ten-crop: centre "
            "and corners, mirrored."
        ),
    ] = "flip",
    like: Annotated[
        Path | None,
        typer.Option(help="Other codes whose classes these have: for a validation set."),
    ] = None,
    own_classes: OwnClasses = False,
    shard_size: Annotated[int, typer.Option(min=1, help="Images in a file.")] = 10_000,
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 32,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of random crops.")] = 0,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Processes that decode images; 0: threads of this one. Default: of many images "
            "the cores, at most 16.",
        ),
    ] = None,
    dtype: Annotated[
        str,
        typer.Option(
            help="float32, or bfloat16: on a GPU several times as fast, and other codes where two "
            "are nearly as close."
        ),
    ] = "float32",
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Then read every code again and compare with what was written."
        ),
    ] = False,
    device: Device = None,
) -> None:
    """Turn images into codes once, for stage 2.

    An image that cannot be read is named and left out; the same command goes on with what was
    stopped. Several GPUs: start it with torchrun.
    """
    from aim.checkpoint import load_tokenizer_of
    from aim.device import own_device, prepare
    from aim.training.data.codes import read_classes
    from aim.training.data.shards import check as check_all
    from aim.training.data.sources import open_images
    from aim.training.data.tokenize import tokenize_shards

    chosen = settings(device=device)
    rank, world = chosen.rank, chosen.world
    where, computed = prepare(own_device(chosen.device, chosen), dtype, chosen.threads)
    with progress("Loading the tokenizer") as bar:
        model = load_tokenizer_of(tokenizer, where)
        classes, names = read_classes(like) if like else ((), ())
        source = open_images(images, own_classes, classes, names)
        bar.say("Images to codes")
        done = tokenize_shards(
            model, source, out, versions, shard_size=shard_size, batch=batch, seed=seed, rank=rank,
            world=world, workers=workers, dtype=computed,
            progress=bar.move,
        )  # fmt: skip
    rate = f", {done.encoded / done.seconds:.1f} images/s" if done.encoded else ""
    share = f"process {rank}: " if world > 1 else ""
    state = "all codes are there" if done.complete else "other processes are still at work"
    counts = f"{done.encoded} now, {done.skipped} could not be read{rate}"
    # in one piece: other processes write, too
    sys.stdout.write(f"{share}{done.images} images in {out}, {counts}; {state}\n")
    sys.stdout.flush()
    if check and done.complete:
        index = check_all(out)
        print(
            f"checked {sum(shard.images for shard in index.shards)} images in {len(index.shards)} "
            "files",
            flush=True,
        )
