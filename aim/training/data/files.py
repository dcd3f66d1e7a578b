"""One image file: what counts as one, what can go wrong in reading it, and its pixels."""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from aim.errors import InvalidInput

SUFFIXES = {".jpeg", ".jpg", ".png", ".webp"}
# what reading and decoding a damaged image raises; RuntimeError is zipfile's for a member that is
# encrypted
UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error, zipfile.BadZipFile,
    zlib.error, lzma.LZMAError,
    Image.DecompressionBombError,
)  # fmt: skip


@contextmanager
def reading(where: str | Path) -> Iterator[None]:
    """Turn what a damaged image raises into InvalidInput that names ``where``."""
    try:
        yield
    except UNREADABLE as error:
        raise InvalidInput(
            f"{where} cannot be read as an image ({error}); replace or remove it"
        ) from error


def decode(where: str | Path, content: bytes, size: int) -> np.ndarray:
    """An image file -> (size, size, 3) uint8: the shorter side scaled, the centre kept.
    InvalidInput names ``where`` it lies.
    """
    with reading(where), Image.open(io.BytesIO(content)) as opened:
        image = opened.convert("RGB")
    if image.size != (size, size):
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.resize(
            (size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side)
        )
    return np.asarray(image)
