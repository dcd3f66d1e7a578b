"""Pictures in: whatever a person drops, as an RGB square or a clear refusal."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from aim.errors import InvalidInput
from aim.images import write

MOST_PIXELS = 100_000_000  # decoded, about 400 MB
PAPER = (255, 255, 255)  # behind what is transparent


def open_picture(source: Image.Image | bytes | str | Path) -> Image.Image:
    """An RGB picture from a file's bytes, its path or an image of any mode: upright, of an
    animation the first frame, on white paper.

    InvalidInput says what is wrong with one that cannot be read or is larger than MOST_PIXELS.
    """
    name = (
        "the image"
        if isinstance(source, Image.Image)
        else "the file"
        if isinstance(source, bytes)
        else repr(str(source))
    )
    try:
        with warnings.catch_warnings():
            # there is a limit of our own
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = (
                source
                if isinstance(source, Image.Image)
                else Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
            )
            width, height = opened.size
            if width * height > MOST_PIXELS:
                raise InvalidInput(
                    f"{name} has {width}x{height} pixels; at most {MOST_PIXELS // 10**6} million "
                    "can be read, so make it smaller"
                )
            opened.load()
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        brief = (
            str(error).partition("\n")[0]
            if not isinstance(error, UnidentifiedImageError)
            else "its format is not known"
        )
        raise InvalidInput(
            f"{name} cannot be read as a picture ({brief}); take a PNG, JPEG or WebP"
        ) from error
    upright = ImageOps.exif_transpose(opened)
    if upright.mode.startswith(("I", "F")):  # 16 bits and more: as dark or light as it can be
        upright = _scaled(upright)
    return write.flatten(upright.convert("RGBA"), PAPER) if upright.mode != "RGB" else upright


def open_square(source: Image.Image | bytes | str | Path, size: int) -> Image.Image:
    """The middle of ``open_picture``, cut square and scaled to ``size`` pixels each way."""
    return ImageOps.fit(open_picture(source), (size, size), Image.Resampling.LANCZOS)


def to_pixels(image: Image.Image) -> Tensor:
    """An RGB image as a tensor (3, H, W) float32 in [-1, 1]: what ``aim.images.write.to_image`` undoes."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(127.5).sub_(1)


def _scaled(image: Image.Image) -> Image.Image:
    values = np.asarray(image, np.float64)
    highest = (
        65535.0
        if image.mode.startswith("I;16") or 255 < values.max(initial=0) <= 65535
        else max(255.0, values.max(initial=0))
    )
    return Image.fromarray((values.clip(0) * (255.0 / highest)).round().astype(np.uint8))
