"""Images to codes, once: what stage 2 trains on.

Codes are one file, or a folder of shards with ``codes.json``, which ``aim.training.data.tokenize``
writes when all of them are there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aim.checkpoint.config_json import parse_json, to_values
from aim.checkpoint.shards import opened
from aim.checkpoint.weights import content_hash, write
from aim.errors import CheckpointError, InvalidInput
from aim.files import replace
from aim.models.vq.model import VQ

FORMAT = "aim-codes"
INDEX = "codes.json"  # of a folder of shards


class CodeSet(NamedTuple):
    """Several versions of every image as codes. Version 0 is the image, 1 its mirror image, the
    others crops.
    """

    codes: Tensor  # (versions, N, T) int16, or int32 for a codebook that needs it
    labels: Tensor  # (N,) int64, class rows
    classes: tuple[int, ...]  # ImageNet index of each row; empty: classes of one's own
    names: tuple[str, ...] = ()  # of the rows, where the classes are one's own
    tokenizer: str = ""  # ``tokenizer_version`` of what made the codes; empty: not known
    codebook_size: int = 0  # of the tokenizer; 0: not known

    def save(self, path: Path, also: Mapping[str, str] | None = None) -> None:
        """Write as safetensors, with ``also`` in the metadata."""
        about = {
            "names": json.dumps(self.names),
            "tokenizer": self.tokenizer,
            "codebook_size": str(self.codebook_size),
        }
        classes = torch.tensor(self.classes, dtype=torch.int64)
        write(
            path,
            {"codes": self.codes, "labels": self.labels, "classes": classes},
            {**about, **(also or {}), "format": FORMAT},
        )

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> CodeSet:
        """Read what ``save`` wrote, or a finished folder of shards, whose parts are put together on
        ``device``.

        InvalidInput for another file, an unfinished folder or shards of several kinds,
        CheckpointError for one that cannot be read.
        """
        if path.is_dir():
            return _load_shards(path, device)
        found, _ = read_file(path)
        return found.to(device)

    def to(self, device: torch.device | str) -> CodeSet:
        """The same codes on another device."""
        return self._replace(codes=self.codes.to(device), labels=self.labels.to(device))


class Shard(NamedTuple):
    """What ``codes.json`` says of a shard; of the one with number i the file is
    ``shard_name(i)``.
    """

    first: int  # image of the source, from 0
    images: int  # how many are in it
    skipped: tuple[str, ...]  # names of the images that could not be read
    hash: str  # of its content


class Index(NamedTuple):
    """What ``codes.json`` holds."""

    settings: dict[str, Any]  # all that the codes depend on; the same in every shard
    shards: tuple[Shard, ...]


def tokenizer_version(model: VQ) -> str:
    """12 hex digits that change with what decides a tokenizer's codes: configuration, encoder and
    codebook, whatever the decoder is.
    """
    weights = {
        n: weight.float()
        for n, weight in model.state_dict().items()
        if not n.startswith(("decoder.", "post_quant_conv."))
    }
    return content_hash(weights, json.dumps(to_values(model.config)))


def shard_name(number: int) -> str:
    """The file of shard ``number``, from 0."""
    return f"codes-{number:05d}.safetensors"


def code_dtype(codebook_size: int) -> torch.dtype:
    """The smallest dtype for codes that PyTorch computes with."""
    return torch.int16 if codebook_size <= 2**15 else torch.int32


def hash_of(codes: CodeSet, settings: dict[str, Any]) -> str:
    """Of codes and labels and what they were made with."""
    return content_hash(
        {"codes": codes.codes, "labels": codes.labels}, json.dumps(settings, sort_keys=True)
    )


def read_file(path: Path) -> tuple[CodeSet, dict[str, str]]:
    """The codes in one file, on the CPU, and its metadata; errors as of ``CodeSet.load``."""
    with opened(path) as file:
        about = file.metadata() or {}
        if about.get("format") != FORMAT:
            raise InvalidInput(
                f"{path} is not a file of codes; make one with `python -m aim tokenize`"
            )
        codes, labels, classes = (file.get_tensor(name) for name in ("codes", "labels", "classes"))
    try:
        names, size = (
            tuple(json.loads(about.get("names", "[]"))),
            int(about.get("codebook_size", 0)),
        )
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged: what it says of itself cannot be read ({error})"
        ) from error
    return CodeSet(
        codes, labels, tuple(classes.tolist()), names, about.get("tokenizer", ""), size
    ), about


def read_classes(path: Path) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Class rows of codes, a file or a folder: ImageNet indices, or the names of one's own
    classes.
    """
    found, _ = read_file(path / shard_name(0) if path.is_dir() else path)
    return found.classes, found.names


def read_index(folder: Path) -> Index:
    """What is in a finished folder; InvalidInput if it is not finished, CheckpointError for a
    damaged ``codes.json``.
    """
    path = folder / INDEX
    if not path.is_file():
        raise InvalidInput(
            f"{folder} has no {INDEX}: its codes are not finished; run `python -m aim tokenize` "
            "again to go on with them"
        )
    values = parse_json(path.read_text(encoding="utf-8"), path)
    try:
        if values["format"] != FORMAT:
            raise InvalidInput(f"{path} is no list of codes; its format is {values['format']!r}")
        shards = tuple(
            Shard(int(s["first"]), int(s["images"]), tuple(s["skipped"]), str(s["hash"]))
            for s in values["shards"]
        )
        return Index(dict(values["settings"]), shards)
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error!r}); delete it and run `python -m aim tokenize` again"
        ) from error


def write_index(folder: Path, index: Index) -> None:
    """Write ``codes.json``, whole or not at all."""
    counts = {
        "images": sum(s.images for s in index.shards),
        "skipped": sum(len(s.skipped) for s in index.shards),
    }
    shards = [{"file": shard_name(i), **s._asdict()} for i, s in enumerate(index.shards)]
    values = {"format": FORMAT, **counts, "settings": index.settings, "shards": shards}
    replace(folder / INDEX, json.dumps(values, indent=1) + "\n")


def differing(settings: Mapping[str, Any], about: Mapping[str, str], path: Path) -> str:
    """In words, the first setting in which a shard with metadata ``about`` differs from
    ``settings``; empty if none does.
    """
    found = parse_json(about.get("settings", "{}"), path)
    wrong = next(
        (name for name in sorted({*settings, *found}) if settings.get(name) != found.get(name)),
        None,
    )
    return (
        ""
        if wrong is None
        else f"{wrong} is {_short(found.get(wrong))}, not {_short(settings.get(wrong))}"
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _load_shards(folder: Path, device: torch.device | str) -> CodeSet:
    settings, shards = read_index(folder)
    ends = list(accumulate(shard.images for shard in shards))
    whole: CodeSet | None = None
    for number, (shard, end) in enumerate(zip(shards, ends, strict=True)):
        path = folder / shard_name(number)
        part, about = read_file(path)
        if wrong := differing(settings, about, path):
            raise InvalidInput(
                f"{path} is not of the kind that {INDEX} says: its {wrong}; delete it and run "
                "`python -m aim tokenize` again"
            )
        if part.codes.shape[1] != shard.images or len(part.labels) != shard.images:
            raise InvalidInput(
                f"{path} has {len(part.labels)} images, {INDEX} says {shard.images}; delete both "
                "and tokenize again"
            )
        if shard.hash != hash_of(part, settings):
            raise CheckpointError(
                f"{path} is damaged: it holds other codes than were written; delete it and run "
                "`python -m aim tokenize` again, which makes it alone"
            )
        if whole is None:
            shape = (len(part.codes), ends[-1], part.codes.shape[2])
            codes = torch.empty(shape, dtype=part.codes.dtype, device=device)
            whole = part._replace(
                codes=codes, labels=torch.empty(ends[-1], dtype=torch.int64, device=device)
            )
        whole.codes[:, end - shard.images : end] = part.codes
        whole.labels[end - shard.images : end] = part.labels
    if whole is None:
        raise CheckpointError(
            f"{folder / INDEX} lists no shards; delete it and run `python -m aim tokenize` again"
        )
    return whole
