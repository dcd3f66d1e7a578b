"""Pictures out: PNG with its parameters inside, GIF of a drawing, contact sheets."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import imageio.v3 as iio
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from torch import Tensor

from aim.errors import InvalidInput

PARAMETERS = "aim"  # the PNG text chunk that holds them as JSON
READABLE = "parameters"  # and the one for people, which image viewers show
MAX_FPS = 50  # browsers slow down a GIF whose frames last under 20 ms
GIF_SIZE = 256  # pixels that a GIF of a drawing has at least
CHECKER = ((206, 206, 206), (226, 226, 226))
PAPER, INK = (255, 255, 255), (40, 40, 40)
Colour = tuple[int, int, int]


def file_stem(text: str) -> str:
    """``text`` as a file name without its ending: lower case, words joined by hyphens."""
    return re.sub(r"\W+", "-", text).strip("-").lower()


def to_bytes(pixels: Tensor) -> Tensor:
    """Images (..., 3, H, W) in [-1, 1] as uint8; values outside are cut off."""
    return pixels.detach().float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)


def reduced(pixels: Tensor, size: int) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1], bicubically at ``size`` pixels each way, as LlamaGen's
    authors do before they measure what was drawn at 384; float32, and perhaps beyond [-1, 1].
    """
    return torch.nn.functional.interpolate(pixels.float(), size=(size, size), mode="bicubic")


def to_image(pixels: Tensor) -> Image.Image:
    """An RGB image of a tensor (3, H, W), uint8 or in [-1, 1]; values outside are cut off."""
    pixels = pixels if pixels.dtype == torch.uint8 else to_bytes(pixels)
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def enlarge(image: Image.Image, size: int) -> Image.Image:
    """The image with its longer side ``size`` pixels long: square pixels for a whole multiple,
    smooth otherwise.
    """
    longer = max(image.size)
    shape = tuple(max(1, round(side * size / longer)) for side in image.size)
    return image.resize(
        (shape[0], shape[1]),
        Image.Resampling.LANCZOS if size % longer else Image.Resampling.NEAREST,
    )


def flatten(image: Image.Image, background: Colour | None = None) -> Image.Image:
    """The image as RGB: where it is transparent, ``background`` shows, or a grey checkerboard where
    that is None.
    """
    if image.mode == "RGB":
        return image
    image = image.convert("RGBA")
    paper = Image.new("RGB", image.size, background) if background else _checkerboard(*image.size)
    paper.paste(image, mask=image.getchannel("A"))
    return paper


def png_bytes(image: Image.Image, parameters: Mapping[str, object]) -> bytes:
    """The image as a PNG that carries its parameters, as JSON and as text to read. Values must be
    what JSON knows.
    """
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text(PARAMETERS, json.dumps(dict(parameters), allow_nan=False))
    chunks.add_text(READABLE, "\n".join(f"{name}: {value}" for name, value in parameters.items()))
    out = io.BytesIO()
    image.save(out, "PNG", pnginfo=chunks)
    return out.getvalue()


def gif_bytes(
    frames: Sequence[Image.Image], fps: float = 20.0, hold_seconds: float = 2.0, at_least: int = 0
) -> bytes:
    """An endless GIF of frames of one size, the last one held. Transparent parts show a
    checkerboard.

    Frames whose longer side is under ``at_least`` pixels are enlarged to it.
    """
    pixels = _animation(frames, fps, hold_seconds, at_least)
    durations = [1000 / fps] * len(frames)
    durations[-1] += 1000 * hold_seconds
    # Pillow takes no list for a single frame
    duration = durations if len(frames) > 1 else durations[0]
    return iio.imwrite(
        "<bytes>", pixels, extension=".gif", plugin="pillow", duration=duration, loop=0
    )


def mp4_bytes(
    frames: Sequence[Image.Image], fps: float = 20.0, hold_seconds: float = 2.0, at_least: int = 0
) -> bytes:
    """A film (H.264) of the same; sides of an odd length lose a pixel. Arguments and errors as of
    ``gif_bytes``.
    """
    pixels = _animation(frames, fps, hold_seconds, at_least)
    # colours are stored for 2x2 pixels
    pixels = pixels[:, : pixels.shape[1] // 2 * 2, : pixels.shape[2] // 2 * 2]
    held = np.repeat(pixels[-1:], round(hold_seconds * fps), axis=0)
    return iio.imwrite(
        "<bytes>",
        np.concatenate([pixels, held]),
        extension=".mp4",
        plugin="pyav",
        codec="libx264",
        fps=round(fps),
    )


def _animation(
    frames: Sequence[Image.Image], fps: float, hold_seconds: float, at_least: int
) -> np.ndarray:
    """The frames as (N, H, W, 3) uint8."""
    if not frames:
        raise InvalidInput("an animation needs at least one frame")
    if not 0 < fps <= MAX_FPS:
        raise InvalidInput(f"fps is {fps!r}; it must be in (0, {MAX_FPS}]")
    if not 0 <= hold_seconds <= 60:
        raise InvalidInput(f"hold_seconds is {hold_seconds!r}; it must be in [0, 60]")
    return np.stack(
        [np.asarray(flatten(enlarge(frame, max(at_least, *frame.size)))) for frame in frames]
    )


def mosaic(images: Sequence[Image.Image | None]) -> Image.Image:
    """Images of one size side by side, as wide as high: RGB, or RGBA with nothing where there is
    none or one is transparent.
    """
    size = next((image.size for image in images if image is not None), None)
    if size is None:
        raise InvalidInput("a mosaic needs at least one image")
    columns = math.isqrt(len(images) - 1) + 1
    rows = -(-len(images) // columns)
    opaque = len(images) == rows * columns and all(
        image is not None and image.mode == "RGB" for image in images
    )
    out = Image.new("RGB" if opaque else "RGBA", (columns * size[0], rows * size[1]))
    for i, image in enumerate(images):
        if image is not None:
            out.paste(image, (i % columns * size[0], i // columns * size[1]))
    return out


def contact_sheet(
    images: Sequence[Image.Image], columns: int, labels: Sequence[str] | None = None, scale: int = 1
) -> Image.Image:
    """Images of one size in rows of ``columns``, on white, ``scale`` times as large.

    ``labels`` holds one text for each row or one for each image, written underneath and cut to the
    width there is.
    """
    if not images or columns < 1 or scale < 1:
        raise InvalidInput(
            f"a contact sheet needs images, columns and scale of at least 1; got {len(images)}, "
            f"{columns}, {scale}"
        )
    rows = -(-len(images) // columns)
    if labels is not None and len(labels) not in (rows, len(images)):
        raise InvalidInput(
            f"got {len(labels)} labels; give {rows}, one a row, or {len(images)}, one an image"
        )
    width, height = (side * scale for side in images[0].size)
    gap = 2 * scale
    font = ImageFont.load_default(max(10, min(20, height // 8)))
    line = sum(font.getmetrics()) + gap if labels is not None else 0  # type: ignore[union-attr]
    sheet = Image.new(
        "RGB", (columns * (width + gap) + gap, rows * (height + gap + line) + gap), PAPER
    )
    draw = ImageDraw.Draw(sheet)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        x, y = gap + column * (width + gap), gap + row * (height + gap + line)
        sheet.paste(flatten(image).resize((width, height), Image.Resampling.NEAREST), (x, y))
        if labels is None:
            continue
        if len(labels) == len(images):
            draw.text((x, y + height), _cut(labels[i], width, font), INK, font)
        elif column == 0:
            draw.text((x, y + height), _cut(labels[row], sheet.width - 2 * gap, font), INK, font)
    return sheet


def labelled_grid(
    images: Sequence[Image.Image], across: Sequence[str], down: Sequence[str], at_least: int = 128
) -> Image.Image:
    """Images of one size in rows of ``len(across)``, titles above the columns and, where ``down``
    is not empty, left of the rows.

    Images under ``at_least`` pixels are enlarged by a whole factor.
    """
    if not across or len(images) != len(across) * max(1, len(down)):
        raise InvalidInput(
            f"a grid of {len(across)} columns and {max(1, len(down))} rows needs as many images; "
            f"got {len(images)}"
        )
    scale = max(1, -(-at_least // max(images[0].size)))
    width, height = (side * scale for side in images[0].size)
    font = ImageFont.load_default(max(12, min(22, width // 9)))
    line, gap = sum(font.getmetrics()) + 6, 4  # type: ignore[union-attr]
    left = min(2 * width, round(max((font.getlength(text) for text in down), default=0))) + (
        12 if down else 0
    )
    grid = Image.new(
        "RGB",
        (left + len(across) * (width + gap) + gap, line + max(1, len(down)) * (height + gap) + gap),
        PAPER,
    )
    draw = ImageDraw.Draw(grid)
    for i, image in enumerate(images):
        row, column = divmod(i, len(across))
        x, y = left + gap + column * (width + gap), line + gap + row * (height + gap)
        grid.paste(flatten(image).resize((width, height), Image.Resampling.NEAREST), (x, y))
        if row == 0:
            draw.text((x, 3), _cut(across[column], width, font), INK, font)
        if column == 0 and down:
            draw.text((6, y + (height - line) // 2), _cut(down[row], left - 12, font), INK, font)
    return grid


def _checkerboard(width: int, height: int) -> Image.Image:
    cell = max(1, max(width, height) // 32)
    across, down = np.arange(width) // cell, np.arange(height) // cell
    odd = (across[None, :] + down[:, None]) % 2
    return Image.fromarray(np.array(CHECKER, np.uint8)[odd])


def _cut(text: str, width: int, font: Any) -> str:
    """``text``, shortened with an ellipsis to at most ``width`` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
