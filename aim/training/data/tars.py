"""Tar shards in webdataset's layout as sources of images."""

from __future__ import annotations

import sys
import tarfile
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from aim.classes import composed, imagenet
from aim.errors import InvalidInput
from aim.training.data.files import SUFFIXES, UNREADABLE, Part, is_hidden

LABEL = "cls"  # ending of a tar member that holds the class of the image of that name
BLOCK = 512  # bytes, what a tar is made of


def open_tar(path: Path, own: bool, labels: bool = True) -> Part:
    """List a shard: images, and beside each its class, ImageNet's index unless ``own``; without
    ``labels`` there need be none.
    """
    names: list[str] = []
    keys: list[str] = []
    offsets, sizes = array("Q"), array("Q")
    with listing(path):
        for key, members in groupby(_members(path), key=lambda member: member.key):
            sample = {member.ending: member for member in members}
            image = next(
                (member for ending, member in sample.items() if f".{ending}" in SUFFIXES), None
            )
            if image is None:
                continue
            if labels and LABEL not in sample:
                raise InvalidInput(
                    f"{path}/{key}.{image.ending} has no {key}.{LABEL} beside it; unpack a tar of "
                    "class folders first"
                )
            names.append(f"{key}.{image.ending}")
            keys.append(
                _class_key(sample[LABEL].text, own, f"{path}/{key}.{LABEL}")
                if LABEL in sample
                else ""
            )
            offsets.append(image.offset)
            sizes.append(image.size)

    def read(i: int) -> bytes:
        with path.open("rb") as file:
            file.seek(offsets[i])
            return file.read(sizes[i])

    return Part(str(path), names, keys, read)


class _Member(NamedTuple):
    key: str  # name without any ending, folder included
    ending: str  # in small letters
    offset: int  # of the content, in bytes
    size: int  # in bytes
    text: str  # of a class


def _members(path: Path) -> Iterator[_Member]:
    """Files of a tar, in their order; contents are skipped but for classes."""
    with tarfile.open(path, "r:") as tar:
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
        with path.open("rb") as file:  # tarfile takes a damaged header for the end
            file.seek(tar.offset)
            if file.read(BLOCK) != bytes(BLOCK):
                raise tarfile.ReadError(f"no end mark at byte {tar.offset}")


@contextmanager
def listing(path: Path) -> Iterator[None]:
    """Turn what a damaged archive raises into InvalidInput that names it."""
    try:
        yield
    except InvalidInput:
        raise
    except (*UNREADABLE, tarfile.TarError) as error:
        raise InvalidInput(
            f"{path} cannot be listed ({error}); it may be cut short, damaged or compressed as a "
            "whole"
        ) from error


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
