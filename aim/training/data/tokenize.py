"""Images of any source to shards of codes: in parts that are kept when the work is stopped, over
any number of processes, checked.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from aim.errors import InvalidInput
from aim.files import sweep
from aim.models.vq.model import VQ
from aim.training.data.codes import (
    CodeSet,
    Shard,
    code_dtype,
    hash_of,
    shard_name,
    tokenizer_version,
)
from aim.training.data.decoding import decoded
from aim.training.data.shards import finish, number_of_shards, settings_of, sound, span_of
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
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Encode every image of ``source`` on the model's device into ``out``; see ``Versions`` and
    ``CodeSet``. The model's convolutions are cast to ``dtype``.

    Process ``rank`` of ``world`` makes each shard whose number is ``rank`` modulo ``world``; shards
    that are there and sound are kept, damaged ones made again. Who finds every shard there at the
    end writes ``codes.json``. Images are decoded by ``workers`` processes, see ``decoded``. An
    image that cannot be read is named in the log, counted and left out. ``progress`` is told
    (images done, of all) in this process. InvalidInput: shards in ``out`` were made with other
    settings, or too many images in a row cannot be read.
    """
    for name, value in (("shard_size", shard_size), ("batch", batch), ("world", world)):
        if value < 1:
            raise InvalidInput(f"{name} is {value}; it must be at least 1")
    if not 0 <= rank < world:
        raise InvalidInput(f"rank is {rank}; it must be in [0, {world - 1}]")
    plan, start = Versions.parse(versions), time.monotonic()
    version = tokenizer_version(model)  # whatever it computes in
    settings = settings_of(model.to_dtype(dtype), version, source, plan, shard_size, seed)
    mine = range(rank, number_of_shards(settings), world)
    shards = {number: sound(out / shard_name(number), number, settings) for number in mine}
    total = sum(len(span_of(number, settings)) for number in mine)
    done = sum(len(span_of(number, settings)) for number, shard in shards.items() if shard)
    encoded = 0
    tell = progress or (lambda *_: None)
    tell(done, total)

    def tell_of(before: int, count: int) -> None:
        tell(before + count, total)

    for number in (number for number, shard in shards.items() if shard is None):
        span = span_of(number, settings)
        made, bad = _encode(model, source, span, plan, seed, batch, workers, partial(tell_of, done))
        shards[number] = _write(
            out, number, made._replace(tokenizer=settings["tokenizer"]), bad, settings
        )
        done, encoded = done + len(span), encoded + len(made.labels)
    made_or_kept = [shard for shard in shards.values() if shard]
    images, skipped = sum(s.images for s in made_or_kept), sum(len(s.skipped) for s in made_or_kept)
    return Report(images, encoded, skipped, time.monotonic() - start, finish(out, settings))


def _encode(
    model: VQ,
    source: Images,
    span: range,
    plan: Versions,
    seed: int,
    batch: int,
    workers: int | None,
    tell: Callable[[int], None],
) -> tuple[CodeSet, list[str]]:
    """The images ``span`` of the source as codes, and the names of those that cannot be read.
    ``tell`` hears how many are done.
    """
    config, device = model.config, next(model.parameters()).device

    dtype = code_dtype(config.codebook_size)
    parts: list[Tensor] = []
    computing: deque[torch.cuda.Event] = deque()  # batches, on a GPU
    labels: list[int] = []
    bad: list[str] = []
    images = decoded(source, span, plan.side(config.image_size), bad, workers)
    while some := list(islice(images, batch)):
        stacked = torch.from_numpy(np.stack([image.pixels for image in some]))
        stacked = stacked.pin_memory() if device.type == "cuda" else stacked
        pixels = stacked.to(device, non_blocking=True).permute(0, 3, 1, 2)
        draws = torch.stack([plan.draws(seed, image.item) for image in some]).to(device)
        versions = plan.of(pixels, config.image_size, draws)
        parts.append(torch.stack([model.encode(version).to(dtype) for version in versions]))
        if device.type == "cuda":
            computing.append(torch.cuda.current_stream(device).record_event())
            if len(computing) > 2:  # the next are read while it computes
                computing.popleft().synchronize()
        labels += [image.row for image in some]
        tell(some[-1].item - span.start + 1)
    codes = (
        torch.cat(parts, 1).cpu()
        if parts
        else torch.empty(plan.number, 0, config.grid**2, dtype=dtype)
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


def _write(
    out: Path, number: int, codes: CodeSet, bad: list[str], settings: dict[str, Any]
) -> Shard:
    shard = Shard(
        span_of(number, settings).start, len(codes.labels), tuple(bad), hash_of(codes, settings)
    )
    sweep(out, shard_name(number))
    about = {"settings": json.dumps(settings), "shard": str(number), "first": str(shard.first)}
    codes.save(out / shard_name(number), {**about, "skipped": json.dumps(bad), "hash": shard.hash})
    return shard
