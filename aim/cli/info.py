"""``python -m aim info``: what is in a model or a tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from aim.cli.options import Heads, ImageSize, Weights
from aim.cli.progress import progress


def info(
    source: Annotated[
        str,
        typer.Argument(
            help="A model's name, a folder, a file or a hub id, or a tokenizer's .safetensors.",
            show_default=False,
        ),
    ],
    image_size: ImageSize = None,
    heads: Heads = None,
    weights: Weights = None,
) -> None:
    """Say what a model or a tokenizer is: sizes, classes, settings, versions; a table, then one
    line of JSON.
    """
    import json

    from rich.console import Console

    from aim.checkpoint import Told
    from aim.checkpoint.describe import describe
    from aim.tables import plain

    with progress("Reading"):
        found = describe(source, Told(image_size, heads, weights))
    Console().print(plain(source, ["fact", "value"], _rows(found), left=2))
    print(json.dumps(found, allow_nan=False))


def _rows(facts: Mapping[str, Any], of: str = "") -> Iterator[tuple[str, str]]:
    for name, value in facts.items():
        title = f"{of}{name.replace('_', ' ')}"
        if isinstance(value, dict):
            yield from _rows(value, "" if name == "about" else f"{title}: ")
        else:
            yield title, f"{value:,}" if isinstance(value, int) else str(value)
