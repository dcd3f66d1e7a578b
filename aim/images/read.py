"""Images in: whatever a person drops or a data set holds, as RGB pixels or a clear refusal; and the
parameters of a PNG. No other place opens an image.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from aim.errors import InvalidInput
from aim.images import write

# What Pillow decodes by itself. Others would start a program (EPS) or hold images of any size
# inside one whose size is checked (ICO).
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TIFF", "WEBP")
MOST_PIXELS = 20_000_000  # decoded; with a profile and transparency about 400 MB for a moment
BLOCK = 1_000_000  # pixels
PAPER = (255, 255, 255)  # behind what is transparent
ORIENTATION = 0x0112  # of EXIF
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TEXTS = {b"tEXt", b"zTXt", b"iTXt"}  # chunks of a PNG
Source = Image.Image | bytes | str | Path


def open_image(source: Source, name: str | Path | None = None) -> Image.Image:
    """An RGB image from a file's bytes, its path or an image of any mode: upright, in sRGB, of an
    animation the first frame, on white paper.

    InvalidInput, in which it is called ``name``, says what is wrong with one that cannot be read or
    is larger than MOST_PIXELS; a JPEG of up to four times as many is read at half its size.
    """
    name = name or _name(source)
    with _opened(source, name) as image:
        _check_size(image, name)
        image.load()
        return _rgb(_upright(image))


def open_square(
    source: Source,
    size: int | Sequence[int],
    name: str | Path | None = None,
    area: bool = False,
) -> Image.Image:
    """The middle of ``open_image``, cut square and scaled to ``size`` pixels each way: of several
    sizes the largest that it fills, else the smallest. ``area``: a larger one by the means of
    areas, rounded once.
    """
    image = open_image(source, name)
    sizes, short = [size] if isinstance(size, int) else size, min(image.size)
    side = max([s for s in sizes if s <= short], default=min(sizes))
    if not area or short <= side:
        return ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)
    left, top = ((length - short) // 2 for length in image.size)
    middle = image.crop((left, top, left + short, top + short))
    # a gap of 1: first by a whole factor, in one pass
    return middle.resize((side, side), Image.Resampling.BOX, reducing_gap=1.0)


def to_pixels(image: Image.Image) -> Tensor:
    """An RGB image as a tensor (3, H, W) float32 in [-1, 1]: what ``aim.images.write.to_image``
    undoes.
    """
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(127.5).sub_(1)


def read_parameters(png: Source, name: str | Path | None = None) -> dict[str, Any]:
    """The parameters inside a PNG of ours, given as bytes, path or opened image; InvalidInput if
    there are none. ``name`` is what it is called. Pixels of a file are not decoded.

    They come from outside: check them before use.
    """
    with _opened(png, name or _name(png)) as image:
        if png is image and write.PARAMETERS not in image.info:
            image.load()  # text may also stand after the pixels
        if png is not image and isinstance(image, PngImagePlugin.PngImageFile):
            texts: dict[Any, Any] = _texts(image.fp)
        else:
            texts = dict(image.info)
    if write.PARAMETERS not in texts:
        raise InvalidInput(
            "this picture carries no parameters; only a PNG as it was saved here does"
        )
    try:
        parameters = json.loads(texts[write.PARAMETERS])
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput("the parameters in this picture are damaged") from error
    if not isinstance(parameters, dict):
        raise InvalidInput("the parameters in this picture are damaged")
    return parameters


def _name(source: Source) -> str:
    if isinstance(source, Image.Image):
        return "the image"
    return "the file" if isinstance(source, bytes) else repr(str(source))


@contextmanager
def _opened(source: Source, name: str | Path) -> Iterator[Image.Image]:
    """The image, its header read; InvalidInput for whatever goes wrong with it inside the block."""
    try:
        if isinstance(source, Image.Image):
            yield source
            return
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=FORMATS) as image:
            yield image
    except InvalidInput:
        raise
    except UnidentifiedImageError as error:
        raise InvalidInput(_refusal(name, "its format is not known")) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidInput(_too_large(name, "far too many")) from error
    except Exception as error:  # there is hardly a kind that a damaged file does not bring about
        brief = str(error).partition("\n")[0] or type(error).__name__
        raise InvalidInput(_refusal(name, brief)) from error


def _refusal(name: str | Path, brief: str) -> str:
    return f"{name} cannot be read as an image ({brief}); take a PNG, JPEG or WebP in its place"


def _too_large(name: str | Path, found: str) -> str:
    most = MOST_PIXELS // 10**6
    return f"{name} has {found} pixels; at most {most} million can be read, so make it smaller"


def _check_size(image: Image.Image, name: str | Path) -> None:
    width, height = image.size
    if (
        MOST_PIXELS < width * height <= 4 * MOST_PIXELS
        and image.format in ("JPEG", "MPO")
        and "progressive" not in image.info  # of which all is held at once
    ):
        image.draft("RGB", (width // 2, height // 2))
    if image.width * image.height > MOST_PIXELS:
        raise InvalidInput(_too_large(name, f"{width}x{height}"))


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # what a camera wrote badly does no harm to the pixels
        turn = None
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    profile, clear = image.info.get("icc_profile"), image.has_transparency_data
    if image.mode.startswith(("I", "F")):
        image, clear = _to_eight_bits(image)
    elif image.mode == "1" or image.mode.startswith("P"):
        image = image.convert("RGBA" if clear else "RGB")
    if profile:
        image = _in_srgb(image, profile, clear)
    if clear:
        return write.flatten(image.convert("RGBA"), PAPER)
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> tuple[Image.Image, bool]:
    """Grey of 16 bits, 32 bits or floating point as 8 bits, and whether one shade is transparent.

    65535, or the 1 of values up to 1, becomes white; larger ones are scaled by the largest.
    """
    values, key = np.asarray(image), image.info.get("transparency")
    floating = values.dtype.kind == "f"
    largest = float(values.max(initial=0, where=np.isfinite(values)))
    bounds = (1.0, 255.0, 65535.0) if floating else (255.0, 65535.0)
    white = next((bound for bound in bounds if largest <= bound), largest)
    if image.mode.startswith("I;16") or image.format == "PPM":
        white = 65535.0
    grey = np.empty(values.size, np.uint8)
    for at in range(0, values.size, BLOCK):  # so that wide numbers take little memory
        some = np.nan_to_num(values.reshape(-1)[at : at + BLOCK].astype(np.float32))
        grey[at : at + BLOCK] = np.rint(some.clip(0, white) * (255 / white))
    eight = Image.fromarray(grey.reshape(values.shape))
    if not isinstance(key, int):
        return eight, False
    eight.putalpha(Image.fromarray((values != key).astype(np.uint8) * 255))
    return eight, True


def _in_srgb(image: Image.Image, profile: bytes, clear: bool) -> Image.Image:
    """The image by a profile's colours in sRGB; as it is for a profile that is damaged, or for
    other modes.
    """
    alpha = image.convert("RGBA").getchannel("A") if clear else None
    plain = image.convert({"LA": "L", "RGBA": "RGB"}.get(image.mode, image.mode))
    try:
        change = _to_srgb(profile, plain.mode)
        if change is None:
            return image
        changed = ImageCms.applyTransform(plain, change)
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return image
    assert changed is not None  # it is None for a change in place
    if alpha is not None:
        changed.putalpha(alpha)
    return changed


@lru_cache(maxsize=8)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """None for a profile that is sRGB's itself."""
    found = ImageCms.getOpenProfile(io.BytesIO(profile))
    if ImageCms.getProfileDescription(found).startswith("sRGB"):
        return None
    return ImageCms.buildTransform(found, ImageCms.createProfile("sRGB"), mode, "RGB")


def _texts(file: Any) -> dict[str, Any]:
    """Keys and texts of a PNG, wherever they stand."""
    file.seek(8)  # behind the signature
    with PngImagePlugin.PngStream(file) as stream:
        while True:
            kind, at, length = stream.read()
            if kind == b"IEND":
                return dict(stream.im_text)
            if kind in TEXTS:
                stream.crc(kind, stream.call(kind, at, length))
            else:
                file.seek(length + 4, io.SEEK_CUR)  # content and checksum
