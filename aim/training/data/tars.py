"""Tar shards in webdataset's layout as sources of images."""

from __future__ import annotations

import atexit
import bz2
import gzip
import logging
import lzma
import shutil
import sys
import tarfile
import tempfile
from array import array
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import IO, Any, NamedTuple

from aim.classes import composed, imagenet
from aim.errors import InvalidInput
from aim.training.data.files import SUFFIXES, Part, is_hidden, listing

LABEL = "cls"  # ending of a tar member that holds the class of the image of that name
BLOCK = 512  # bytes, what a tar is made of
# compressed as a whole, with what opens them
PACKED: dict[str, Any] = {
    ".tar.gz": gzip.open, ".tgz": gzip.open, ".tar.xz": lzma.open, ".tar.bz2": bz2.open,
}  # fmt: skip
TARS = (".tar", *PACKED)

log = logging.getLogger("aim")


def open_tar(path: Path, own: bool, labels: bool = True) -> Part:
    """List a shard: images, and beside each its class, ImageNet's index unless ``own``; without
    ``labels`` there need be none.
    """
    where, names = path, list[str]()
    keys: list[str] = []
    offsets, sizes = array("Q"), array("Q")
    opener = next((PACKED[end] for end in PACKED if path.name.endswith(end)), None)
    if opener:
        path = _unpacked(path, opener)
    with listing(where), path.open("rb") as file:
        for key, members in groupby(_members(file), key=lambda member: member.key):
            sample = {member.ending: member for member in members}
            image = next(
                (member for ending, member in sample.items() if f".{ending}" in SUFFIXES), None
            )
            if image is None:
                continue
            if labels and LABEL not in sample:
                raise InvalidInput(_unlabelled(where, key, image.ending, file))
            names.append(f"{key}.{image.ending}")
            keys.append(
                _class_key(sample[LABEL].text, own, f"{where}/{key}.{LABEL}")
                if LABEL in sample
                else ""
            )
            offsets.append(image.offset)
            sizes.append(image.size)

    def read(i: int) -> bytes:
        with path.open("rb") as file:  # not kept: there may be thousands of shards
            file.seek(offsets[i])
            return file.read(sizes[i])

    return Part(str(where), names, keys, read)


class _Member(NamedTuple):
    key: str  # name without any ending, folder included
    ending: str  # in small letters
    offset: int  # of the content, in bytes
    size: int  # in bytes
    text: str  # of a class


def _members(file: IO[bytes]) -> Iterator[_Member]:
    """Files of a tar, in their order; contents are skipped but for classes."""
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # they would all be kept
            folder, slash, base = member.name.rpartition("/")
            stem, _, ending = base.partition(".")
            if member.isreg() and stem and not is_hidden(member.name):
                content = tar.extractfile(member) if ending.lower() == LABEL else None
                text = content.read().decode().strip() if content else ""
                yield _Member(
                    f"{folder}{slash}{stem}", ending.lower(), member.offset_data, member.size, text
                )
        file.seek(tar.offset)  # tarfile takes a damaged header for the end
        if file.read(BLOCK) != bytes(BLOCK):
            raise tarfile.ReadError(f"no end mark at byte {tar.offset}")


def _unpacked(path: Path, opener: Any) -> Path:
    """A copy of a compressed tar, gone when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="aim-shard-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    to = folder / path.name
    with listing(path), opener(path, "rb") as packed, to.open("wb") as copy:
        shutil.copyfileobj(packed, copy, 2**20)
    log.warning("%s is compressed; %d MB of it lie in %s", path, to.stat().st_size // 10**6, folder)
    return to


def _unlabelled(path: Path, key: str, ending: str, file: IO[bytes]) -> str:
    if any(member.key == key and member.ending == LABEL for member in _members(file)):
        return (
            f"{path} holds {key}.{ending} and {key}.{LABEL}, but apart; what belongs together must "
            "stand together: pack it again with tar --sort=name"
        )
    return (
        f"{path}/{key}.{ending} has no {key}.{LABEL} beside it; unpack a tar of class folders first"
    )


def _class_key(text: str, own: bool, where: str) -> str:
    """What a class is called: the wnid for ImageNet's index, the text itself for one's own."""
    if not text:
        raise InvalidInput(f"{where} is empty; it must hold a class")
    if own or not text.isdecimal():
        return sys.intern(composed(text))
    if int(text) >= len(imagenet()):
        raise InvalidInput(
            f"{where} says class {text}, which is no ImageNet index; say so if the classes are "
            "your own (--own-classes)"
        )
    return imagenet()[int(text)].wnid
