"""Shards of codes: which images each holds, and whether it is sound.

Shard i holds the images i * shard_size and on of the source, less those that cannot be read, so it
depends on neither the number of processes nor what was done before.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from aim.checkpoint.weights import read_metadata
from aim.errors import CheckpointError, InvalidInput
from aim.models.vq.model import VQ
from aim.training.data.codes import (
    INDEX,
    Index,
    Shard,
    differing,
    hash_of,
    read_file,
    read_index,
    shard_name,
    write_index,
)
from aim.training.data.sources import Images
from aim.training.data.versions import Versions

log = logging.getLogger("aim")


def check(out: Path) -> Index:
    """Read every shard of a finished folder: its settings, its counts, codes within the codebook,
    labels within the classes, each byte.

    InvalidInput or CheckpointError names the first shard in which something is wrong.
    """
    index = read_index(out)
    first = out / shard_name(0)
    if wrong := differing(index.settings, read_metadata(first), first):
        raise InvalidInput(
            f"{out / INDEX} and {first} do not go together: in the latter {wrong}; run `python -m "
            "aim tokenize` again"
        )
    if len(index.shards) != number_of_shards(index.settings):
        raise InvalidInput(
            f"{out / INDEX} lists {len(index.shards)} shards; its settings need "
            f"{number_of_shards(index.settings)}"
        )
    for number, shard in enumerate(index.shards):
        path = out / shard_name(number)
        if _verify(path, number, index.settings) != shard:
            raise InvalidInput(
                f"{path} is not the shard that {INDEX} lists; run `python -m aim tokenize` again"
            )
    return index


def settings_of(
    model: VQ, version: str, source: Images, plan: Versions, shard_size: int, seed: int
) -> dict[str, Any]:
    """All that the codes depend on, as JSON values; ``version`` as of ``tokenizer_version``."""
    return {
        "tokenizer": version,
        "dtype": str(model.dtype).removeprefix("torch."),
        "image_size": model.config.image_size,
        "codebook_size": model.config.codebook_size,
        "tokens": model.config.grid**2,
        "versions": f"{plan.kind}:{plan.number}",
        "seed": seed,
        "data": source.fingerprint(),
        "items": len(source),
        "shard_size": shard_size,
        "classes": list(source.classes),
        "names": list(source.names),
    }


def number_of_shards(settings: dict[str, Any]) -> int:
    """Of all images, by what ``settings_of`` says of them."""
    return -(-settings["items"] // settings["shard_size"])


def span_of(number: int, settings: dict[str, Any]) -> range:
    """The images of the source that shard ``number`` is made of."""
    first = number * settings["shard_size"]
    return range(first, min(first + settings["shard_size"], settings["items"]))


def _verify(path: Path, number: int, settings: dict[str, Any]) -> Shard:
    """What is in shard ``number``. CheckpointError for a damaged one, InvalidInput for one that is
    not of these settings.
    """
    found, about = read_file(path)
    if wrong := differing(settings, about, path):
        raise InvalidInput(
            f"{path} was made with other settings, its {wrong}; choose another folder, or delete "
            "the codes in this one"
        )
    codes, labels, span = found.codes, found.labels, span_of(number, settings)
    try:
        skipped = tuple(json.loads(about.get("skipped", "[]")))
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged: the names of skipped images cannot be read ({error})"
        ) from error
    shard = Shard(span.start, len(labels), skipped, hash_of(found, settings))
    itself = {
        "classes": list(found.classes),
        "names": list(found.names),
        "tokenizer": found.tokenizer,
        "codebook_size": found.codebook_size,
    }
    as_written = all(settings[name] == value for name, value in itself.items())
    if not as_written or about.get("hash") != shard.hash or about.get("shard") != str(number):
        raise CheckpointError(
            f"{path} is damaged: its content is not what was written as shard {number}"
        )
    wanted = (
        int(settings["versions"].partition(":")[2]),
        len(span) - len(skipped),
        settings["tokens"],
    )
    if tuple(codes.shape) != wanted or len(labels) != wanted[1]:
        raise InvalidInput(
            f"{path} holds codes {tuple(codes.shape)} with {len(labels)} labels; by its settings "
            f"they are {wanted}: delete it"
        )
    for what, values, size in (
        ("codes", codes, settings["codebook_size"]),
        ("labels", labels, len(settings["classes"] or settings["names"])),
    ):
        low, high = (values.min().item(), values.max().item()) if values.numel() else (0, 0)
        if low < 0 or high >= size:
            raise InvalidInput(
                f"{path} has {what} from {low} to {high}; they must be in [0, {size - 1}]: delete "
                "it and tokenize again"
            )
    return shard


def sound(path: Path, number: int, settings: dict[str, Any]) -> Shard | None:
    """The shard in ``path`` if it is whole; None if it is to be made. InvalidInput if it was made
    with other settings.
    """
    if not path.exists():
        return None
    try:
        return _verify(path, number, settings)
    except CheckpointError as error:
        log.warning("made again: %s", error)
        return None


def finish(out: Path, settings: dict[str, Any]) -> bool:
    """Write ``codes.json`` if every shard is there and sound; whether that was so. InvalidInput if
    there is not one image in them.
    """
    paths = [out / shard_name(number) for number in range(number_of_shards(settings))]
    if not all(path.exists() for path in paths):
        return False
    shards = [
        shard for number, path in enumerate(paths) if (shard := sound(path, number, settings))
    ]
    if len(shards) < len(paths):
        return False
    if not any(shard.images for shard in shards):
        raise InvalidInput(
            f"none of the {settings['items']} images can be read; the first is "
            f"{shards[0].skipped[0]}"
        )
    write_index(out, Index(settings, tuple(shards)))
    return True
