"""Images of any source to shards of codes: in parts that are kept when the work is stopped, over
any number of processes, checked.

Shard i holds the images i * shard_size and on of the source, less those that cannot be read, so it
depends on neither the number of processes nor what was done before.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from aim.checkpoint.tensors import content_hash, read_metadata
from aim.errors import CheckpointError, InvalidInput
from aim.models.vq.model import VQ
from aim.training.data.codes import (
    INDEX,
    CodeSet,
    Index,
    Shard,
    code_dtype,
    differing,
    read_file,
    read_index,
    shard_name,
    tokenizer_version,
    write_index,
)
from aim.training.data.decoding import decoded
from aim.training.data.sources import Images
from aim.training.data.versions import Versions

log = logging.getLogger("aim")


class Report(NamedTuple):
    """What one process did."""

    images: int  # in this process's shards
    encoded: int  # of them, now and not before
    skipped: int  # could not be read
    seconds: float
    complete: bool  # whether the shards of every process are there, and ``codes.json`` is written


@torch.no_grad()
def tokenize_shards(
    model: VQ,
    source: Images,
    out: Path,
    versions: str = "flip",
    *,
    shard_size: int = 10_000,
    batch: int = 32,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Encode every image of ``source`` on the model's device into ``out``; see ``Versions`` and
    ``CodeSet``.

    Process ``rank`` of ``world`` makes each shard whose number is ``rank`` modulo ``world``; shards
    that are there and sound are kept, damaged ones made again. Who finds every shard there at the
    end writes ``codes.json``. Images are decoded by ``workers`` threads. An image that cannot be
    read is named in the log, counted and left out. ``progress`` is told (images done, of all) in
    this process. InvalidInput: shards in ``out`` were made with other settings, or too many images
    in a row cannot be read.
    """
    for name, value in (("shard_size", shard_size), ("batch", batch), ("world", world)):
        if value < 1:
            raise InvalidInput(f"{name} is {value}; it must be at least 1")
    if not 0 <= rank < world:
        raise InvalidInput(f"rank is {rank}; it must be in [0, {world - 1}]")
    plan, start = Versions.parse(versions), time.monotonic()
    settings = _settings(model, source, plan, shard_size, seed)
    mine = range(rank, _number_of_shards(settings), world)
    shards = {number: _sound(out / shard_name(number), number, settings) for number in mine}
    total = sum(len(_span(number, settings)) for number in mine)
    done = sum(len(_span(number, settings)) for number, shard in shards.items() if shard)
    encoded = 0
    tell = progress or (lambda *_: None)
    tell(done, total)

    def tell_of(before: int, count: int) -> None:
        tell(before + count, total)

    pool = ThreadPoolExecutor(workers)
    try:
        for number in (number for number, shard in shards.items() if shard is None):
            span = _span(number, settings)
            made, bad = _encode(
                model, source, span, plan, seed, batch, pool, partial(tell_of, done)
            )
            shards[number] = _write(
                out, number, made._replace(tokenizer=settings["tokenizer"]), bad, settings
            )
            done, encoded = done + len(span), encoded + len(made.labels)
    finally:
        pool.shutdown(cancel_futures=True)
    made_or_kept = [shard for shard in shards.values() if shard]
    images, skipped = sum(s.images for s in made_or_kept), sum(len(s.skipped) for s in made_or_kept)
    return Report(images, encoded, skipped, time.monotonic() - start, _finish(out, settings))


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
    if len(index.shards) != _number_of_shards(index.settings):
        raise InvalidInput(
            f"{out / INDEX} lists {len(index.shards)} shards; its settings need "
            f"{_number_of_shards(index.settings)}"
        )
    for number, shard in enumerate(index.shards):
        path = out / shard_name(number)
        if _verify(path, number, index.settings) != shard:
            raise InvalidInput(
                f"{path} is not the shard that {INDEX} lists; run `python -m aim tokenize` again"
            )
    return index


def _settings(
    model: VQ, source: Images, plan: Versions, shard_size: int, seed: int
) -> dict[str, Any]:
    """All that the codes depend on, as JSON values."""
    return {
        "tokenizer": tokenizer_version(model),
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


def _number_of_shards(settings: dict[str, Any]) -> int:
    return -(-settings["items"] // settings["shard_size"])


def _span(number: int, settings: dict[str, Any]) -> range:
    """The images of the source that shard ``number`` is made of."""
    first = number * settings["shard_size"]
    return range(first, min(first + settings["shard_size"], settings["items"]))


def _encode(
    model: VQ,
    source: Images,
    span: range,
    plan: Versions,
    seed: int,
    batch: int,
    pool: ThreadPoolExecutor,
    tell: Callable[[int], None],
) -> tuple[CodeSet, list[str]]:
    """The images ``span`` of the source as codes, and the names of those that cannot be read.
    ``tell`` hears how many are done.
    """
    config, device = model.config, next(model.parameters()).device

    dtype = code_dtype(config.codebook_size)
    parts: list[Tensor] = []
    labels: list[int] = []
    bad: list[str] = []
    images = decoded(source, span, plan.side(config.image_size), pool, bad)
    while some := list(islice(images, batch)):
        pixels = (
            torch.from_numpy(np.stack([image.pixels for image in some]))
            .to(device)
            .permute(0, 3, 1, 2)
        )
        draws = torch.stack([plan.draws(seed, image.item) for image in some]).to(device)
        parts.append(
            torch.stack(
                [
                    model.encode(version).to(dtype)
                    for version in plan.of(pixels, config.image_size, draws)
                ]
            ).cpu()
        )
        labels += [image.row for image in some]
        tell(some[-1].item - span.start + 1)
    codes = (
        torch.cat(parts, 1) if parts else torch.empty(plan.number, 0, config.grid**2, dtype=dtype)
    )
    tell(len(span))
    return CodeSet(
        codes,
        torch.tensor(labels, dtype=torch.int64),
        source.classes,
        source.names,
        "",
        config.codebook_size,
    ), bad


def _hash(codes: CodeSet, settings: dict[str, Any]) -> str:
    return content_hash(
        {"codes": codes.codes, "labels": codes.labels}, json.dumps(settings, sort_keys=True)
    )


def _write(
    out: Path, number: int, codes: CodeSet, bad: list[str], settings: dict[str, Any]
) -> Shard:
    shard = Shard(
        _span(number, settings).start, len(codes.labels), tuple(bad), _hash(codes, settings)
    )
    about = {"settings": json.dumps(settings), "shard": str(number), "first": str(shard.first)}
    codes.save(out / shard_name(number), {**about, "skipped": json.dumps(bad), "hash": shard.hash})
    return shard


def _sound(path: Path, number: int, settings: dict[str, Any]) -> Shard | None:
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
    codes, labels, span = found.codes, found.labels, _span(number, settings)
    try:
        skipped = tuple(json.loads(about.get("skipped", "[]")))
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged: the names of skipped images cannot be read ({error})"
        ) from error
    shard = Shard(span.start, len(labels), skipped, _hash(found, settings))
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


def _finish(out: Path, settings: dict[str, Any]) -> bool:
    """Write ``codes.json`` if every shard is there and sound; whether that was so. InvalidInput if
    there is not one image in them.
    """
    paths = [out / shard_name(number) for number in range(_number_of_shards(settings))]
    if not all(path.exists() for path in paths):
        return False
    shards = [
        shard for number, path in enumerate(paths) if (shard := _sound(path, number, settings))
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
