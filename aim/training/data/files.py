"""Image files: what counts as one, and what can go wrong in fetching one."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aim.errors import InvalidInput

SUFFIXES = {".jpeg", ".jpg", ".png", ".webp"}
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
