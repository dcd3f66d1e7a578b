"""Where images come from, one at a time: class folders, zip files of them, tar shards, data sets of
the hub.

A source is listed first, names and classes in a fixed order; an image is read when it is asked for,
from any thread. So a set need not fit in memory.
"""

from __future__ import annotations

import glob
import hashlib
import importlib
import os
import sys
import tarfile
import threading
import zipfile
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from aim.classes import composed, imagenet
from aim.errors import HubError, InvalidInput
from aim.training.data.files import SUFFIXES, UNREADABLE, reading

HUB = "hf:"
LABEL = "cls"  # ending of a tar member that holds the class of the image of that name
BLOCK = 512  # bytes, what a tar is made of


class Item(NamedTuple):
    """One image, as it is stored."""

    name: str  # where it lies, for messages
    content: bytes  # of an image file
    row: int  # of its class


class Part(NamedTuple):
    """One source, listed."""

    where: str  # for messages
    names: list[str]  # of every image, within the source
    keys: list[str]  # what the source calls the class of each: a wnid, or a name of one's own
    read: Callable[[int], bytes]  # image i; raises one of UNREADABLE


class Images:
    """Every image of some sources, in their order; ``images[i]`` reads image i and raises
    InvalidInput, naming it, where that fails.
    """

    def __init__(
        self, parts: Sequence[Part], classes: Sequence[int] = (), names: Sequence[str] = ()
    ) -> None:
        """Rows are ``classes`` (ImageNet indices) or ``names`` if given, else those that are found,
        in order.

        InvalidInput for class names of both kinds, and for a class that is not among those given.
        """
        self.parts = [part for part in parts if part.names]
        self._ends = list(accumulate(len(part.names) for part in self.parts))
        found = {key for part in self.parts for key in set(part.keys)}
        wnids = {entry.wnid for entry in imagenet()}
        own = bool(names) or (not classes and not found & wnids)
        # ImageNet index of each row; empty: one's own
        self.classes: tuple[int, ...] = () if own else tuple(classes) or _rows(found)
        # of one's own classes
        self.names: tuple[str, ...] = (tuple(names) or _sorted(found)) if own else ()
        rows = self.names if own else [imagenet()[index].wnid for index in self.classes]
        self._row_of = {composed(key): row for row, key in enumerate(rows)}
        surplus = found - self._row_of.keys()
        if surplus:
            where = next(part.where for part in self.parts if min(surplus) in set(part.keys))
            raise InvalidInput(
                f"class {min(surplus)!r} of {where} is not among the {len(rows)} asked for, "
                f"{rows[0]!r} to {rows[-1]!r}"
            )

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, i: int) -> Item:
        part, at = self._place(i)
        name = self.name(i)
        with reading(name):
            return Item(name, part.read(at), self._row_of[part.keys[at]])

    def name(self, i: int) -> str:
        """Where image i lies, for messages."""
        part, at = self._place(i)
        return f"{part.where}/{part.names[at]}"

    def fingerprint(self) -> str:
        """12 hex digits that change with any name, class or order, but not with the place where the
        sources lie.
        """
        digest = hashlib.sha256()
        for part in self.parts:
            for name, key in zip(part.names, part.keys, strict=True):
                digest.update(f"{name}\t{key}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()[:12]

    def _place(self, i: int) -> tuple[Part, int]:
        if not 0 <= i < len(self):
            raise IndexError(i)
        number = bisect_right(self._ends, i)
        return self.parts[number], i - (self._ends[number - 1] if number else 0)


def open_images(
    sources: Sequence[str | Path],
    own: bool = False,
    classes: Sequence[int] = (),
    names: Sequence[str] = (),
) -> Images:
    """List every image of ``sources``.

    A source is a folder of class folders, a zip file of one, a tar shard in webdataset's layout
    (``<key>.jpg`` and ``<key>.cls``), a folder of those, a pattern for several ("train-*.tar"), or
    ``hf:<name>[:<split>]`` of the hub. Classes are ImageNet's where folders are named by wnid; so
    are the numbers in tar shards unless ``own``. Other names are classes of one's own, rows in
    sorted order. ``classes`` or ``names`` fix the rows, as for a validation set. InvalidInput says
    what does not fit.
    """
    if not sources:
        raise InvalidInput("there are no sources; name at least one")
    parts: list[Part] = []
    for source in map(str, sources):
        found = list(_parts(source, own or bool(names)))
        if not any(part.names for part in found):
            raise InvalidInput(
                f"no image in {source}; expected <class>/<name>.JPEG, or <name>.jpg and <name>.cls "
                "in tar shards"
            )
        parts += found
    return Images(parts, classes, names)


def _rows(wnids: set[str]) -> tuple[int, ...]:
    index_of = {c.wnid: c.index for c in imagenet()}
    unknown = wnids - index_of.keys()
    if unknown:
        raise InvalidInput(
            f"{min(unknown)!r} is not an ImageNet wnid, and {min(wnids - unknown)!r} is; classes "
            "must be of one kind"
        )
    return tuple(sorted(index_of[wnid] for wnid in wnids))


def _sorted(keys: set[str]) -> tuple[str, ...]:
    """Class names in order; numbers by value."""
    return tuple(
        sorted(
            keys,
            key=(lambda key: (int(key), key)) if all(key.isdecimal() for key in keys) else None,
        )
    )


def _parts(source: str, own: bool) -> Iterator[Part]:
    path = Path(source).expanduser()
    if source.startswith(HUB):
        yield _hub(source, own)
    elif path.is_dir():
        shards = sorted(path.glob("*.tar"))
        unpacked = not shards or any(entry.is_dir() for entry in path.iterdir())
        yield from [_folder(path)] if unpacked else (_tar(shard, own) for shard in shards)
    elif path.is_file() and zipfile.is_zipfile(path):
        yield _zip(path)
    elif path.is_file() and path.name.endswith((".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")):
        yield _tar(path, own)
    elif not path.exists() and (found := sorted(glob.glob(str(path)))):
        for each in found:
            yield from _parts(each, own)
    else:
        raise InvalidInput(
            f"{source} is neither a folder, a zip file, a tar shard nor {HUB}<name> of the hub, "
            "and no file has such a name"
        )


def _class_folders(where: Path, names: list[str], read: Callable[[str], bytes]) -> Part:
    """Images whose parent folder is their class; ``names`` with "/"."""
    chosen = [
        name
        for name in names
        if Path(name).suffix.lower() in SUFFIXES and not name.rpartition("/")[2].startswith(".")
    ]
    chosen.sort(key=lambda name: name.split("/"))
    loose = next((name for name in chosen if "/" not in name), None)
    if loose:
        raise InvalidInput(f"{where}/{loose} lies in no class folder; expected <class>/{loose}")
    known: dict[str, str] = {}  # one string a class, not one an image
    keys = [
        known.setdefault(key, key) for key in (composed(name.split("/")[-2]) for name in chosen)
    ]
    return Part(str(where), chosen, keys, lambda i: read(chosen[i]))


def _folder(root: Path) -> Part:
    names = []
    for folder, _, files in os.walk(root, onerror=_refuse, followlinks=True):
        below = Path(folder).relative_to(root).as_posix()
        names += [file if below == "." else f"{below}/{file}" for file in files]
    return _class_folders(root, names, lambda name: (root / name).read_bytes())


def _refuse(error: OSError) -> NoReturn:
    raise InvalidInput(
        f"{error.filename} cannot be listed ({error.strerror}); make it readable, or leave it out"
    ) from error


def _zip(path: Path) -> Part:
    with _listing(path):
        archive = zipfile.ZipFile(path)
    lock = threading.Lock()

    def read(name: str) -> bytes:
        with lock:
            return archive.read(name)

    return _class_folders(path, archive.namelist(), read)


def _tar(path: Path, own: bool) -> Part:
    names: list[str] = []
    keys: list[str] = []
    offsets, sizes = array("Q"), array("Q")
    with _listing(path):
        for key, members in groupby(_members(path), key=lambda member: member.key):
            sample = {member.ending: member for member in members}
            image = next(
                (member for ending, member in sample.items() if f".{ending}" in SUFFIXES), None
            )
            if image is None:
                continue
            if LABEL not in sample:
                raise InvalidInput(
                    f"{path}/{key}.{image.ending} has no {key}.{LABEL} beside it; unpack a tar of "
                    "class folders first"
                )
            names.append(f"{key}.{image.ending}")
            keys.append(_class_key(sample[LABEL].text, own, f"{path}/{key}.{LABEL}"))
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
            if member.isreg() and stem:
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
def _listing(path: Path) -> Iterator[None]:
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


def _hub(source: str, own: bool) -> Part:
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
