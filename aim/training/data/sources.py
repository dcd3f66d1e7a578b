"""Where images come from, one at a time: class folders, zip files of them, tar shards, data sets of
the hub.

A source is listed first, names and classes in a fixed order; an image is read when it is asked for,
from any thread. So a set need not fit in memory.
"""

from __future__ import annotations

import glob
import hashlib
import re
import zipfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from aim.classes import composed, imagenet
from aim.errors import InvalidInput
from aim.training.data.files import SUFFIXES, Part, reading
from aim.training.data.folders import open_folder, open_zip
from aim.training.data.hub import HUB, open_hub
from aim.training.data.tars import TARS, open_tar


class Item(NamedTuple):
    """One image, as it is stored."""

    name: str  # where it lies, for messages
    content: bytes  # of an image file
    row: int  # of its class


class Images:
    """Every image of some sources, in their order; ``images[i]`` reads image i and raises
    InvalidInput, naming it, where that fails.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        classes: Sequence[int] = (),
        names: Sequence[str] = (),
        labels: bool = True,
    ) -> None:
        """Rows are ``classes`` (ImageNet indices) or ``names`` if given, else those that are found,
        in order; without ``labels`` there is one row and no class.

        InvalidInput for class names of both kinds, and for a class that is not among those given.
        """
        self.parts = [part for part in parts if part.names]
        self._ends = list(accumulate(len(part.names) for part in self.parts))
        found = {key for part in self.parts for key in set(part.keys)} if labels else set()
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
            return Item(name, part.read(at), self._row_of[part.keys[at]] if self._row_of else 0)

    def keys(self) -> list[str]:
        """What the sources call the class of every image, "" where they say nothing."""
        return [key for part in self.parts for key in part.keys]

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
    labels: bool = True,
) -> Images:
    """List every image of ``sources``.

    A source is a folder of class folders, a zip file of one, a tar shard in webdataset's layout
    (``<key>.jpg`` and ``<key>.cls``), a folder of those, a pattern for several ("train-*.tar",
    "train-{000..123}.tar"), or ``hf:<name>[:<split>]`` of the hub. Classes are ImageNet's where
    folders are named by wnid; so are the numbers in tar shards unless ``own``. Other names are
    classes of one's own, rows in sorted order. ``classes`` or ``names`` fix the rows, as for a
    validation set. Without ``labels`` images may lie in no class folder, and ``Images.keys`` says
    what there is. What is left out or guessed is told in the log. InvalidInput says what does not
    fit.
    """
    if not sources:
        raise InvalidInput("there are no sources; name at least one")
    parts: list[Part] = []
    for source in map(str, sources):
        found = list(_parts(source, own or bool(names), labels))
        if not any(part.names for part in found):
            wanted = (
                "expected <class>/<name>.JPEG, or <name>.jpg and <name>.cls in tar shards"
                if labels
                else f"it must hold {', '.join(sorted(SUFFIXES))} files"
            )
            raise InvalidInput(f"no image in {source}; {wanted}")
        parts += found
    return Images(parts, classes, names, labels)


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


def _parts(source: str, own: bool, labels: bool) -> Iterator[Part]:
    path = Path(source).expanduser()
    if source.startswith(HUB):
        yield open_hub(source, own, labels)
    elif path.is_dir():
        shards = sorted(entry for entry in path.iterdir() if entry.name.endswith(TARS))
        unpacked = not shards or any(entry.is_dir() for entry in path.iterdir())
        yield from (
            [open_folder(path, labels)] if unpacked else (open_tar(s, own, labels) for s in shards)
        )
    elif path.is_file() and zipfile.is_zipfile(path):
        yield open_zip(path, labels)
    elif path.is_file() and path.name.endswith(TARS):
        yield open_tar(path, own, labels)
    elif not path.exists() and (found := _matching(str(path))):
        for each in found:
            yield from _parts(each, own, labels)
    else:
        raise InvalidInput(
            f"{source} is neither a folder, a zip file, a tar shard nor {HUB}<name> of the hub, "
            "and no file has such a name"
        )


def _matching(pattern: str) -> list[str]:
    """Files of a pattern, with {000..123} as shells and webdataset have it, in order. InvalidInput
    for one of such a row that is not there.
    """
    braces = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if braces is None:
        return sorted(glob.glob(pattern))
    first, last = (braces[1], braces[2])
    found = []
    for number in range(int(first), int(last) + 1):
        one = pattern[: braces.start()] + f"{number:0{len(first)}d}" + pattern[braces.end() :]
        matches = [one] if Path(one).exists() else _matching(one)
        if not matches:
            raise InvalidInput(f"{one} of {pattern} is not there; give the numbers that are")
        found += matches
    return found
