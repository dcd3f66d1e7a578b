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


def open_hub(source: str, own: bool, labels: bool = True) -> Part:
    """A data set of the hub, fetched or in the cache; its image files are decoded here, so that a
    damaged one can be skipped. Without ``labels`` it need have no classes.
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
    if image is None or (labels and label is None):
        wanted = " and one of kind ClassLabel" if labels else ""
        raise InvalidInput(f"{source} needs a column of kind Image{wanted}; it has {kinds}")
    data = data.cast_column(image, library.Image(decode=False))
    lock = threading.Lock()

    def read(i: int) -> bytes:
        with lock:
            stored = data[i][image] or {}
        if stored.get("bytes") is None and not stored.get("path"):
            raise ValueError("the data set has none")
        return stored["bytes"] if stored["bytes"] is not None else Path(stored["path"]).read_bytes()

    keys = _hub_keys(data, label, own, source) if labels and label else [""] * len(data)
    return Part(source, [str(i) for i in range(len(keys))], keys, read)


def _hub_keys(data: Any, label: str, own: bool, source: str) -> list[str]:
    """The class of every image. InvalidInput for one that has none."""
    called = [composed(name) for name in _hub_classes(data.features[label].names, own)]
    rows = list(data[label])
    unlabelled = next(
        (i for i, row in enumerate(rows) if row is None or not 0 <= row < len(called)), None
    )
    if unlabelled is not None:
        raise InvalidInput(
            f"{source}, image {unlabelled}, has no class (its label is {rows[unlabelled]}); take "
            "another split"
        )
    return [called[row] for row in rows]


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
