"""``python -m aim export`` and ``push``: models into the layouts that others read, and to a hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aim.cli.options import Heads, ImageSize, Weights
from aim.cli.progress import progress

Source = Annotated[
    str,
    typer.Argument(help="A model's name, a folder, a file or a hub id.", show_default=False),
]
Storage = Annotated[
    str | None,
    typer.Option(
        help="What matrices are stored in: float32, bfloat16 or int8 (ours alone). Default: as "
        "they are in this package's own files, else float32."
    ),
]


def export(
    source: Source,
    folder: Annotated[
        Path, typer.Argument(help="A folder that is new or empty.", show_default=False)
    ],
    layout: Annotated[
        str, typer.Option(help="ours, official (AiM's) or llamagen (its PyTorch files).")
    ] = "ours",
    storage: Storage = None,
    image_size: ImageSize = None,
    heads: Heads = None,
    weights: Weights = None,
) -> None:
    """Write a model and its tokenizer in a layout that others read; say which files."""
    from aim import checkpoint

    with progress("Writing"):
        told = checkpoint.Told(image_size, heads, weights)
        checkpoint.export(source, folder, layout, storage, told)
    for path in sorted(folder.iterdir()):
        print(path)


def push(
    source: Source,
    repo: Annotated[str, typer.Argument(help="owner/name on the hub.", show_default=False)],
    layout: Annotated[str, typer.Option(help="ours or official (AiM's).")] = "ours",
    storage: Storage = None,
    license: Annotated[
        str | None,
        typer.Option(
            help="For the card: mit, cc-by-nc-4.0, other ... Default: what the file says."
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="A repository that is new is not public.")
    ] = False,
    image_size: ImageSize = None,
    heads: Heads = None,
    weights: Weights = None,
) -> None:
    """Write a model to the hub with a card, and say where. Log in with `hf auth login` or HF_TOKEN
    first.
    """
    from aim import checkpoint

    with progress("Sending"):
        told = checkpoint.Told(image_size, heads, weights)
        print(checkpoint.push(source, repo, layout, storage, license, private, told))
