"""Image files of a source: what counts as one, where they lie, and what can go wrong in fetching
one.
"""

from __future__ import annotations

import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

from aim.errors import InvalidInput

SUFFIXES = {
    ".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp",
}  # fmt: skip
FOREIGN = {"@eaDir", "__MACOSX"}  # folders that file systems and archivers put beside one's own
# what reading a file of a damaged archive raises; RuntimeError is zipfile's for a member that is
# encrypted
UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error, zipfile.BadZipFile,
    zlib.error, lzma.LZMAError,
)  # fmt: skip


@contextmanager
def reading(where: str | Path) -> Iterator[None]:
    """Turn what a damaged archive raises into InvalidInput that names ``where``."""
    try:
        yield
    except UNREADABLE as error:
        raise InvalidInput(
            f"{where} cannot be read as an image ({error}); replace or remove it"
        ) from error


@contextmanager
def listing(path: Path) -> Iterator[None]:
    """Turn what a damaged archive raises into InvalidInput that names it."""
    try:
        yield
    except InvalidInput:
        raise
    except (*UNREADABLE, tarfile.TarError) as error:
        raise InvalidInput(
            f"{path} cannot be listed ({error}); it may be cut short, damaged or compressed under "
            "a name that does not say so"
        ) from error


class Part(NamedTuple):
    """One source, listed."""

    where: str  # for messages
    names: list[str]  # of every image, within the source
    keys: list[str]  # what the source calls the class of each: a wnid, or a name of one's own
    read: Callable[[int], bytes]  # image i; raises one of UNREADABLE


def is_image(name: str) -> bool:
    """Whether a file, by its name with "/", is one of the images of a data set: hidden files and
    those in hidden folders (.ipynb_checkpoints, .thumbnails, macOS's ._0.png) are not.
    """
    return Path(name).suffix.lower() in SUFFIXES and not is_hidden(name)


def is_hidden(name: str) -> bool:
    """Whether a file, by its name with "/", is hidden or in a folder that is, or in a foreign
    one.
    """
    parts = name.split("/")
    return any((part[:1] == "." and part not in (".", "..")) or part in FOREIGN for part in parts)


def list_files(root: Path) -> list[str]:
    """Every file below a folder, its name with "/"; links to folders are followed. InvalidInput for
    a folder that cannot be listed.
    """
    names = []
    above: dict[str, tuple[str, ...]] = {}  # real paths of the folders that one was reached by
    for folder, below, files in os.walk(root, onerror=_refuse, followlinks=True):
        way = (*above.pop(folder, ()), os.path.realpath(folder))
        # a link back has no end
        below[:] = [b for b in below if os.path.realpath(os.path.join(folder, b)) not in way]
        above |= {os.path.join(folder, b): way for b in below}
        path = Path(folder).relative_to(root).as_posix()
        names += [file if path == "." else f"{path}/{file}" for file in files]
    return names


def _refuse(error: OSError) -> NoReturn:
    raise InvalidInput(
        f"{error.filename} cannot be listed ({error.strerror}); make it readable, or leave it out"
    ) from error
