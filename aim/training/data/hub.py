"""Data sets of the hub as sources of images."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aim.classes import composed, imagenet
from aim.errors import HubError, InvalidInput
from aim.training.data.files import Part

HUB = "hf:"


def open_hub(source: str, own: bool) -> Part:
    """A data set of the hub, fetched or in the cache; its image files are decoded here, so that a
    damaged one can be skipped.
    """
    name, _, split = source.removeprefix(HUB).partition(":")
    try:
        library: Any = importlib.import_module("datasets")
    except ImportError as error:
        raise InvalidInput(
            f"{source} needs the library datasets: pip install datasets, or give a folder, zip "
            "file or tar"
        ) from error
    split = split or "train"
    try:
        data = library.load_dataset(name, split=split)
    except (
        Exception
    ) as error:  # of its own, the transport's and the file system's: to a user all are the same
        raise HubError(
            f"{source}, split {split!r}, cannot be had ({error}); check name, connection and login"
        ) from error
    kinds = {column: type(feature).__name__ for column, feature in data.features.items()}
    image = next((column for column, kind in kinds.items() if kind == "Image"), None)
    label = next((column for column, kind in kinds.items() if kind == "ClassLabel"), None)
    if image is None or label is None:
        raise InvalidInput(
            f"{source} needs a column of kind Image and one of kind ClassLabel; it has {kinds}"
        )
    data = data.cast_column(image, library.Image(decode=False))
    called = _hub_classes(data.features[label].names, own)
    lock = threading.Lock()

    def read(i: int) -> bytes:
        with lock:
            stored = data[i][image] or {}
        if stored.get("bytes") is None and not stored.get("path"):
            raise ValueError("the data set has none")
        return stored["bytes"] if stored["bytes"] is not None else Path(stored["path"]).read_bytes()

    labels = list(data[label])
    unlabelled = next(
        (i for i, row in enumerate(labels) if row is None or not 0 <= row < len(called)), None
    )
    if unlabelled is not None:
        raise InvalidInput(
            f"{source}, image {unlabelled}, has no class (its label is {labels[unlabelled]}); take "
            "another split"
        )
    return Part(
        source,
        [str(i) for i in range(len(labels))],
        [composed(called[row]) for row in labels],
        read,
    )


def _hub_classes(names: Sequence[str], own: bool) -> list[str]:
    """Wnids if these are ImageNet-1k's class names in its order, else the names themselves, which
    may be wnids.
    """
    table = imagenet()
    alike = sum(
        name.split(",")[0] == entry.synonyms[0] for name, entry in zip(names, table, strict=False)
    )
    return (
        [entry.wnid for entry in table]
        if not own and len(names) == len(table) and 2 * alike > len(table)
        else list(names)
    )
